"""How did a run go, over time? What the pictures and tables show, read from its ledger. Pure."""

from __future__ import annotations

from typing import NamedTuple

from hermes.messages import (
    DataPublished,
    LedgerRecord,
    RunScored,
    RunStopped,
    ShardResized,
    TrainingStarted,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.values import SECOND, Reason


class Point(NamedTuple):
    """One evaluation on the validation set."""

    at: int
    """Run time, nanoseconds."""
    version: int
    samples: int
    loss: float | None
    accuracy: float | None


class Resize(NamedTuple):
    """One change of a shard, and why."""

    at: int
    worker: str
    before: int
    after: int
    batch: int
    reason: Reason


class Story:
    """Reads valid ledger records in order."""

    def __init__(self) -> None:
        self.started: int | None = None
        """Run time (ns) at which training started."""
        self.stopped: int | None = None
        self.end = 0
        """Run time of the last record."""
        self.points: list[Point] = []
        self.resizes: list[Resize] = []
        self.shards: dict[str, list[tuple[int, int]]] = {}
        """By worker: (run time, samples), from its admission on."""
        self.pushes: dict[str, list[int]] = {}
        """By worker: run times."""
        self._samples: dict[int, int] = {0: 0}
        self._first_size = 0

    def read(self, record: LedgerRecord) -> None:
        """Read one record more."""
        self.end = record.time
        for entry in record.entries:
            if isinstance(entry, DataPublished):
                self._first_size = entry.first_size
            elif isinstance(entry, WorkerAdmitted):
                self.shards.setdefault(entry.worker, [(record.time, self._first_size)])
            elif isinstance(entry, TrainingStarted):
                self.started = record.time
            elif isinstance(entry, UpdateTaken):
                self.pushes.setdefault(entry.worker, []).append(record.time)
            elif isinstance(entry, VersionPublished):
                self._samples[entry.version] = entry.samples
            elif isinstance(entry, VersionEvaluated):
                self._evaluated(entry)
            elif isinstance(entry, ShardResized):
                self._resized(record.time, entry)
            elif isinstance(entry, RunStopped):
                self.stopped = record.time
            elif isinstance(entry, RunScored):
                self._scored(entry)

    def seconds(self, at: int) -> float:
        """Run time as seconds since training started; 0 before."""
        return max(0.0, (at - (self.started or 0)) / SECOND) if self.started is not None else 0.0

    def first_shard(self, worker: str) -> int | None:
        """Samples of the worker's first grant."""
        known = self.shards.get(worker)
        return known[0][1] if known else None

    def _evaluated(self, entry: VersionEvaluated) -> None:
        samples = self._samples.get(entry.version, 0)
        point = Point(entry.started, entry.version, samples, entry.loss, entry.accuracy)
        self.points.append(point)

    def _scored(self, entry: RunScored) -> None:
        """The last version, as it was at the stop."""
        samples = self._samples.get(entry.version, 0)
        at = self.stopped if self.stopped is not None else self.end
        loss, accuracy = entry.validation_loss, entry.validation_accuracy
        self.points.append(Point(at, entry.version, samples, loss, accuracy))

    def _resized(self, at: int, entry: ShardResized) -> None:
        known = self.shards.setdefault(entry.worker, [(at, self._first_size)])
        before = known[-1][1]
        known.append((at, entry.size))
        self.resizes.append(Resize(at, entry.worker, before, entry.size, entry.batch, entry.reason))
