"""Is a whole run what its records and its job come to? Replayed, from the first record to the last.

Level 1 of what makes a simulation believable: the machines, the gates, the merges and the training
that the simulator drives are the ones that ran on the broker, bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from hermes.errors import RunError
from hermes.job import Job
from hermes.machine.ledger import starts_master
from hermes.messages import DataPublished, UpdateTaken, WorkerAdmitted, WorkerLeft
from hermes.perform.bench import WorkerBench
from hermes.perform.blocks import Blocks
from hermes.perform.desk import Desk, Judge
from hermes.perform.store import Store
from hermes.policy.presets import from_tree
from hermes.replay.differs import Differs
from hermes.replay.held import Held
from hermes.replay.master import MasterAgain
from hermes.replay.story import Noted, Story, Told
from hermes.replay.worker import WorkerAgain
from hermes.train import Trainer, starting_weights
from hermes.transport.log import Log
from hermes.values import Tensors
from hermes.verify.findings import Finding
from hermes.verify.run import Source


class Material(NamedTuple):
    """What a run is made of, beside its ledger."""

    job: Job
    trainer: Callable[[], Trainer]
    """As the run began with it: each call gives another one."""
    blocks: Callable[[], Blocks]


class Progress(Protocol):
    """Told how many rounds were trained again, of how many."""

    def __call__(self, done: int, total: int, /) -> None: ...


class Replayed(NamedTuple):
    """What was done again, up to the first difference if there is one."""

    run: str
    records: int
    """Of the ledger, accounted for."""
    rounds: int
    steps: int
    workers: int
    """Incarnations."""
    versions: int
    payloads: int
    """Updates, versions and momenta that came out with the digest that the ledger names."""
    digest: str
    """Of the last version that came out."""
    decided: Counter[str]
    """Entries that were decided again, by kind."""
    given: Counter[str]
    """Entries that were taken as they are."""
    foreign: int
    """Updates that were trained before the ledger knew their worker: taken as they lie."""
    finding: Finding | None
    """The first difference."""


def replay(
    source: Source,
    material: Callable[[DataPublished, int], Material],
    told: Progress = lambda _done, _total: None,
) -> Replayed:
    """Do all of it again. `material` is asked for once, with the upload and the run's seed.

    Raises `RunError` for a run that cannot be replayed, `BrokerError`, and what `material` raises.
    """
    story = Story().read(source.ledger(0))
    story.check()
    log = source.tensors
    if log is None:
        raise RunError(
            f"workers train on the run's data, which cannot be had: {source.why}",
            where=f"run {source.run}",
            remedy="Name a broker with --broker, or replay an exported log: "
            "hermes export --format log",
        )
    again = _Again(story, source.run, log, material, told)
    try:
        return again.all()
    finally:
        again.close()


class _Again:
    def __init__(
        self,
        story: Story,
        run: str,
        log: Log,
        material: Callable[[DataPublished, int], Material],
        told: Progress,
    ) -> None:
        self._story, self._run, self._told = story, run, told
        self._material_of = material
        self._held = Held(log, run)
        self._log = Store(log, run)
        self._master = MasterAgain(story, self._held, self._first)
        self._workers: dict[str, WorkerAgain] = {}
        self._material: Material | None = None
        self._names: dict[str, str] = {}
        """The incarnation in force, by worker."""
        self._rounds: dict[int, list[Noted]] = {}
        self._done = self._steps = self._incarnations = self._foreign = 0
        for noted in story.rounds:
            self._rounds.setdefault(noted.offset, []).append(noted)

    def all(self) -> Replayed:
        """Record by record: first what the workers did before it, then what the master decided."""
        count, finding = 0, None
        try:
            for told in self._story.told:
                self._train(told)
                self._look_for_data(told)
                self._master.take(told)
                self._admit(told)
                self._let_go()
                count += 1
        except Differs as differs:
            finding = differs.finding
        newest = self._master.state.newest
        return Replayed(
            self._run,
            count,
            self._done,
            self._steps,
            self._incarnations,
            self._master.entries["VersionPublished"],
            self._held.checked,
            newest.payload.digest if newest else "",
            self._master.entries,
            self._master.given,
            self._foreign,
            finding,
        )

    def close(self) -> None:
        """Let go of the log."""
        self._held.close()
        self._log.close()

    # --- workers --------------------------------------------------------------------------------

    def _train(self, told: Told) -> None:
        for noted in self._rounds.get(told.offset, ()):
            worker = self._workers[noted.incarnation]
            following = self._story.after.get((noted.incarnation, noted.entry.round))
            self._steps += worker.round(noted, following)
            self._done += 1
            self._told(self._done, len(self._story.rounds))
        pushed = {noted.update.birth for noted in self._rounds.get(told.offset, ()) if noted.update}
        for entry in told.record.entries:
            if isinstance(entry, UpdateTaken) and entry.update.birth not in pushed:
                self._resent(entry, told)

    def _resent(self, entry: UpdateTaken, told: Told) -> None:
        """Stored once more by who trained it; or by the incarnation after that one, which died
        before the ledger knew what it did."""
        update = entry.update
        if update.birth.incarnation == self._names.get(entry.worker):
            self._workers[update.birth.incarnation].again(update, told.offset)
        else:
            self._held.keep(update.payload, self._log.get(update.payload))
            self._foreign += 1

    def _admit(self, told: Told) -> None:
        for entry in told.record.entries:
            if isinstance(entry, WorkerLeft) and entry.worker in self._names:
                del self._workers[self._names.pop(entry.worker)]
            elif isinstance(entry, WorkerAdmitted) and entry.hello:
                self._begin(entry, told)

    def _begin(self, entry: WorkerAdmitted, told: Told) -> None:
        material = self._material
        assert material is not None
        if entry.worker in self._names:  # it was lost, and comes as another one
            del self._workers[self._names[entry.worker]]
        sights = [seen for seen in self._story.sights if seen.offset >= told.offset]
        worker = WorkerAgain(entry.worker, entry.incarnation, sights, self._held)
        seed = entry.opened.seed
        of = entry.worker, seed, material.job, material.trainer(), material.blocks()
        bench = WorkerBench(*of)
        bench.obey(from_tree(entry.opened.settings))
        worker.begin(bench, self._story.left_over.get(entry.incarnation, ()))
        self._workers[entry.incarnation] = worker
        self._names[entry.worker] = entry.incarnation
        self._incarnations += 1

    # --- the master -----------------------------------------------------------------------------

    def _look_for_data(self, told: Told) -> None:
        """Before version 0 is asked for, there is somebody to make it."""
        if starts_master(told.record) or self._material is not None:
            return
        for entry in told.record.entries:
            if isinstance(entry, DataPublished):
                if entry.shares:
                    raise RunError(
                        "its data stay with its workers: what they trained cannot be trained here",
                        where="hermes replay",
                        remedy="hermes verify asks every decision again, and forms the versions.",
                    )
                opened = self._story.opened
                assert opened is not None
                self._material = material = self._material_of(entry, opened.seed)
                judge = Judge(material.trainer, material.blocks(), self._held)
                self._master.begin(Desk(self._held, judge, frozenset(entry.buffers)))

    def _first(self) -> Tensors:
        assert self._material is not None
        trainer = self._material.trainer()
        starting_weights(self._material.job, trainer)
        return trainer.weights()

    def _let_go(self) -> None:
        """What nobody will ask for any more: versions older than any worker's, and decided
        updates."""
        state = self._master.state
        since = min((worker.newest for worker in self._workers.values()), default=0)
        needed = {one.payload.digest for one in state.versions.values()}
        needed |= {one.update.payload.digest for one in state.pending}
        needed |= {
            version.payload.digest
            for _, version in self._story.versions
            if since <= version.version
        }
        self._held.let_go(needed)
