"""Does a ledger tell a story that can be true? What must hold over all of its records. Pure.

`state.check` looks at one moment; this looks at the whole: nothing applied twice, nothing accepted
lost, every number taken once and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hermes.errors import Defect
from hermes.messages import (
    BlocksGranted,
    LedgerRecord,
    RoundNoted,
    UpdateRejected,
    UpdateTaken,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.values import Birth

Key = tuple[str, Birth]


class Audit:
    """Reads valid records in order; raises `Defect` at the first that cannot be."""

    def __init__(self) -> None:
        self.taken: set[Key] = set()
        self.applied: set[Key] = set()
        self.rejected: set[Key] = set()
        self.rounds = 0
        self._version = -1
        self._incarnation: dict[str, str] = {}
        self._known: set[tuple[str, str]] = set()
        self._round: dict[str, int] = {}
        self._grant: dict[str, int] = {}
        self._number: dict[tuple[str, str], int] = {}
        self._time = 0

    def read(self, records: Iterable[LedgerRecord]) -> Audit:
        """Read on; returns itself."""
        for record in records:
            self._ordered(record)
            for entry in record.entries:
                reader = READERS.get(type(entry))
                if reader is not None:
                    reader(self, entry)
        return self

    def _ordered(self, record: LedgerRecord) -> None:
        if record.time < self._time:
            raise Defect(f"run time goes back from {self._time} to {record.time}")
        self._time = record.time
        for consumed in record.consumed:
            key = (consumed.position.topic, consumed.incarnation)
            if consumed.number and consumed.number < self._number.get(key, 0):
                raise Defect(f"number {consumed.number} after a later one", where=key[0])
            self._number[key] = max(consumed.number, self._number.get(key, 0))

    def _admitted(self, entry: WorkerAdmitted) -> None:
        key = (entry.worker, entry.incarnation)
        if entry.hello and key in self._known:
            raise Defect("one incarnation was admitted twice", where=entry.worker)
        if self._incarnation.get(entry.worker) != entry.incarnation:
            self._round[entry.worker] = 0
        self._known.add(key)
        self._incarnation[entry.worker] = entry.incarnation

    def _round_noted(self, entry: RoundNoted) -> None:
        expected = self._round[entry.worker] + 1
        if entry.round != expected:
            raise Defect(f"round {entry.round} is noted where {expected} comes", where=entry.worker)
        self._round[entry.worker] = entry.round
        self.rounds += 1

    def _granted(self, entry: BlocksGranted) -> None:
        expected = self._grant.get(entry.worker, 0) + 1
        if entry.number != expected:
            raise Defect(f"grant {entry.number} where {expected} comes", where=entry.worker)
        self._grant[entry.worker] = entry.number

    def _update_taken(self, entry: UpdateTaken) -> None:
        key = (entry.worker, entry.update.birth)
        if key in self.taken:
            raise Defect(f"update {key[1].number} was taken twice", where=entry.worker)
        self.taken.add(key)

    def _decide(self, key: Key) -> None:
        if key not in self.taken:
            raise Defect("an update was decided that was never taken", where=key[0])
        if key in self.applied or key in self.rejected:
            raise Defect(f"update {key[1].number} was decided twice", where=key[0])

    def _update_rejected(self, entry: UpdateRejected) -> None:
        self._decide((entry.worker, entry.birth))
        self.rejected.add((entry.worker, entry.birth))

    def _published(self, entry: VersionPublished) -> None:
        if entry.version != self._version + 1:
            raise Defect(f"version {entry.version} follows version {self._version}")
        self._version = entry.version
        for part in entry.members:
            self._decide((part.worker, part.birth))
            self.applied.add((part.worker, part.birth))


READERS: dict[type, Callable[[Audit, Any], None]] = {
    WorkerAdmitted: Audit._admitted,
    RoundNoted: Audit._round_noted,
    BlocksGranted: Audit._granted,
    UpdateTaken: Audit._update_taken,
    UpdateRejected: Audit._update_rejected,
    VersionPublished: Audit._published,
}
"""Entry -> what it must agree with."""
