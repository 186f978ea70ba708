"""What happens next? A deterministic queue of virtual time. Ties: worker, then number, then age."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Queue:
    """Callbacks in the order of (time, worker, number, age). Time is in nanoseconds."""

    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, str, int, int, Callable[[], None]]] = []
        self._age = 0

    def at(self, time: int, what: Callable[[], None], worker: str = "", number: int = 0) -> None:
        """Call `what` at `time` (not before now)."""
        self._age += 1
        due = time if time > self.now else self.now
        heapq.heappush(self._heap, (due, worker, number, self._age, what))

    def step(self) -> bool:
        """Advance to the next callback and call it; False if there is none."""
        if not self._heap:
            return False
        self.now, _, _, _, what = heapq.heappop(self._heap)
        what()
        return True
