"""How does a user's job train on the devices of a file? As in deterministic mode, with its charges.

Blocks that a device has got before lie on its disk (least recently used ones go), and cost nothing.
What the evaluation grid finds best is kept.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hermes.codec import decode_tensors
from hermes.coded import encode_update
from hermes.errors import Defect
from hermes.job import Job
from hermes.machine.events import (
    Action,
    DataStored,
    Evaluate,
    Event,
    LoadVersion,
    StopAsked,
    Train,
)
from hermes.machine.worker import base_of
from hermes.messages import BlocksGranted, LedgerRecord, RunStopped, VersionEvaluated
from hermes.perform.bench import Trained, WorkerBench
from hermes.perform.remake import GONE
from hermes.policy.presets import Settings, to_tree
from hermes.simulate.ahead import Crew, Seat, Send
from hermes.simulate.charges import Modelled
from hermes.simulate.devices import Loaded
from hermes.simulate.driver import Costs, Driver
from hermes.simulate.faults import Faults, FaultyLog, WorkerFault
from hermes.simulate.local import BLOCKS, AtHand, LocalBench, LocalHands, LocalRun
from hermes.simulate.wire import Opening
from hermes.train import Trainer
from hermes.transport import names
from hermes.values import SECOND, Base, Payload, Reason, Tensors

FAREWELL = 3.0
"""Virtual seconds that workers are given to say bye after the end."""


class Best(NamedTuple):
    """The best version that the evaluation grid has seen."""

    version: int = -1
    loss: float = math.inf
    accuracy: float | None = None
    model: Tensors | None = None


class ModelledRun(LocalRun):
    """A job on the devices of a file."""

    def __init__(
        self, job: Job, settings: Settings, seed: int, folder: Path, loaded: Loaded
    ) -> None:
        """`folder`: a place to work in, which may go afterwards."""
        super().__init__(job, settings, seed, folder)
        self.loaded = loaded
        self.workers = tuple(device.name for device in loaded.world.devices)
        self.costs = Costs(evaluate=0, beat=round(settings.workers.heartbeat * SECOND))
        self.best = Best()
        self.charges: Modelled | None = None
        self.crew: Crew | None = None
        """Who trains; None: this process."""
        self._spare: Trainer | None = None

    def driver(self, processes: int = 1) -> Driver:
        """The run, to be driven, over so many processes; its `charges` are `Modelled`. Where there
        are several, `source` is what they build the job from, and `close` ends them."""
        speeds = {device.name: device.speed for device in self.loaded.world.devices}
        if processes > 1 and not self.settings.data.resident:
            self.crew = Crew(self._opening(), processes, speeds)
        setup = self.setup(speeds)._replace(hands=lambda log: ModelledHands(self, log))
        driver = Driver(
            setup._replace(bench=lambda log, name: self._bench(driver, log, name)),
            costs=self.costs,
            faults=Faults(workers=self._outages()),
            charges=self._charge,
        )
        if self.settings.data.resident:
            driver.heard.append(lambda _data, record: self._judged(driver, record))
        return driver

    def _judged(self, driver: Driver, record: LedgerRecord) -> None:
        """What the workers' sums come to may be the best."""
        for entry in record.entries:
            if not isinstance(entry, VersionEvaluated) or not entry.n:
                continue
            if entry.loss is None or not entry.loss < self.best.loss:
                continue
            payload = driver.watch.state.versions[entry.version].payload
            store = AtHand(self, driver.log, driver.log.generations)
            model = decode_tensors(store.get(payload))
            self.best = Best(entry.version, entry.loss, entry.accuracy, model)

    def close(self) -> None:
        """No process of ours is left."""
        if self.crew is not None:
            self.crew.close()

    def spare(self) -> Trainer:
        """A trainer for those who train elsewhere; nobody trains it."""
        if self._spare is None:
            self._spare = self.trainer()
        return self._spare

    def _opening(self) -> Opening:
        where = str(self.folder / BLOCKS)
        of_run = (to_tree(self.settings), self.seed, self.threads, where)
        return Opening(self.source, self.job.device, *of_run)

    def _bench(self, driver: Driver, log: FaultyLog, name: str) -> ModelledBench:
        if self.crew is None:
            return ModelledBench(self, log, name)
        return BenchAhead(self, log, name, lambda: driver.queue.now)

    def _charge(self, driver: Driver) -> Modelled:
        self.charges = Modelled(driver, self.loaded.world, self.seed, self._pushed())
        return self.charges

    def _pushed(self) -> int | None:
        """Bytes of an update, where a version has others."""
        codec = self.settings.codec
        if codec.up == codec.down:
            return None
        trainer = self.spare()
        model = trainer.weights()
        return len(encode_update(model, model, codec.up, trainer.buffers()))

    def _outages(self) -> tuple[WorkerFault, ...]:
        return tuple(
            WorkerFault(round(begin * SECOND), device.name, "cut", round((end - begin) * SECOND))
            for device in self.loaded.world.devices
            for begin, end in device.outages
        )


class ModelledHands(LocalHands):
    """The master's performer; it remembers the best version."""

    def __init__(self, run: ModelledRun, log: FaultyLog) -> None:
        super().__init__(run, log)
        self._modelled = run

    def perform(self, action: Action, now: int) -> Event:
        """The outcome of an action, at once."""
        if not isinstance(action, Evaluate):
            return super().perform(action, now)
        outcome = self.evaluated(action.version, now)
        run = self._modelled
        if run.settings.data.resident:
            return outcome
        if outcome.loss is not None and outcome.loss < run.best.loss:
            model = self.model_of(action.version)
            run.best = Best(outcome.version, outcome.loss, outcome.accuracy, model)
        return outcome

    def _upload(self) -> DataStored:
        outcome = super()._upload()
        run = self._modelled
        assert run.manifest is not None
        assert run.charges is not None
        splits = run.manifest.blocks.items()
        run.charges.sent_data({name: sum(b.length for b in blocks) for name, blocks in splits})
        if run.crew is not None:
            run.lay_down(self._store, ("train", "probe"))
            run.crew.data(run.manifest)
        return outcome


class ModelledBench(LocalBench):
    """A worker's performer, with a disk for blocks."""

    def __init__(self, run: ModelledRun, log: FaultyLog, name: str) -> None:
        super().__init__(run, log, name)
        self._modelled = run
        self._disk: OrderedDict[int, int] = OrderedDict()
        """Bytes of the blocks that are there, by index, the least recently used first."""

    def fetch(self, grant: BlocksGranted) -> int:
        """Bring the blocks; the bytes that had to come."""
        super().fetch(grant)
        if not grant.ranges:  # it brings its data
            return 0
        assert self._modelled.manifest is not None
        blocks = self._modelled.manifest.blocks["train"]
        moved = 0
        for index in self.bench.indices(grant):
            if index not in self._disk:
                moved += blocks[index].length
                self._disk[index] = blocks[index].length
            self._disk.move_to_end(index)
        room = self._modelled.settings.cache.max << 20
        while len(self._disk) > 1 and sum(self._disk.values()) > room:
            self._disk.popitem(last=False)
        return moved


class BenchAhead(ModelledBench):
    """A worker's performer, whose bench is in another process."""

    def __init__(self, run: ModelledRun, log: FaultyLog, name: str, now: Callable[[], int]) -> None:
        super().__init__(run, log, name)
        self._now = now
        self._seat: Seat | None = None
        self._packed: Callable[[Send], Payload] | None = None

    @property
    def seat(self) -> Seat:
        """Taken at first use: the data must be there before."""
        if self._seat is None:
            crew = self._modelled.crew
            assert crew is not None
            self._seat = crew.seat(self._name, self._now)
        return self._seat

    def made(self) -> WorkerBench:
        """It knows its grants, and trains nothing."""
        run = self._modelled
        blocks = run.shared_blocks(self._store)
        return WorkerBench(self._name, run.seed, run.job, run.spare(), blocks)

    def fetch(self, grant: BlocksGranted) -> int:
        """Bring the blocks; the bytes that had to come."""
        self.seat.accept(grant)
        return super().fetch(grant)

    def drop(self, number: int) -> None:
        """Nothing of this grant is needed any more."""
        self.seat.drop(number)
        super().drop(number)

    def load(self, action: LoadVersion) -> Base | None:
        """Make this version the local model."""
        try:
            data = self._store.get(action.version.payload)
        except GONE:
            return None
        self.seat.load(action, bytes(data))
        return base_of(action.version)

    def train(self, action: Train, due: int) -> Callable[[], Trained]:
        """Begin a round, ahead of its time."""
        return self.seat.train(action, due)

    def pack(self) -> None:
        """Begin to lay down what is sent."""
        self._packed = self.seat.pack()

    def store(self) -> Payload:
        """Send it."""
        packed, self._packed = self._packed, None
        assert packed is not None
        return packed(lambda data: self._store.put(names.from_worker(self._name), data))


# --- the run, driven ----------------------------------------------------------------------------


def drive(driver: Driver, wanted: list[bool], tell: Callable[[], None]) -> int:
    """To the end, or to the stop that somebody `wanted`; the virtual time of the stop."""
    driver.run(steps=0)
    while not driver.finished:
        if wanted and driver.watch.state.stopped is None:
            driver.master.deliver(StopAsked("stopped", Reason("interrupted")))
        if not driver.queue.step():
            raise Defect("nothing happens any more, and the run has not ended", where="simulate")
        tell()
    end = driver.queue.now + round(FAREWELL * SECOND)
    while driver.watch.state.alive() and driver.queue.now < end and driver.queue.step():
        pass
    return _time_of_stop(driver)


def _time_of_stop(driver: Driver) -> int:
    """Of the record that stopped the run."""
    records = reversed(driver.watch.records)
    return next(r.time for r in records if any(isinstance(e, RunStopped) for e in r.entries))
