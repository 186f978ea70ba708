"""Is the run's master alive, while its ledger is silent? Its beats in `logs` tell.

A worker follows the ledger alone: reading everybody's log lines would cost it as much again. Only
where the ledger has been silent for a while does it listen for a beat, and no longer than needed.
"""

from __future__ import annotations

import time

from hermes.codec import decode
from hermes.errors import DecodeError
from hermes.messages import MasterBeat
from hermes.transport import names
from hermes.transport.log import Log, Reader, Record

QUIET = 5.0
"""Seconds without a ledger record before beats are listened for: a master beats every 2 s."""


class MasterEar:
    """Reads one run's ledger for one thread; another may ask how long the master was silent."""

    def __init__(self, log: Log, reader: Reader, run: str) -> None:
        self._log, self._reader = log, reader
        self._logs = names.physical(run, names.LOGS)
        self._heard = time.monotonic()
        self._listens = False

    @property
    def silent(self) -> float:
        """Seconds since the ledger moved, or the master beat."""
        return time.monotonic() - self._heard

    def rest(self) -> None:
        """The broker is away: the master's silence says nothing."""
        self._heard = time.monotonic()

    def poll(self, timeout: float) -> list[Record]:
        """As `Reader.poll`: the ledger's records alone."""
        records = self._reader.poll(timeout)
        ledger = [record for record in records if record.topic != self._logs]
        if ledger or any(_is_beat(record) for record in records):
            self._heard = time.monotonic()
            if self._listens:
                self._listens = False
                self._reader.drop(self._logs)
        elif not self._listens and self.silent > QUIET:
            self._reader.follow(self._logs, self._log.ends([self._logs])[self._logs])
            self._listens = True
        return ledger


def _is_beat(record: Record) -> bool:
    try:
        return isinstance(decode(record.value), MasterBeat)
    except DecodeError:
        return False
