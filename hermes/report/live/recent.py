"""What happened of late in a run? What a live picture needs beside the state, read from the ledger
and the beats. Pure: whoever looks on says what time it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from hermes.machine.master import REPLACED
from hermes.machine.pools import first_size
from hermes.messages import (
    Entry,
    LedgerRecord,
    MasterStarted,
    RoundNoted,
    RunReopened,
    RunStopped,
    ShardResized,
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
from hermes.report.words import age
from hermes.values import SECOND, Birth

ROUNDS = 8
"""Rounds of a worker that its speed is told from."""

VERSIONS = 32
"""Versions that their rate is told from."""

POINTS = 512
"""Evaluations that a curve keeps; beyond that every second one goes."""


class Scored(NamedTuple):
    """One evaluation on the validation set."""

    at: float
    """Seconds since training started."""
    loss: float | None
    accuracy: float | None


class Pace(NamedTuple):
    """One round of a worker."""

    samples: int
    busy: int
    """Nanoseconds."""


class Recent:
    """Reads ledger records that count, in order. Times are run time in nanoseconds."""

    def __init__(self) -> None:
        self.started: int | None = None
        """When training started."""
        self.stopped: int | None = None
        self.claimed = 0
        """When the master in force started."""
        self.points: list[Scored] = []
        self.versions: deque[tuple[int, int]] = deque(maxlen=VERSIONS)
        """(number, when it was published), newest last."""
        self.opened: int | None = None
        """When version 0 was there, so that workers may come."""
        self.decided: dict[str, int] = {}
        """When the last decision about a worker was taken."""
        self.heard: dict[str, int] = {}
        """When a worker gave its last sign of life that anybody can see."""
        self.shards: dict[str, int] = {}
        """Samples of a worker's first grant."""
        self.paces: dict[str, deque[Pace]] = {}
        self.quiet: dict[str, int] = {}
        """Quiet rounds of a worker in a row, up to its last one."""
        self.lost: dict[str, str] = {}
        """Why a worker is lost ("silent" or "stuck"), as long as it is."""
        self.returned: dict[str, str] = {}
        """What a worker came back from last: `was cut off for 14 s`, `had died`."""
        self._gone: dict[str, tuple[str, int]] = {}
        """Why and since when (run time) a worker is missing."""
        self._lives: dict[str, str] = {}
        """The incarnation of a worker that has not said bye."""
        self.taken: dict[Birth, int] = {}
        """When an update that still waits was accepted."""
        self.moved: Mapping[str, tuple[int, ...]] = {}
        """Bytes by process, as the last beat had them."""
        self._every, self._skipped = 1, 0

    def read(self, record: LedgerRecord) -> None:
        """Read one record more."""
        for entry in record.entries:
            self._of_run(entry, record.time)
            self._of_worker(entry, record.time)

    def hear(self, moved: Mapping[str, tuple[int, ...]], now: int) -> None:
        """What each process moved so far. A worker's bytes only grow by what it says itself, at
        each sign of life."""
        for name, flat in moved.items():
            if self.moved.get(name) != flat:
                self.heard[name] = max(now, self.heard.get(name, 0))
        self.moved = moved

    # --- what is asked ---------------------------------------------------------------------------

    def seconds(self, now: int) -> float:
        """Seconds of training, up to `now` or the stop; 0 before."""
        if self.started is None:
            return 0.0
        end = now if self.stopped is None else self.stopped
        return max(0.0, (end - self.started) / SECOND)

    def speed(self, worker: str) -> float | None:
        """Samples a second while it trains, over its last rounds."""
        paces = self.paces.get(worker, ())
        busy = sum(pace.busy for pace in paces)
        return sum(pace.samples for pace in paces) * SECOND / busy if busy else None

    def version_rate(self, now: int) -> float | None:
        """Versions a second, of late: of the last ones, up to now."""
        if self.stopped is not None and self.started is not None:
            seconds = self.seconds(now)
            return self.versions[-1][0] / seconds if self.versions and seconds else None
        if len(self.versions) < 2:
            return None
        since = max(self.versions[0][1], self.started or 0)
        passed = (now - since) / SECOND
        count = self.versions[-1][0] - self.versions[0][0]
        return count / passed if passed > 0 and count else None

    def published(self, after: int) -> int | None:
        """When the first version above `after` was there, as far as is remembered."""
        return next((at for number, at in self.versions if number > after), None)

    # --- reading ---------------------------------------------------------------------------------

    def _of_run(self, entry: Entry, at: int) -> None:
        if isinstance(entry, MasterStarted):
            self.claimed = at
        elif isinstance(entry, TrainingStarted):
            self.started = at
        elif isinstance(entry, RunStopped):
            self.stopped = at
        elif isinstance(entry, RunReopened):
            self.stopped = None
        elif isinstance(entry, VersionPublished):
            self.opened = at if self.opened is None else self.opened
            self.versions.append((entry.version, at))
            for part in entry.members:
                self.taken.pop(part.birth, None)
        elif isinstance(entry, VersionEvaluated):
            self._scored(entry)

    def _scored(self, entry: VersionEvaluated) -> None:
        """Thinned out where it grows long; the newest is always there."""
        point = Scored(self._since_start(entry.started), entry.loss, entry.accuracy)
        if self._skipped:
            self.points.pop()
        self.points.append(point)
        self._skipped = (self._skipped + 1) % self._every
        if len(self.points) > POINTS:
            self.points = self.points[::2]
            self._every, self._skipped = 2 * self._every, 0

    def _since_start(self, at: int) -> float:
        return max(0, at - self.started) / SECOND if self.started is not None else 0.0

    def _of_worker(self, entry: Entry, at: int) -> None:
        if isinstance(entry, UpdateTaken):
            self.taken[entry.update.birth] = at
        elif isinstance(entry, UpdateRejected):
            self.taken.pop(entry.birth, None)
            self.decided[entry.worker] = at
        elif isinstance(entry, RoundNoted):
            pace = Pace(entry.samples, entry.busy)
            self.paces.setdefault(entry.worker, deque(maxlen=ROUNDS)).append(pace)
            self.decided[entry.worker] = self.heard[entry.worker] = at
            quiet = self.quiet.get(entry.worker, 0)
            self.quiet[entry.worker] = quiet + 1 if entry.verdict == "quiet" else 0
        elif isinstance(entry, WorkerAdmitted):
            self._admitted(entry)
            self.shards.setdefault(entry.worker, first_size(entry.data, entry.pool, entry.own))
            self.decided[entry.worker] = self.heard[entry.worker] = at
        elif isinstance(entry, WorkerBack):
            self._back(entry.worker, at)
            self.decided[entry.worker] = self.heard[entry.worker] = at
        elif isinstance(entry, ShardResized | WorkerLost | WorkerLeft):
            self.decided[entry.worker] = at
            if isinstance(entry, WorkerLost):
                self._lost(entry, at)
            elif isinstance(entry, WorkerLeft) and entry.reason != REPLACED:
                self._lives.pop(entry.worker, None)

    def _lost(self, entry: WorkerLost, at: int) -> None:
        facts, code = entry.reason.facts, entry.reason.code
        passed = facts.get("seconds" if code == "stuck" else "silent")
        since = at - int((passed if isinstance(passed, int | float) else 0) * SECOND)
        self.lost[entry.worker], self._gone[entry.worker] = code, (code, since)

    def _back(self, worker: str, at: int) -> None:
        code, since = self._gone.pop(worker, ("", at))
        self.lost.pop(worker, None)
        was = "stuck" if code == "stuck" else "cut off"
        self.returned[worker] = f"was {was} for {age((at - since) / SECOND)}"

    def _admitted(self, entry: WorkerAdmitted) -> None:
        """Another incarnation: the one before had died, unless it had said bye. (A new master
        admits those anew that are there.)"""
        before = self._lives.get(entry.worker)
        if before == entry.incarnation:
            return
        self.lost.pop(entry.worker, None)
        self.returned.pop(entry.worker, None)
        if before is not None:
            self.returned[entry.worker] = "had died"
        self._lives[entry.worker] = entry.incarnation
