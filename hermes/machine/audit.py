"""Does a ledger tell a story that can be true? What must hold over all of its records. Pure.

`state.check` looks at one moment; this looks at the whole: terms rise, nothing is applied twice or
without having been pushed, every sample is counted once, every number is taken once and in order,
what was given back is granted first, and nothing happens after the stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hermes.errors import Defect
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Consumed,
    LedgerRecord,
    MasterStarted,
    RoundNoted,
    RunStopped,
    Update,
    UpdateRejected,
    UpdateTaken,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.values import Birth, BlockRange

Key = tuple[str, Birth]


class Audit:
    """Reads valid records in order; raises `Defect` at the first that cannot be."""

    def __init__(self) -> None:
        self.taken: dict[Key, Update] = {}
        """By worker and birth, in the order of acceptance."""
        self.applied: set[Key] = set()
        self.rejected: set[Key] = set()
        self.rounds = 0
        self.noted: set[tuple[str, str, int]] = set()
        """(worker, incarnation, round) of each round that counts."""
        self.stopped = False
        self.records = 0
        self._head = (0, "", 0)
        """The (term, nonce) in force and the next n."""
        self._waiting: dict[Key, int] = {}
        """Undecided: the how-manieth accepted update it is."""
        self._versions: dict[int, str] = {}
        """Digest by version."""
        self._version, self._samples = -1, 0
        self._incarnation: dict[str, str] = {}
        self._known: set[tuple[str, str]] = set()
        self._round: dict[str, int] = {}
        self._grant: dict[str, int] = {}
        self._held: dict[tuple[str, int], tuple[BlockRange, ...]] = {}
        self._returned: set[int] = set()
        """Blocks of the walk that were given back and not granted again."""
        self._number: dict[tuple[str, str], int] = {}
        self._place: dict[str, int] = {}
        self._time = 0

    def read(self, records: Iterable[LedgerRecord]) -> Audit:
        """Read on; returns itself."""
        for record in records:
            self._in_order(record)
            for entry in record.entries:
                reader = READERS.get(type(entry))
                if reader is not None:
                    reader(self, entry)
            for consumed in record.consumed:
                self._consumed(consumed)
            self.records += 1
        return self

    # --- the record -----------------------------------------------------------------------------

    def _in_order(self, record: LedgerRecord) -> None:
        if record.time < self._time:
            raise Defect(f"run time goes back from {self._time} to {record.time}")
        self._time = record.time
        term, nonce, n = self._head
        if len(record.entries) == 1 and isinstance(record.entries[0], MasterStarted):
            if record.term != term + 1:
                raise Defect(f"term {record.term} follows term {term}")
        elif (record.term, record.nonce) != (term, nonce):
            raise Defect("a fenced master's record counts", where=f"term {record.term}")
        elif record.n != n:
            raise Defect(f"record {record.n} of a master counts where {n} comes")
        self._head = (record.term, record.nonce, record.n + 1)

    def _consumed(self, consumed: Consumed) -> None:
        topic, offset = consumed.position.topic, consumed.position.offset
        if offset <= self._place.get(topic, -1):
            raise Defect("an input position goes back", where=topic)
        self._place[topic] = offset
        key = (topic, consumed.incarnation)
        if consumed.number and consumed.number < self._number.get(key, 0):
            raise Defect(f"number {consumed.number} after a later one", where=topic)
        self._number[key] = max(consumed.number, self._number.get(key, 0))

    # --- workers --------------------------------------------------------------------------------

    def _admitted(self, entry: WorkerAdmitted) -> None:
        key = (entry.worker, entry.incarnation)
        if entry.hello and key in self._known:
            raise Defect("one incarnation was admitted twice", where=entry.worker)
        if entry.hello and self.stopped:
            raise Defect("was admitted after the stop", where=entry.worker)
        if self._incarnation.get(entry.worker) != entry.incarnation:
            self._round[entry.worker] = 0
        self._known.add(key)
        self._incarnation[entry.worker] = entry.incarnation

    def _round_noted(self, entry: RoundNoted) -> None:
        if self.stopped:
            raise Defect("a round is noted after the stop", where=entry.worker)
        expected = self._round[entry.worker] + 1
        if entry.round != expected:
            raise Defect(f"round {entry.round} is noted where {expected} comes", where=entry.worker)
        self._round[entry.worker] = entry.round
        self.noted.add((entry.worker, self._incarnation[entry.worker], entry.round))
        self.rounds += 1
        for number in entry.finished:
            self._held.pop((entry.worker, number), None)

    def _granted(self, entry: BlocksGranted) -> None:
        expected = self._grant.get(entry.worker, 0) + 1
        if entry.number != expected:
            raise Defect(f"grant {entry.number} where {expected} comes", where=entry.worker)
        self._grant[entry.worker] = entry.number
        granted = {index for part in entry.ranges for index in range(part.first, part.last)}
        if granted - self._returned and self._returned - granted:
            raise Defect("new blocks are granted before those given back", where=entry.worker)
        self._returned -= granted
        self._held[entry.worker, entry.number] = entry.ranges

    def _given_back(self, entry: BlocksReturned) -> None:
        for number in entry.numbers:
            for part in self._held.pop((entry.worker, number)):
                self._returned.update(range(part.first, part.last))

    # --- updates and versions -------------------------------------------------------------------

    def _update_taken(self, entry: UpdateTaken) -> None:
        key = (entry.worker, entry.update.birth)
        if key in self.taken:
            raise Defect(f"update {key[1].number} was taken twice", where=entry.worker)
        if self.stopped:
            raise Defect("an update is taken after the stop", where=entry.worker)
        self._waiting[key] = len(self.taken)
        self.taken[key] = entry.update

    def _decide(self, key: Key) -> int:
        if key not in self.taken:
            raise Defect("an update was decided that was never taken", where=key[0])
        if key not in self._waiting:
            raise Defect(f"update {key[1].number} was decided twice", where=key[0])
        return self._waiting.pop(key)

    def _update_rejected(self, entry: UpdateRejected) -> None:
        self._decide((entry.worker, entry.birth))
        self.rejected.add((entry.worker, entry.birth))

    def _published(self, entry: VersionPublished) -> None:
        if entry.version != self._version + 1:
            raise Defect(f"version {entry.version} follows version {self._version}")
        if self.stopped:
            raise Defect(f"version {entry.version} is published after the stop")
        order = [self._apply((part.worker, part.birth), part.samples) for part in entry.members]
        if order != sorted(order):
            raise Defect(f"version {entry.version} merges out of the order of acceptance")
        if entry.samples != self._samples:
            raise Defect(
                f"version {entry.version} counts {entry.samples} samples, its updates "
                f"{self._samples}"
            )
        self._version = entry.version
        self._versions[entry.version] = entry.payload.digest

    def _apply(self, key: Key, samples: int) -> int:
        place = self._decide(key)
        update = self.taken[key]
        if update.samples != samples or samples < 1:
            raise Defect(f"{samples} samples are merged of {update.samples}", where=key[0])
        if self._versions.get(update.base.version) != update.base.digest:
            raise Defect("an update is merged whose base was never published", where=key[0])
        if update.payload.topic != f"from.{key[0]}":
            raise Defect("an update is merged that another worker sent", where=key[0])
        self._samples += samples
        self.applied.add(key)
        return place

    def _run_stopped(self, _entry: RunStopped) -> None:
        if self.stopped:
            raise Defect("the run is stopped twice")
        self.stopped = True


READERS: dict[type, Callable[[Audit, Any], None]] = {
    WorkerAdmitted: Audit._admitted,
    RoundNoted: Audit._round_noted,
    BlocksGranted: Audit._granted,
    BlocksReturned: Audit._given_back,
    UpdateTaken: Audit._update_taken,
    UpdateRejected: Audit._update_rejected,
    VersionPublished: Audit._published,
    RunStopped: Audit._run_stopped,
}
"""Entry -> what it must agree with."""
