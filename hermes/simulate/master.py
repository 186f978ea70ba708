"""How does a simulated master live? The decider over the memory log, its inputs by virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from hermes.codec import decode
from hermes.errors import BrokerRefused, Defect, Fenced
from hermes.machine.events import (
    Action,
    AddGeneration,
    BrokerBack,
    ChunkSeen,
    EnvelopeReceived,
    Evaluate,
    Event,
    Finish,
    FollowLobby,
    FollowWorker,
    GenerationAdded,
    HelloReceived,
    Merge,
    Opened,
    ReadToEnd,
    RestoreState,
    SaveState,
    SecureVersions,
    SetAside,
    StopReceived,
    StoreFirst,
    TailMissing,
    Ticked,
    TopicRead,
    Trim,
    UploadData,
)
from hermes.machine.state import MasterState
from hermes.messages import Envelope, Hello, Moved, RunReopened, StopRequested
from hermes.perform.decider import Decider
from hermes.perform.ledger import Ledger
from hermes.simulate.faults import AppendFault, Killed, records_of
from hermes.simulate.watch import Twin
from hermes.transport import names, tensors
from hermes.transport.log import Record
from hermes.values import SECOND, Position, Reason

if TYPE_CHECKING:
    from hermes.simulate.driver import Driver

T = TypeVar("T")

STORES = (UploadData, StoreFirst, Merge, SaveState)
"""Actions that leave tensors, or the data, in the log."""

ENDS = (Killed, BrokerRefused)
"""What a process does not outlive."""


class SimulatedMaster:
    """One incarnation of the master."""

    def __init__(self, driver: Driver, nonce: str) -> None:
        self.driver, self.nonce = driver, nonce
        self.dead = False
        self.finished = False
        self.away_until = 0
        self.change: RunReopened | None = None
        """By what settings the run goes on, where it is opened again."""
        twin = Twin(driver.watch, driver.read_ledger)
        self.ledger = Ledger(driver.log, driver.topic, rules=driver.rules, watcher=twin)
        self.decider = Decider(self.ledger, driver.rules)
        self.hands = driver.setup.hands(driver.log)
        self._cursor: dict[str, tuple[int, int]] = {}
        """By topic: generation and offset of what is read next."""
        self._floors: dict[str, tuple[int, int]] = {}
        """What was let go of: reading begins here at the earliest."""
        self._wake: int | None = None

    @property
    def state(self) -> MasterState:
        """The fold of the ledger, as far as this master has it."""
        return self.ledger.state

    def start(self) -> None:
        """Claim the run and go on from where the ledger stands."""
        try:
            self.ledger.start(self.nonce, self.driver.queue.now)
        except ENDS as error:
            self._end(error)
            return
        # A race for the run may have been lost and won again meanwhile.
        self.driver.master = self
        self.driver.watch.awake(self.nonce, self.driver.queue.now)
        self.decider = Decider(self.ledger, self.driver.rules)
        self.driver.tell_workers()
        self._wait_for_disk()
        if self.change is not None and self.state.stopped is None:
            self.change = None  # somebody was quicker
        trims = self.driver.setup.trims
        self.deliver(Opened(self.driver.setup.run, self.change, trims=trims))

    def deliver(self, event: Event) -> None:
        """One event: decide, commit, perform."""
        if self.dead or self._is_away(self.deliver, event):
            return
        log = self.driver.log
        try:
            log.strike(AppendFault.KILLED_TAKEN, log.count)
            self.decider.handle(self.driver.queue.now, event)
            decided = self.decider.view
            record, actions = self.decider.commit()
            for note in self.decider.notes:
                self.driver.noted(note)
            self.decider.notes.clear()
            if record is not None:
                log.strike(AppendFault.KILLED_APPLIED, log.count - 1)
        except (*ENDS, Fenced) as error:
            self._end(error)
            return
        if record is not None and self.state != replace(decided, authority=self.state.authority):
            raise Defect("the applied state is not the one that was decided")
        self.driver.tell_workers()
        if record is not None:
            self._wait_for_disk()
        self._go_on(actions)

    def _go_on(self, actions: tuple[Action, ...]) -> None:
        """Perform what was decided, once it is acknowledged."""
        if self.dead or self._is_away(self._go_on, actions):
            return
        record = self.driver.log.count - 1
        try:
            for index, action in enumerate(actions):
                if index:
                    self.driver.log.strike(AppendFault.KILLED_PERFORMING, record)
                self._perform(action)
        except ENDS as error:
            self._end(error)
            return
        self._set_alarm()

    def _end(self, why: Exception) -> None:
        """The process is gone; another one starts, unless one has taken over already. Where the
        broker has no room it starts when there is."""
        self.dead = True
        if isinstance(why, Fenced):
            self.driver.fired["fenced"] += 1
        elif isinstance(why, BrokerRefused):
            self.driver.begin_later(self)
        elif self.driver.master is self:
            self.driver.restart_master()

    def broker_back(self) -> None:
        """The broker was gone for a moment; what it lost is seen in what is read on."""
        self.deliver(BrokerBack())
        for short in sorted(self._cursor):
            self._read(short)

    # --- being away -----------------------------------------------------------------------------

    def be_away(self, lasts: int) -> None:
        """Asleep, or waiting for a disk: nothing is seen, decided or performed meanwhile."""
        self.away_until = max(self.away_until, self.driver.queue.now + lasts)
        if lasts > self.state.settings.workers.lost * SECOND / 2:  # else it was hardly away
            self.driver.watch.awake(self.nonce, self.away_until)

    def _wait_for_disk(self) -> None:
        left = self.driver.slow_until - self.driver.queue.now
        if left > 0:
            self.be_away(left)

    def _is_away(self, what: Callable[[T], None], which: T) -> bool:
        """Whether that has to wait; then it comes later."""
        if self.driver.queue.now >= self.away_until:
            return False
        self.driver.queue.at(self.away_until, lambda: what(which))
        return True

    def _set_alarm(self) -> None:
        wake = self.decider.wake
        if wake is not None and (self._wake is None or wake < self._wake):
            self._wake = wake
            self.driver.queue.at(wake, self._ring)

    def _ring(self) -> None:
        self._wake = None
        wake = self.decider.wake
        if wake is not None and wake <= self.driver.queue.now:
            self.deliver(Ticked())
        else:  # what was due has been put off since
            self._set_alarm()

    # --- actions --------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        if self.dead:
            return
        if isinstance(action, SetAside):
            return  # evidence is for people
        if isinstance(action, Finish):
            self.finished = self.driver.ended = True
        elif isinstance(action, FollowLobby):
            self._follow(names.LOBBY, action.after)
        elif isinstance(action, FollowWorker):
            self._follow(names.from_worker(action.worker), action.after)
        elif isinstance(action, ReadToEnd):
            self._read(names.from_worker(action.worker))
            self.deliver(TopicRead(action.worker))
        elif isinstance(action, (SecureVersions, RestoreState)):
            # A restart takes no virtual time.
            self.deliver(self.hands.perform(action, self.driver.queue.now))
        elif isinstance(action, AddGeneration):
            self.driver.log.create([self._physical(action.topic, action.generation)])
            self.deliver(GenerationAdded(action.topic, action.generation))
        elif isinstance(action, Trim):
            self._trim(action)
        else:
            self._ask(action)

    def _ask(self, action: Action) -> None:
        """What comes of an action comes after its cost, whoever is master then: one who asks again
        does the work again, and is told when the first one would have been."""
        driver, now = self.driver, self.driver.queue.now
        if isinstance(action, Evaluate) and driver.charges.grid and self.state.asked is None:
            driver.queue.at(-(-now // driver.charges.grid) * driver.charges.grid, self._on_grid)
            return
        key = (type(action).__name__, msgspec.msgpack.encode(action))
        if key not in driver.memory:
            driver.memory[key] = (now, now + driver.charges.action(action) + self._disk(action))
        asked, due = driver.memory[key]
        outcome = self.hands.perform(action, asked)
        if isinstance(action, STORES):
            driver.log.strike(AppendFault.KILLED_STORED, driver.log.count)
        driver.queue.at(due, lambda: self.deliver(outcome))

    def _on_grid(self) -> None:
        """At a point of the evaluation grid the version that is then the newest is scored, in no
        virtual time."""
        newest = self.state.newest
        if not self.dead and newest is not None:
            self.deliver(self.hands.perform(Evaluate(newest), self.driver.queue.now))

    def _disk(self, action: Action) -> int:
        """How much longer a slow disk takes. Meanwhile the master does nothing else; or it goes
        on, as it always does beside an evaluation."""
        driver = self.driver
        faults, which = driver.faults, driver.asked
        driver.asked += 1
        slow, late = faults.slow.get(which, 0), faults.late.get(which, 0)
        if slow:
            driver.fired["slow-master"] += 1
        if late:
            driver.fired["late"] += 1
        if slow and not isinstance(action, Evaluate):
            self.be_away(slow)
        return slow + late

    # --- inputs ---------------------------------------------------------------------------------

    def _physical(self, short: str, generation: int) -> str:
        return names.physical(self.driver.setup.run.run, short, generation)

    def _trim(self, action: Trim) -> None:
        log = self.driver.log
        log.delete(self._physical(action.topic, older) for older in range(action.generation))
        self._floors[action.topic] = (action.generation, action.before)
        log.trim(self._physical(action.topic, action.generation), action.before)

    def _follow(self, short: str, after: Position | None) -> None:
        """Read on from a place: what lies there already is read at once."""
        place = (after.generation, after.offset + 1) if after else (0, 0)
        self._cursor[short] = max(place, self._floors.get(short, (0, 0)))
        self.driver.queue.at(self.driver.queue.now, lambda: self._read(short))

    def look(self, short: str) -> None:
        """Something may be new in this topic."""
        self._read(short)

    def _read(self, short: str) -> None:
        if self.dead or short not in self._cursor or self._is_away(self._read, short):
            return
        generation, place = self._cursor[short]
        topic = self._physical(short, generation)
        if place > self.driver.log.end_of(topic):
            self._cursor[short] = (generation, 0)
            self.deliver(TailMissing(short, Reason("end", {"read_to": place})))
        chunks = False
        for record in records_of(self.driver.log, topic, self._cursor[short][1]):
            if (generation, record.offset) >= self._cursor[short]:
                self._cursor[short] = (generation, record.offset + 1)
                repeated, chunks = chunks, tensors.is_chunk(record)
                if not (repeated and chunks):  # of chunks in a row one is told
                    self._receive(short, generation, record)
                if self.dead or self._is_away(self._read, short):
                    return
        if self._cursor[short][0] != generation:
            self._read(short)

    def _receive(self, short: str, generation: int, record: Record) -> None:
        worker = names.worker_of(short)
        position = Position(short, generation, record.offset)
        if tensors.is_chunk(record):
            if worker is not None:
                self.deliver(ChunkSeen(worker))
            return
        message = decode(record.value)
        if isinstance(message, Envelope) and worker is not None:
            self.deliver(EnvelopeReceived(worker, position, message))
            known = self.state.generations.get(short, 0)
            if isinstance(message.body, Moved) and generation < message.body.generation <= known:
                self._cursor[short] = (message.body.generation, 0)
        elif isinstance(message, Hello):
            self.deliver(HelloReceived(position, message))
        elif isinstance(message, StopRequested):
            self.deliver(StopReceived(position, message))
