"""How does anybody see that a master lives? It beats in `logs` every 2 s (protocol 3)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hermes.codec import encode
from hermes.errors import BrokerError
from hermes.messages import MasterBeat
from hermes.runtime.acks import Acknowledgements
from hermes.transport import names
from hermes.transport.log import Log

EVERY = 2.0
"""Seconds."""

LEAVING = 1.0
"""Seconds that a beat under way may take at the end."""


class Beater:
    """A thread that beats, until it is stopped."""

    def __init__(
        self,
        log: Log,
        run: str,
        term: int,
        nonce: str,
        acks: Acknowledgements,
        storage: Callable[[], tuple[int, int]],
        traffic: Callable[[], dict[str, tuple[int, ...]]],
    ) -> None:
        """Called from this thread: `storage` for the bytes used and the limit, `traffic` for the
        bytes that each process moved."""
        self._acks, self._storage, self._traffic = acks, storage, traffic
        self._log, self._topic = log, names.physical(run, names.LOGS)
        self._term, self._nonce = term, nonce
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="master-beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more beats."""
        self._over.set()
        self._thread.join(LEAVING)

    def _one(self, count: int) -> MasterBeat:
        return MasterBeat(self._term, self._nonce, count, *self._storage(), self._traffic())

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(EVERY if count else 0.0):
            count += 1
            try:
                beat = encode(self._one(count))
                with self._acks.sending():
                    self._acks.add(self._log.append(self._topic, beat))
            except BrokerError:
                pass  # an outage: the beats before it are not acknowledged
