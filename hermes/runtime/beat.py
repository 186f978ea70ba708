"""How does anybody see that a master lives? It beats in `logs` every 2 s (protocol 3)."""

from __future__ import annotations

import threading

from hermes.codec import encode
from hermes.errors import BrokerError
from hermes.messages import MasterBeat
from hermes.transport import names
from hermes.transport.log import Log

EVERY = 2.0
"""Seconds."""


class Beater:
    """A thread that beats, until it is stopped."""

    def __init__(self, log: Log, run: str, term: int, nonce: str) -> None:
        self._log, self._topic = log, names.physical(run, names.LOGS)
        self._term, self._nonce = term, nonce
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="master-beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more beats."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(EVERY if count else 0.0):
            count += 1
            try:
                self._log.append(self._topic, encode(MasterBeat(self._term, self._nonce, count)))
            except BrokerError:
                continue  # an outage: the next beat tells
