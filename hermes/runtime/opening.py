"""How does a run begin? What it is opened with is tried before anything is sent: then the topics,
the data, and the first version of the model."""

from __future__ import annotations

import sys
from collections.abc import Callable

from msgspec.structs import replace

from hermes.coded import size_under
from hermes.data.cache import BlockCache
from hermes.data.prepare import Prepared
from hermes.errors import RunError
from hermes.jobfile import check_travels
from hermes.leavings import check_leavings
from hermes.machine.events import Opened
from hermes.messages import DataPublished, RunOpened
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.desk import Desk, Judge
from hermes.perform.store import Store
from hermes.perform.upload import Signer, upload
from hermes.policy.presets import to_tree
from hermes.runtime.folder import existing
from hermes.runtime.logs import utc_now
from hermes.runtime.neighbours import Share
from hermes.runtime.options import MasterOptions
from hermes.runtime.software import software
from hermes.runtime.storage import Meter, StorageWatch, first_rounds, watch_over
from hermes.runtime.trying import (
    a_batch,
    doubts,
    fit_trials,
    fresh_trainer,
    model_trials,
    prepared_data,
)
from hermes.train import Batch, Trainer
from hermes.transport import names
from hermes.transport.log import Log
from hermes.transport.rights import of_run
from hermes.transport.settings import LEDGER_CONFIG, segment_config
from hermes.values import Tensors


class Material:
    """The data and the first model of a run; each is let go of once it was sent."""

    def __init__(self, options: MasterOptions) -> None:
        """Raises `JobError` for what does not fit."""
        self._options = options
        job, seed = options.job, options.seed
        check_leavings(job, options.source.text, options.source.name)
        workdir = existing(options.folder.path)
        self._prepared: Prepared | None = prepared_data(
            job, options.settings, seed, options.expect, workdir
        )
        self._known = frozenset(sys.modules)  # among them what data() alone needs
        self._trainer: Trainer | None = fresh_trainer(job, seed)
        self._doubts: list[str] = []
        for trial in model_trials(job, seed, self._trainer):
            trial.run()

    def tried(self) -> Batch | None:
        """See that model and data fit each other; returns a first batch, where there is one here.
        Raises `JobError`."""
        options, prepared, trainer = self._options, self._prepared, self._trainer
        assert prepared is not None
        assert trainer is not None
        for trial in fit_trials(options.job, prepared, trainer):
            trial.run()
        check_travels(options.source.text, options.source.name, self._known)
        batch = a_batch(prepared, options.job)
        self._doubts = doubts(trainer, batch)
        return batch

    def opened(self, *, trims: bool) -> Opened:
        """What the machine is told at first: with the first entry of the ledger."""
        assert self._trainer is not None
        return Opened(run_opened(self._options, self._trainer.framework), trims=trims)

    @property
    def model_bytes(self) -> int:
        """Of a version."""
        assert self._trainer is not None
        return size_under(self._trainer.weights(), self._options.settings.codec.down)

    def storage(self, meter: Meter, steps: tuple[float, ...]) -> StorageWatch:
        """Whoever holds the run to its limit; `steps`: seconds of a step, by worker."""
        prepared, model = self._prepared, self.model_bytes
        assert prepared is not None
        settings, batch = self._options.settings, self._options.job.batch
        rounds = first_rounds(settings, prepared.first_size, batch, steps)
        data = sum(sum(prepared.lengths(split)) for split in prepared.parts)
        return watch_over(meter, settings, model, rounds, data + model)

    def oddities(self) -> list[str]:
        """What is odd about data and model, for people."""
        assert self._prepared is not None
        return [*(f"Data: {text}" for text in self._prepared.oddities()), *self._doubts]

    def send_data(self, store: Store, sent: Callable[[int, int], None]) -> DataPublished:
        """Send job and data; `sent` is told of the blocks sent, and of all. Raises `BrokerError`,
        and whatever `sent` raises."""
        options = self._options
        assert self._prepared is not None
        signer = Signer(options.run, options.key)
        data = upload(store, signer, options.source, self._prepared, options.job.batch, sent)
        self._prepared = None  # what the user's function holds is released
        assert self._trainer is not None
        return replace(data, buffers=tuple(sorted(self._trainer.buffers())))

    def take_weights(self) -> Tensors:
        """The first model; asked for once."""
        assert self._trainer is not None
        weights = self._trainer.weights()
        self._trainer = None  # its model and gradients are not needed beside those of the desk
        return weights

    def take_state(self) -> Tensors:
        """Nothing: no step was taken."""
        return {}


def run_opened(options: MasterOptions, framework: str) -> RunOpened:
    """The first entry of a run's ledger; `framework`: its name and version."""
    return RunOpened(
        run=options.run,
        settings=to_tree(options.settings),
        seed=options.seed,
        expect=options.expect,
        opened=utc_now(),
        software=software(framework),
        key_proof=Signer(options.run, options.key).opening(),
    )


def refuse_known_run(log: Log, run: str) -> None:
    """Nothing of this name may be there: neither a run, nor somebody else's records. Raises
    `RunError`."""
    there = log.topics(names.prefix_of(run))
    if names.physical(run, names.LEDGER) in there:
        raise RunError(
            f"the run {run!r} exists already",
            where=f"the broker {log.place}",
            remedy=f"Choose another id with --run; to go on with it: hermes resume {run}",
        )
    log.check_topics(there)
    for topic, end in log.ends(there).items():
        if end:
            raise RunError(
                f"the topic exists already and holds {end} records, which are not of this run",
                where=topic,
                remedy="Choose another id with --run, or delete it, if nobody needs it: "
                f"kafka-topics.sh --bootstrap-server {log.place} --delete --topic {topic}",
            )


def create_topics(log: Log, run: str, model: int) -> None:
    """The topics that every run has, kept as a run needs them; `model`: bytes of a version. Raises
    `BrokerError`."""
    topics = [names.physical(run, short) for short in names.RUN_TOPICS]
    log.create([topics[0]], LEDGER_CONFIG)
    log.create([topic for topic in topics[1:] if topic.endswith(names.DATA)])
    log.create([t for t in topics[1:] if not t.endswith(names.DATA)], segment_config(model))
    log.check_topics(topics[:1], LEDGER_CONFIG)
    log.check_topics(topics[1:])
    let_in(log, run)


def let_in(log: Log, run: str) -> None:
    """Every user of the broker may take part in the run, where the broker checks rights: those who
    train have the cluster key as well. Raises `BrokerError`."""
    if log.guards is not None:
        log.guards.allow(of_run(run))


def seats(
    log: Log, store: Store, options: MasterOptions, data: DataPublished
) -> tuple[Desk, Judge, Judge]:
    """Who merges and scores in the master's thread, over `store`, and who scores beside it, over a
    store of its own. Raises `BrokerError`."""
    source = data.run or options.run
    blocks_in = Store(log, source) if data.run else store
    _, manifest = read_upload(blocks_in, data)
    options.folder.note_blocks(b.digest for blocks in manifest.blocks.values() for b in blocks)
    cache = BlockCache(options.cache, options.settings.cache.max << 20)

    def make() -> Trainer:
        trainer = fresh_trainer(options.job, options.seed)
        trainer.use_threads(Share(options.threads, options.names).threads())
        return trainer

    own, beside = Store(log, options.run), make()
    if architecture := beside.architecture():
        options.folder.write(options.folder.architecture, architecture.encode())
    judge = Judge(make, Blocks(blocks_in, manifest, cache), store)
    desk = Desk(store, judge, beside.buffers())
    own_blocks = Store(log, source) if data.run else own
    return desk, judge, Judge(lambda: beside, Blocks(own_blocks, manifest, cache), own)
