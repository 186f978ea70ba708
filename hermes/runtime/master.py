"""What does the master's process do? Poll, decode, decide, commit, perform; until it is finished.

The order of commit (design, part 3) is `_turn`: (1) take what one poll brought, (2) let the
machine decide, (3) tensors were stored by the action whose outcome is decided on, (4) append the
record and wait, (5) apply it and perform what it asks for.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from hermes.chance import generator
from hermes.codec import verified
from hermes.data.cache import BlockCache
from hermes.data.prepare import Prepared, prepare
from hermes.errors import (
    BrokerError,
    BrokerUnreachable,
    Fenced,
    HermesError,
    OutcomeUnknown,
    PeerError,
    RunError,
    RunFailed,
)
from hermes.job import Job, check_fit
from hermes.machine.events import (
    Action,
    ChunkSeen,
    DataStored,
    EnvelopeReceived,
    Evaluate,
    Event,
    Finish,
    FollowLobby,
    FollowWorker,
    HelloReceived,
    Opened,
    ReadToEnd,
    StopAsked,
    StopReceived,
    StoreFirst,
    Ticked,
    TopicRead,
    UploadData,
)
from hermes.machine.rules import NAME
from hermes.machine.state import MasterState
from hermes.messages import (
    Bye,
    Envelope,
    Heartbeat,
    Hello,
    JobSource,
    LedgerRecord,
    LogLine,
    RunOpened,
    RunStopped,
    StopRequested,
)
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.decider import Decider
from hermes.perform.desk import Desk, Judge
from hermes.perform.keeper import ChunkKeeper
from hermes.perform.ledger import Ledger
from hermes.perform.store import Store
from hermes.perform.upload import Signer, upload
from hermes.policy.allocate import first_size
from hermes.policy.presets import Settings, to_tree
from hermes.runtime.archive import Archive
from hermes.runtime.beat import Beater
from hermes.runtime.clock import RunClock
from hermes.runtime.evaluator import Evaluator
from hermes.runtime.folder import RunFolder, existing
from hermes.runtime.hands import Failed
from hermes.runtime.logs import CentralLog, LineSender, utc_now
from hermes.runtime.measure import step_seconds
from hermes.runtime.quarantine import Quarantine, fitting
from hermes.runtime.results import build_result, save_models
from hermes.runtime.salvage import reason_code, salvage, untold, with_advice
from hermes.runtime.software import software
from hermes.runtime.storage import Line, Meter, StorageWatch, watch_over
from hermes.runtime.watch import OUTAGE, BrokerWatch, given_up
from hermes.train import Batch, Trainer, make_trainer, starting_weights
from hermes.transport import names, tensors
from hermes.transport.counting import CountingLog
from hermes.transport.log import Log, Reader, Record
from hermes.transport.settings import LEDGER_CONFIG
from hermes.values import SECOND, Position, Reason

READY = "Master has been successfully initialized!"
"""The line that says that workers may come."""

BATCH = 200
"""Inputs decided in one record, at most: it stays below what a broker takes."""

POLL = 0.2
"""Seconds that one poll waits at most: how soon Ctrl-C, and an evaluation's outcome, are seen."""

LAST_POLLS = 10
"""Polls until our own last line is in the central log."""

MEASURED = 0.05
"""Seconds of measuring a step, at most (or three steps), where nothing is emulated."""

FAREWELL = 3 * SECOND
"""Run time that workers are given to say bye after the stop."""


class MasterOptions(NamedTuple):
    """What a master is started with."""

    run: str
    source: JobSource
    job: Job
    settings: Settings
    seed: int
    expect: int
    key: bytes
    folder: RunFolder
    cache: Path
    ask: Callable[[], bool] | None = None
    """Asked before model and data are sent; False stops the run."""
    patience: float = OUTAGE
    """Seconds that the broker may be away."""


class Listener(Protocol):
    """Whoever shows how the run goes. Called from the master's thread only."""

    def uploading(self, sent: int, total: int) -> None:
        """Blocks of the dataset that are in the log."""

    def ready(self) -> None:
        """Workers may come."""

    def changed(self, state: MasterState, now: int) -> None:
        """The state after a turn; `now` in nanoseconds of run time."""

    def line(self, line: LogLine) -> None:
        """A line of the central log; may be called from another thread."""


class UploadBroken(Exception):
    """Somebody wants to stop while the data is sent."""


class MasterProcess:
    """One incarnation of a run's master. `run` returns when it is over."""

    def __init__(self, log: Log, options: MasterOptions, listener: Listener) -> None:
        self.options, self.listener = options, listener
        self._meter = Meter(log, options.run)
        self.log = CountingLog(log, self._meter.appended)
        self.clock = RunClock()
        self._say = LineSender(self.log, options.run, "master")
        self._stop: queue.SimpleQueue[StopAsked] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._traffic: dict[str, tuple[int, ...]] = {}
        self._targets: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._voids = 0
        self._finished = False
        self._interrupted = ""
        self._watch: BrokerWatch | None = None
        self._last_line, self._ended = "", False
        self._told: LogLine | None = None
        self._keeper = ChunkKeeper()
        self._desk: Desk | None = None
        self._judge: Judge | None = None
        self._prepared: Prepared | None = None
        self._trainer: Trainer | None = None
        self.steps: tuple[float, ...] = ()
        """Seconds of a step, by worker: what the pace of the run is guessed from."""

    def interrupt(self, reason: str = "interrupted", status: str = "stopped") -> None:
        """Ask the run to stop, and write its results. May be called from a signal handler."""
        self._stop.put(StopAsked(status, Reason(reason)))
        self._interrupted = self._interrupted or reason
        if self._watch is not None:
            self._watch.leave()

    # --- the whole ------------------------------------------------------------------------------

    def prepare(self) -> Batch:
        """Look at the job and its data before anything is sent; returns a first batch.

        Raises `JobError` for what does not fit, `RunError` for a run that exists.
        """
        options = self.options
        self._refuse_known_run()
        self._prepared = prepare(
            options.job.data,
            options.job.split,
            options.seed,
            lambda train: first_size(options.settings.size, train, options.expect),
            existing(options.folder.path),
        )
        self._trainer = make_trainer(options.job, generator(options.seed, "init"))
        starting_weights(options.job, self._trainer)
        batch = self._prepared.first(options.job.batch)
        check_fit(options.job, self._trainer, batch)
        for extreme in self._prepared.extremes():
            self._trainer.evaluate([extreme])
        self.steps = (step_seconds(options.job, batch, MEASURED),) * options.expect
        options.folder.create()
        return batch

    def run(self) -> dict[str, object]:
        """Open the run, see it through, and return its result. Raises `HermesError`."""
        if self._trainer is None:
            self.prepare()
        patience = self.options.patience
        self._watch = BrokerWatch(self.log, "the run's master", patience, self._tell_of_broker)
        if self._interrupted:
            self._watch.leave()
        try:
            self._open(self._watch)
            try:
                self._see_through()
                return self._conclude()
            except Fenced:
                raise  # the files are another master's now
            except HermesError as error:
                return self._salvage(error)
            finally:
                self._close()
        finally:
            self._watch.stop()

    def _open(self, watch: BrokerWatch) -> None:
        options = self.options
        topics = [names.physical(options.run, short) for short in names.RUN_TOPICS]
        self.log.create([topics[0]], LEDGER_CONFIG)
        self.log.create(topics[1:])
        self.log.check_topics(topics[:1], LEDGER_CONFIG)
        self.log.check_topics(topics[1:])
        self._store = Store(self.log, options.run, keeper=self._keeper)
        self._central = CentralLog(options.folder.central_log)
        self._archive = Archive(options.folder.ledger)
        self._quarantine = Quarantine(options.folder.quarantine, self._warn)
        self._reader: Reader = self.log.reader()
        self._reader.follow(topics[names.RUN_TOPICS.index(names.LOGS)], 0)
        self._ledger = Ledger(self.log, topics[0], watcher=self._keep)
        self._evaluator = Evaluator(self._events.put, self.clock)
        nonce = secrets.token_hex(16)
        self._ledger.start(nonce, self.clock.now())
        self._decider = Decider(self._ledger)
        self._storage = self._watch_storage()
        term = self._ledger.state.authority.term
        acks, facts = watch.acks, self._storage.facts
        self._beater = Beater(self.log, options.run, term, nonce, acks, facts)

    def _close(self) -> None:
        self._beater.stop()
        self._storage.close()
        self._evaluator.stop()
        self._reader.close()
        self._store.close()
        self._archive.close()
        self._central.close()

    def _see_through(self) -> None:
        self._tell(self._storage.opening())
        self._handle(Opened(self._opening()))
        self._commit()
        while not self._finished:
            self._turn()
        self._wait_for_byes()

    def _turn(self) -> None:
        """One turn: what one poll brought is decided, committed and performed."""
        now = self.clock.now()
        for record in self._reader.poll(self._patience(now), limit=BATCH):
            self._receive(record)
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, Failed):
                raise event.error
            self._handle(event)
        self._look_at_storage()
        while not self._stop.empty():
            self._handle(self._stop.get())
        self._report_read()
        wake = self._decider.wake
        if wake is not None and self.clock.now() >= wake:
            self._handle(Ticked())
        self._commit()
        self._look_at_voids()
        self.listener.changed(self._ledger.state, self.clock.now())

    def _patience(self, now: int) -> float:
        wake = self._decider.wake
        if wake is None:
            return POLL
        return max(0.0, min(POLL, (wake - now) / SECOND))

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

    def _tell_of_broker(self, text: str) -> None:
        self.listener.line(LogLine("master", "warning", utc_now(), text))

    def _warn(self, text: str) -> None:
        self._say.say(text, "warning")

    def _note(self, text: str) -> None:
        self._say.say(text)
        if text == READY:
            self.listener.ready()

    def _keep(self, raw: Record, record: LedgerRecord, state: MasterState) -> None:
        del record, state
        self._archive.add(raw)

    # --- opening --------------------------------------------------------------------------------

    def _refuse_known_run(self) -> None:
        """Nothing of this name may be there: neither a run, nor somebody else's records."""
        run = self.options.run
        there = self.log.topics(names.prefix_of(run))
        if names.physical(run, names.LEDGER) in there:
            raise RunError(
                f"the run {run!r} exists already",
                where=f"the broker {self.log.place}",
                remedy="Choose another id with --run; to go on with a run comes later "
                "(hermes resume).",
            )
        self.log.check_topics(there)
        for topic, end in self.log.ends(there).items():
            if end:
                raise RunError(
                    f"the topic exists already and holds {end} records, which are not of this run",
                    where=topic,
                    remedy="Choose another id with --run, or delete it, if nobody needs it: "
                    f"kafka-topics.sh --bootstrap-server {self.log.place} --delete "
                    f"--topic {topic}",
                )

    def _opening(self) -> RunOpened:
        options = self.options
        assert self._trainer is not None
        return RunOpened(
            run=options.run,
            settings=to_tree(options.settings),
            seed=options.seed,
            expect=options.expect,
            opened=utc_now(),
            software=software(self._trainer.framework),
            key_proof=Signer(options.run, options.key).opening(),
        )

    # --- actions --------------------------------------------------------------------------------

    def _perform(self, action: Action) -> None:
        short = PERFORM.get(type(action))
        if short is not None:
            short(self, action)
        else:
            assert self._desk is not None
            self._handle(self._desk.perform(action))

    def _upload(self, _action: UploadData) -> None:
        options = self.options
        full = self._storage.no_room()
        if full is not None:
            self._handle(full)
            return
        if options.ask is not None and not options.ask():
            self._handle(StopAsked("stopped", Reason("not-confirmed")))
            return
        assert self._prepared is not None
        for oddity in self._prepared.oddities():
            self._tell(Line(f"Data: {oddity}", "warning"))
        signer = Signer(options.run, options.key)
        prepared, batch = self._prepared, options.job.batch
        try:
            data = upload(self._store, signer, options.source, prepared, batch, self._uploading)
        except UploadBroken:
            return  # the stop is decided in the next turn
        self._prepared = None  # what the user's function holds is released
        self._handle(DataStored(data))

    def _uploading(self, sent: int, total: int) -> None:
        self.listener.uploading(sent, total)
        self._look_at_storage()
        if not self._stop.empty():
            raise UploadBroken

    def _store_first(self, _action: StoreFirst) -> None:
        options = self.options
        data = self._ledger.state.data
        assert data is not None
        _, manifest = read_upload(self._store, data)
        options.folder.note_blocks(b.digest for blocks in manifest.blocks.values() for b in blocks)
        cache = BlockCache(options.cache, options.settings.cache.max << 20)
        assert self._trainer is not None
        weights = self._trainer.weights()
        self._trainer = None  # its model and gradients are not needed beside those below
        trainer = make_trainer(options.job, generator(options.seed, "init"))
        self._judge = Judge(trainer, Blocks(self._store, manifest, cache), self._store)
        self._desk = Desk(self._store, self._judge, trainer)
        store = Store(self.log, options.run)
        another = make_trainer(options.job, generator(options.seed, "init"))
        self._evaluator.start(Judge(another, Blocks(store, manifest, cache), store))
        self._handle(self._desk.store_first(weights))

    def _evaluate(self, action: Evaluate) -> None:
        assert self._desk is not None
        self._evaluator.ask(action.version, self._desk.model(action.version.payload.digest))

    def _follow_lobby(self, action: FollowLobby) -> None:
        self._follow(names.LOBBY, action.after)

    def _follow_worker(self, action: FollowWorker) -> None:
        self._follow(names.from_worker(action.worker), action.after)

    def _follow(self, short: str, after: Position | None) -> None:
        place = max(after.offset + 1 if after else 0, self._places.get(short, 0))
        self._places[short] = place
        self._reader.follow(names.physical(self.options.run, short), place)

    def _read_to_end(self, action: ReadToEnd) -> None:
        short = names.from_worker(action.worker)
        topic = names.physical(self.options.run, short)
        self._targets[short] = self.log.ends([topic])[topic]

    def _report_read(self) -> None:
        for short, end in list(self._targets.items()):
            if self._places.get(short, 0) >= end:
                del self._targets[short]
                worker = names.worker_of(short)
                assert worker is not None
                self._handle(TopicRead(worker))

    def _finish(self, _action: Finish) -> None:
        self._finished = True

    # --- inputs ---------------------------------------------------------------------------------

    def _receive(self, record: Record) -> None:
        name = names.parse(record.topic)
        assert name is not None
        self._places[name.short] = record.offset + 1
        self._meter.seen(record)
        worker = names.worker_of(name.short)
        if worker is not None and tensors.is_chunk(record):
            if tensors.chunk_of(record) is None:
                self._set_aside(name.short, record, "a chunk whose header does not fit it")
                return
            self._keeper.add(record)
            self._handle(ChunkSeen(worker))
            return
        try:
            message = fitting(record.value, name.short)
        except PeerError as error:
            self._set_aside(name.short, record, error.what)
            return
        position = Position(name.short, name.generation, record.offset)
        if isinstance(message, LogLine):
            self._central.write(message)
            self._ended = self._ended or message.text == self._last_line
            if message != self._told:
                self.listener.line(message)
        elif isinstance(message, (Hello, StopRequested)):
            self._receive_knock(position, message, record)
        elif isinstance(message, Envelope) and worker is not None:
            self._note_traffic(worker, message)
            self._handle(EnvelopeReceived(worker, position, message))

    def _note_traffic(self, worker: str, envelope: Envelope) -> None:
        member = self._decider.view.members.get(worker)
        if member is None or member.incarnation != envelope.sender:
            return
        if isinstance(envelope.body, (Heartbeat, Bye)) and envelope.body.traffic:
            self._traffic[envelope.sender] = envelope.body.traffic

    def _receive_knock(
        self, position: Position, message: Hello | StopRequested, record: Record
    ) -> None:
        if message.run != self.options.run or not verified(self.options.key, message):
            who = f"worker {message.worker[:40]!r}" if isinstance(message, Hello) else "a stop"
            what = f"signed with another cluster key, or forged: {who}; that is ignored"
            self._set_aside(position.topic, record, what)
            return
        if isinstance(message, Hello):
            if NAME.fullmatch(message.worker):
                # Created before anyone is told of it (protocol 1).
                self.log.create([names.physical(self.options.run, f"from.{message.worker}")])
            self._handle(HelloReceived(position, message))
        else:
            self._handle(StopReceived(position, message))

    def _set_aside(self, short: str, record: Record, why: str) -> None:
        """What does not count is kept apart, with its reason."""
        self._quarantine.add(short, record.offset, why, record.value)

    def _look_at_voids(self) -> None:
        """Records of others in our ledger: void by rule, and told."""
        for offset, why in self._ledger.voids[self._voids :]:
            self._quarantine.add(names.LEDGER, offset, f"void: {why}")
        self._voids = len(self._ledger.voids)

    # --- storage --------------------------------------------------------------------------------

    def _watch_storage(self) -> StorageWatch:
        assert self._prepared is not None
        assert self._trainer is not None
        model = sum(tensor.nbytes for tensor in self._trainer.weights().values())
        settings, batch = self.options.settings, self.options.job.batch
        return watch_over(self._meter, settings, self._prepared, batch, model, self.steps)

    def _look_at_storage(self) -> None:
        lines, stop = self._storage.look(self._ledger.state)
        for line in lines:
            self._say.say(line.text, line.level)
        if stop is not None:
            self._stop.put(stop)

    def _tell(self, line: Line) -> None:
        """Say it to whoever looks on, before the upload; it comes by once more, in the topic."""
        self._told = self._say.say(line.text, line.level)
        self.listener.line(self._told)

    # --- the end --------------------------------------------------------------------------------

    def _wait_for_byes(self) -> None:
        end = self.clock.now() + FAREWELL
        while self._ledger.state.alive() and self.clock.now() < end and self._stop.empty():
            self._turn()

    def _conclude(self) -> dict[str, object]:
        """Write what is left of the log, the models and the result."""
        options, state = self.options, self._ledger.state
        assert state.stopped is not None
        self._last_line = f"The run has {state.status}: {state.stopped.code}"
        self._say.say(self._last_line)
        for _ in range(LAST_POLLS):
            for record in self._reader.poll(POLL):
                self._receive(record)
            if self._ended:
                break
        self._evaluator.stop()
        best = self._evaluator.best
        if state.newest is not None:
            best = save_models(options.folder, state, self._store, best)
        traffic = [self.log.traffic.flat(), *self._traffic.values()]
        storage = self._storage.result()
        return build_result(
            options.folder, state, self.clock.now(), traffic, best, storage, self._quarantine.count
        )

    def _salvage(self, error: HermesError) -> dict[str, object]:
        """The run cannot go on: save what is held. Returns the result if somebody wanted it to stop
        anyway, and raises the error with what was saved else."""
        if isinstance(error, (BrokerUnreachable, OutcomeUnknown)) and not error.remedy:
            error = given_up(self.log, "the run's master", self.options.patience)
        left = isinstance(error, BrokerError) and bool(self._interrupted)
        code = self._interrupted if left else reason_code(error)
        end = ("stopped" if left else "failed", Reason(code, {"why": error.what}))
        folder, best = self.options.folder, self._evaluator.best
        if not isinstance(error, BrokerError):
            self._announce(*end)
        saved = salvage(folder, self._ledger.state, self._desk, self._judge, best, end)
        traffic = [self.log.traffic.flat(), *self._traffic.values()]
        now, storage = self.clock.now(), self._storage.result()
        result = None
        with contextlib.suppress(RunFailed):  # a disk that is full takes none of it
            result = build_result(
                folder, saved.state, now, traffic, saved.best, storage, self._quarantine.count
            )
            self._last_word(f"The run has {end[0]}: {code}: {error.what}. {saved.text}")
        if not left or result is None:
            raise with_advice(error, saved.text)
        self._tell_of_broker(
            f"{error.where}: {error.what}. It could not be told "
            f"{untold(self._ledger.state, self._decider.view)}; "
            "workers started elsewhere go on waiting for it: end each with Ctrl-C"
        )
        return result

    def _announce(self, status: str, reason: Reason) -> None:
        """Nobody has to wait for a master that cannot go on, where the broker can still be told."""
        if self._ledger.state.stopped is None:
            with contextlib.suppress(HermesError):
                self._ledger.commit((RunStopped(status, reason),), (), self.clock.now())

    def _last_word(self, text: str) -> None:
        """Into the central log itself: the topic cannot be counted on any more."""
        self._central.write(LogLine("master", "error", utc_now(), text))


PERFORM: dict[type, Callable[..., None]] = {
    UploadData: MasterProcess._upload,
    StoreFirst: MasterProcess._store_first,
    Evaluate: MasterProcess._evaluate,
    FollowLobby: MasterProcess._follow_lobby,
    FollowWorker: MasterProcess._follow_worker,
    ReadToEnd: MasterProcess._read_to_end,
    Finish: MasterProcess._finish,
}
"""Action -> who performs it; the desk performs the others."""
