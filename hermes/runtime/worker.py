"""What does a worker's process do? Its machine's bidding.

This thread decides, sends and beats; one thread follows the ledger, one trains and pushes, one
fetches blocks ahead. All that happens comes as an event through one queue.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from hermes.chance import generator
from hermes.codec import decode, encode, proof_of
from hermes.data.cache import BlockCache
from hermes.errors import (
    BrokerError,
    BrokerUnreachable,
    DecodeError,
    Fenced,
    HermesError,
    NoSuchTopic,
    RunError,
    RunFailed,
    Unverified,
)
from hermes.job import Job, build
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
    RoundFinished,
    Send,
    SendAgain,
    SendBeat,
    SendHello,
    SendResent,
    StoreUpdate,
    Train,
    UpdateStored,
    VersionLoaded,
)
from hermes.machine.rules import PROTOCOL_RULES
from hermes.machine.worker import WorkerState
from hermes.messages import (
    Bye,
    Envelope,
    Heartbeat,
    Hello,
    LedgerRecord,
    Resent,
    Round,
    WorkerAdmitted,
    WorkerBody,
)
from hermes.perform.bench import WorkerBench, push
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.store import Store
from hermes.perform.upload import Signer
from hermes.policy.presets import from_tree
from hermes.runtime.acks import Acknowledgements
from hermes.runtime.hands import Failed, Hand, as_ours
from hermes.runtime.hearing import MasterEar
from hermes.runtime.join import check_key, wait_for_run
from hermes.runtime.logs import LineSender
from hermes.runtime.measure import emulated_step, step_seconds
from hermes.runtime.outbox import Outbox
from hermes.runtime.pace import Pacer
from hermes.runtime.software import software
from hermes.runtime.watch import BrokerWatch
from hermes.train import make_trainer
from hermes.transport import names
from hermes.transport.counting import CountingLog
from hermes.transport.log import Log, Receipt

KNOCK_AGAIN = 5.0
"""Seconds between two hellos."""

UNANSWERED = 30.0
"""Seconds after which a worker without a named run leaves one whose master does not answer."""

SILENCE = 10.0
"""Seconds without a sign of the master before anybody is told: it beats every 2 s, and is listened
for after 5 s without a ledger record."""

LAST_WORDS = 3.0
"""Seconds that a bye is waited for."""

LEAVING = 2.0
"""Seconds that a step under way may take when the process leaves."""


class WorkerOptions(NamedTuple):
    """What a worker is started with."""

    run: str | None
    name: str
    key: bytes
    state: Path
    """Folder of the outbox."""
    cache: Path
    """Folder of the blocks."""
    speed: float | None = None
    """Emulated, against `step_seconds`; None: as fast as it goes."""
    step_seconds: float | None = None
    """Seconds of a step on a device of speed 1; None: measured before the first round."""
    patience: float = 600.0
    """Seconds to wait for the run."""
    outage: float = 600.0
    """Seconds that the broker may be away."""


class Farewell(NamedTuple):
    """Why a worker left: "done", "refused", "fenced", "interrupted", "unanswered" (no master took
    it in), "deserted" (the one that did is silent), "again"."""

    code: str
    reason: str


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
        options, seen = self.options, set[str]()
        while True:
            run = wait_for_run(self.log, options.run, seen, options.patience, self._over.wait)
            if run is None:
                return Farewell("interrupted", "interrupted")
            farewell = self._take_part(run, acks)
            if options.run is not None:
                _refuse_silence(farewell, run)
            if options.run is not None or farewell.code in ("interrupted", "refused"):
                return farewell
            seen.add(run)

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
        self.kept: dict[int, WorkerBody] = {}
        self.farewell: Farewell | None = None
        self._over = over
        self._topic = names.physical(run, names.from_worker(options.name))
        self._lines = LineSender(self.log, run, options.name)
        self._pacer = Pacer()
        self._preparing = False
        self._ready = threading.Event()
        self._following = threading.Event()
        self._bench: WorkerBench | None = None
        self._beat_every = 1.0
        self._next_beat = 0.0
        self._acks = acks
        self._silence_said = False
        self._voids = 0
        self._next_knock = 0.0
        self._began, self._said = 0.0, False
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
            self._store, self._bulk = Store(self.log, self.run), Store(self.log, self.run)
            self._trains = Hand("train", self.events.put, self._store.close)
            self._fetches = Hand("fetch", self.events.put, self._bulk.close)
            self._ear = MasterEar(self.log, reader, self.run)
            follower = threading.Thread(target=self._follow, daemon=True)
            follower.start()
            left = self.outbox.left
            self._deliver(Began(secrets.token_hex(8), left.incarnation, left.updates))
            try:
                return self._live()
            except HermesError as error:
                raise self._given_up(error) from error
            finally:
                self._following.set()
                self._ready.set()
                self._pacer.over.set()
                self._trains.stop(LEAVING)
                self._fetches.stop(LEAVING)
                follower.join(LEAVING)
        finally:
            reader.close()
            self.outbox.close()

    def _live(self) -> Farewell:
        self._began = time.monotonic()
        self._next_knock = self._began + KNOCK_AGAIN
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

    def _keep_time(self, now: float) -> None:
        if self.farewell is not None:
            return
        if self.state.phase == "knocking" and now >= self._next_knock:
            self._wait_for_answer(now)
            self._next_knock = now + KNOCK_AGAIN
            self._deliver(KnockDue(secrets.token_hex(8)))
        if now >= self._next_beat:
            self._next_beat = now + self._beat_every
            self._deliver(BeatDue(self._pacer.steps))
            self._listen_for_master()

    def _listen_for_master(self) -> None:
        """Say when the master that took us in falls silent, and when it is back; leave after our
        patience."""
        if self.state.phase == "knocking" or self._acks.unanswered() > SILENCE:
            self._ear.rest()
            return
        silent, patience = self._ear.silent, self.options.patience
        text = f"the master of {self.run} has not been heard for {silent:.0f} s"
        if silent > patience:
            self.farewell = Farewell("deserted", text)
        elif (silent > SILENCE) != self._silence_said:
            self._silence_said = not self._silence_said
            waits = f"{text}; waiting for it, up to {patience:g} s (Ctrl-C leaves)"
            self.say(waits if self._silence_said else f"the master of {self.run} is heard again")

    def _wait_for_answer(self, now: float) -> None:
        """Say that nobody answers, once; give up after the patience."""
        if not self._said:
            self._said = True
            self.say(f"no master answers in run {self.run} yet; knocking again")
        patience = self.options.patience
        if self.options.run is None:
            patience = min(patience, UNANSWERED)
        if now - self._began > patience:
            self.farewell = Farewell(
                "unanswered", f"no master answered in run {self.run} within {patience:g} s"
            )

    def _deliver(self, event: Event) -> None:
        """One event: decide, perform."""
        if isinstance(event, LedgerSeen) and not self._preparing:
            self._get_ready(event.record)
        step = machine.decide(self.state, time.monotonic_ns(), event)
        self.state = step.state
        for action in step.actions:
            PERFORM[type(action)](self, action)

    # --- being admitted -------------------------------------------------------------------------

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
                self._trains.do(partial(self._make_bench, entry))

    def _make_bench(self, admitted: WorkerAdmitted) -> None:
        """Nothing of the job runs before its signature is verified."""
        options, settings = self.options, from_tree(admitted.opened.settings)
        Signer(self.run, options.key).verify(admitted.data)
        source, manifest = read_upload(self._store, admitted.data)
        job = build(source.text, source.name, source.args)
        seed = admitted.opened.seed
        trainer = make_trainer(job, generator(seed, "init"))
        cache = BlockCache(options.cache, settings.cache.max << 20)
        blocks = Blocks(self._store, manifest, cache)
        ahead = BlockCache(options.cache, settings.cache.max << 20)
        self._ahead = Blocks(self._bulk, manifest, ahead)
        blocks.fetch("probe", range(blocks.count("probe")))
        self._beat_every = settings.workers.heartbeat
        bench = WorkerBench(options.name, seed, job, trainer, blocks)
        self._pacer.emulate(self._step_seconds(job, blocks), options.speed)
        bench.after_step = self._pacer.after_step
        self._bench = bench
        self._ready.set()
        self._tell(f"admitted to {self.run}")

    def _step_seconds(self, job: Job, blocks: Blocks) -> float | None:
        """A step's time on this machine, where a speed is to be emulated."""
        options = self.options
        if options.speed is None or options.step_seconds is not None:
            return options.step_seconds
        x, y = blocks.read("probe", 0)
        return emulated_step(step_seconds(job, (x[: job.batch], y[: job.batch])))

    def _tell(self, text: str) -> None:
        self.say(text)
        self._lines.say(text)

    # --- the ledger -----------------------------------------------------------------------------

    def _follow(self) -> None:
        """Follow the ledger; the records come as events."""
        while not self._following.is_set():
            try:
                records = self._ear.poll(1.0)
            except Exception as error:  # noqa: BLE001  (told, and raised by the main thread)
                self.events.put(Failed(as_ours(error)))
                return
            for raw in records:
                try:
                    record = decode(raw.value)
                except DecodeError as error:
                    self._note_void(raw.offset, error.what)
                    continue
                if isinstance(record, LedgerRecord):
                    digest = hashlib.sha256(raw.value).digest()
                    self.events.put(LedgerSeen(record, raw.offset, digest))

    def _note_void(self, offset: int, why: str) -> None:
        """A record that is none of a ledger: void by rule, every reader skips it; told once."""
        if not self._voids:
            self._lines.say(f"ledger, offset {offset}: {why}; it is skipped", "warning")
        self._voids += 1

    # --- sending --------------------------------------------------------------------------------

    def _send_hello(self, action: SendHello) -> None:
        options = self.options
        knock = Hello(
            self.run,
            options.name,
            self.incarnation,
            action.nonce,
            software(""),
            action.previous,
        )
        signed = replace(knock, proof=proof_of(options.key, knock))
        self._append(names.physical(self.run, names.LOBBY), encode(signed))

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
        self.kept[action.number] = body
        self._post(action.number, body)
        if failure is not None:
            raise failure

    def _say_round(self, body: Round | Bye) -> None:
        if isinstance(body, Round) and body.verdict != "quiet":
            self._tell(f"round {body.round}: {body.verdict} ({body.reason.code})")

    def _send_resent(self, action: SendResent) -> None:
        self.kept[action.number] = Resent(action.update)
        self._post(action.number, self.kept[action.number])

    def _send_again(self, action: SendAgain) -> None:
        for number in sorted(self.kept):
            if number >= action.first:
                self._post(number, self.kept[number])

    def _send_beat(self, action: SendBeat) -> None:
        self._post(0, Heartbeat(action.steps, action.last, self.log.traffic.flat()))

    def _post(self, number: int, body: WorkerBody) -> None:
        seen = self.state.authority
        envelope = Envelope(self.incarnation, number, seen.offset, seen.chain, body)
        with self._acks.sending():
            receipt = self._append(self._topic, encode(envelope))
        if receipt is not None and (not number or isinstance(body, Bye)):
            self._acks.add(receipt)

    def _append(self, topic: str, data: bytes) -> Receipt | None:
        """Send; what does not arrive is asked for again by its number."""
        try:
            return self.log.append(topic, data)
        except (BrokerUnreachable, NoSuchTopic):
            return None

    def _forget(self, action: Forget) -> None:
        passed = PROTOCOL_RULES.may_forget
        for number in [number for number in self.kept if passed(number, action.up_to)]:
            del self.kept[number]

    def _forget_update(self, action: ForgetUpdate) -> None:
        self.outbox.forget(action.birth)

    # --- training -------------------------------------------------------------------------------

    def _fetch(self, action: FetchBlocks) -> None:
        def job() -> Event:
            self._ready.wait()
            bench = self._ready_bench()
            self._ahead.fetch("train", bench.indices(action.grant))
            self._trains.do(partial(bench.accept, action.grant))
            return BlocksFetched(action.grant.number)

        self._fetches.do(job)

    def _drop(self, action: DropGrant) -> None:
        self._trains.do(lambda: self._ready_bench().drop(action.grant))

    def _load(self, action: LoadVersion) -> None:
        def job() -> Event:
            data = self._store.get(action.version.payload)
            return VersionLoaded(self._ready_bench().load(action.version, data))

        self._trains.do(job)

    def _train(self, action: Train) -> None:
        def job() -> Event:
            bench, pacer = self._ready_bench(), self._pacer
            started = time.monotonic_ns()
            pacer.begin()
            done = bench.train(action)
            pacer.end()
            busy = time.monotonic_ns() - started
            return RoundFinished(
                action.round, done.steps, done.samples, busy, done.loss, done.probe
            )

        self._trains.do(job)

    def _store_update(self, _action: StoreUpdate) -> None:
        def job() -> Event:
            data = self._ready_bench().encoded()
            return UpdateStored(push(self._store, self.options.name, data))

        self._trains.do(job)

    def _ready_bench(self) -> WorkerBench:
        if self._bench is None:
            raise Unverified("no job was verified", where=self.run)
        return self._bench

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
    StoreUpdate: TakingPart._store_update,
    Leave: TakingPart._leave,
}
"""Action -> who performs it."""
