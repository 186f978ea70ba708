"""How long does a worker wait for a master that does not answer, or no longer?"""

from __future__ import annotations

import time
from collections.abc import Callable

from hermes.runtime.hearing import MasterEar
from hermes.runtime.terms import Farewell, WorkerOptions

UNANSWERED = 30.0
"""Seconds after which a worker without a named run leaves one whose master does not answer."""

SILENCE = 10.0
"""Seconds without a sign of the master before anybody is told: it beats every 2 s, and is listened
for after 5 s without a ledger record."""


class Patience:
    """One worker's, in one run, from its first knock on."""

    def __init__(self, run: str, options: WorkerOptions, say: Callable[[str], None]) -> None:
        self._run, self._options, self._say = run, options, say
        self._began = time.monotonic()
        self._said = False
        self._silence_said = False

    def unanswered(self, now: float) -> Farewell | None:
        """Nobody has answered a knock yet. Say so, once; give up after the patience."""
        if not self._said:
            self._said = True
            self._say(f"no master answers in run {self._run} yet; knocking again")
        patience = self._options.patience
        if self._options.run is None:
            patience = min(patience, UNANSWERED)
        if now - self._began <= patience:
            return None
        return Farewell(
            "unanswered", f"no master answered in run {self._run} within {patience:g} s"
        )

    def listen(self, ear: MasterEar, unacknowledged: float) -> Farewell | None:
        """Say when the master that took us in falls silent, and when it is back; leave after our
        patience. `unacknowledged`: seconds for which the broker has been away."""
        if unacknowledged > SILENCE:
            ear.rest()
            return None
        silent, patience = ear.silent, self._options.patience
        text = f"the master of {self._run} has not been heard for {silent:.0f} s"
        if silent > patience:
            return Farewell("deserted", text)
        if (silent > SILENCE) != self._silence_said:
            self._silence_said = not self._silence_said
            waits = f"{text}; waiting for it, up to {patience:g} s (Ctrl-C leaves)"
            self._say(waits if self._silence_said else f"the master of {self._run} is heard again")
        return None
