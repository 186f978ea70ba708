"""What does the master's process do? Poll, decode, decide, commit, perform; until it is finished.

The order of commit (design, part 3) is `_turn`: (1) take what one poll brought, (2) let the
machine decide, (3) tensors were stored by the action whose outcome is decided on, (4) append the
record and wait, (5) apply it and perform what it asks for.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import threading
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from hermes.codec import decode_tensors
from hermes.errors import (
    BrokerRefused,
    BrokerUnreachable,
    Fenced,
    HermesError,
    NoSuchTopic,
    OutcomeUnknown,
    PeerError,
)
from hermes.machine.events import (
    Action,
    AddGeneration,
    BrokerBack,
    DataStored,
    Evaluate,
    Event,
    Finish,
    FollowLobby,
    FollowWorker,
    GenerationAdded,
    ReadToEnd,
    SetAside,
    StopAsked,
    StoreFirst,
    TailMissing,
    Ticked,
    Trim,
    UploadData,
)
from hermes.machine.ledger import Authority
from hermes.machine.state import Evaluations, MasterState
from hermes.messages import (
    EvaluationAsked,
    LedgerRecord,
    LogLine,
    MasterBeat,
    Rotated,
    VersionEvaluated,
    VersionPublished,
)
from hermes.perform.decider import Decider
from hermes.perform.desk import Desk, Judge
from hermes.perform.ledger import Ledger
from hermes.perform.room import be_as_before, be_thrifty
from hermes.perform.store import Store
from hermes.runtime.archive import Archive
from hermes.runtime.awake import awake
from hermes.runtime.beat import Beater
from hermes.runtime.clock import RunClock
from hermes.runtime.ending import Counted, Holdings, conclude, give_up
from hermes.runtime.evaluator import Evaluator
from hermes.runtime.hands import Failed
from hermes.runtime.inbox import Inbox
from hermes.runtime.interrupt import nothing
from hermes.runtime.lines import MasterLines
from hermes.runtime.logs import utc_now
from hermes.runtime.measure import step_seconds
from hermes.runtime.opening import Material, create_topics, refuse_known_run, seats
from hermes.runtime.options import Beginning, Listener, MasterOptions, Vitals
from hermes.runtime.reporter import Reporter
from hermes.runtime.salvage import best_before
from hermes.runtime.storage import Line, Meter
from hermes.runtime.topics import RunTopics
from hermes.runtime.traffic import WorkersTraffic
from hermes.runtime.watch import BrokerWatch, given_up
from hermes.train import Batch
from hermes.transport import names
from hermes.transport.counting import CountingLog
from hermes.transport.log import Log, Record
from hermes.values import SECOND, Payload, Reason, Tensors

__all__ = ["READY", "Listener", "MasterOptions", "MasterProcess"]

READY = "Master has been successfully initialized!"
"""The line that says that workers may come."""

BATCH = 200
"""Inputs decided in one record, at most: it stays below what a broker takes."""

POLL = 0.2
"""Seconds that one poll waits at most: how soon Ctrl-C, and an evaluation's outcome, are seen."""

LAST_POLLS = 10
"""Polls until our own last line is in the central log, and ..."""

LAST_BATCH = 500
"""... records of each, at most."""

MEASURED = 0.05
"""Seconds of measuring a step, at most (or three steps), where nothing is emulated; and
those that a step is taken to last where there is nothing here to measure it with."""

FAREWELL = 3 * SECOND
"""Run time that workers are given to say bye after the stop."""


class UploadBroken(Exception):
    """Somebody wants to stop while the data is sent."""


class MasterProcess:
    """One incarnation of a run's master. `run` returns when it is over."""

    def __init__(self, log: Log, options: MasterOptions, listener: Listener) -> None:
        self.options, self.listener = options, listener
        self._meter = Meter(log, options.run)
        self.log = CountingLog(log, self._meter.appended)
        self.clock = RunClock()
        self._stop: queue.SimpleQueue[StopAsked] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._traffic = WorkersTraffic()
        self._finished = False
        self._interrupted = ""
        self._watch: BrokerWatch | None = None
        self._desk: Desk | None = None
        self._judge: Judge | None = None
        self._material: Beginning | None = None
        self._back = threading.Event()
        """The broker was away, and answers again."""
        self._doubt: Callable[[], None] = nothing
        """It is away: what it had acknowledged may be gone. The ledger's, once there is one."""
        self._beater: Beater | None = None
        self._generations: dict[str, int] = {}
        self._digests: dict[int, str] = {}
        """Of the best version, and of those that may become it, by number."""
        self.steps: tuple[float, ...] = ()
        """Seconds of a step, by worker: what the pace of the run is guessed from."""

    def interrupt(self, reason: str = "interrupted", status: str = "stopped") -> None:
        """Ask the run to stop, and write its results. May be called from a signal handler."""
        self._stop.put(StopAsked(status, Reason(reason)))
        self._interrupted = self._interrupted or reason
        if self._watch is not None:
            self._watch.leave()

    # --- the whole ------------------------------------------------------------------------------

    def prepare(self) -> Batch | None:
        """Look at the job and its data before anything is sent; returns a first batch (None where
        all data stay with the workers).

        Raises `JobError` for what does not fit, `RunError` for a run that exists.
        """
        options = self.options
        if options.begin is None:
            refuse_known_run(self.log, options.run)
        self._material = (options.begin or Material)(options)
        batch = self._material.tried()
        step = MEASURED if batch is None else step_seconds(options.job, batch, MEASURED)
        self.steps = (step,) * options.expect
        options.folder.create()
        return batch

    def run(self) -> dict[str, object]:
        """Open the run, see it through, and return its result. Raises `HermesError`."""
        if self._material is None:
            self.prepare()
        with awake(self.options.run):
            return self._lead()

    def _lead(self) -> dict[str, object]:
        assert self._material is not None
        patience = self.options.patience
        who = "the run's master"
        self._watch = BrokerWatch(
            self.log, who, patience, self._tell_of_broker, self._back.set, lambda: self._doubt()
        )
        if self._interrupted:
            self._watch.leave()
        try:
            self._open(self._watch, self._material)
            try:
                self._see_through(self._material)
                return self._conclude()
            except Fenced:
                raise  # the files are another master's now
            except HermesError as error:
                return self._give_up(error)
            finally:
                self._close()
        finally:
            self._watch.stop()

    def _open(self, watch: BrokerWatch, material: Beginning) -> None:
        options = self.options
        if not options.again:
            create_topics(self.log, options.run, material.model_bytes)
        self._lines = MasterLines(self.log, options, self.listener.line)
        self._archive = Archive(options.folder.ledger)
        self._topics = RunTopics(self.log, options.run, self._meter, material.model_bytes)
        segments = self._topics.segments
        self._inbox = Inbox(self.log, options, self._lines, self._meter.seen, segments)
        self._store = Store(
            self.log, options.run, keeper=self._inbox.keeper, generations=self._generations
        )
        ledger = names.physical(options.run, names.LEDGER)
        place = f"the ledger at {self.log.place}"
        self._reporter = Reporter(options.folder, place, self._moved, self._tell_of_broker)
        self._ledger = Ledger(self.log, ledger, watcher=self._took, saved=self._archive.saved)
        self._doubt = self._ledger.doubt
        self._evaluator = Evaluator(self._events.put, self.clock)
        nonce = secrets.token_hex(16)
        self._sign(nonce)
        self._ledger.start(nonce, self.clock.now())
        self._archive.settle()
        self._inbox.listen(self._generations)
        self.clock.go_on(self._ledger.state.time)
        self._decider = Decider(self._ledger)
        self._storage = material.storage(self._meter, self.steps)
        acks, facts = watch.acks, self._storage.facts
        authority = self._ledger.state.authority
        self._beater = Beater(self.log, options.run, acks, partial(self._beat, authority))
        self._beater.move(self._generations.get(names.LOGS, 0))
        self._lines.move(self._generations.get(names.LOGS, 0))
        self.listener.opened(lambda: Vitals(*facts(), self._moved(), acks.unanswered()))

    def _beat(self, authority: Authority, count: int) -> MasterBeat:
        """What is told of ourselves every 2 s; from the beating thread."""
        term, nonce = authority.term, authority.nonce
        (used, limit), (topics, hourly) = self._storage.facts(), self._storage.by_topic()
        moved, aside = self._moved(), dict(self._inbox.aside)
        of = self._storage.of
        return MasterBeat(term, nonce, count, used, limit, moved, aside, topics, hourly, of)

    def _sign(self, nonce: str) -> None:
        """`run.json` tells which master this process is."""
        folder = self.options.folder
        note = folder.read_note()
        if note is not None and note.pid == os.getpid():
            folder.take_note(replace(note, nonce=nonce))

    def _took(self, raw: Record, record: LedgerRecord, state: MasterState) -> None:
        self._archive.add(raw)
        for entry in record.entries:
            if isinstance(entry, VersionPublished):
                self._digests[entry.version] = entry.payload.digest
                if self._desk is not None:
                    self._desk.settle(entry)
            elif isinstance(entry, EvaluationAsked):
                self._hold(state)
            elif isinstance(entry, VersionEvaluated):
                self._judged(entry, state)
                self._forget_digests(state.evaluations)
            elif isinstance(entry, Rotated):
                self._moved_on(entry)
        self._reporter.take(record, state)
        self.listener.took(record)

    def _hold(self, state: MasterState) -> None:
        """The version that the workers are asked about may be the best."""
        if self._desk is not None and state.newest is not None:
            model = self._desk.model(state.newest.payload.digest)
            self._evaluator.hold(state.newest.version, model)

    def _judged(self, entry: VersionEvaluated, state: MasterState) -> None:
        """What the workers say of a version; what was read again was judged before."""
        known = state.versions.get(entry.version)
        if entry.n and known is not None and self._desk is not None:
            self._evaluator.judged(entry, partial(self._fetched, known.payload))

    def _fetched(self, payload: Payload) -> Tensors | None:
        with contextlib.suppress(PeerError, BrokerRefused, NoSuchTopic):
            return decode_tensors(self._store.get(payload))
        return None

    def _forget_digests(self, known: Evaluations) -> None:
        best = known.best.version if known.best is not None else None
        kept = {v: d for v, d in self._digests.items() if v == best or v > known.last_version}
        self._digests = kept

    def _close(self) -> None:
        if self._beater is not None:
            self._beater.stop()
        self._reporter.stop()
        self._storage.close()
        self._evaluator.stop()
        self._inbox.close()
        self._store.close()
        self._archive.close()
        self._lines.close()
        be_as_before()

    def _moved_on(self, entry: Rotated) -> None:
        self._generations[entry.topic] = entry.generation
        if entry.topic == names.LOGS and self._beater is not None:  # else it is only being read
            self._inbox.more_logs(entry.generation)
            self._lines.move(entry.generation)
            self._beater.move(entry.generation)

    def _see_through(self, material: Beginning) -> None:
        self._lines.tell(self._storage.opening())
        if self._ledger.state.newest is not None:
            self._go_on()
        self._handle(material.opened(trims=self.log.can_trim))
        self._tell_of_mending()
        self._commit()
        while not self._finished:
            self._turn()
        self._wait_for_byes()

    def _go_on(self) -> None:
        """The run was led before: take its seats, and know what was best."""
        state = self._ledger.state
        self._take_seats()
        self._evaluator.best = best_before(state, self._digests, self._store, self.options.folder)
        term, newest = state.authority.term, state.newest
        version = f"version {newest.version}" if newest else "its beginning"
        self._lines.say(f"The run goes on from {version} (term {term})")
        self.listener.ready()

    def _tell_of_mending(self) -> None:
        """What the broker had lost of the ledger was written again."""
        if self._ledger.mended:
            reason = Reason("written-again", {"records": self._ledger.mended})
            self._ledger.mended = 0
            self._handle(TailMissing(names.LEDGER, reason))

    # --- the loop -------------------------------------------------------------------------------

    def _turn(self) -> None:
        """One turn: what one poll brought is decided, committed and performed."""
        self._receive(_wait(self._decider.wake, self.clock.now()), BATCH)
        while not self._events.empty():
            event = self._events.get_nowait()
            if isinstance(event, Failed):
                raise event.error
            self._handle(event)
        self._look_at_storage()
        while not self._stop.empty():
            self._handle(self._stop.get_nowait())
        for event in self._inbox.news():
            self._handle(event)
        if self._back.is_set():
            self._back.clear()
            self._handle(BrokerBack())
        wake = self._decider.wake
        if wake is not None and self.clock.now() >= wake:
            self._handle(Ticked())
        self._commit()
        self._tell_of_mending()
        self._look_at_rivals()
        self._inbox.set_aside_voids(self._ledger.voids)
        self.listener.changed(self._ledger.state, self.clock.now())

    def _look_at_rivals(self) -> None:
        """Whoever has nothing to commit would not notice that it was replaced."""
        if self._inbox.rival > self._ledger.state.authority.term:
            self._inbox.rival = 0
            self._ledger.look()

    def _receive(self, timeout: float, limit: int) -> None:
        for event in self._inbox.poll(timeout, limit):
            self._traffic.note(event, self._decider.view.members)
            self._handle(event)

    def _handle(self, event: Event) -> None:
        self._decider.handle(self.clock.now(), event)

    def _commit(self) -> None:
        """Commit and perform, until nothing more comes of it at once."""
        while True:
            record, actions = self._decider.commit()
            for note in self._decider.notes:
                self._note(note)
            self._decider.notes.clear()
            for action in actions:
                self._perform(action)
            if record is None and not actions:
                return

    def _note(self, text: str) -> None:
        self._lines.say(text)
        if text == READY:
            self.listener.ready()

    def _look_at_storage(self) -> None:
        lines, stop = self._storage.look(self._ledger.state)
        for line in lines:
            self._lines.say(line.text, line.level)
        if stop is not None:
            self._stop.put(stop)

    def _tell_of_broker(self, text: str) -> None:
        self.listener.line(LogLine("master", "warning", utc_now(), text))

    # --- actions --------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        short = PERFORM.get(type(action))
        if short is not None:
            short(self, action)
        else:
            assert self._desk is not None
            self._handle(self._desk.perform(action))

    def _upload(self, _action: UploadData) -> None:
        options, material = self.options, self._material
        full = self._storage.no_room()
        if full is not None:
            self._handle(full)
            return
        if options.ask is not None and not options.ask():
            self._handle(StopAsked("stopped", Reason("not-confirmed")))
            return
        assert material is not None
        for oddity in material.oddities():
            self._lines.tell(Line(oddity, "warning"))
        try:
            data = material.send_data(self._store, self._uploading)
        except UploadBroken:
            return  # the stop is decided in the next turn
        self._handle(DataStored(data))

    def _uploading(self, sent: int, total: int) -> None:
        self.listener.uploading(sent, total)
        self._look_at_storage()
        if not self._stop.empty():
            raise UploadBroken

    def _store_first(self, action: StoreFirst) -> None:
        assert self._material is not None
        weights, state = self._material.take_weights(), self._material.take_state()
        be_thrifty(sum(tensor.nbytes for tensor in weights.values()))
        self._handle(self._take_seats().store_first(weights, state, action.codec))

    def _take_seats(self) -> Desk:
        data = self._ledger.state.data
        assert data is not None
        self._desk, self._judge, beside = seats(self.log, self._store, self.options, data)
        self._evaluator.start(beside, sums=bool(data.shares))
        return self._desk

    def _add_generation(self, action: AddGeneration) -> None:
        self._topics.add(action)
        self._handle(GenerationAdded(action.topic, action.generation))

    def _trim(self, action: Trim) -> None:
        self._inbox.let_go(action.topic, action.generation, action.before)
        self._topics.let_go(action)

    def _evaluate(self, action: Evaluate) -> None:
        assert self._desk is not None
        self._evaluator.ask(action.version, self._desk.model(action.version.payload.digest))

    def _follow_lobby(self, action: FollowLobby) -> None:
        self._inbox.follow(names.LOBBY, action.after)

    def _follow_worker(self, action: FollowWorker) -> None:
        self._inbox.follow(names.from_worker(action.worker), action.after)

    def _read_to_end(self, action: ReadToEnd) -> None:
        self._inbox.note_end(names.from_worker(action.worker))

    def _set_aside(self, action: SetAside) -> None:
        self._inbox.set_aside(action)

    def _finish(self, _action: Finish) -> None:
        self._finished = True

    # --- the end --------------------------------------------------------------------------------

    def _wait_for_byes(self) -> None:
        end = self.clock.now() + FAREWELL
        while self._ledger.state.alive() and self.clock.now() < end and self._stop.empty():
            self._turn()

    def _conclude(self) -> dict[str, object]:
        """Hear what is left of the log, and write the models and the result."""
        state = self._ledger.state
        assert state.stopped is not None
        self._lines.say_last(f"The run has {state.status}: {state.stopped.code}")
        for _ in range(LAST_POLLS):
            self._receive(POLL, LAST_BATCH)
            if self._lines.ended:
                break
        self._evaluator.stop()
        return conclude(self._holdings(), self._store)

    def _give_up(self, error: HermesError) -> dict[str, object]:
        """The run cannot go on: save what is held. Returns the result if somebody wanted it to stop
        anyway, and raises the error with what was saved else."""
        if isinstance(error, (BrokerUnreachable, OutcomeUnknown)) and not error.remedy:
            error = given_up(self.log, "the run's master", self.options.patience)
        cut = give_up(self._holdings(), error, self._interrupted, self._lines.write_last)
        self._tell_of_broker(cut.told)
        return cut.result

    def _holdings(self) -> Holdings:
        folder, best = self.options.folder, self._evaluator.best
        decider, desk, judge = self._decider, self._desk, self._judge
        return Holdings(folder, decider, desk, judge, best, self._count, self._reporter)

    def _moved(self) -> dict[str, tuple[int, ...]]:
        return {"master": self.log.traffic.flat(), **self._traffic.by_worker()}

    def _count(self) -> Counted:
        storage, aside = self._storage.result(), dict(self._inbox.aside)
        return Counted(self.clock.now(), self._moved(), storage, aside)


def _wait(wake: int | None, now: int) -> float:
    """Seconds that a poll may wait at `now`, where the machine wants to be woken at `wake`."""
    if wake is None:
        return POLL
    return max(0.0, min(POLL, (wake - now) / SECOND))


PERFORM: dict[type, Callable[..., None]] = {
    UploadData: MasterProcess._upload,
    StoreFirst: MasterProcess._store_first,
    Evaluate: MasterProcess._evaluate,
    AddGeneration: MasterProcess._add_generation,
    Trim: MasterProcess._trim,
    FollowLobby: MasterProcess._follow_lobby,
    FollowWorker: MasterProcess._follow_worker,
    ReadToEnd: MasterProcess._read_to_end,
    SetAside: MasterProcess._set_aside,
    Finish: MasterProcess._finish,
}
"""Action -> who performs it; the desk performs the others."""
