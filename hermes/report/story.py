"""How did a run go, over time? What the pictures and tables show, read from its ledger. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from hermes.machine.pools import first_size
from hermes.messages import (
    DataPublished,
    LedgerRecord,
    MasterStarted,
    RoundNoted,
    RunOpened,
    RunScored,
    RunStopped,
    ShardResized,
    Software,
    StepClosed,
    TrainingStarted,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerLeft,
    WorkerLost,
)
from hermes.report.thin import Stretch, Stretches, Thinned
from hermes.values import SECOND, Reason

FEWER = 4
"""Of what is kept a worker, so many times fewer than of what is kept once."""


class Point(NamedTuple):
    """One evaluation on the validation set."""

    at: int
    """Run time, nanoseconds."""
    version: int
    samples: int
    loss: float | None
    accuracy: float | None
    moved: int = 0
    """Bytes of updates and versions stored until that version was."""


class Resize(NamedTuple):
    """One change of a shard, and why."""

    at: int
    worker: str
    before: int
    after: int
    batch: int
    reason: Reason


class Version(NamedTuple):
    """One published version."""

    at: int
    version: int
    members: tuple[tuple[str, float], ...]
    """(worker, weight) of each update in it."""
    samples: int
    """Merged so far."""
    length: int
    """Bytes."""
    digest: str
    rule: str
    reason: Reason


class Moved(NamedTuple):
    """Bytes stored so far."""

    at: int
    updates: int
    versions: int


class Happening(NamedTuple):
    """What happened to a worker beside its rounds."""

    at: int
    kind: str
    """"admitted", "lost", "back", "left" or "rejected"."""
    reason: str


class Pushed(NamedTuple):
    """Updates of a worker that the master took."""

    updates: int = 0
    length: int = 0
    """Bytes."""


MOST = 5000
"""Points that a series keeps where a run may be long: more than a picture shows."""

LIVE = 400
"""The same while the run goes: a page is built of all of them, again and again, by a master that
should not grow (by some 4 MiB, with these)."""


class Story:
    """Reads valid ledger records in order."""

    def __init__(self, most: int | None = None) -> None:
        """`most`: points that a series keeps (a worker's series: a quarter); None keeps all."""
        self.most = most
        self.opened: RunOpened | None = None
        self.data: DataPublished | None = None
        self.terms: Thinned[tuple[int, int]] = Thinned(most)
        """(run time, term) of each master."""
        self.started: int | None = None
        """Run time (ns) at which training started."""
        self.stopped: int | None = None
        self.scored: RunScored | None = None
        self.end = 0
        """Run time of the last record."""
        self.points: Thinned[Point] = Thinned(most)
        self.resizes: Thinned[Resize] = Thinned(most)
        self.shards: dict[str, Thinned[tuple[int, int]]] = {}
        """By worker: (run time, samples), from its admission on."""
        self.pushes: dict[str, Thinned[int]] = {}
        """By worker: run times."""
        self.pushed: dict[str, Pushed] = {}
        self.rounds: dict[str, Stretches] = {}
        """By worker."""
        self.happened: dict[str, Thinned[Happening]] = {}
        """By worker."""
        self.decisions: dict[str, Counter[str]] = {}
        """By worker: how often its gate gave which reason; and updates rejected, by reason."""
        self.versions: Thinned[Version] = Thinned(most)
        self.moved: Thinned[Moved] = Thinned(most)
        self.software: dict[str, Software] = {}
        """By worker, as it was admitted last."""
        self.trainers: dict[str, str] = {}
        """Framework and device, by worker."""
        self._at_version: dict[int, tuple[int, int]] = {0: (0, 0)}
        """(samples, bytes stored) by version; those before the last one evaluated are dropped."""
        self._first_size = 0
        self._each = None if most is None else max(2, most // FEWER)

    def read(self, record: LedgerRecord) -> None:
        """Read one record more."""
        self.end = record.time
        for entry in record.entries:
            take = TAKE.get(type(entry))
            if take is not None:
                take(self, record.time, entry)

    def seconds(self, at: int) -> float:
        """Run time as seconds since training started; 0 before."""
        return max(0.0, (at - (self.started or 0)) / SECOND) if self.started is not None else 0.0

    def first_shard(self, worker: str) -> int | None:
        """Samples of the worker's first grant."""
        known = self.shards.get(worker)
        return known[0][1] if known else None

    @property
    def last(self) -> int:
        """Run time (ns) at which the pictures end."""
        return self.stopped if self.stopped is not None else self.end

    # --- the run --------------------------------------------------------------------------------

    def _master(self, at: int, entry: MasterStarted) -> None:
        self.terms.put((at, entry.term))

    def _opened(self, _at: int, entry: RunOpened) -> None:
        self.opened = entry

    def _data(self, _at: int, entry: DataPublished) -> None:
        self.data = entry
        self._first_size = entry.first_size

    def _training(self, at: int, _entry: TrainingStarted) -> None:
        self.started = at

    def _stopped(self, at: int, _entry: RunStopped) -> None:
        self.stopped = at

    def _scored(self, _at: int, entry: RunScored) -> None:
        """The last version, as it was at the stop."""
        self.scored = entry
        loss, accuracy = entry.validation_loss, entry.validation_accuracy
        self._point(self.last, entry.version, loss, accuracy)

    # --- versions -------------------------------------------------------------------------------

    def _published(self, at: int, entry: VersionPublished) -> None:
        _, updates, versions = self.moved[-1] if self.moved else Moved(0, 0, 0)
        self.moved.put(Moved(at, updates, versions + entry.payload.length))
        stored = updates + versions + entry.payload.length
        self._at_version[entry.version] = (entry.samples, stored)
        members = tuple((member.worker, member.weight) for member in entry.members)
        length, digest = entry.payload.length, entry.payload.digest
        version = Version(
            at, entry.version, members, entry.samples, length, digest, entry.rule, entry.reason
        )
        self.versions.put(version)

    def _evaluated(self, _at: int, entry: VersionEvaluated) -> None:
        self._point(entry.started, entry.version, entry.loss, entry.accuracy)
        for version in [known for known in self._at_version if known < entry.version]:
            del self._at_version[version]

    def _point(self, at: int, version: int, loss: float | None, accuracy: float | None) -> None:
        samples, moved = self._at_version.get(version, (0, 0))
        self.points.put(Point(at, version, samples, loss, accuracy, moved))

    # --- workers --------------------------------------------------------------------------------

    def _admitted(self, at: int, entry: WorkerAdmitted) -> None:
        if entry.worker not in self.shards:
            self.shards[entry.worker] = Thinned(self._each)
            self.shards[entry.worker].put((at, first_size(entry.data, entry.pool, entry.own)))
        if entry.software is not None:
            self.software[entry.worker] = entry.software
        self._happened(at, entry.worker, "admitted", "")

    def _round(self, at: int, entry: RoundNoted) -> None:
        known = self.rounds.setdefault(entry.worker, Stretches(self._each))
        # The worker's clock is not ours: no round begins before the one before has ended.
        floor = known[-1].end if known else 0
        moved = min(entry.moved, entry.waited)
        start = max(floor, at - entry.busy - entry.waited)
        stretch = Stretch(
            min(start, at),
            at,
            entry.busy,
            moved,
            entry.waited - moved,
            pushes=int(entry.verdict == "push"),
            quiet=int(entry.verdict == "quiet"),
            vetoed=int(entry.verdict == "veto"),
            samples=entry.samples,
        )
        known.put(stretch)
        if entry.trainer:
            self.trainers[entry.worker] = entry.trainer
        self._decided(entry.worker, f"{entry.verdict}: {entry.reason.code}")

    def _step(self, _at: int, entry: StepClosed) -> None:
        """Where all step together, a round is pushed since another one was flagged."""
        for name in entry.pushers:
            known = self.rounds[name]
            known[-1] = known[-1]._replace(pushes=known[-1].pushes + 1)

    def _taken(self, at: int, entry: UpdateTaken) -> None:
        self.pushes.setdefault(entry.worker, Thinned(self._each)).put(at)
        length = entry.update.payload.length
        known = self.pushed.get(entry.worker, Pushed())
        self.pushed[entry.worker] = Pushed(known.updates + 1, known.length + length)
        _, updates, versions = self.moved[-1] if self.moved else Moved(0, 0, 0)
        self.moved.put(Moved(at, updates + length, versions))

    def _rejected(self, at: int, entry: UpdateRejected) -> None:
        self._happened(at, entry.worker, "rejected", entry.reason.code)
        self._decided(entry.worker, f"rejected: {entry.reason.code}")

    def _resized(self, at: int, entry: ShardResized) -> None:
        if entry.worker not in self.shards:
            self.shards[entry.worker] = Thinned(self._each)
            self.shards[entry.worker].put((at, self._first_size))
        known = self.shards[entry.worker]
        before = known[-1][1]
        known.put((at, entry.size))
        resize = Resize(at, entry.worker, before, entry.size, entry.batch, entry.reason)
        self.resizes.put(resize)

    def _lost(self, at: int, entry: WorkerLost) -> None:
        self._happened(at, entry.worker, "lost", entry.reason.code)

    def _back(self, at: int, entry: WorkerBack) -> None:
        self._happened(at, entry.worker, "back", "")

    def _left(self, at: int, entry: WorkerLeft) -> None:
        self._happened(at, entry.worker, "left", entry.reason)

    def _happened(self, at: int, worker: str, kind: str, reason: str) -> None:
        known = self.happened.setdefault(worker, Thinned(self._each))
        known.put(Happening(at, kind, reason))

    def _decided(self, worker: str, what: str) -> None:
        self.decisions.setdefault(worker, Counter())[what] += 1


TAKE: dict[type, Callable[[Story, int, Any], None]] = {
    MasterStarted: Story._master,
    RunOpened: Story._opened,
    DataPublished: Story._data,
    TrainingStarted: Story._training,
    RunStopped: Story._stopped,
    RunScored: Story._scored,
    VersionPublished: Story._published,
    VersionEvaluated: Story._evaluated,
    WorkerAdmitted: Story._admitted,
    RoundNoted: Story._round,
    UpdateTaken: Story._taken,
    UpdateRejected: Story._rejected,
    StepClosed: Story._step,
    ShardResized: Story._resized,
    WorkerLost: Story._lost,
    WorkerBack: Story._back,
    WorkerLeft: Story._left,
}
"""Entry -> what is kept of it; the others are in no picture."""
