"""Does a ledger tell a story that can be true? What must hold over all of its records. Pure.

`state.check` looks at one moment; this looks at the whole: terms rise, nothing is applied twice or
without having been pushed, every sample is counted once, every number is taken once and in order,
what was given back is granted first, nothing happens after the stop, and nothing is let go of
that somebody may still need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from hermes.errors import Defect
from hermes.machine.pools import pool_at
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Consumed,
    DataPublished,
    EvaluationAsked,
    Forked,
    LedgerRecord,
    MasterStarted,
    Republished,
    Rewound,
    Rotated,
    RoundNoted,
    RunOpened,
    RunReopened,
    RunScored,
    RunStopped,
    ScoreNoted,
    StateReset,
    StateSaved,
    StepClosed,
    TailLost,
    Trimmed,
    Update,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.policy import retention
from hermes.policy.presets import from_tree
from hermes.policy.sync import steps_together
from hermes.values import Birth, BlockRange, Payload

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
        self._versions: dict[int, VersionPublished] = {}
        """As each lies now."""
        self._version, self._samples = -1, 0
        self._incarnation: dict[str, str] = {}
        self._known: set[tuple[str, str]] = set()
        self._round: dict[str, int] = {}
        self._grant: dict[str, int] = {}
        self._held: dict[tuple[str, int], tuple[BlockRange, ...]] = {}
        self._own: dict[str, int] = {}
        """Of each worker that brings its data, the next place of its walk."""
        self._held_own: dict[tuple[str, int], int] = {}
        self._asked: EvaluationAsked | None = None
        self._scores: list[ScoreNoted] = []
        self._returned: set[int] = set()
        """Blocks of the walk that were given back and not granted again."""
        self._data: DataPublished | None = None
        self._pool: dict[str, int] = {}
        """Of each worker, as it was admitted last."""
        self._number: dict[tuple[str, str], int] = {}
        self._place: dict[str, tuple[int, int]] = {}
        self._floor: dict[str, tuple[int, int]] = {}
        self._generation: dict[str, int] = {}
        self._snapshots: tuple[StateSaved, ...] = ()
        """The two newest, the newest first."""
        self._keeps: int | None = None
        """The newest versions that are kept; None: all."""
        self._together, self._step = False, 0
        """Whether all step together, and the last step that closed."""
        self._votes: dict[str, str] = {}
        """Verdicts on the step that is under way, by worker."""
        self._oldest = 0
        """The first of them; what was let go of does not come back if the run goes back, or
        keeps more from then on."""
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
            for entry in record.entries:
                if isinstance(entry, TailLost):  # what was read before leaves no place there
                    self._place.pop(entry.topic, None)
                elif isinstance(entry, Trimmed):  # after what this very record has read
                    self._trimmed(entry)
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
        topic = consumed.position.topic
        place = (consumed.position.generation, consumed.position.offset)
        if place <= self._place.get(topic, (0, -1)):
            raise Defect("an input position goes back", where=topic)
        if place[0] > self._generation.get(topic, 0):
            raise Defect("an input lies in a generation that was never begun", where=topic)
        self._place[topic] = place
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
            self._votes.pop(entry.worker, None)
        if self._data is not None and self._data.pools and entry.pool < 0:
            raise Defect("was admitted without a pool", where=entry.worker)
        self._pool[entry.worker] = entry.pool
        if entry.own is not None:
            self._own.setdefault(entry.worker, 0)
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
        if self._together and entry.verdict != "push":
            if entry.worker in self._votes:
                raise Defect("takes two steps in one", where=entry.worker)
            self._votes[entry.worker] = entry.verdict
        for number in entry.finished:
            self._held.pop((entry.worker, number), None)
            self._held_own.pop((entry.worker, number), None)

    def _granted(self, entry: BlocksGranted) -> None:
        expected = self._grant.get(entry.worker, 0) + 1
        if entry.number != expected:
            raise Defect(f"grant {entry.number} where {expected} comes", where=entry.worker)
        self._grant[entry.worker] = entry.number
        if entry.start >= 0 or entry.worker in self._own:
            self._granted_own(entry)
            return
        granted = {index for part in entry.ranges for index in range(part.first, part.last)}
        back = self._returned
        if self._data is not None and self._data.pools:
            pools = {index: pool_at(self._data, index) for index in granted | back}
            if any(pools[index] != self._pool[entry.worker] for index in granted):
                raise Defect("blocks of another pool are granted", where=entry.worker)
            back = {index for index in back if pools[index] == self._pool[entry.worker]}
        if granted - back and back - granted:
            raise Defect("new blocks are granted before those given back", where=entry.worker)
        self._returned -= granted
        self._held[entry.worker, entry.number] = entry.ranges

    def _granted_own(self, entry: BlocksGranted) -> None:
        """The next samples of the worker's own walk, and nothing else."""
        place = self._own.get(entry.worker)
        if place is None or entry.ranges:
            raise Defect("blocks are granted to who brings its data", where=entry.worker)
        if entry.start != place:
            raise Defect(f"place {entry.start} is granted where {place} comes", where=entry.worker)
        self._own[entry.worker] = entry.start + entry.size
        self._held_own[entry.worker, entry.number] = entry.start

    def _given_back(self, entry: BlocksReturned) -> None:
        if entry.worker in self._own:
            starts = [self._held_own.pop((entry.worker, number)) for number in entry.numbers]
            self._own[entry.worker] = min(starts)
            return
        for number in entry.numbers:
            for part in self._held.pop((entry.worker, number)):
                self._returned.update(range(part.first, part.last))

    def _uploaded(self, entry: DataPublished) -> None:
        self._data = entry

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
        self._versions[entry.version] = entry
        self._oldest = max(self._oldest, entry.version + 1 - (self._keeps or entry.version + 1))
        self._lies(entry.payload)

    def _apply(self, key: Key, samples: int) -> int:
        place = self._decide(key)
        update = self.taken[key]
        if update.samples != samples or samples < 1:
            raise Defect(f"{samples} samples are merged of {update.samples}", where=key[0])
        if self._digest(update.base.version) != update.base.digest:
            raise Defect("an update is merged whose base was never published", where=key[0])
        if update.payload.topic != f"from.{key[0]}":
            raise Defect("an update is merged that another worker sent", where=key[0])
        self._lies(update.payload)
        self._samples += samples
        self.applied.add(key)
        return place

    def _digest(self, version: int) -> str | None:
        known = self._versions.get(version)
        return known.payload.digest if known is not None else None

    def _lies(self, payload: Payload) -> None:
        """Nothing is named that was let go of, or lies where nothing can lie yet."""
        if payload.generation > self._generation.get(payload.topic, 0):
            raise Defect("a record names a generation that was never begun", where=payload.topic)
        if (payload.generation, payload.first) < self._floor.get(payload.topic, (0, 0)):
            raise Defect("a record names what was trimmed before", where=payload.topic)

    def _step_closed(self, entry: StepClosed) -> None:
        """It is the next; who pushes has told of a step, and not thrown it away; nobody does where
        no version is to be made."""
        if self.stopped or entry.version != self._version:
            raise Defect(f"step {entry.step} closes on version {entry.version}, or after the stop")
        if entry.step != self._step + 1:
            raise Defect(f"step {entry.step} follows step {self._step}")
        if entry.pushers and not entry.sync:
            raise Defect(f"step {entry.step} makes no version, and workers are to push")
        for name in entry.pushers:
            if self._votes.get(name, "veto") == "veto":
                raise Defect(f"step {entry.step} has a worker push that has nothing", where=name)
        self._step, self._votes = entry.step, {}

    # --- the run as a whole ---------------------------------------------------------------------

    def _opened(self, entry: RunOpened | RunReopened) -> None:
        settings = from_tree(entry.settings)
        self._together = steps_together(settings.close)
        keeps = settings.retention
        self._keeps = None if retention.keeps_all(keeps) else retention.versions(keeps)

    def _evaluated(self, entry: VersionEvaluated) -> None:
        if entry.version not in self._versions:
            raise Defect(f"version {entry.version} is scored, and there is none")
        asked, self._asked = self._asked, None
        if asked is not None:
            counted = [score for score in self._scores if score.n]
            if (asked.version, sum(s.n for s in counted)) != (entry.version, entry.n) and entry.n:
                raise Defect("the samples scored are not those that were answered for")
            if entry.workers != tuple(s.worker for s in counted) and entry.n:
                raise Defect("who is said to have scored has not")
        elif self._own:
            raise Defect("a version is scored, and nobody was asked")

    def _asked_for(self, entry: EvaluationAsked) -> None:
        if self._asked is not None:
            raise Defect("the workers are asked again before they have answered")
        if entry.version != self._version:
            raise Defect(f"version {entry.version} is to be scored, and is not the newest")
        self._asked, self._scores = entry, []

    def _answered(self, entry: ScoreNoted) -> None:
        asked = self._asked
        if asked is None or (asked.number, asked.version) != (entry.number, entry.version):
            raise Defect("an answer to what was not asked counts", where=entry.worker)
        if entry.worker not in asked.workers:
            raise Defect("an answer counts of who was not asked", where=entry.worker)
        if any(score.worker == entry.worker for score in self._scores):
            raise Defect("two answers to one question count", where=entry.worker)
        self._scores.append(entry)

    def _final(self, entry: RunScored) -> None:
        if entry.version != self._version or not self.stopped:
            raise Defect(f"the last scores are those of version {entry.version}")

    def _run_stopped(self, _entry: RunStopped) -> None:
        if self.stopped:
            raise Defect("the run is stopped twice")
        self.stopped = True

    def _reopened(self, entry: RunReopened) -> None:
        self._opened(entry)
        self.stopped, self._asked = False, None

    def _forked(self, entry: Forked) -> None:
        if self._version != -1 or self.records > 1:
            raise Defect("a run that was under way is forked from another one")
        self._version, self._samples = entry.version - 1, entry.samples

    # --- repair and retention -------------------------------------------------------------------

    def _saved(self, entry: StateSaved) -> None:
        if entry.version not in self._versions:
            raise Defect(f"what the master held at version {entry.version}, which never was")
        if self._snapshots and entry.version <= self._snapshots[0].version:
            raise Defect(f"version {entry.version} is saved after a later one")
        # Where a broker has lost all of the topic it may lie before what was let go of.
        if entry.payload.generation > self._generation.get(entry.payload.topic, 0):
            raise Defect("a snapshot lies in a generation that was never begun")
        self._snapshots = (entry, *self._snapshots)[:2]

    def _reset(self, entry: StateReset) -> None:
        if entry.version != self._version:
            raise Defect(f"what the master holds begins anew at version {entry.version}")
        self._snapshots = ()

    def _republished(self, entry: Republished) -> None:
        if self._digest(entry.version) != entry.payload.digest:
            raise Defect(f"version {entry.version} is published again with other bytes")
        self._lies(entry.payload)
        version = replace(self._versions[entry.version], payload=entry.payload)
        self._versions[entry.version] = version

    def _rewound(self, entry: Rewound) -> None:
        to, dropped = entry.version.version, list(entry.dropped)
        if dropped != list(range(to + 1, self._version + 1)) or not dropped:
            raise Defect(f"versions {dropped} are dropped between {to} and {self._version}")
        if self._digest(to) != entry.version.payload.digest:
            raise Defect(f"the run goes back to a version {to} that never was")
        held = tuple(part for version in dropped for part in self._versions.pop(version).members)
        if held != entry.lost:
            raise Defect("the updates of the dropped versions are not those named as lost")
        keys = {(part.worker, part.birth) for part in held}
        self.applied -= keys
        self.rejected |= keys
        self._samples -= sum(part.samples for part in held)
        self._version = to
        if self._asked is not None and self._asked.version > to:
            self._asked = None
        self._snapshots = tuple(one for one in self._snapshots if one.version <= to)

    def _tail_lost(self, entry: TailLost) -> None:
        self._place.pop(entry.topic, None)
        if entry.topic in self._floor:  # others lie now where something was let go of
            self._floor[entry.topic] = (self._floor[entry.topic][0], 0)

    def _trimmed(self, entry: Trimmed) -> None:
        place = (entry.generation, entry.before)
        if place <= self._floor.get(entry.topic, (0, 0)):
            raise Defect("what is gone is trimmed again", where=entry.topic)
        if entry.topic in ("ledger", "data"):
            raise Defect("what is never trimmed was trimmed", where=entry.topic)
        if entry.generation > self._generation.get(entry.topic, 0):
            raise Defect("a generation is let go of before it was begun", where=entry.topic)
        self._nobody_needs(entry.topic, place)
        self._floor[entry.topic] = place

    def _nobody_needs(self, topic: str, place: tuple[int, int]) -> None:
        """Of what lies before this place (protocol 13)."""
        if self._keeps is None:
            raise Defect("all is to be kept, and something was trimmed", where=topic)
        generation, offset = self._place.get(topic, (0, -1))
        is_input = topic == "lobby" or topic.startswith("from.")
        if is_input and place > (generation, offset + 1):
            raise Defect("what was not read yet was trimmed", where=topic)
        for payload in self._needed():
            if payload.topic == topic and (payload.generation, payload.first) < place:
                raise Defect("what is still needed was trimmed", where=topic)

    def _needed(self) -> Iterator[Payload]:
        """The newest versions, and all since the older snapshot, with the updates in them; the
        snapshots; undecided updates, and their bases."""
        first = self._oldest
        if self._snapshots:
            first = min(first, self._snapshots[-1].version)
        for version in range(first, self._version + 1):
            if version in self._versions:
                yield self._versions[version].payload
                for part in self._versions[version].members:
                    yield self.taken[part.worker, part.birth].payload
        yield from (one.payload for one in self._snapshots)
        for key in self._waiting:
            update = self.taken[key]
            if update.payload.topic == f"from.{key[0]}":
                yield update.payload
            if self._digest(update.base.version) == update.base.digest:
                yield self._versions[update.base.version].payload

    def _rotated(self, entry: Rotated) -> None:
        if entry.generation != self._generation.get(entry.topic, 0) + 1:
            raise Defect(f"generation {entry.generation} does not follow", where=entry.topic)
        self._generation[entry.topic] = entry.generation


READERS: dict[type, Callable[[Audit, Any], None]] = {
    WorkerAdmitted: Audit._admitted,
    DataPublished: Audit._uploaded,
    RoundNoted: Audit._round_noted,
    BlocksGranted: Audit._granted,
    BlocksReturned: Audit._given_back,
    UpdateTaken: Audit._update_taken,
    UpdateRejected: Audit._update_rejected,
    VersionPublished: Audit._published,
    RunOpened: Audit._opened,
    RunStopped: Audit._run_stopped,
    RunScored: Audit._final,
    VersionEvaluated: Audit._evaluated,
    EvaluationAsked: Audit._asked_for,
    ScoreNoted: Audit._answered,
    RunReopened: Audit._reopened,
    Forked: Audit._forked,
    StateSaved: Audit._saved,
    StateReset: Audit._reset,
    StepClosed: Audit._step_closed,
    Republished: Audit._republished,
    Rewound: Audit._rewound,
    TailLost: Audit._tail_lost,
    Rotated: Audit._rotated,
}
"""Entry -> what it must agree with."""
