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
from hermes.simulate.watch import Twin
from hermes.transport import names, tensors
from hermes.transport.log import Record
from hermes.values import SECOND, Position

if TYPE_CHECKING:
    from hermes.simulate.driver import Driver


class SimulatedMaster:
    """One incarnation of the master."""

    def __init__(self, driver: Driver, nonce: str) -> None:
        self.driver, self.nonce = driver, nonce
        self.dead = False
        self.finished = False
        self.away_until = 0
        twin = Twin(driver.watch, driver.read_ledger)
        self.ledger = Ledger(driver.log, driver.topic, rules=driver.rules, watcher=twin)
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
        # A race for the run may have been lost and won again meanwhile.
        self.driver.master = self
        self.driver.watch.awake(self.nonce, self.driver.queue.now)
        self.decider = Decider(self.ledger, self.driver.rules)
        self.driver.tell_workers()
        self._wait_for_disk()
        self.deliver(Opened(self.driver.setup.run))

    def deliver(self, event: Event) -> None:
        """One event: decide, commit, perform."""
        if self.dead or self._is_away(lambda: self.deliver(event)):
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
        if record is not None:
            self._wait_for_disk()
        self._go_on(actions)

    def _go_on(self, actions: tuple[Action, ...]) -> None:
        """Perform what was decided, once it is acknowledged."""
        if self.dead or self._is_away(lambda: self._go_on(actions)):
            return
        for action in actions:
            self._perform(action)
        self._set_alarm()

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

    def _is_away(self, what: Callable[[], None]) -> bool:
        """Whether that has to wait; then it comes later."""
        if self.driver.queue.now >= self.away_until:
            return False
        self.driver.queue.at(self.away_until, what)
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
            cost = self._cost(action) + self._disk(action)
            driver.memory[key] = (driver.queue.now + cost, outcome)
        due, outcome = driver.memory[key]
        driver.queue.at(due, lambda: self.deliver(outcome))

    def _cost(self, action: Action) -> int:
        costs = self.driver.costs
        if isinstance(action, Evaluate):
            return costs.evaluate
        return costs.merge if isinstance(action, Merge) else costs.evaluate // 2

    def _disk(self, action: Action) -> int:
        """How much longer a slow disk takes. Meanwhile the master does nothing else; or it goes
        on, as it always does beside an evaluation."""
        driver = self.driver
        faults, which = driver.faults, driver.asked
        driver.asked += 1
        slow, late = faults.slow.get(which, 0), faults.late.get(which, 0)
        driver.fired.update(["slow-master"] * bool(slow) + ["late"] * bool(late))
        if slow and not isinstance(action, Evaluate):
            self.be_away(slow)
        return slow + late

    # --- inputs ---------------------------------------------------------------------------------

    def _follow(self, short: str, after: Position | None) -> None:
        """Read on from a place: what lies there already is read at once."""
        self._cursor[short] = after.offset + 1 if after else 0
        self._topics[short] = names.physical(self.driver.setup.run.run, short)
        self.driver.queue.at(self.driver.queue.now, lambda: self._read(short))

    def look(self, short: str) -> None:
        """Something may be new in this topic."""
        self._read(short)

    def _read(self, short: str) -> None:
        if self.dead or short not in self._cursor or self._is_away(lambda: self._read(short)):
            return
        for record in records_of(self.driver.log, self._topics[short], self._cursor[short]):
            if record.offset >= self._cursor[short]:
                self._cursor[short] = record.offset + 1
                self._receive(short, record)
                if self.dead or self._is_away(lambda: self._read(short)):
                    return

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
