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
        self, log: Log, run: str, acks: Acknowledgements, beat: Callable[[int], MasterBeat]
    ) -> None:
        """`beat` makes the one of this number; called from this thread."""
        self._acks, self._beat_of, self._log, self._run = acks, beat, log, run
        self._topic = names.physical(run, names.LOGS)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="master-beat", daemon=True)
        self._thread.start()

    def move(self, generation: int) -> None:
        """Beats go to this generation of `logs` from now on."""
        self._topic = names.physical(self._run, names.LOGS, generation)

    def stop(self) -> None:
        """No more beats."""
        self._over.set()
        self._thread.join(LEAVING)

    def _beat(self) -> None:
        count = 0
        while not self._over.wait(EVERY if count else 0.0):
            count += 1
            try:
                beat = encode(self._beat_of(count))
                with self._acks.sending():
                    self._acks.add(self._log.append(self._topic, beat))
            except BrokerError:
                pass  # an outage: the beats before it are not acknowledged
