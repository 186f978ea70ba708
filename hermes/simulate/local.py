"""How is a user's job run in deterministic mode? Real tensors over the memory log, virtual time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from hermes.chance import generator
from hermes.codec import decode_tensors
from hermes.data.blocks import decode_block
from hermes.data.cache import BlockCache
from hermes.data.own import OwnData, kind_of
from hermes.data.prepare import Prepared, prepare
from hermes.data.resident import divide
from hermes.data.sources import Samples
from hermes.errors import Defect
from hermes.job import Job
from hermes.machine.events import (
    Action,
    DataStored,
    Evaluate,
    EvaluationFinished,
    Event,
    LoadVersion,
    ScoreVersion,
    StoreFirst,
    Train,
    UploadData,
)
from hermes.messages import (
    SIMULATED,
    BlocksGranted,
    JobSource,
    Manifest,
    Own,
    RunOpened,
    VersionPublished,
)
from hermes.perform.bench import Trained, WorkerBench
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.desk import Desk, Judge, evaluation
from hermes.perform.remake import GONE
from hermes.perform.store import Store
from hermes.perform.sums import NO_SUMS, Sums
from hermes.perform.upload import Signer, upload
from hermes.policy.allocate import first_size
from hermes.policy.own import shares_of
from hermes.policy.partition import partition_of
from hermes.policy.presets import Settings, to_tree
from hermes.simulate.driver import Costs, Setup, Work, nothing_brought, work_of
from hermes.simulate.scored import Kept, Recalling, Scored
from hermes.train import Trainer, make_trainer, starting_weights
from hermes.train.protocol import Batch
from hermes.transport import names
from hermes.transport.log import Log
from hermes.values import Base, Payload, Tensors

RUN = "simulated"

BLOCKS = "blocks"
"""The folder of them."""

UNBOUNDED = 1 << 50
"""Bytes of blocks that a run keeps on disk beside the log that has them in memory."""


class LocalRun:
    """A job, its settings and a folder to work in."""

    def __init__(self, job: Job, settings: Settings, seed: int, folder: Path) -> None:
        self.job, self.settings, self.seed = job, settings, seed
        self.folder = folder
        self.expect = 1
        self.manifest: Manifest | None = None
        self.costs = Costs()
        self.source = JobSource("job", "", ())
        """What is sent as the job's text."""
        self.prepared: Prepared | None = None
        """The data, where somebody has prepared it already; let go of once it is sent."""
        self.threads: int | None = None
        """Of the framework; None: as it likes."""
        self.kept: Kept | None = None
        """Where scores and deflated blocks are kept for other runs."""
        self.names = map("{:032x}".format, itertools.count(1))
        """Of payloads: the same run names them alike."""
        self._decoded: dict[tuple[str, int], Batch] = {}
        self._blocks: Blocks | None = None
        self._scored: Scored | None = None
        self.workers: tuple[str, ...] = ()
        self._divided: tuple[Prepared, dict[str, Samples]] | None = None

    def setup(self, speeds: Mapping[str, float], joins: Mapping[str, int] | None = None) -> Setup:
        """Who takes part."""
        self.expect, self.workers = len(speeds), tuple(speeds)
        run = RunOpened(
            run=RUN,
            settings=to_tree(self.settings),
            seed=self.seed,
            expect=self.expect,
            opened="",
            software=SIMULATED,
            key_proof="",
        )
        return Setup(
            run,
            lambda log: LocalHands(self, log),
            lambda log, name: LocalBench(self, log, name),
            speeds,
            joins or {},
            own=self.told if self.settings.data.resident else nothing_brought,
        )

    # --- data that stay with the workers --------------------------------------------------------

    def told(self, worker: str) -> Own:
        """What this worker says of its part of the data."""
        samples = self.part(worker)
        return Own(samples.size, kind_of(samples), worker)

    def part(self, worker: str) -> Samples:
        """What this worker has brought."""
        return self.divided()[1][worker]

    def divided(self) -> tuple[Prepared, dict[str, Samples]]:
        """What the master holds, and what each worker has brought."""
        if self._divided is None:
            job, settings, seed = self.job, self.settings, self.seed
            self._divided = divide(job, settings, seed, self.workers, self.folder)
        return self._divided

    def own_data(self, worker: str) -> OwnData | None:
        """What this worker trains on; None where blocks are granted."""
        if not self.settings.data.resident:
            return None
        shares = shares_of(*self.job.split[:3])
        return OwnData(self.part(worker), shares, self.seed, worker)

    def blocks(self, store: Store) -> Blocks:
        """The blocks of the upload, once there is one."""
        if self.manifest is None:
            raise Defect("nothing was uploaded yet")
        return InLog(store, self.manifest, self._cache(), self._decoded)

    def lay_down(self, store: Store, splits: Iterable[str]) -> None:
        """The blocks of these splits, as files, for other processes."""
        assert self.manifest is not None
        blocks = Blocks(store, self.manifest, self._cache())
        for split in splits:
            blocks.fetch(split, range(blocks.count(split)))

    def judge(self, make: Callable[[], Trainer], blocks: Blocks, store: Store) -> Judge:
        """One that asks what others of this run, or of other runs, have found."""
        if self._scored is None:
            assert self.manifest is not None
            self._scored = Scored(self.source, self.job.device, self.manifest, self.kept)
        return Recalling(make, blocks, store, self._scored)

    def _cache(self) -> BlockCache:
        return BlockCache(self.folder / BLOCKS, UNBOUNDED)

    def shared_blocks(self, store: Store) -> Blocks:
        """The same for all workers: none of them holds the probe's for itself."""
        if self._blocks is None:
            self._blocks = self.blocks(store)
        return self._blocks

    def trainer(self) -> Trainer:
        """The job's model and optimizer, as a run begins with them."""
        trainer = make_trainer(self.job, generator(self.seed, "init"))
        if self.threads is not None:
            trainer.use_threads(self.threads)
        return trainer


class Remembered(Blocks):
    """Blocks that stay decoded in memory, as their bytes do: a run reads them many times."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        cache: BlockCache,
        decoded: dict[tuple[str, int], Batch],
    ) -> None:
        super().__init__(store, manifest, cache)
        self._decoded = decoded

    def read(self, split: str, index: int) -> Batch:
        """One block: its samples and labels, not to be changed."""
        if (split, index) not in self._decoded:
            self._decoded[split, index] = self.load(split, index)
        return self._decoded[split, index]

    def load(self, split: str, index: int) -> Batch:
        """From the cache."""
        return super().read(split, index)


class InLog(Remembered):
    """Blocks of a log in memory: what is decoded are views of its records, of which there is no
    other copy; of those that were deflated, one copy for all."""

    def fetch(self, split: str, indices: Sequence[int]) -> int:
        """They are there."""
        del split, indices
        return 0

    def load(self, split: str, index: int) -> Batch:
        """From the log."""
        block = self._manifest.blocks[split][index]
        ((_, data),) = self._store.records(names.DATA, {block.offset: block.length})
        return decode_block(data)


class AtHand(Store):
    """A store in memory: what is not there now never comes, and chance names nothing."""

    def __init__(self, run: LocalRun, log: Log, generations: dict[str, int] | None = None) -> None:
        super().__init__(log, RUN, generations=generations)
        self._names = run.names

    def name(self) -> str | None:
        """Of the payload that is put next."""
        return next(self._names)

    def make_room(self, size: int) -> None:
        """No client leaves models in cycles here: to look for them would take longer than all
        transfers."""

    def get(self, payload: Payload) -> bytes | bytearray:
        """As `Store.get`; nothing is waited for."""
        self.must_reach(payload)
        return super().get(payload)


class LocalHands:
    """The master's performer."""

    def __init__(self, run: LocalRun, log: Log) -> None:
        self._run = run
        self._store = AtHand(run, log, getattr(log, "generations", None))
        self._trainer = run.trainer()
        starting_weights(run.job, self._trainer)
        self._desk: Desk | None = None
        self._judge: Judge | None = None

    def perform(self, action: Action, now: int) -> Event:
        """The outcome of an action, at once."""
        if isinstance(action, UploadData):
            return self._upload()
        if self._desk is None or self._judge is None:
            blocks = self._run.blocks(self._store)
            self._judge = self._run.judge(lambda: self._trainer, blocks, self._store)
            self._desk = Desk(self._store, self._judge, self._trainer.buffers())
        if isinstance(action, StoreFirst):
            return self._desk.store_first(self._trainer.weights(), codec=action.codec)
        if isinstance(action, Evaluate):
            return self.evaluated(action.version, now)
        return self._desk.perform(action)

    def evaluated(self, version: VersionPublished, now: int) -> EvaluationFinished:
        """Score a version on the validation set."""
        assert self._judge is not None
        scores = self._judge.scores(self.model_of(version), "validation")
        return evaluation(version, scores, now, self._run.costs.evaluate)

    def model_of(self, version: VersionPublished) -> Tensors:
        """Its tensors; not to be changed."""
        assert self._judge is not None
        assert self._desk is not None
        held = self._desk.model(version.payload.digest)
        return held if held is not None else decode_tensors(self._judge.bytes_of(version))

    def _upload(self) -> DataStored:
        run = self._run
        prepared, run.prepared = run.prepared, None
        if run.settings.data.resident:
            prepared = run.divided()[0]
        assert run.job.data is not None
        prepared = prepared or prepare(
            run.job.data,
            run.job.split,
            run.seed,
            lambda train: first_size(run.settings.size, train, run.expect),
            run.folder,
            partition_of(run.settings.data, run.expect, run.job.batch),
        )
        if run.kept is not None:
            prepared = dataclasses.replace(prepared, deflate=run.kept.deflated)
        signer = Signer(RUN, b"simulated")
        data = upload(self._store, signer, run.source, prepared, run.job.batch)
        _, run.manifest = read_upload(self._store, data)
        return DataStored(replace(data, buffers=tuple(sorted(self._trainer.buffers()))))


class Begun:
    """A round that is trained when its outcome is asked for, or when its worker is to do more: what
    is under way when a run ends costs nothing. What goes wrong in it is raised to who asks."""

    def __init__(self, bench: WorkerBench, action: Train) -> None:
        self._bench, self._action = bench, action
        self._done: Future[Trained] = Future()

    def train(self) -> None:
        """Once; nothing is raised here."""
        if self._done.done():
            return
        try:
            self._done.set_result(self._bench.train(self._action))
        except Exception as error:  # noqa: BLE001  (`outcome` raises it)
            self._done.set_exception(error)

    def outcome(self) -> Trained:
        """What it came to."""
        self.train()
        return self._done.result(timeout=0)


class LocalBench:
    """A worker's performer."""

    def __init__(self, run: LocalRun, log: Log, name: str) -> None:
        self._run, self._name = run, name
        self._store = AtHand(run, log)
        self._made: WorkerBench | None = None
        self._round: Begun | None = None
        """The last one that was begun."""

    @property
    def bench(self) -> WorkerBench:
        """Made at first use: the data must lie in the log before."""
        if self._made is None:
            self._made = self.made()
        return self._made

    @property
    def rested(self) -> WorkerBench:
        """It has done the round that was begun."""
        if self._round is not None:
            self._round.train()
        return self.bench

    def made(self) -> WorkerBench:
        """With a model and an optimizer of its own."""
        run = self._run
        blocks = run.shared_blocks(self._store)
        own = run.own_data(self._name)
        made = WorkerBench(self._name, run.seed, run.job, run.trainer(), blocks, own)
        made.obey(run.settings)
        return made

    def fetch(self, grant: BlocksGranted) -> int:
        """Bring the blocks; the bytes that a worker with an empty cache would transfer. It may be
        at work the while: what is trained was granted before."""
        self.bench.accept(grant)
        return self.bench.size_of(grant) if grant.ranges else 0

    def load(self, action: LoadVersion) -> Base | None:
        """Make this version the local model."""
        try:
            data = self._store.get(action.version.payload)
        except GONE:
            return None
        return self.rested.load(action, data)

    def score(self, action: ScoreVersion) -> Sums:
        """What this version is worth on the worker's own validation samples."""
        try:
            return self.rested.score(self._store.get(action.version.payload))
        except GONE:
            return NO_SUMS

    def work(self, action: Train) -> Work:
        """What this round comes to."""
        return work_of(action)

    def train(self, action: Train, due: int) -> Callable[[], Trained]:
        """Begin a round, whose outcome is asked for when it is due, or never."""
        del due
        self._round = Begun(self.rested, action)
        return self._round.outcome

    def pack(self) -> None:
        """It is sent by `store`, at once."""

    def drop(self, number: int) -> None:
        """Nothing of this grant is needed any more."""
        self.rested.drop(number)

    def move(self, generation: int) -> None:
        """What is stored from now on lies in this generation of the worker's topic."""
        self._store.generations[names.from_worker(self._name)] = generation

    def store(self) -> Payload:
        """Send the local model."""
        return self.rested.push(self._store)
