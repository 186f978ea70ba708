"""How does a worker follow its run's ledger? In a thread of its own; the records come as events."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from hermes.codec import decode
from hermes.errors import BrokerRefused, DecodeError, NotAllowed
from hermes.machine.events import Event, LedgerSeen, LedgerTorn
from hermes.messages import LedgerRecord
from hermes.runtime.calm import Calm
from hermes.runtime.hands import Failed, as_ours
from hermes.runtime.hearing import MasterEar
from hermes.runtime.logs import LineSender

POLL = 0.1
"""Seconds of a look at the ledger while there is no calm, which may begin any time."""


class Follower:
    """Follows until it is told that it is over."""

    def __init__(
        self, ear: MasterEar, calm: Calm, tell: Callable[[Event], None], lines: LineSender
    ) -> None:
        """`calm` says when there is no hurry; `tell` is given the records, and what goes wrong,
        from this thread."""
        self._ear, self._calm, self._tell, self._lines = ear, calm, tell, lines
        self._voids = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """End after the poll under way; does not wait."""
        self._over.set()
        self._calm.alert()

    def join(self, timeout: float) -> None:
        """Wait for the end, so many seconds at most."""
        self._thread.join(timeout)

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                self._calm.pause()
                records = self._ear.poll(0.0 if self._calm.rest() else POLL)
            except NotAllowed as error:  # we were revoked: to begin again would be in vain
                self._tell(Failed(error))
                return
            except BrokerRefused as error:
                self._tell(LedgerTorn(error.what))
                return
            except Exception as error:  # noqa: BLE001  (told, and raised by the main thread)
                self._tell(Failed(as_ours(error)))
                return
            for raw in records:
                try:
                    record = decode(raw.value)
                except DecodeError as error:
                    self._note_void(raw.offset, error.what)
                    continue
                if isinstance(record, LedgerRecord):
                    digest = hashlib.sha256(raw.value).digest()
                    self._tell(LedgerSeen(record, raw.offset, digest))

    def _note_void(self, offset: int, why: str) -> None:
        """A record that is none of a ledger: void by rule, every reader skips it; told once."""
        if not self._voids:
            self._lines.say(f"ledger, offset {offset}: {why}; it is skipped", "warning")
        self._voids += 1
