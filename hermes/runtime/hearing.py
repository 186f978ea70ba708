"""Is the run's master alive, while its ledger is silent? Its beats in `logs` tell.

A worker follows the ledger alone: reading everybody's log lines would cost it as much again. Only
where the ledger has been silent for a while does it listen for a beat, and no longer than needed.
"""

from __future__ import annotations

import contextlib
import time

from hermes.codec import decode
from hermes.errors import BrokerRefused, DecodeError, NoSuchTopic
from hermes.messages import MasterBeat
from hermes.transport import names
from hermes.transport.log import Log, Reader, Record

QUIET = 5.0
"""Seconds without a ledger record before beats are listened for: a master beats every 2 s."""


class MasterEar:
    """Reads one run's ledger for one thread; another may ask how long the master was silent."""

    def __init__(self, log: Log, reader: Reader, run: str) -> None:
        self._log, self._reader = log, reader
        self._run, self._logs = run, names.physical(run, names.LOGS)
        self._heard = time.monotonic()
        self._ledger = names.physical(run, names.LEDGER)
        self._listens = ""
        """The topic in which beats are listened for, if they are."""

    def move(self, generation: int) -> None:
        """Beats come in this generation of `logs` from now on. From another thread: taken up when
        beats are listened for next."""
        self._logs = names.physical(self._run, names.LOGS, generation)

    @property
    def silent(self) -> float:
        """Seconds since the ledger moved, or the master beat."""
        return time.monotonic() - self._heard

    def rest(self) -> None:
        """The broker is away: the master's silence says nothing."""
        self._heard = time.monotonic()

    def poll(self, timeout: float) -> list[Record]:
        """As `Reader.poll`: the ledger's records alone."""
        records = self._polled(timeout)
        ledger = [record for record in records if record.topic == self._ledger]
        if ledger or any(_is_beat(record) for record in records):
            self._heard = time.monotonic()
            if self._listens:
                self._reader.drop(self._listens)
                self._listens = ""
        elif not self._listens and self.silent > QUIET:
            self._listen(self._logs)
        return ledger

    def _polled(self, timeout: float) -> list[Record]:
        try:
            return self._reader.poll(timeout)
        except (BrokerRefused, NoSuchTopic) as error:
            if not self._listens or error.where != self._listens:
                raise
            self._reader.drop(self._listens)  # the run has let go of it: the ledger says so, too
            self._listens = ""
            return []

    def _listen(self, logs: str) -> None:
        with contextlib.suppress(NoSuchTopic):  # as above: where to listen comes with the ledger
            self._reader.follow(logs, self._log.ends([logs])[logs])
            self._listens = logs


def _is_beat(record: Record) -> bool:
    try:
        return isinstance(decode(record.value), MasterBeat)
    except DecodeError:
        return False
