"""What time is it in the run? The last recorded time plus this process's monotonic time."""

from __future__ import annotations

import time


class RunClock:
    """Run time in nanoseconds, from `base` on (protocol 10)."""

    def __init__(self, base: int = 0) -> None:
        self._base = base - time.monotonic_ns()

    def go_on(self, recorded: int) -> None:
        """No earlier than this, which the ledger has recorded."""
        self._base += max(0, recorded - self.now())

    def now(self) -> int:
        """Run time now."""
        return self._base + time.monotonic_ns()
