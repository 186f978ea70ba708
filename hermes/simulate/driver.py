"""How does a run go under virtual time? Deterministic mode (protocol 12).

One process, one event queue, the machines over the memory log. A step, a byte and an evaluation
cost what `Costs` says. A ledger record is seen after the latency; the death and the restart of a
master take no virtual time, and what it had asked for comes when it would have come anyway.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from hermes.codec import decode
from hermes.errors import Defect
from hermes.machine import ledger as authority
from hermes.machine.events import Action, Event, LedgerSeen, Train
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.messages import BlocksGranted, LedgerRecord, RunOpened, VersionPublished
from hermes.perform.bench import Trained
from hermes.simulate.faults import Faults, FaultyLog, WorkerFault, records_of
from hermes.simulate.master import SimulatedMaster
from hermes.simulate.queue import Queue
from hermes.simulate.worker import SimulatedWorker
from hermes.transport import names
from hermes.transport.log import Record
from hermes.values import SECOND, Base, Payload

MILLI = SECOND // 1000


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


class Hands(Protocol):
    """Performs the master's actions; returns their outcome."""

    def perform(self, action: Action, now: int) -> Event: ...


class Bench(Protocol):
    """Performs the worker's actions."""

    def fetch(self, grant: BlocksGranted) -> int:
        """Bring the blocks; returns their bytes."""
        ...

    def load(self, version: VersionPublished) -> Base: ...

    def train(self, action: Train) -> Trained: ...

    def store(self) -> Payload:
        """Send the local model."""
        ...


class Setup(NamedTuple):
    """Who takes part, and who performs."""

    run: RunOpened
    hands: Callable[[FaultyLog], Hands]
    bench: Callable[[FaultyLog, str], Bench]
    speeds: Mapping[str, float]
    """Workers present from the start, with their speeds."""
    joins: Mapping[str, int] = MappingProxyType({})
    """Run time (ns) at which a worker of `speeds` comes, if not at the start."""


class Driver:
    """One simulated run."""

    def __init__(
        self,
        setup: Setup,
        *,
        costs: Costs | None = None,
        faults: Faults | None = None,
        rules: Rules = PROTOCOL_RULES,
    ) -> None:
        self.setup, self.rules = setup, rules
        self.costs, self.faults = costs or Costs(), faults or Faults()
        self.queue = Queue()
        self.fired: Counter[str] = Counter()
        self.topic = names.physical(setup.run.run, names.LEDGER)
        self.lobby = names.physical(setup.run.run, names.LOBBY)
        self.log = FaultyLog(self.topic, self.faults.appends, self.fired)
        self.log.create(names.physical(setup.run.run, short) for short in names.RUN_TOPICS)
        self.hands = setup.hands(self.log)
        self.workers: dict[str, SimulatedWorker] = {}
        self.memory: dict[tuple[str, bytes], tuple[int, Event]] = {}
        """What a master asked for, when it is due, and what comes of it: a restart changes none."""
        self.masters = 0
        self.alive: list[SimulatedMaster] = []
        self.sent = 0
        self.arrivals: list[tuple[int, str, str]] = []
        """(time, worker, incarnation) of each small message that reached the broker."""
        self.clones: list[SimulatedWorker] = []
        """Processes that took a name that was in use."""
        self._sights: list[LedgerSeen] = []
        self.master = self._new_master()
        self._plan()

    # --- running --------------------------------------------------------------------------------

    def run(self, until: int = 10**18, steps: int = 10**9) -> SimulatedMaster:
        """Until the run is finished, virtual time `until`, or so many events; the last master."""
        self.master.start()
        for _ in range(steps):
            if self.master.finished or self.queue.now > until or not self.queue.step():
                break
        return self.master

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
        for at in self.faults.zombies:
            self.queue.at(at, self._take_over)

    def _take_over(self) -> None:
        """A second master starts while the first lives on, and both decide."""
        if self.master.finished:
            return
        self.fired["zombie"] += 1
        self.master = self._new_master()
        self.master.start()

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

    def tell_workers(self) -> None:
        """Ledger records that are new go out to every worker."""
        for record in records_of(self.log, self.topic, len(self._sights)):
            seen = sight(record)
            self._sights.append(seen)
            for name in sorted(self.workers):
                self.workers[name].will_see(seen)
            for clone in self.clones:
                clone.will_see(seen)

    def look(self, short: str) -> None:
        """Every master alive sees that something is new in this topic."""
        for master in list(self.alive):
            master.look(short)

    def ledger_end(self) -> int:
        """Offset of the next ledger record."""
        return self.log.ends([self.topic])[self.topic]

    def valid_records(self) -> list[LedgerRecord]:
        """All ledger records that count, in order."""
        self.tell_workers()
        return _valid(self._sights, self.rules)


def sight(raw: Record) -> LedgerSeen:
    """A ledger record as a worker sees it."""
    record = decode(raw.value)
    if not isinstance(record, LedgerRecord):
        raise Defect("not a ledger record", where=raw.topic)
    return LedgerSeen(record, raw.offset, hashlib.sha256(raw.value).digest())


def valid_records(log: FaultyLog, topic: str, rules: Rules = PROTOCOL_RULES) -> list[LedgerRecord]:
    """The records of a ledger that count, judged as any reader judges them."""
    return _valid([sight(raw) for raw in records_of(log, topic)], rules)


def _valid(sights: Iterable[LedgerSeen], rules: Rules) -> list[LedgerRecord]:
    place = authority.Authority()
    found: list[LedgerRecord] = []
    for seen in sights:
        if not rules.void(place, seen.record):
            place = authority.advance(place, seen.record, seen.offset, seen.digest)
            found.append(seen.record)
    return found
