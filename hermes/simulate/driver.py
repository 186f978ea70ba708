"""How does a run go under virtual time? Deterministic mode (protocol 12).

One process, one event queue, the machines over the memory log. A step, a byte and an evaluation
cost what `Costs` says. A ledger record is seen after the latency; the death and the restart of a
master take no virtual time, and what it had asked for comes when it would have come anyway.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from hermes.codec import decode, encode
from hermes.errors import Defect
from hermes.machine.events import Action, Event, LedgerSeen, LoadVersion, ScoreVersion, Train
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.messages import (
    BlocksGranted,
    LedgerRecord,
    Own,
    RunOpened,
    RunReopened,
    RunStopped,
    StopRequested,
)
from hermes.perform.bench import Trained
from hermes.perform.sums import Sums
from hermes.simulate.charges import Charges, Flat
from hermes.simulate.faults import (
    BrokerFault,
    Disturbance,
    Faults,
    FaultyLog,
    MasterFault,
    WorkerFault,
    records_of,
)
from hermes.simulate.master import SimulatedMaster
from hermes.simulate.queue import Queue
from hermes.simulate.watch import Genuine, Watch
from hermes.simulate.worker import SimulatedWorker
from hermes.transport import names
from hermes.transport.log import Record
from hermes.values import SECOND, Base, Payload, Reason

MILLI = SECOND // 1000

OF_MASTER = (names.LEDGER, names.DATA, names.MODEL, names.STATE)
"""Topics that the master writes to."""


class Costs(NamedTuple):
    """What things take, in virtual nanoseconds."""

    step: int = 10 * MILLI
    """An optimiser step on a device of speed 1."""
    byte: int = 8
    """A byte on any link; 8 ns are 1 Gbit/s."""
    latency: int = 5 * MILLI
    """One way between any two parties."""
    evaluate: int = 20 * MILLI
    merge: int = 2 * MILLI
    beat: int = SECOND
    slow: int = 2 * SECOND
    """An append to a disk that takes its time."""
    retry: int = SECOND
    """Until what was not acknowledged is sent again."""


class Work(NamedTuple):
    """What a round comes to, however it ends."""

    steps: int
    samples: int


def work_of(action: Train) -> Work:
    """As many batches as `data.order.batches` makes of the round's segments."""
    sizes = [segment.stop - segment.start for segment in action.segments]
    cuts = [sum(sizes)] if action.joined else sizes
    return Work(sum(-(-size // action.batch) for size in cuts), sum(sizes))


class Hands(Protocol):
    """Performs one master's actions; returns their outcome. They are gone with the master."""

    def perform(self, action: Action, now: int) -> Event: ...


class Bench(Protocol):
    """Performs the worker's actions."""

    def fetch(self, grant: BlocksGranted) -> int:
        """Bring the blocks; returns their bytes."""
        ...

    def load(self, action: LoadVersion) -> Base | None:
        """Make this version the local model; None: its bytes are not there."""
        ...

    def work(self, action: Train) -> Work:
        """What this round comes to, before it is trained."""
        ...

    def train(self, action: Train, due: int) -> Callable[[], Trained]:
        """Train a round; what is returned gives the outcome, and is called at `due` (virtual ns),
        or never."""
        ...

    def score(self, action: ScoreVersion) -> Sums:
        """What a version is worth on the worker's own validation samples."""
        ...

    def pack(self) -> None:
        """The local model is about to be sent: it stays as it is until `store`."""
        ...

    def store(self) -> Payload:
        """Send the local model."""
        ...

    def move(self, generation: int) -> None:
        """What is stored from now on lies in this generation of the worker's topic."""
        ...

    def drop(self, number: int) -> None:
        """Nothing of this grant is needed any more."""
        ...


def nothing_brought(_worker: str) -> Own | None:
    """Data are granted."""
    return None


class Setup(NamedTuple):
    """Who takes part, and who performs."""

    run: RunOpened
    hands: Callable[[FaultyLog], Hands]
    bench: Callable[[FaultyLog, str], Bench]
    speeds: Mapping[str, float]
    """Workers present from the start, with their speeds."""
    joins: Mapping[str, int] = MappingProxyType({})
    """Run time (ns) at which a worker of `speeds` comes, if not at the start."""
    trims: bool = True
    """Whether the broker can forget the first records of a topic; else topics are rotated."""
    own: Callable[[str], Own | None] = nothing_brought
    """What a worker says of the data that it brings."""


class Driver:
    """One simulated run."""

    ended = False
    """Whether a master has come to the end."""
    masters = 0
    asked = 0
    """Actions that the masters asked for, each counted once."""
    sent = 0
    """Small messages that workers sent."""
    pushed = 0
    """Updates that workers pushed."""
    stored = 0
    """Updates that workers stored, whether or not a message came to name them."""
    full_until = 0
    """Until then the broker refuses what the master appends."""
    slow_until = 0
    """Until then the broker's disk is busy with what was appended to the ledger."""

    def __init__(
        self,
        setup: Setup,
        *,
        costs: Costs | None = None,
        faults: Faults | None = None,
        rules: Rules = PROTOCOL_RULES,
        genuine: Genuine | None = None,
        charges: Callable[[Driver], Charges] | None = None,
    ) -> None:
        """`charges`: what things cost, where it is not `costs` alone that says so."""
        self.setup, self.rules = setup, rules
        self.costs, self.faults = costs or Costs(), faults or Faults()
        self.queue = Queue()
        self.heard: list[Callable[[bytes, LedgerRecord], None]] = []
        """Told of each ledger record that counts, raw and read, once `watch` has read it."""
        self.noted: Callable[[str], None] = ignored
        """Told of each line for the central log."""
        self.charges = charges(self) if charges else Flat(self.costs, setup.speeds)
        self.fired: Counter[str] = Counter()
        self.topic = names.physical(setup.run.run, names.LEDGER)
        self.lobby = names.physical(setup.run.run, names.LOBBY)
        self.log = FaultyLog(self.topic, self.faults.appends, self.fired, self._before_append)
        self.log.create(names.physical(setup.run.run, short) for short in names.RUN_TOPICS)
        self.log.refuses = self._refuses
        self.workers: dict[str, SimulatedWorker] = {}
        self.memory: dict[tuple[str, bytes], tuple[int, int]] = {}
        """What a master asked for, when it did first, and when the outcome is due: a restart
        changes neither."""
        self.alive: list[SimulatedMaster] = []
        self.watch = Watch(rules, genuine)
        self.clones: list[SimulatedWorker] = []
        """Processes that took a name that was in use."""
        self._sights: list[LedgerSeen] = []
        self._sizes: list[int] = []
        """Of the records that were seen, in bytes."""
        self._told = 0
        self.master = self._new_master()
        self._plan()

    # --- running --------------------------------------------------------------------------------

    def run(self, until: int = 10**18, steps: int = 10**9) -> SimulatedMaster:
        """Until the run is finished, virtual time `until`, or so many events; the last master."""
        self.master.start()
        return self.run_on(until, steps)

    def run_on(self, until: int = 10**18, steps: int = 10**9) -> SimulatedMaster:
        """As `run`, of a run that has begun."""
        for _ in range(steps):
            if self.finished or self.queue.now > until or not self.queue.step():
                break
        return self.master

    @property
    def finished(self) -> bool:
        """Whether the master in force has come to the end of all that is to be done."""
        if not self.ended:
            return False
        nonce = self.watch.state.authority.nonce
        return any(master.finished and master.nonce == nonce for master in self.alive)

    def restart_master(self) -> None:
        """The master's process is gone; the next one starts at this moment."""
        self.master.dead = True
        self.master = self._new_master()
        self.master.start()

    def _new_master(self) -> SimulatedMaster:
        self.masters += 1
        master = SimulatedMaster(self, f"{self.masters:032x}")
        self.alive = [m for m in self.alive if not m.dead] + [master]
        return master

    def _plan(self) -> None:
        for name in sorted(self.setup.speeds):
            self.queue.at(self.setup.joins.get(name, 0), lambda n=name: self.join(n))  # type: ignore[misc]
        for fault in self.faults.workers:
            self.queue.at(fault.at, lambda f=fault: self._strike(f))  # type: ignore[misc]
        for hit in self.faults.brokers:
            self.queue.at(hit.at, lambda h=hit: self._strike_broker(h))  # type: ignore[misc]
        for blow in self.faults.masters:
            self.queue.at(blow.at, lambda b=blow: self._strike_master(b))  # type: ignore[misc]
        for at in self.faults.stops:
            self.queue.at(at, self._ask_to_stop)

    # --- masters --------------------------------------------------------------------------------

    def _strike_master(self, fault: MasterFault) -> None:
        master = self.master
        if master.dead:
            return
        self.fired[fault.kind] += 1
        if fault.kind == "zombie":
            self._take_over()
        elif fault.kind == "restart":
            master.dead = True
            self.queue.at(self.queue.now + fault.lasts, lambda: self._replace(master))
        else:
            master.be_away(fault.lasts)
            if fault.kind == "overslept":
                self.queue.at(self.queue.now + fault.lasts // 2, self._take_over)

    def _strike_broker(self, fault: BrokerFault) -> None:
        if fault.kind == "full":
            self.full_until = max(self.full_until, self.queue.now + fault.lasts)
            return
        topic = names.physical(self.setup.run.run, fault.topic, self._generation(fault.topic))
        if self.log.end_of(topic) and self.log.lose(topic, fault.lasts):
            self.fired[fault.kind] += 1
            worker = names.worker_of(fault.topic)
            if worker is not None:
                self.watch.lost(worker)
            for master in list(self.alive):
                master.broker_back()

    def _generation(self, short: str) -> int:
        return self.watch.state.generations.get(short, 0)

    def _refuses(self, topic: str) -> bool:
        """Whether the broker's disk has no room for this topic now."""
        if self.queue.now >= self.full_until:
            return False
        name = names.parse(topic)
        return name is not None and name.short in OF_MASTER

    def begin_later(self, gone: SimulatedMaster) -> None:
        """This master could not go on; whoever runs it starts it again once there is room."""
        self.queue.at(self.full_until, lambda: self._replace(gone))

    def go_on(self, change: RunReopened) -> None:
        """A run that has come to its end goes on with these settings: a master and the workers
        are started again."""
        self.fired["reopened"] += 1
        for master in self.alive:
            master.dead = True
        self.master = self._new_master()
        self.master.change = change
        self.master.start()
        for name in sorted(self.workers):
            if not self.workers[name].alive:
                self.join(name)

    def _take_over(self) -> None:
        """A second master starts while the first lives on, and both decide."""
        self.master = self._new_master()
        self.master.start()

    def _replace(self, gone: SimulatedMaster) -> None:
        if self.master is gone:
            self.restart_master()

    def _before_append(self, what: Disturbance, data: bytes) -> None:
        """What somebody else does just before a record is written."""
        if what is Disturbance.RACED:
            self._take_over()
        elif what is Disturbance.SLOW:
            self.slow_until = self.queue.now + self.costs.slow
        else:
            self.log.intrude(self.topic, encode(forged(data)))

    def _ask_to_stop(self) -> None:
        self.fired["stop"] += 1
        request = StopRequested(self.setup.run.run, f"stop-{self.fired['stop']}", "scripted")
        self.log.append(self.lobby, encode(request))
        self.look(names.LOBBY)

    # --- workers --------------------------------------------------------------------------------

    def join(self, name: str) -> None:
        """This worker's process starts, with the outbox that its last one left."""
        old = self.workers.get(name)
        if old is not None and old.alive:
            return
        incarnation = f"{name}-{(old.life if old else 0) + 1}"
        self.workers[name] = SimulatedWorker(self, name, incarnation, old)
        self.workers[name].start()

    def _strike(self, fault: WorkerFault) -> None:
        worker = self.workers.get(fault.worker)
        if worker is None or not worker.alive:
            return
        self.fired[fault.kind] += 1
        back = self.queue.now + fault.lasts
        if fault.kind == "cut":
            worker.cut_until = back
            self.charges.cut(fault.worker, fault.lasts)
            return
        if fault.kind == "slow-worker":
            worker.disk_until = back
            return
        if fault.kind == "hang":
            worker.hangs_until = back
            return
        if fault.kind == "clone":
            incarnation = f"{fault.worker}-clone-{len(self.clones) + 1}"
            self.clones.append(SimulatedWorker(self, fault.worker, incarnation, None))
            self.clones[-1].start()
            return
        if fault.kind == "kill":
            worker.alive = False
        else:
            worker.interrupt()
        self.queue.at(back, lambda: self.join(fault.worker))

    # --- the log --------------------------------------------------------------------------------

    def read_ledger(self) -> None:
        """The watch reads on; what it reads is to be told."""
        if self.log.end_of(self.topic) <= len(self._sights):
            return
        for record in records_of(self.log, self.topic, len(self._sights)):
            seen = sight(record)
            self._sights.append(seen)
            self._sizes.append(len(record.value))
            counted = len(self.watch.records)
            self.watch.read(seen)
            if len(self.watch.records) > counted:
                for hear in self.heard:
                    hear(record.value, seen.record)
        self.log.generations.update(self.watch.state.generations)

    def tell_workers(self) -> None:
        """Ledger records that are new go out to every worker."""
        self.read_ledger()
        fresh = range(self._told, len(self._sights))
        if not fresh:
            return
        self._told = len(self._sights)
        workers = [self.workers[name] for name in sorted(self.workers)]
        for index in fresh:
            seen, size = self._sights[index], self._sizes[index]
            for worker in workers:
                worker.will_see(seen, size)
            for clone in self.clones:
                clone.will_see(seen, size)

    def look(self, short: str) -> None:
        """Every master alive sees that something is new in this topic."""
        for master in list(self.alive):
            master.look(short)

    def ledger_end(self) -> int:
        """Offset of the next ledger record."""
        return self.log.ends([self.topic])[self.topic]

    def valid_records(self) -> list[LedgerRecord]:
        """All ledger records that count, in order."""
        self.read_ledger()
        return self.watch.records


def ignored(_note: str) -> None:
    """Nobody keeps it."""


def forged(data: bytes) -> LedgerRecord:
    """A record that claims what this one claims, and ends the run; it knows no chain."""
    record = decode(data)
    assert isinstance(record, LedgerRecord)
    end = RunStopped("failed", Reason("forged"))
    head = (record.term, record.nonce, record.n, b"forged", record.time)
    return LedgerRecord(*head, (), (end,))


def sight(raw: Record) -> LedgerSeen:
    """A ledger record as a worker sees it."""
    record = decode(raw.value)
    if not isinstance(record, LedgerRecord):
        raise Defect("not a ledger record", where=raw.topic)
    return LedgerSeen(record, raw.offset, hashlib.sha256(raw.value).digest())
