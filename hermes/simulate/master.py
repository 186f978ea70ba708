"""How does a simulated master live? The decider over the memory log, its inputs by virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from hermes.codec import decode
from hermes.errors import Defect, Fenced
from hermes.machine.events import (
    Action,
    ChunkSeen,
    EnvelopeReceived,
    Evaluate,
    Event,
    Finish,
    FollowLobby,
    FollowWorker,
    HelloReceived,
    Merge,
    Opened,
    ReadToEnd,
    StopReceived,
    Ticked,
    TopicRead,
)
from hermes.machine.state import MasterState
from hermes.messages import Envelope, Hello, StopRequested
from hermes.perform.decider import Decider
from hermes.perform.ledger import Ledger
from hermes.simulate.faults import Killed, records_of
from hermes.transport import names, tensors
from hermes.transport.log import Record
from hermes.values import Position

if TYPE_CHECKING:
    from hermes.simulate.driver import Driver


class SimulatedMaster:
    """One incarnation of the master."""

    def __init__(self, driver: Driver, nonce: str) -> None:
        self.driver, self.nonce = driver, nonce
        self.dead = False
        self.finished = False
        self.ledger = Ledger(driver.log, driver.topic, rules=driver.rules)
        self.decider = Decider(self.ledger, driver.rules)
        self._cursor: dict[str, int] = {}
        self._topics: dict[str, str] = {}
        self._wake: int | None = None

    @property
    def state(self) -> MasterState:
        """The fold of the ledger, as far as this master has it."""
        return self.ledger.state

    def start(self) -> None:
        """Claim the run and go on from where the ledger stands."""
        try:
            self.ledger.start(self.nonce, self.driver.queue.now)
        except Killed:
            self.driver.restart_master()
            return
        self.decider = Decider(self.ledger, self.driver.rules)
        self.driver.tell_workers()
        self.deliver(Opened(self.driver.setup.run))

    def deliver(self, event: Event) -> None:
        """One event: decide, commit, perform."""
        if self.dead:
            return
        try:
            self.decider.handle(self.driver.queue.now, event)
            decided = self.decider.view
            record, actions = self.decider.commit()
        except Killed:
            self.driver.restart_master()
            return
        except Fenced:
            self.dead = True
            self.driver.fired["fenced"] += 1
            return
        if record is not None and self.state != replace(decided, authority=self.state.authority):
            raise Defect("the applied state is not the one that was decided")
        self.driver.tell_workers()
        for action in actions:
            self._perform(action)
        self._set_alarm()

    def _once_awake(self, what: Callable[[], None]) -> None:
        """A machine that sleeps sees nothing until it wakes."""
        now = self.driver.queue.now
        for at, lasts in self.driver.faults.sleeps:
            if at <= now < at + lasts:
                self.driver.fired["sleep"] += 1
                self.driver.queue.at(at + lasts, what)
                return
        what()

    def _set_alarm(self) -> None:
        wake = self.decider.wake
        if wake is not None and (self._wake is None or wake < self._wake):
            self._wake = wake
            self.driver.queue.at(wake, self._ring)

    def _ring(self) -> None:
        self._wake = None
        wake = self.decider.wake
        if wake is not None and wake <= self.driver.queue.now:
            self._once_awake(lambda: self.deliver(Ticked()))
        else:  # what was due has been put off since
            self._set_alarm()

    # --- actions --------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        if self.dead:
            return
        if isinstance(action, Finish):
            self.finished = True
        elif isinstance(action, FollowLobby):
            self._follow(names.LOBBY, action.after)
        elif isinstance(action, FollowWorker):
            self._follow(names.from_worker(action.worker), action.after)
        elif isinstance(action, ReadToEnd):
            self._read(names.from_worker(action.worker))
            self.deliver(TopicRead(action.worker))
        else:
            self._ask(action)

    def _ask(self, action: Action) -> None:
        """What comes of an action comes after its cost, whoever is master then."""
        driver = self.driver
        key = (type(action).__name__, msgspec.msgpack.encode(action))
        if key not in driver.memory:
            outcome = driver.hands.perform(action, driver.queue.now)
            driver.memory[key] = (driver.queue.now + self._cost(action), outcome)
        due, outcome = driver.memory[key]

        def arrive() -> None:
            self.deliver(outcome)

        driver.queue.at(due, lambda: self._once_awake(arrive))

    def _cost(self, action: Action) -> int:
        costs = self.driver.costs
        if isinstance(action, Evaluate):
            return costs.evaluate
        return costs.merge if isinstance(action, Merge) else costs.evaluate // 2

    # --- inputs ---------------------------------------------------------------------------------

    def _follow(self, short: str, after: Position | None) -> None:
        """Read on from a place: what lies there already is read at once."""
        self._cursor[short] = after.offset + 1 if after else 0
        self._topics[short] = names.physical(self.driver.setup.run.run, short)
        self.driver.queue.at(self.driver.queue.now, lambda: self._read(short))

    def look(self, short: str) -> None:
        """Something may be new in this topic."""
        if short in self._cursor:
            self._once_awake(lambda: self._read(short))

    def _read(self, short: str) -> None:
        if self.dead or short not in self._cursor:
            return
        for record in records_of(self.driver.log, self._topics[short], self._cursor[short]):
            if record.offset >= self._cursor[short]:
                self._cursor[short] = record.offset + 1
                self._receive(short, record)

    def _receive(self, short: str, record: Record) -> None:
        worker = names.worker_of(short)
        position = Position(short, 0, record.offset)
        if tensors.is_chunk(record):
            if worker is not None:
                self.deliver(ChunkSeen(worker))
            return
        message = decode(record.value)
        if isinstance(message, Hello):
            self.deliver(HelloReceived(position, message))
        elif isinstance(message, StopRequested):
            self.deliver(StopReceived(position, message))
        elif isinstance(message, Envelope) and worker is not None:
            self.deliver(EnvelopeReceived(worker, position, message))
