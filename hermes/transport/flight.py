"""How many bytes may be under way at once? A budget that appends wait for."""

from __future__ import annotations

import threading


class Budget:
    """Bytes in flight, bounded. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until `size` bytes fit, or nothing else is under way; then count them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self._limit)
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
