"""Which rows do a run's curves have, for another program? Read from its ledger. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from hermes.machine.pools import first_size
from hermes.messages import (
    DataPublished,
    LedgerRecord,
    RoundNoted,
    RunScored,
    RunStopped,
    ShardResized,
    TrainingStarted,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.values import SECOND

Cell: TypeAlias = "int | float | str | None"
Table: TypeAlias = "list[tuple[Cell, ...]]"


class Evaluated(NamedTuple):
    """Scores of a version. Seconds count from the start of training, everywhere here."""

    seconds: float
    version: int
    samples: int
    """Sample passes merged into it."""
    loss: float | None
    accuracy: float | None
    """On the validation set."""
    test_loss: float | None = None
    test_accuracy: float | None = None
    """Of the last version alone."""


class Rounded(NamedTuple):
    """A worker's round."""

    seconds: float
    """At its end."""
    worker: str
    start: int
    """Which start of the worker's process: rounds are counted from 1 in each."""
    round: int
    base_version: int
    version: int
    """The newest, as the round was noted."""
    steps: int
    samples: int
    training_loss: float | None
    probe_loss: Cell
    verdict: str
    reason: str
    z: Cell
    threshold: Cell
    busy_seconds: float
    waited_seconds: float
    transfer_seconds: float
    """Of what it waited."""


class Sharded(NamedTuple):
    """The size of a worker's next shards, from then on."""

    seconds: float
    worker: str
    samples: int
    batch: int
    reason: str
    """"admitted", or why it was re-sized."""
    round_seconds: Cell
    median_seconds: Cell
    """Of the others, where the rule looked at them."""


class Series:
    """Reads valid ledger records in order."""

    def __init__(self) -> None:
        self.versions: dict[int, VersionPublished] = {}
        self.evaluations: list[Evaluated] = []
        self.rounds: list[Rounded] = []
        self.shards: list[Sharded] = []
        self._newest = -1
        self._data: DataPublished | None = None
        self._starts: dict[str, list[str]] = {}
        """Incarnations, by worker."""
        self._started: int | None = None
        self._stopped: int | None = None

    def read(self, record: LedgerRecord) -> None:
        """Read one record more."""
        for entry in record.entries:
            if isinstance(entry, RoundNoted):
                self._round(record.time, entry)
            elif isinstance(entry, VersionPublished):
                self.versions[entry.version], self._newest = entry, entry.version
            elif isinstance(entry, VersionEvaluated):
                found = (entry.loss, entry.accuracy)
                self.evaluations.append(self._evaluated(entry.started, entry.version, *found))
            elif isinstance(entry, RunScored):
                self._scored(record.time, entry)
            elif isinstance(entry, WorkerAdmitted):
                self._admitted(record.time, entry)
            elif isinstance(entry, ShardResized):
                facts = entry.reason.facts
                sized = (entry.size, entry.batch, entry.reason.code)
                times = (facts.get("time"), facts.get("median"))
                self.shards.append(
                    Sharded(self._seconds(record.time), entry.worker, *sized, *times)
                )
            elif isinstance(entry, DataPublished):
                self._data = entry
            elif isinstance(entry, TrainingStarted):
                self._started = record.time
            elif isinstance(entry, RunStopped):
                self._stopped = record.time

    def tables(self) -> dict[str, tuple[Sequence[str], Table]]:
        """Name -> (columns, rows)."""
        return {
            "evaluations": (Evaluated._fields, list(self.evaluations)),
            "rounds": (Rounded._fields, list(self.rounds)),
            "shards": (Sharded._fields, list(self.shards)),
        }

    def _seconds(self, at: int) -> float:
        started = self._started
        return 0.0 if started is None else round(max(0, at - started) / SECOND, 6)

    def _evaluated(
        self, at: int, version: int, loss: float | None, accuracy: float | None
    ) -> Evaluated:
        known = self.versions.get(version)
        samples = known.samples if known else 0
        return Evaluated(self._seconds(at), version, samples, loss, accuracy)

    def _scored(self, at: int, entry: RunScored) -> None:
        """The last version's scores, as of the stop."""
        found = (entry.validation_loss, entry.validation_accuracy)
        point = self._evaluated(self._stopped or at, entry.version, *found)
        self.evaluations.append(
            point._replace(test_loss=entry.test_loss, test_accuracy=entry.test_accuracy)
        )

    def _admitted(self, at: int, entry: WorkerAdmitted) -> None:
        known = self._starts.setdefault(entry.worker, [])
        if not known and self._data is not None:
            size = first_size(self._data, entry.pool, entry.own)
            sized = (size, self._data.batch, "admitted", None, None)
            self.shards.append(Sharded(self._seconds(at), entry.worker, *sized))
        if entry.incarnation not in known:
            known.append(entry.incarnation)

    def _round(self, at: int, entry: RoundNoted) -> None:
        facts = entry.reason.facts
        self.rounds.append(
            Rounded(
                self._seconds(at),
                entry.worker,
                len(self._starts.get(entry.worker, ())),
                entry.round,
                entry.base,
                self._newest,
                entry.steps,
                entry.samples,
                entry.loss,
                facts.get("loss"),
                entry.verdict,
                entry.reason.code,
                facts.get("z"),
                facts.get("threshold"),
                entry.busy / SECOND,
                entry.waited / SECOND,
                min(entry.moved, entry.waited) / SECOND,
            )
        )
