"""How fast is this device? Emulated: a step lasts step_seconds / speed, kept over the long run."""

from __future__ import annotations

import threading
import time

SLACK = 0.002
"""Seconds ahead before the pacer waits: a shorter sleep is mostly the scheduler's own."""


class Broken(Exception):
    """The round was broken off."""


class Pacer:
    """Called after each step; counts them, waits where the device is too fast, breaks off."""

    def __init__(self) -> None:
        self._step = 0.0
        self.steps = 0
        """Of this process, in all."""
        self.over = threading.Event()
        self._started = 0.0
        self._done = 0

    def emulate(self, step_seconds: float | None, speed: float | None) -> None:
        """From now on a step lasts `step_seconds / speed`; None for either: as long as it takes."""
        self._step = step_seconds / speed if step_seconds and speed else 0.0

    def begin(self) -> None:
        """A round begins."""
        self._started, self._done = time.monotonic(), 0

    def after_step(self) -> None:
        """One step is done. Raises `Broken` once `over` is set."""
        self.steps += 1
        self._done += 1
        ahead = self._started + self._done * self._step - time.monotonic()
        if ahead > SLACK and self.over.wait(ahead):
            raise Broken
        if self.over.is_set():
            raise Broken

    def end(self) -> None:
        """The round's last steps take their time, too."""
        ahead = self._started + self._done * self._step - time.monotonic()
        if ahead > 0 and self.over.wait(ahead):
            raise Broken
