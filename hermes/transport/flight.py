"""How many bytes may be under way at once? A budget that appends wait for, a window of reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hermes.transport.settings import MAX_RECORD


class Budget:
    """Bytes in flight, bounded. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._held = False
        self._ended = False
        self._changed = threading.Condition()

    def take(self, size: int) -> bool:
        """Wait until `size` bytes fit, or nothing else is under way; then count them. False, and
        nothing counted, once it was ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (not self._held and self._fits(size)))
            if not self._ended:
                self._used += size
            return not self._ended

    def end(self) -> None:
        """Nothing arrives any more: nobody waits."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def give(self, size: int) -> None:
        """`size` bytes have arrived or failed."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until nothing is under way; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._used, timeout)

    @contextmanager
    def alone(self, timeout: float) -> Iterator[bool]:
        """Wait up to `timeout` seconds until nothing is under way, and let nothing begin inside;
        gives False, and holds nothing back, if it did not come to that."""
        with self._changed:
            quiet = self._changed.wait_for(lambda: not (self._used or self._held), timeout)
            self._held = self._held or quiet
        try:
            yield quiet
        finally:
            if quiet:
                with self._changed:
                    self._held = False
                    self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self._limit


class ReadAhead:
    """How much one fetch may bring. What is needed, and beyond it only while every place follows
    on the one before, the more the longer that goes on, as operating systems read files."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of one fetch."""
        self._most = most
        self._need: int | None = None
        self._bonus = 0

    def aim(self, need: int | None, *, goes_on: bool) -> None:
        """`need` bytes are wanted next (None: whatever comes)."""
        self._need = need
        if need is None or not goes_on:
            self._bonus = 0
        else:
            self._bonus = min(self._most, max(need, 2 * self._bonus))

    def took(self, size: int) -> None:
        """So many bytes of it have come."""
        if self._need is not None:
            self._need = max(0, self._need - size)

    @property
    def window(self) -> int:
        """Bytes of the next fetch (a broker gives one batch at least)."""
        if self._need is None:
            return self._most
        return max(1, min(self._most, self._need + self._bonus))

    @property
    def window_of_one(self) -> int:
        """Bytes of one topic in it: no topic takes all the room where several are followed."""
        return min(self.window, max(MAX_RECORD, self._most // 2))
