"""How long may a worker leave its ledger alone? As a round is under way, nothing that it says is
needed at once; as the round ends, all of it is.

Each look costs two threads a turn, while a third one trains: at the embedded broker, whose waits
are short, a core's twentieth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOOK = 0.5
"""Seconds between two looks within a round. What one asks for the next one gives: so a worker hears
within two of them that its run is over, or that it has other blocks."""

SHORTEST = 0.1
"""Seconds of rest that are worth it."""

ATTENTION = 0.05
"""This part of a round, its last, is followed as closely as all that is no round."""


class Calm:
    """Told by the thread that trains, asked by the one that follows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._each = 0.0
        """Seconds a sample, in the last round; 0 before there was one."""
        self._began = self._until = 0.0
        self._alert = threading.Event()

    def begin(self, samples: int) -> None:
        """A round of so many samples begins."""
        self._began = self._clock()
        self._until = self._began + (1 - ATTENTION) * samples * self._each
        self._alert.clear()

    def end(self, samples: int) -> None:
        """It has ended, with so many."""
        self._each = (self._clock() - self._began) / samples if samples else 0.0
        self.alert()

    def alert(self) -> None:
        """From now on all is needed at once."""
        self._until = 0.0
        self._alert.set()

    def rest(self) -> float:
        """Seconds that the ledger may be left alone from now on; 0 where it may not."""
        left = min(self._until - self._clock(), LOOK)
        return left if left > SHORTEST else 0.0

    def pause(self) -> None:
        """Leave it alone for as long, or until that ends."""
        if seconds := self.rest():
            self._alert.wait(seconds)
