"""What does each thing cost in virtual time? Flat rates, for tests, or a file of devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

from hermes.machine.events import Action, Evaluate, Merge, Score, Train
from hermes.machine.rounds import HELD_OUT
from hermes.messages import (
    DataPublished,
    LedgerRecord,
    RunScored,
    StateSaved,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.policy.own import cut
from hermes.simulate.devices import BESIDE, MASTER, World
from hermes.simulate.network import Pipe
from hermes.simulate.pace import Pace
from hermes.transport import tensors
from hermes.transport.counting import KINDS, size_of
from hermes.values import SECOND, Payload

if TYPE_CHECKING:
    from hermes.simulate.driver import Costs, Driver, Work
    from hermes.simulate.worker import SimulatedWorker

Then = Callable[[], None]
Put = Callable[[], Payload]
Stored = Callable[[Payload], None]

MOVES = (VersionPublished, StateSaved, DataPublished, WorkerAdmitted, VersionEvaluated, RunScored)
"""Entries that tell of bytes which master or workers have moved."""

SENT, RECEIVED = 0, 1
DATA, MODEL, UPDATE, CONTROL = (2 * KINDS.index(k) for k in ("data", "model", "update", "control"))
"""Where bytes are counted: kind + way."""


class Charges(Protocol):
    """Times are in nanoseconds, sizes in bytes."""

    grid: int
    """Between two points of the evaluation grid, which is off the clock; 0: an evaluation costs
    what it costs, as the machine asks for it."""
    counts_steps: bool
    """Whether heartbeats tell of the steps of a round under way."""

    def message(self, worker: str, size: int) -> int:
        """From a worker's hand until the broker has a small message."""
        ...

    def sight(self, worker: str, size: int) -> int:
        """From the broker until a worker sees a ledger record."""
        ...

    def traffic(self, worker: str) -> tuple[int, ...]:
        """What a worker has moved so far, as its heartbeats tell; empty: nobody counts."""
        ...

    def blocks(self, worker: SimulatedWorker, size: int, then: Then) -> None:
        """Blocks come to a worker; `then` is called once they are there."""
        ...

    def version(self, worker: SimulatedWorker, payload: Payload, then: Then) -> None:
        """A version comes to a worker."""
        ...

    def update(self, worker: SimulatedWorker, put: Put, late: int, then: Stored) -> None:
        """An update goes to the broker, so much later than it would; `put` is called once it is
        there, `then` once that is acknowledged."""
        ...

    def cut(self, worker: str, lasts: int) -> None:
        """A worker's link gives nothing for so long."""
        ...

    def busy(self, worker: str, now: int, action: Train, work: Work) -> int:
        """A round, but for what follows from how it ended."""
        ...

    def test(self, worker: str, now: int, action: Train, samples: int) -> int:
        """Samples scored at the end of a round, for a push that is put to the test."""
        ...

    def score(self, worker: str, now: int, samples: int) -> int:
        """A version on so many validation samples of the worker's own."""
        ...

    def action(self, action: Action) -> int:
        """What the master does."""
        ...


class Flat:
    """The same for all, as `Costs` says; links are never shared."""

    grid = 0
    counts_steps = False

    def __init__(self, costs: Costs, speeds: Mapping[str, float]) -> None:
        self._costs, self._speeds = costs, speeds

    def message(self, worker: str, size: int) -> int:
        """Latency and bytes."""
        del worker
        return self._costs.latency + size * self._costs.byte

    def sight(self, worker: str, size: int) -> int:
        """Latency alone."""
        del worker, size
        return self._costs.latency

    def traffic(self, worker: str) -> tuple[int, ...]:
        """Nobody counts."""
        del worker
        return ()

    def blocks(self, worker: SimulatedWorker, size: int, then: Then) -> None:
        """Bytes."""
        worker.on_disk(size * self._costs.byte, then)

    def version(self, worker: SimulatedWorker, payload: Payload, then: Then) -> None:
        """Bytes."""
        worker.on_disk(payload.length * self._costs.byte, then)

    def update(self, worker: SimulatedWorker, put: Put, late: int, then: Stored) -> None:
        """Bytes; the broker has them at once, and the worker learns of it later."""
        payload = put()
        worker.on_disk(payload.length * self._costs.byte + late, lambda: then(payload))

    def cut(self, worker: str, lasts: int) -> None:
        """Small messages alone wait, and the worker sees to that."""

    def busy(self, worker: str, now: int, action: Train, work: Work) -> int:
        """Steps."""
        del now, action
        return int(work.steps * self._costs.step / self._speeds[worker])

    def test(self, worker: str, now: int, action: Train, samples: int) -> int:
        """Nothing."""
        del worker, now, action, samples
        return 0

    def score(self, worker: str, now: int, samples: int) -> int:
        """As what the master evaluates."""
        del now, samples
        return int(self._costs.evaluate / self._speeds[worker])

    def action(self, action: Action) -> int:
        """One of three prices."""
        if isinstance(action, Evaluate):
            return self._costs.evaluate
        return self._costs.merge if isinstance(action, Merge) else self._costs.evaluate // 2


class Modelled:
    """As a file of devices says. Counts the bytes that each process moves, too."""

    counts_steps = True

    def __init__(self, driver: Driver, world: World, seed: int, pushed: int | None = None) -> None:
        """`pushed`: bytes of an update, where they are others than a version's."""
        self._driver, self._world, self._pushed = driver, world, pushed
        self.grid = round(world.evaluate_seconds * SECOND)
        names = [device.name for device in world.devices]
        self._moved = {process: [0] * (2 * len(KINDS)) for process in (MASTER, *names)}
        """Bytes by process: (sent, received) by kind."""
        self._paces = {device.name: Pace(device, seed) for device in world.devices}
        self._links = {device.name: world.links[device.link] for device in world.devices}
        up = {name: _bits(link.up_mbit) for name, link in self._links.items()}
        down = {name: _bits(link.down_mbit) for name, link in self._links.items()}
        self._up = Pipe(driver.queue, _bits(world.shared.down_mbit), up)
        self._down = Pipe(driver.queue, _bits(world.shared.up_mbit), down)
        self._latency = {
            name: round(link.latency_ms * SECOND / 1000) for name, link in self._links.items()
        }
        self._rate_up, self._rate_down = up, down
        self._commit = round(world.master.commit_ms * SECOND / 1000)
        rate = world.samples_per_second
        self._takes = (1 / rate if rate else 0.0, world.step_seconds or 0.0)
        """Seconds of a sample, and of a step beside its samples, on a device of speed 1."""
        self._rounds = {d.name: d.round_ms / 1000 * d.speed for d in world.devices}
        """Seconds of a round beside its work, as a device of speed 1 would take them."""
        self._begins = {d.name: round(d.start_seconds * SECOND) for d in world.devices}
        """When a device can train: until it is asked for something first, how long it takes."""
        self._asked: set[str] = set()
        self._scored = -1
        self._job = 0
        """Bytes of the job's source and the manifest of its data."""
        self._splits: dict[str, int] = {}
        """Bytes of each split, once they are sent."""
        self._has: set[tuple[str, str]] = set()
        """Held-out sets that a process has read."""
        driver.heard.append(self._recorded)

    # --- small messages -------------------------------------------------------------------------

    def message(self, worker: str, size: int) -> int:
        """Latency, and its bytes on the device's own link: it overtakes what is large."""
        self._moved[worker][CONTROL + SENT] += size
        self._moved[MASTER][CONTROL + RECEIVED] += size
        return self._latency[worker] + size * 8 * SECOND // self._rate_up[worker]

    def sight(self, worker: str, size: int) -> int:
        """As a message, the other way, once the broker gives it out."""
        self._moved[worker][CONTROL + RECEIVED] += size
        due = self._latency[worker] + size * 8 * SECOND // self._rate_down[worker]
        return self._commit + due

    def traffic(self, worker: str) -> tuple[int, ...]:
        """As counted."""
        return tuple(self._moved[worker])

    # --- large transfers ------------------------------------------------------------------------

    def blocks(self, worker: SimulatedWorker, size: int, then: Then) -> None:
        """What the worker has not got already."""
        if not size:
            self._later(worker, 0, then)
            return
        self._count(worker.name, DATA + RECEIVED, size)
        self._bring(worker, size, then)

    def version(self, worker: SimulatedWorker, payload: Payload, then: Then) -> None:
        """All of it, each time."""
        size = framed(payload)
        self._count(worker.name, MODEL + RECEIVED, size)
        self._bring(worker, size, then)

    def update(self, worker: SimulatedWorker, put: Put, late: int, then: Stored) -> None:
        """Its bytes, and a way there and back for the acknowledgement."""
        name, newest = worker.name, self._driver.watch.state.newest
        assert newest is not None
        latency = self._latency[name]

        def arrive() -> None:
            if not worker.alive:
                return
            payload = put()
            size = framed(payload)
            self._count(name, UPDATE + SENT, size)
            self._count(MASTER, UPDATE + RECEIVED, size)
            self._later(worker, latency, lambda: then(payload))

        over = partial(self._later, worker, latency + late, arrive)
        size = framed(newest.payload) if self._pushed is None else framed_bytes(self._pushed)
        self._up.begin(name, size, over)

    def _bring(self, worker: SimulatedWorker, size: int, then: Then) -> None:
        """Asked for, and sent."""
        name = worker.name
        latency = self._latency[name]

        def begin() -> None:
            self._down.begin(name, size, lambda: self._later(worker, latency, then))

        self._later(worker, latency + self._until_ready(name), begin)

    def _until_ready(self, name: str) -> int:
        """Before a device can train, nothing comes to it."""
        now = self._driver.queue.now
        if name not in self._asked:
            self._asked.add(name)
            self._begins[name] += now
        return max(0, self._begins[name] - now)

    def _later(self, worker: SimulatedWorker, delay: int, then: Then) -> None:
        queue = self._driver.queue
        queue.at(queue.now + delay, then, worker.name)

    def cut(self, worker: str, lasts: int) -> None:
        """Both ways."""
        self._up.cut(worker, lasts)
        self._down.cut(worker, lasts)

    # --- work -----------------------------------------------------------------------------------

    def busy(self, worker: str, now: int, action: Train, work: Work) -> int:
        """Steps, and a look at the probe, at this device's pace."""
        sample, step = self._takes
        seconds = work.samples * sample + work.steps * step
        seconds += self._rounds[worker]
        seconds += self._probed(worker, action) * self._each(action.batch) / self._world.scoring
        return self._paces[worker].busy(now, seconds)

    def test(self, worker: str, now: int, action: Train, samples: int) -> int:
        """As the probe's, in the round's own jitter."""
        return self._paces[worker].more(
            now, samples * self._each(action.batch) / self._world.scoring
        )

    def score(self, worker: str, now: int, samples: int) -> int:
        """As the probe's, in a jitter of its own; by the job's batch."""
        data = self._driver.watch.state.data
        assert data is not None
        each = self._each(data.batch)
        return self._paces[worker].busy(now, samples * each / self._world.scoring)

    def _each(self, batch: int) -> float:
        """Seconds in which a device of speed 1 trains a sample, in such batches."""
        sample, step = self._takes
        return sample + step / batch

    def _probed(self, worker: str, action: Train) -> int:
        """Samples that the gate's probe holds."""
        if not action.probe:
            return 0
        state = self._driver.watch.state
        own = state.members[worker].own
        if action.probe == "fixed" and own is not None and state.data is not None:
            return cut(own.samples, state.data.shares).probe
        if action.probe == "fixed":
            return self._samples("probe")
        return round(action.segments[0].size * HELD_OUT / (1 - HELD_OUT))

    def action(self, action: Action) -> int:
        """Merges, and the losses that a strategy needs; all else is off the clock."""
        master = self._world.master
        if isinstance(action, Merge):
            return round(master.merge_ms * SECOND / 1000)
        if not isinstance(action, Score):
            return 0
        # Of a version its own loss is taken once, with the first update that is held against it.
        models = 1 if action.version.version == self._scored else 2
        self._scored = action.version.version
        samples = master.samples or self._samples("validation")
        return round(models * samples * SECOND / master.samples_per_second)

    def _samples(self, split: str) -> int:
        data = self._driver.watch.state.data
        return data.samples[split] if data is not None else 0

    # --- bytes ----------------------------------------------------------------------------------

    def _count(self, process: str, place: int, size: int) -> None:
        self._moved[process][place] += size

    def _recorded(self, data: bytes, record: LedgerRecord) -> None:
        """What the master sent, as the ledger names it."""
        self._count(MASTER, CONTROL + SENT, len(data))
        for entry in record.entries:
            if not isinstance(entry, MOVES):
                continue
            if isinstance(entry, VersionPublished | StateSaved):
                self._count(MASTER, MODEL + SENT, framed(entry.payload))
            elif isinstance(entry, DataPublished):
                self._job = framed(entry.source) + framed(entry.manifest)
                self._count(MASTER, DATA + SENT, self._job)
                self._count(MASTER, DATA + RECEIVED, self._job)
            elif isinstance(entry, WorkerAdmitted) and entry.hello:
                self._count(entry.worker, DATA + RECEIVED, self._job)
                self._read_split("probe", entry.worker)
            elif isinstance(entry, VersionEvaluated):
                self._read_split("validation", MASTER)
            elif isinstance(entry, RunScored):
                self._scored_last()

    def _scored_last(self) -> None:
        """What the master reads at the end: the held-out sets; the last version, to score it and
        to save it."""
        newest = self._driver.watch.state.newest
        assert newest is not None
        self._read_split("validation", MASTER)
        self._read_split("test", MASTER)
        self._count(MASTER, MODEL + RECEIVED, 2 * framed(newest.payload))

    def _read_split(self, split: str, process: str) -> None:
        """A held-out set is read once, and lies on that machine's disk from then on."""
        if (split, process) not in self._has:
            self._has.add((split, process))
            self._count(process, DATA + RECEIVED, self._splits.get(split, 0))

    def sent_data(self, splits: Mapping[str, int]) -> None:
        """The master has sent the blocks of the data: bytes by split."""
        self._splits = dict(splits)
        self._count(MASTER, DATA + SENT, sum(splits.values()))

    def flat(self) -> dict[str, tuple[int, ...]]:
        """Bytes by process, as heartbeats carry them: (sent, received) by kind. None, where all
        that trains stands beside the master."""
        travels = any(device.link != BESIDE for device in self._world.devices)
        return {
            process: tuple(moved) if travels else (0,) * len(moved)
            for process, moved in sorted(self._moved.items())
        }


def framed(payload: Payload) -> int:
    """Bytes of a payload's records: the chunks and their headers."""
    return framed_bytes(payload.length, payload.chunks)


def framed_bytes(length: int, chunks: int = 0) -> int:
    """So many bytes in so many chunks (0: as many as it takes)."""
    header = tensors.Chunk("0" * 32, 0, 1, 1).headers()
    chunks = chunks or max(1, -(-length // tensors.CHUNK))
    return length + chunks * size_of(b"", header)


def _bits(megabits: float) -> int:
    return max(1, round(megabits * 1e6))
