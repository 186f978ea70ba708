"""How does anybody see that a master lives? It beats in `logs` every 2 s (protocol 3)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hermes.codec import encode
from hermes.errors import BrokerError
from hermes.messages import MasterBeat
from hermes.runtime.acks import Acknowledgements, away
from hermes.transport import names
from hermes.transport.log import Log

EVERY = 2.0
"""Seconds."""

SAID = 5.0
"""Seconds without an answer before anybody is told."""

OUTAGE = 600.0
"""Seconds that the broker may be away."""


class Beater:
    """A thread that beats, until it is stopped."""

    def __init__(
        self, log: Log, run: str, term: int, nonce: str, tell: Callable[[str], None]
    ) -> None:
        """`tell` is called from this thread: the master's own may be waiting for the broker."""
        self._tell = tell
        self._log, self._topic = log, names.physical(run, names.LOGS)
        self._term, self._nonce = term, nonce
        self._acks = Acknowledgements()
        self._silent, self._said = 0.0, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="master-beat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `BrokerUnreachable` if the broker has been away too long."""
        if self._silent > OUTAGE:
            raise away(self._silent, "the run's master")

    def _tell_news(self) -> None:
        """Say it, once, when the broker is away and when it is back."""
        gone = self._silent > SAID
        if gone != self._said:
            self._said = gone
            waits = f"the broker does not answer; waiting for it, up to {OUTAGE:g} s"
            self._tell(waits if gone else "the broker answers again")

    def stop(self) -> None:
        """No more beats."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(EVERY if count else 0.0):
            count += 1
            try:
                beat = encode(MasterBeat(self._term, self._nonce, count))
                self._acks.add(self._log.append(self._topic, beat))
            except BrokerError:
                pass  # an outage: the beats before it are not acknowledged
            self._silent = self._acks.unanswered()
            self._tell_news()
