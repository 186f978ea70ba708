"""What happens next? A deterministic queue of virtual time. Ties: worker, then number, then age."""

from __future__ import annotations

import bisect
import heapq
from collections import defaultdict
from collections.abc import Callable
from typing import TypeAlias

Due: TypeAlias = tuple[str, int, int, Callable[[], None]]
"""Worker, number, age (no two have the same), and what is called."""


def _nothing() -> None:
    """Stands where a callback was, so that what it holds is let go."""


_GONE: Due = ("", 0, 0, _nothing)


class Queue:
    """Callbacks in the order of (time, worker, number, age). Time is in nanoseconds.

    A record of the ledger comes to a thousand workers at one time: what is due together lies
    together, and is put in order once its time has come.
    """

    def __init__(self) -> None:
        self.now = 0
        self._times: list[int] = []
        """A heap: when something is due, later than now."""
        self._later: defaultdict[int, list[Due]] = defaultdict(list)
        """By time."""
        self._here: list[Due] = []
        """What is due now, in order."""
        self._next = 0
        """Its place among that."""
        self._age = 0

    def at(self, time: int, what: Callable[[], None], worker: str = "", number: int = 0) -> None:
        """Call `what` at `time` (not before now)."""
        self._age += 1
        due = (worker, number, self._age, what)
        if time <= self.now:
            bisect.insort(self._here, due, self._next)
            return
        later = self._later[time]
        if not later:
            heapq.heappush(self._times, time)
        later.append(due)

    def step(self) -> bool:
        """Advance to the next callback and call it; False if there is none."""
        if self._next == len(self._here):
            if not self._times:
                return False
            self.now = heapq.heappop(self._times)
            self._here, self._next = self._later.pop(self.now), 0
            self._here.sort()
        what = self._here[self._next][3]
        self._here[self._next] = _GONE
        self._next += 1
        what()
        return True
