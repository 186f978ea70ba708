"""What does a worker's process do? Its machine's bidding.

This thread decides, sends and beats; one thread follows the ledger, one trains and pushes, one
fetches blocks ahead. All that happens comes as an event through one queue.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from hermes.errors import BrokerError, Fenced, HermesError, RunError, RunFailed
from hermes.machine import worker as machine
from hermes.machine.events import (
    BeatDue,
    Began,
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
)
from hermes.machine.worker import WorkerState
from hermes.messages import (
    Bye,
    Heartbeat,
    Hello,
    LedgerRecord,
    Resent,
    Round,
    Scored,
    WorkerAdmitted,
)
from hermes.runtime.acks import Acknowledgements
from hermes.runtime.following import Follower
from hermes.runtime.hands import Failed
from hermes.runtime.hearing import MasterEar
from hermes.runtime.join import FOR_GOOD, check_key, ledger_end, wait_for_run
from hermes.runtime.logs import LineSender
from hermes.runtime.outbox import Outbox
from hermes.runtime.sending import Sending
from hermes.runtime.software import software
from hermes.runtime.terms import Farewell, WorkerOptions
from hermes.runtime.waiting import Patience
from hermes.runtime.watch import BrokerWatch
from hermes.runtime.workshop import LEAVING, Workshop
from hermes.transport import names
from hermes.transport.counting import CountingLog
from hermes.transport.log import Log

__all__ = ["Farewell", "WorkerOptions", "WorkerProcess"]

KNOCK_AGAIN = 5.0
"""Seconds between two hellos."""

LAST_WORDS = 3.0
"""Seconds that a bye is waited for."""


class WorkerProcess:
    """A worker, run after run where no run is named."""

    def __init__(self, log: Log, options: WorkerOptions, say: Callable[[str], None]) -> None:
        self.log, self.options, self.say = log, options, say
        self._over = threading.Event()
        self._part: TakingPart | None = None
        self._watch: BrokerWatch | None = None

    def interrupt(self, reason: str = "interrupted") -> None:
        """Say bye and leave. May be called from a signal handler."""
        self._over.set()
        if self._watch is not None:
            self._watch.leave()
        part = self._part
        if part is not None:
            part.events.put(Interrupted(reason))

    def run(self) -> Farewell:
        """Take part until the run is over (or, without a run's name, until interrupted)."""
        watch = BrokerWatch(self.log, self.options.name, self.options.outage, self.say)
        self._watch = watch
        if self._over.is_set():
            watch.leave()
        try:
            farewell = self._serve(watch.acks)
            _wait_for_answers(watch)
            if watch.gone:
                self.say(f"nobody could be told that it leaves: {watch.gone}")
            return farewell
        except BrokerError as error:
            if not watch.left:
                raise
            self.say(f"leaves; nobody could be told: {error.what}")
            return Farewell("interrupted", "interrupted")
        finally:
            watch.stop()

    def _serve(self, acks: Acknowledgements) -> Farewell:
        options, seen = self.options, dict[str, int]()
        while True:
            wait, asking = self._over.wait, acks.asking
            run = wait_for_run(self.log, options.run, seen, options.patience, wait, asking)
            if run is None:
                return Farewell("interrupted", "interrupted")
            farewell = self._take_part(run, acks)
            if options.run is not None:
                _refuse_silence(farewell, run)
            if options.run is not None or farewell.code in ("interrupted", "refused"):
                return farewell
            # Until somebody goes on with it; but whoever was replaced stays away from it.
            fenced = farewell.code == "fenced"
            with acks.asking():
                seen[run] = FOR_GOOD if fenced else ledger_end(self.log, run)
            self.say("waiting for the next run (Ctrl-C leaves)")

    def _take_part(self, run: str, acks: Acknowledgements) -> Farewell:
        while True:
            self._part = TakingPart(self.log, run, self.options, self.say, self._over, acks)
            try:
                farewell = self._part.see_through()
            finally:
                self._part = None
            if farewell.code != "again" or self._over.is_set():
                return farewell
            self.say(f"Beginning again: {farewell.reason}")


def _wait_for_answers(watch: BrokerWatch) -> None:
    """What was said last may still be under way."""
    end = time.monotonic() + LAST_WORDS
    while watch.acks.unanswered() and not watch.gone and time.monotonic() < end:
        time.sleep(0.02)


def _refuse_silence(farewell: Farewell, run: str) -> None:
    """Raise what is to be said of a master that does not answer, or no longer."""
    if farewell.code == "unanswered":
        raise RunError(farewell.reason, where="the broker", remedy="Is the run's master alive?")
    if farewell.code == "deserted":
        raise RunFailed(
            farewell.reason,
            where=f"run {run}",
            remedy="Is its process alive, and does it reach the broker? Its own output, and "
            "central.log beside it, tell why it ended.",
        )


class TakingPart:
    """One incarnation in one run."""

    def __init__(
        self,
        log: Log,
        run: str,
        options: WorkerOptions,
        say: Callable[[str], None],
        over: threading.Event,
        acks: Acknowledgements,
    ) -> None:
        self.log, self.run, self.options, self.say = CountingLog(log), run, options, say
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.incarnation = secrets.token_hex(8)
        self.state = WorkerState(options.name, self.incarnation)
        self.farewell: Farewell | None = None
        self._over = over
        self._acks = acks
        self._sending = Sending(self.log, run, options.name, self.incarnation, acks)
        self._lines = LineSender(self.log, run, options.name)
        self._preparing = False
        self._next_beat = 0.0
        self._next_knock = 0.0
        self._failed = ""

    # --- the whole ------------------------------------------------------------------------------

    def see_through(self) -> Farewell:
        """Knock, take part, leave. Raises `HermesError`."""
        options = self.options
        self.outbox = Outbox(options.state / self.run / options.name, self.run)
        reader = self.log.reader()
        try:
            if not check_key(reader, self.run, options.key, options.patience, self._over.wait):
                return Farewell("interrupted", "interrupted")
            ledger = names.physical(self.run, names.LEDGER)
            reader.follow(ledger, self.log.ends([ledger])[ledger])
            self._workshop = Workshop(self.log, self.run, options, self.events.put, self._tell)
            self._ear = MasterEar(self.log, reader, self.run)
            calm = self._workshop.calm
            follower = Follower(self._ear, calm, self.events.put, self._lines)
            left = self.outbox.left
            self.outbox.knock(self.incarnation)
            self._deliver(Began(secrets.token_hex(8), left.previous, left.updates))
            try:
                return self._or_again(self._live())
            except HermesError as error:
                raise self._given_up(error) from error
            finally:
                follower.leave()
                self._workshop.stop()
                follower.join(LEAVING)
        finally:
            reader.close()
            self.outbox.close()

    def _or_again(self, farewell: Farewell) -> Farewell:
        """Our own last process may hold our name, and its hello never have come: then it is the one
        before it."""
        taken = farewell.code == "refused" and farewell.reason.startswith("name-taken")
        if taken and self.outbox.refused(self.incarnation):
            return Farewell("again", farewell.reason)
        return farewell

    # --- the loop -------------------------------------------------------------------------------

    def _live(self) -> Farewell:
        self._patience = Patience(self.run, self.options, self.say)
        self._next_knock = time.monotonic() + KNOCK_AGAIN
        while self.farewell is None:
            now = time.monotonic()
            try:
                event = self.events.get(timeout=max(0.0, min(self._next_beat - now, 1.0)))
            except queue.Empty:
                event = None
            if isinstance(event, Failed):
                raise event.error
            if event is not None:
                self._deliver(event)
            self._keep_time(time.monotonic())
        return self.farewell

    def _keep_time(self, now: float) -> None:
        if self.farewell is not None:
            return
        if self.state.phase == "knocking" and now >= self._next_knock:
            self.farewell = self._patience.unanswered(now)
            self._next_knock = now + KNOCK_AGAIN
            self._deliver(KnockDue(secrets.token_hex(8)))
        if now >= self._next_beat:
            self._next_beat = now + self._workshop.beat_every
            self._deliver(BeatDue(self._workshop.steps))
            self._listen_for_master()

    def _listen_for_master(self) -> None:
        if self.state.phase == "knocking":
            self._ear.rest()
            return
        deserted = self._patience.listen(self._ear, self._acks.unanswered())
        if deserted is not None:
            self.farewell = deserted

    def _deliver(self, event: Event) -> None:
        """One event: decide, perform."""
        if isinstance(event, LedgerSeen) and not self._preparing:
            self._get_ready(event.record)
        step = machine.decide(self.state, time.monotonic_ns(), event)
        self.state = step.state
        for action in step.actions:
            PERFORM[type(action)](self, action)

    def _get_ready(self, record: LedgerRecord) -> None:
        """Admitted: have the job fetched, verified and built, while this thread beats."""
        for entry in record.entries:
            if isinstance(entry, WorkerAdmitted) and entry.incarnation == self.incarnation:
                self._preparing = True
                try:
                    self.outbox.begin(self.incarnation)
                except RunFailed as error:  # told once the machine knows that it is admitted
                    self.events.put(Failed(error))
                    return
                self._workshop.build(entry)

    def _given_up(self, error: HermesError) -> HermesError:
        """Tell the master why, at once: nobody has to wait until this worker counts as lost."""
        mine = type(error)(
            error.what,
            where=f"{self.options.name}: {error.where}" if error.where else self.options.name,
            remedy=error.remedy,
        )
        if not isinstance(error, BrokerError | Fenced):
            self._failed = " ".join(f"{error.where}: {error.what}".removeprefix(": ").split())[:500]
            with contextlib.suppress(HermesError):
                self._lines.say(str(error), "error")
                self._deliver(Interrupted(self._failed))
        return mine

    def _tell(self, text: str) -> None:
        self.say(text)
        self._lines.say(text)

    # --- actions --------------------------------------------------------------------------------

    def _send_hello(self, action: SendHello) -> None:
        name, made_of = self.options.name, software("")
        hello = Hello(self.run, name, self.incarnation, action.nonce, made_of, action.previous)
        if self.options.own is not None:
            hello = replace(hello, own=self.options.own.told(self.options.key))
        self._sending.knock(hello, self.options.key)

    def _send(self, action: Send) -> None:
        body = action.body
        if isinstance(body, Bye):
            body = Bye(body.reason, self.log.traffic.flat(), bool(self._failed))
        failure: HermesError | None = None
        if isinstance(body, Round) and body.update is not None:
            try:
                self.outbox.keep(body.update)
            except RunFailed as error:  # what was trained is sent all the same, then we leave
                failure = error
        self._say_round(body)
        self._sending.send(action.number, body, self.state.authority)
        if failure is not None:
            raise failure

    def _say_round(self, body: Round | Bye | Scored) -> None:
        if isinstance(body, Round) and body.verdict != "quiet":
            self._tell(f"round {body.round}: {body.verdict} ({body.reason.code})")

    def _send_resent(self, action: SendResent) -> None:
        if action.update.birth.incarnation == self.incarnation:  # new, or stored once more
            self.outbox.keep(action.update)
        self._sending.send(action.number, Resent(action.update), self.state.authority)

    def _send_again(self, action: SendAgain) -> None:
        self._sending.send_again(action.first, self.state.authority)

    def _send_beat(self, action: SendBeat) -> None:
        beat = Heartbeat(action.steps, action.last, self.log.traffic.flat())
        self._sending.beat(beat, self.state.authority)

    def _forget(self, action: Forget) -> None:
        self._sending.forget(action.up_to)

    def _forget_update(self, action: ForgetUpdate) -> None:
        self.outbox.forget(action.birth)

    def _fetch(self, action: FetchBlocks) -> None:
        self._workshop.fetch(action)

    def _drop(self, action: DropGrant) -> None:
        self._workshop.drop(action)

    def _load(self, action: LoadVersion) -> None:
        self._workshop.load(action)

    def _train(self, action: Train) -> None:
        self._workshop.train(action)

    def _score(self, action: ScoreVersion) -> None:
        self._workshop.score(action)

    def _store_update(self, _action: StoreUpdate) -> None:
        self._workshop.push()

    def _move_topic(self, action: MoveTopic) -> None:
        self._sending.move(action.generation, self.state.authority)
        self._workshop.move(action.generation)

    def _move_logs(self, action: MoveLogs) -> None:
        self._lines.move(action.generation)
        self._ear.move(action.generation)

    def _leave(self, action: Leave) -> None:
        self.farewell = Farewell(action.code, action.reason)
        if action.code != "again":
            self._tell(f"leaves: {action.reason}")


PERFORM: dict[type, Callable[[TakingPart, Any], None]] = {
    SendHello: TakingPart._send_hello,
    Send: TakingPart._send,
    SendResent: TakingPart._send_resent,
    SendAgain: TakingPart._send_again,
    SendBeat: TakingPart._send_beat,
    Forget: TakingPart._forget,
    ForgetUpdate: TakingPart._forget_update,
    FetchBlocks: TakingPart._fetch,
    DropGrant: TakingPart._drop,
    LoadVersion: TakingPart._load,
    Train: TakingPart._train,
    ScoreVersion: TakingPart._score,
    StoreUpdate: TakingPart._store_update,
    MoveTopic: TakingPart._move_topic,
    MoveLogs: TakingPart._move_logs,
    Leave: TakingPart._leave,
}
"""Action -> who performs it."""
