"""What do a worker's hands do? One builds the bench, trains and pushes; one fetches blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from hermes.data.cache import BlockCache
from hermes.data.own import OwnData
from hermes.errors import BrokerRefused, NoSuchTopic, NotAllowed, PeerError, RunFailed, Unverified
from hermes.job import Job
from hermes.machine.events import (
    BlocksFetched,
    DropGrant,
    Event,
    FetchBlocks,
    LoadVersion,
    ScoreVersion,
    Train,
    UpdateStored,
    VersionLoaded,
    VersionMissing,
    VersionScored,
)
from hermes.messages import VersionPublished, WorkerAdmitted
from hermes.perform.bench import WorkerBench
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.room import be_as_before, let_go, settle
from hermes.perform.store import Store
from hermes.perform.sums import NO_SUMS
from hermes.perform.upload import Signer
from hermes.policy.presets import from_tree
from hermes.runtime.calm import Calm
from hermes.runtime.hands import Hand
from hermes.runtime.measure import emulated_step, step_seconds
from hermes.runtime.neighbours import Share
from hermes.runtime.pace import Broken, Pacer
from hermes.runtime.terms import WorkerOptions
from hermes.runtime.trying import own_trials, rebuilt
from hermes.train import Batch, Trainer
from hermes.transport import names
from hermes.transport.log import Log

BUILDING = 3600.0
"""Seconds until a job and its probe blocks are fetched, and its model is built."""

LEAVING = 2.0
"""Seconds that a step under way may take when the process leaves."""


class Workshop:
    """The slow things of one incarnation: each is begun here, and its outcome told as an event."""

    def __init__(
        self,
        log: Log,
        run: str,
        options: WorkerOptions,
        tell: Callable[[Event], None],
        announce: Callable[[str], None],
    ) -> None:
        """`tell` is given outcomes, `announce` a line for people; both from the hands' threads."""
        self.beat_every = 1.0
        """Seconds between two heartbeats, as the run's settings have it once they are known."""
        self._run, self._options, self._announce = run, options, announce
        self.calm = Calm()
        """When the ledger may be left alone."""
        self._pacer = Pacer()
        self._share = Share(options.threads, options.names)
        self._ready = threading.Event()
        self._bench: WorkerBench | None = None
        self._scored: tuple[str, bytes | bytearray] = ("", b"")
        """The version that was scored last, by its payload id, until one is loaded."""
        self._log = log
        self._store, self._bulk = Store(log, run), Store(log, run)
        self._trains = Hand("train", tell, self._store.close)
        self._fetches = Hand("fetch", tell, self._bulk.close)

    @property
    def steps(self) -> int:
        """Steps done so far."""
        return self._pacer.steps

    def stop(self) -> None:
        """End after what is under way, which is waited for a moment."""
        self._ready.set()
        self._pacer.over.set()
        self._trains.stop(LEAVING)
        self._fetches.stop(LEAVING)
        be_as_before()

    # --- the bench ------------------------------------------------------------------------------

    def build(self, admitted: WorkerAdmitted) -> None:
        """Admitted: have the job fetched, verified and built."""
        self._trains.do(partial(self._make_bench, admitted))

    def _make_bench(self, admitted: WorkerAdmitted) -> None:
        """Nothing of the job runs before its signature is verified."""
        options, settings = self._options, from_tree(admitted.opened.settings)
        source_run = admitted.data.run or self._run
        Signer(source_run, options.key).verify(admitted.data)
        if admitted.data.run:  # a fork reads its data from its parent's topic
            own, ahead_of = Store(self._log, source_run), Store(self._log, source_run)
        else:
            own, ahead_of = self._store, self._bulk
        source, manifest = read_upload(own, admitted.data)
        seed = admitted.opened.seed
        job, trainer = rebuilt(source, seed, options.device)
        brought = self._brought(admitted, job, trainer)
        trainer.use_threads(self._share.threads())
        cache = BlockCache(options.cache, settings.cache.max << 20)
        blocks = Blocks(own, manifest, cache)
        ahead = BlockCache(options.cache, settings.cache.max << 20)
        self._ahead = Blocks(ahead_of, manifest, ahead)
        blocks.fetch("probe", range(blocks.count("probe")))
        self.beat_every = settings.workers.heartbeat
        bench = WorkerBench(options.name, seed, job, trainer, blocks, brought)
        x, y = blocks.read("probe", 0) if brought is None else brought.first(job.batch)
        batch = (x[: job.batch], y[: job.batch])
        self._pacer.emulate(self._step_seconds(job, batch), options.speed)
        bench.after_step = self._pacer.after_step
        bench.obey(settings)
        self._bench = bench
        if self._pacer.over.is_set():  # nobody waits for it any more
            raise Broken
        settle()
        self._ready.set()
        self._announce(f"admitted to {self._run}")

    def _brought(self, admitted: WorkerAdmitted, job: Job, trainer: Trainer) -> OwnData | None:
        """The data that this worker brings, once the model was seen to fit them."""
        own, shares = self._options.own, admitted.data.shares
        if own is None or not shares:
            return None
        found = OwnData(own.samples, shares, admitted.opened.seed, self._options.name)
        for trial in own_trials(job, found, trainer):
            trial.run()
        return found

    def _step_seconds(self, job: Job, batch: Batch) -> float | None:
        """A step's time on this machine, where a speed is to be emulated."""
        options = self._options
        if options.speed is None or options.step_seconds is not None:
            return options.step_seconds
        return emulated_step(step_seconds(job, batch))

    def _ready_bench(self) -> WorkerBench:
        if self._bench is None:
            raise Unverified("no job was verified", where=self._run)
        return self._bench

    # --- training -------------------------------------------------------------------------------

    def fetch(self, action: FetchBlocks) -> None:
        """Fetch a grant's blocks; from then on rounds use them, too."""

        def job() -> Event:
            if not self._ready.wait(BUILDING):
                what = f"its blocks have waited {BUILDING:g} s for the job to be fetched and built"
                raise RunFailed(what, where=self._run)
            bench = self._ready_bench()
            if action.grant.ranges:  # else it is of our own data
                self._ahead.fetch("train", bench.indices(action.grant))
            self._trains.do(partial(bench.accept, action.grant))
            return BlocksFetched(action.grant.number)

        self._fetches.do(job)

    def drop(self, action: DropGrant) -> None:
        """Rounds use this grant no more."""
        self._trains.do(lambda: self._ready_bench().drop(action.grant))

    def load(self, action: LoadVersion) -> None:
        """Take over a version."""

        def job() -> Event:
            payload = action.version.payload
            data = self._bytes_of(action.version)
            self._scored = ("", b"")
            if data is None:
                return VersionMissing(action.version.version, payload.id)
            return VersionLoaded(self._ready_bench().load(action, data))

        self._trains.do(job)

    def score(self, action: ScoreVersion) -> None:
        """See what a version is worth on our own validation samples."""

        def job() -> Event:
            started, sums = time.monotonic_ns(), NO_SUMS
            data = self._bytes_of(action.version)
            if data is not None:
                self._scored = (action.version.payload.id, data)  # it is often loaded next
                sums = self._ready_bench().score(data)
            number, version = action.number, action.version.version
            busy = time.monotonic_ns() - started
            return VersionScored(number, version, sums.loss, sums.correct, sums.n, busy)

        self._trains.do(job)

    def _bytes_of(self, version: VersionPublished) -> bytes | bytearray | None:
        """Of a version; None, and a line for people, where they cannot be had."""
        known, data = self._scored
        if known == version.payload.id:
            return data
        try:
            data = self._store.get(version.payload)
        except NotAllowed:
            raise
        except (PeerError, BrokerRefused, NoSuchTopic) as error:
            self._announce(f"version {version.version} cannot be read: {error.what}")
            return None
        let_go(version.payload.length)
        return data

    def train(self, action: Train) -> None:
        """Train one round."""

        def job() -> Event:
            bench, pacer = self._ready_bench(), self._pacer
            trainer = bench.trainer
            trainer.use_threads(self._share.threads())
            started = time.monotonic_ns()
            pacer.begin()
            self.calm.begin(sum(part.stop - part.start for part in action.segments))
            done = bench.train(action)
            pacer.end()
            self.calm.end(done.samples)
            busy = time.monotonic_ns() - started
            made_by = f"{trainer.framework} on {trainer.device}"
            return done.finished(action.round, busy, made_by)

        self._trains.do(job)

    def move(self, generation: int) -> None:
        """What is stored from now on lies in this generation of our topic."""
        self._store.generations[names.from_worker(self._options.name)] = generation

    def push(self) -> None:
        """Store what was learned, for the update that names it."""

        def job() -> Event:
            return UpdateStored(self._ready_bench().push(self._store))

        self._trains.do(job)
