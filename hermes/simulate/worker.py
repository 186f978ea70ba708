"""How does a simulated worker live? Its machine, an outbox that outlives it, and virtual time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from hermes.codec import encode
from hermes.errors import NoSuchTopic
from hermes.machine import worker as machine
from hermes.machine.events import (
    BeatDue,
    Began,
    BlocksFetched,
    DropGrant,
    Event,
    FetchBlocks,
    Forget,
    ForgetUpdate,
    Interrupted,
    KnockDue,
    Leave,
    LedgerSeen,
    LoadVersion,
    MoveLogs,
    MoveTopic,
    ScoreVersion,
    Send,
    SendAgain,
    SendBeat,
    SendHello,
    SendResent,
    StoreUpdate,
    Train,
    UpdateStored,
    VersionLoaded,
    VersionMissing,
    VersionScored,
)
from hermes.machine.missing import steps_in
from hermes.machine.worker import WorkerState
from hermes.messages import (
    SIMULATED,
    Envelope,
    Heartbeat,
    Hello,
    Moved,
    Resent,
    Round,
    Scored,
    Update,
    WorkerBody,
)
from hermes.perform.bench import Trained
from hermes.transport import names
from hermes.values import Base, Payload

if TYPE_CHECKING:
    from hermes.simulate.driver import Driver

KNOCK_AGAIN = 5
"""Heartbeats between two hellos."""


class SimulatedWorker:
    """One incarnation of a worker."""

    def __init__(
        self, driver: Driver, name: str, incarnation: str, old: SimulatedWorker | None
    ) -> None:
        self.driver, self.name, self.incarnation = driver, name, incarnation
        self.life: int = old.life + 1 if old else 1
        self.alive = True
        self.cut_until = 0
        self.disk_until = 0
        self.hangs_until = 0
        self.left = ""
        """Why it left, once it has."""
        self.state = WorkerState(name, incarnation)
        self.kept: dict[int, WorkerBody] = {}
        """The outbox: messages that the ledger has not passed yet."""
        self.updates: dict[object, Update] = dict(old.updates) if old else {}
        """The outbox: updates that are not decided."""
        self.bench = driver.setup.bench(driver.log, name)
        self._previous = old.outlives() if old else ""
        self._short = names.from_worker(name)
        self._generation = 0
        self._seen = driver.ledger_end()
        self._beats = 0
        self._steps = 0
        self._round = (0, 1, 0)
        """When the last round began, how long it takes, and its steps that are not in `_steps`."""
        self._arrives = 0
        self._sees = 0
        self._has = ""
        """Id of the version that was scored last, until one is loaded."""

    def outlives(self) -> str:
        """Whose outbox it is that stays: one that was refused never had it."""
        return self._previous if self.left == "refused" else self.incarnation

    def start(self) -> None:
        """Begin, with what the outbox remembers."""
        self.driver.log.create([self._topic(0)])
        self.deliver(Began(self._nonce(), self._previous, tuple(self.updates.values())))
        self._beat()

    def interrupt(self) -> None:
        """Somebody wants it to leave."""
        self.deliver(Interrupted("asked to leave"))

    def deliver(self, event: Event) -> None:
        """One event: decide, perform."""
        if not self.alive:
            return
        driver = self.driver
        step = machine.decide(self.state, driver.queue.now, event, driver.rules)
        self.state = step.state
        if step.changed:
            machine.check(self.state)
        for action in step.actions:
            ACTIONS[type(action)](self, action)

    def _topic(self, generation: int) -> str:
        return names.physical(self.driver.setup.run.run, self._short, generation)

    def _nonce(self) -> str:
        return f"{self.incarnation}/{self._beats}"

    def _beat(self) -> None:
        if not self.alive:
            return
        self._beats += 1
        if self.state.phase == "knocking" and self._beats % KNOCK_AGAIN == 0:
            self.deliver(KnockDue(self._nonce()))
        self.deliver(BeatDue(self._steps + self._steps_under_way()))
        self._at(self.driver.costs.beat, self._beat)

    def _at(self, delay: int, what: Callable[[], None], number: int = 0) -> None:
        self.driver.queue.at(self.driver.queue.now + delay, what, self.name, number)

    def on_disk(self, delay: int, what: Callable[[], None]) -> None:
        """As `_at`, and no sooner than the disk gives anything."""
        self._at(delay + max(0, self.disk_until - self.driver.queue.now), what)

    def _steps_under_way(self) -> int:
        """Of the round that is being trained, where that is told."""
        began, busy, steps = self._round
        if not self.driver.charges.counts_steps:
            return 0
        return steps * min(self.driver.queue.now - began, busy) // busy

    # --- the ledger -----------------------------------------------------------------------------

    def will_see(self, seen: LedgerSeen, size: int) -> None:
        """A ledger record of so many bytes is on its way; order is kept."""
        if not self.alive or seen.offset < self._seen:
            return
        self._seen, driver = seen.offset + 1, self.driver
        ready = max(driver.queue.now, self.cut_until, driver.slow_until)
        due = ready + driver.charges.sight(self.name, size)
        self._sees = max(due, self._sees)
        driver.queue.at(self._sees, partial(self.deliver, seen), self.name)

    # --- actions --------------------------------------------------------------------------------

    def _hello(self, action: SendHello) -> None:
        driver = self.driver
        run = driver.setup.run.run
        knock = Hello(run, self.name, self.incarnation, action.nonce, SIMULATED, action.previous)
        knock = replace(knock, own=driver.setup.own(self.name))
        driver.watch.knocked(self.incarnation, action.previous)
        self._transmit(driver.lobby, names.LOBBY, encode(knock), 0)

    def _send(self, action: Send) -> None:
        body = action.body
        if isinstance(body, Round) and body.update is not None:
            update = self._perhaps_a_lie(body.update)
            body = replace(body, update=update)
            self.updates[update.birth] = update
        if isinstance(body, Scored):
            body = self._perhaps_false(body)
        self._keep(action.number, body)

    def _resent(self, action: SendResent) -> None:
        update = action.update
        if update.birth.incarnation == self.incarnation:  # new, or stored once more
            update = update if self.state.again else self._perhaps_a_lie(update)
            self.updates[update.birth] = update
        self._keep(action.number, Resent(update))

    def _keep(self, number: int, body: WorkerBody) -> None:
        self.kept[number] = body
        self.driver.watch.said(self.name, self.incarnation, number, body)
        self._post(number, body)

    def _lies(self) -> int | None:
        """The number of this push or score, where it is one of those that are to be false."""
        driver = self.driver
        which = driver.pushed
        driver.pushed += 1
        if which not in driver.faults.lies:
            return None
        driver.fired["lie"] += 1
        return which

    def _perhaps_a_lie(self, update: Update) -> Update:
        which = self._lies()
        return update if which is None else lie(update, which)

    def _perhaps_false(self, scored: Scored) -> Scored:
        which = self._lies()
        return scored if which is None else false_score(scored, which)

    def _again(self, action: SendAgain) -> None:
        for number in sorted(self.kept):
            if number >= action.first:
                self._post(number, self.kept[number])

    def _send_beat(self, action: SendBeat) -> None:
        moved = self.driver.charges.traffic(self.name)
        self._post(0, Heartbeat(action.steps, action.last, moved))

    def _post(self, number: int, body: WorkerBody) -> None:
        self._post_to(self._generation, number, body)

    def _post_to(self, generation: int, number: int, body: WorkerBody) -> None:
        state = self.state
        seen = state.authority
        envelope = Envelope(self.incarnation, number, seen.offset, seen.chain, body)
        driver = self.driver
        order = driver.sent
        driver.sent += 1
        if number and order in driver.faults.dropped:
            driver.fired["dropped"] += 1
            return
        data = encode(envelope)
        topic, steps = self._topic(generation), steps_in(body)
        self._transmit(topic, self._short, data, number, steps)
        if order in driver.faults.duplicated:
            driver.fired["duplicated"] += 1
            self._transmit(topic, self._short, data, number, steps)
        if order in driver.faults.unacknowledged:
            driver.fired["unacknowledged"] += 1
            again = partial(self._transmit, topic, self._short, data, number, steps)
            self._at(driver.costs.retry, again)

    def _transmit(
        self, topic: str, short: str, data: bytes, number: int, steps: int | None = None
    ) -> None:
        """Over the link to the broker, then to the master after the topic's reading lag; `steps`
        are those that a heartbeat tells of."""
        driver = self.driver
        due = max(driver.queue.now, self.cut_until) + driver.charges.message(self.name, len(data))
        self._arrives = max(due, self._arrives)

        def arrive() -> None:
            try:
                driver.log.append(topic, data)
            except NoSuchTopic:  # a generation that is gone: what counts was sent to the next one
                return
            if short == self._short:
                driver.watch.arrived(self.name, self.incarnation, driver.queue.now, steps)
            lag = driver.faults.lags.get(short, 0)
            if lag:
                driver.fired["lag"] += 1
            driver.queue.at(driver.queue.now + lag, lambda: driver.look(short), self.name, number)

        driver.queue.at(self._arrives, arrive, self.name, number)

    def _forget(self, action: Forget) -> None:
        for number in [n for n in self.kept if self.driver.rules.may_forget(n, action.up_to)]:
            self.driver.watch.forgets(self.name, self.incarnation, number)
            del self.kept[number]

    def _forget_update(self, action: ForgetUpdate) -> None:
        self.driver.watch.forgets_update(self.name, action.birth)
        self.updates.pop(action.birth, None)

    def _fetch(self, action: FetchBlocks) -> None:
        size = self.bench.fetch(action.grant)
        fetched = BlocksFetched(action.grant.number)
        self.driver.charges.blocks(self, size, lambda: self.deliver(fetched))

    def _drop(self, action: DropGrant) -> None:
        self.bench.drop(action.grant)

    def _load(self, action: LoadVersion) -> None:
        version = action.version
        base = self.bench.load(action)
        loaded: Event = VersionMissing(version.version, version.payload.id)
        if base is not None:
            loaded = VersionLoaded(base)
        self._bring(version.payload, lambda: self.deliver(loaded))
        self._has = ""

    def _bring(self, payload: Payload, then: Callable[[], None]) -> None:
        """A version comes, unless it is here since it was scored."""
        if payload.id == self._has:
            self._at(0, then)
        else:
            self.driver.charges.version(self, payload, then)

    def _score(self, action: ScoreVersion) -> None:
        driver, sums = self.driver, self.bench.score(action)

        def arrived() -> None:
            busy = driver.charges.score(self.name, driver.queue.now, sums.n)
            scored = VersionScored(action.number, action.version.version, *sums, busy)

            def done() -> None:
                if self.hangs_until > driver.queue.now:
                    self._at(self.hangs_until - driver.queue.now, done)
                else:
                    self.deliver(scored)

            self._at(busy, done)

        self._bring(action.version.payload, arrived)
        self._has = action.version.payload.id

    def _train(self, action: Train) -> None:
        driver = self.driver
        work, began = self.bench.work(action), driver.queue.now
        busy = driver.charges.busy(self.name, began, action, work)
        self._round = (began, max(1, busy), work.steps)
        outcome = self.bench.train(action, began + busy)

        def finish() -> None:
            if self.hangs_until > driver.queue.now:
                self._at(self.hangs_until - driver.queue.now, finish, action.round)
            elif self.alive:
                self._tested(action, outcome(), busy)

        self._at(busy, finish, action.round)

    def _tested(self, action: Train, done: Trained, busy: int) -> None:
        """The steps are done; a push that was put to the test takes that long, too."""
        driver, more = self.driver, 0
        self._steps += done.steps
        self._round = (0, 1, 0)
        if done.tested:
            more = driver.charges.test(self.name, driver.queue.now, action, done.tested)
        finished = done.finished(action.round, busy + more)
        if more:
            self._at(more, lambda: self.deliver(finished), action.round)
        else:
            self.deliver(finished)

    def _store(self, action: StoreUpdate) -> None:
        del action
        driver = self.driver
        which, faults = driver.stored, driver.faults
        driver.stored += 1
        if which in faults.delayed:
            driver.fired["delayed"] += 1

        def put() -> Payload:
            payload = self.bench.store()
            driver.watch.arrived(self.name, self.incarnation, driver.queue.now)  # its chunks have
            if which in faults.truncated:
                driver.fired["truncated"] += 1
                driver.log.garble(self._topic(payload.generation), payload.last)
            return payload

        self.bench.pack()
        late = faults.delayed.get(which, 0)
        driver.charges.update(self, put, late, lambda stored: self.deliver(UpdateStored(stored)))

    def _move(self, action: MoveTopic) -> None:
        """The marker, then on to the next generation."""
        self._post_to(action.generation - 1, 0, Moved(action.generation))
        self._generation = action.generation
        self.bench.move(action.generation)

    def _move_logs(self, action: MoveLogs) -> None:
        del action

    def _leave(self, action: Leave) -> None:
        self.left = action.code
        self.alive = False
        # Who was cut off sees the stop after the run goes on: people start it again.
        late = action.code == "done" and self.driver.watch.state.stopped is None
        if action.code == "again" or late:
            self._at(self.driver.costs.beat, lambda: self.driver.join(self.name))


def lie(update: Update, which: int) -> Update:
    """The same update, claiming what cannot be: one of six, by `which`."""
    payload = update.payload
    claims: list[dict[str, Any]] = [
        {"payload": replace(payload, topic="from.somebody-else")},
        {"payload": replace(payload, last=payload.last + 1000)},
        {"payload": replace(payload, length=1 << 40)},
        {"samples": 0},
        {"oldest": update.base.version + 1},
        {"base": Base(update.base.version, "another model")},
    ]
    return replace(update, **claims[which % len(claims)])


def false_score(scored: Scored, which: int) -> Scored:
    """The same scores, claiming what cannot be: one of four, by `which`."""
    claims: list[dict[str, Any]] = [
        {"n": scored.n + 1},
        {"version": scored.version + 1},
        {"loss_sum": float("nan")},
        {"correct": scored.n + 1.0},
    ]
    return replace(scored, **claims[which % len(claims)])


ACTIONS: dict[type, Callable[[SimulatedWorker, Any], None]] = {
    SendHello: SimulatedWorker._hello,
    Send: SimulatedWorker._send,
    SendResent: SimulatedWorker._resent,
    SendAgain: SimulatedWorker._again,
    SendBeat: SimulatedWorker._send_beat,
    Forget: SimulatedWorker._forget,
    ForgetUpdate: SimulatedWorker._forget_update,
    FetchBlocks: SimulatedWorker._fetch,
    DropGrant: SimulatedWorker._drop,
    LoadVersion: SimulatedWorker._load,
    Train: SimulatedWorker._train,
    ScoreVersion: SimulatedWorker._score,
    StoreUpdate: SimulatedWorker._store,
    MoveTopic: SimulatedWorker._move,
    MoveLogs: SimulatedWorker._move_logs,
    Leave: SimulatedWorker._leave,
}
"""Action -> who performs it."""
