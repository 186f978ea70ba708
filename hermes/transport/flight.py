"""How many bytes may be under way at once? A budget that appends wait for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Bytes in flight, bounded. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._held = False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until `size` bytes fit, or nothing else is under way; then count them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held and self._fits(size))
            self._used += size

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
