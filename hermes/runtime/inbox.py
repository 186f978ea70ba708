"""What reaches the master? Records of the topics that it reads become events; what does not count
is set aside, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hermes.codec import verified
from hermes.errors import BrokerRefused, NoSuchTopic, PeerError
from hermes.machine.events import (
    ChunkSeen,
    EnvelopeReceived,
    Event,
    HelloReceived,
    LogsRead,
    SetAside,
    StopReceived,
    TailMissing,
    TopicRead,
)
from hermes.machine.rules import NAME
from hermes.messages import Envelope, Hello, LogLine, MasterBeat, Moved, StopRequested
from hermes.perform.keeper import ChunkKeeper
from hermes.report.words import short as in_words
from hermes.runtime.lines import MasterLines
from hermes.runtime.options import MasterOptions
from hermes.runtime.places import Place, Places
from hermes.runtime.quarantine import Quarantine, fitting
from hermes.transport import names, tensors
from hermes.transport.log import Log, Record
from hermes.transport.rights import of_worker
from hermes.values import Position

LINES_AGAIN = 2000
"""Records of the central log that a master reads again that takes a run over."""

LINES_AT_ONCE = 500
"""Records of it after which the machine is told."""

HELLOS = 4096
"""Hellos that are told apart from copies of them."""


class Inbox:
    """The topics that the master reads, and how far it has read them."""

    def __init__(
        self,
        log: Log,
        options: MasterOptions,
        lines: MasterLines,
        seen: Callable[[Record], None],
        segments: Mapping[str, str],
    ) -> None:
        """`seen` is told of each record, whatever it holds; `segments`: settings of the workers'
        topics."""
        self._segments = segments
        self.keeper = ChunkKeeper()
        """Chunks of updates that came by."""
        self._log, self._run, self._key = log, options.run, options.key
        self._lines, self._seen = lines, seen
        self._quarantine = Quarantine(options.folder.quarantine, lines.warn)
        self._recent: dict[Position, bytes] = {}
        """Small messages of the last poll, by topic and offset: one may turn out to be evidence."""
        self._hellos: dict[str, Position] = {}
        """Where each hello lay, by its signature, in the order in which they came."""
        self._targets: dict[str, Place] = {}
        self._reader = log.reader()
        self._places = Places(log, self._reader, options.run)
        self._generations: Mapping[str, int] = {}
        self._told_of_logs = 0
        self.rival = 0
        """The highest term that a master has beaten under; whoever looks into it sets it to 0."""

    @property
    def aside(self) -> Mapping[str, int]:
        """What was set aside, by reason."""
        return self._quarantine.counts

    def close(self) -> None:
        """Nothing is read any more."""
        self._reader.close()

    # --- which topics ---------------------------------------------------------------------------

    def listen(self, generations: Mapping[str, int]) -> None:
        """Read the central log; a run that was led before is heard from some while ago on.
        `generations` are those of the ledger, and change with it."""
        self._generations = generations
        generation = generations.get(names.LOGS, 0)
        topic = names.physical(self._run, names.LOGS, generation)
        heard = self._log.ends([topic])[topic] - LINES_AGAIN
        first = max(self._log.starts([topic])[topic], heard)
        self._places.follow(names.LOGS, Position(names.LOGS, generation, first - 1))

    def follow(self, short: str, after: Position | None) -> None:
        """Read this topic, too: after this place, or from where it was read to. Raises
        `RunFailed` where it is gone."""
        self._places.follow(short, after)

    def more_logs(self, generation: int) -> None:
        """The central log goes on there; for a while some still write to the one before."""
        self._reader.follow(names.physical(self._run, names.LOGS, generation), 0)

    def let_go(self, short: str, generation: int, before: int) -> None:
        """What lies before this place may be gone at once."""
        self._places.let_go(short, generation, before)

    def note_end(self, short: str) -> None:
        """A worker's topic is to be read to its present end; `news` tells when it was."""
        generation = self._places.of(short).generation
        topic = names.physical(self._run, short, generation)
        self._targets[short] = Place(generation, self._log.ends([topic])[topic])

    def news(self) -> list[Event]:
        """What reading came to, each told once: topics that have been read to the end that was
        noted, topics whose end is lost, the central log's growth."""
        found: list[Event] = [TailMissing(*missed) for missed in self._places.missed]
        self._places.missed.clear()
        for short, end in list(self._targets.items()):
            if self._places.of(short) >= end:
                del self._targets[short]
                worker = names.worker_of(short)
                assert worker is not None
                found.append(TopicRead(worker))
        logs = self._places.of(names.LOGS)
        if abs(logs.offset - self._told_of_logs) >= LINES_AT_ONCE:
            self._told_of_logs = logs.offset
            found.append(LogsRead(Position(names.LOGS, logs.generation, logs.offset)))
        return found

    # --- what is in them ------------------------------------------------------------------------

    def poll(self, timeout: float, limit: int = 500) -> Iterator[Event]:
        """What one poll brings, as events; it waits `timeout` seconds at most. A record is looked
        at only once the event before it was taken; of a worker's chunks in a row one is told.
        Raises `HermesError`."""
        heard: set[str] = set()
        self._recent.clear()
        for record in self._polled(timeout, limit):
            event = self._event_of(record)
            if isinstance(event, ChunkSeen):
                if event.worker in heard:
                    continue
                heard.add(event.worker)
            elif isinstance(event, EnvelopeReceived):
                heard.discard(event.worker)  # what follows may be of its next update
            if event is not None:
                yield event

    def _polled(self, timeout: float, limit: int) -> list[Record]:
        try:
            return self._reader.poll(timeout, limit=limit)
        except (BrokerRefused, NoSuchTopic) as error:
            self._places.mend(error)
            return []

    def _event_of(self, record: Record) -> Event | None:
        name = names.parse(record.topic)
        assert name is not None
        self._places.passed(name, record.offset)
        self._seen(record)
        position = Position(name.short, name.generation, record.offset)
        worker = names.worker_of(name.short)
        if worker is not None and tensors.is_chunk(record):
            return self._chunk(position, worker, record)
        try:
            message = fitting(record.value, name.short)
        except PeerError as error:
            self._set_aside(position, record, error.what, "no-message")
            return None
        if isinstance(message, LogLine):
            self._lines.heard(message)
        elif isinstance(message, MasterBeat):
            self.rival = max(self.rival, message.term)
        elif isinstance(message, (Hello, StopRequested)):
            return self._knock(position, message, record)
        elif isinstance(message, Envelope) and worker is not None:
            self._recent[position] = record.value
            self._perhaps_move_on(name, message)
            return EnvelopeReceived(worker, position, message)
        return None

    def _perhaps_move_on(self, name: names.Name, message: Envelope) -> None:
        """The marker of a generation's end, where the ledger knows of the next."""
        body = message.body
        if isinstance(body, Moved) and body.generation <= self._generations.get(name.short, 0):
            self._places.move_on(name.short, body.generation)

    def _chunk(self, at: Position, worker: str, record: Record) -> Event | None:
        if tensors.chunk_of(record) is None:
            self._set_aside(at, record, "a chunk whose header does not fit it", "bad-chunk")
            return None
        self.keeper.add(record)
        return ChunkSeen(worker)

    def _knock(
        self, position: Position, message: Hello | StopRequested, record: Record
    ) -> Event | None:
        if message.run != self._run or not verified(self._key, message):
            who = f"worker {message.worker[:40]!r}" if isinstance(message, Hello) else "a stop"
            what = f"signed with another cluster key, or forged: {who}; that is ignored"
            self._set_aside(position, record, what, "forged")
            return None
        if isinstance(message, StopRequested):
            return StopReceived(position, message)
        first = self._hellos.setdefault(message.proof, position)
        if first != position:
            # A worker that knocks again has a new nonce. The machine knows what it answers.
            who = f"the hello of worker {message.worker[:40]!r} at offset {first.offset}"
            why = f"{who}, sent again: that is ignored"
            self._set_aside(position, record, why, "repeated-hello")
            return None
        if len(self._hellos) > HELLOS:
            del self._hellos[next(iter(self._hellos))]
        if NAME.fullmatch(message.worker):
            # Created before anyone is told of it (protocol 1).
            short = names.from_worker(message.worker)
            if not self._generations.get(short, 0):
                self._log.create([names.physical(self._run, short)], self._segments)
                if self._log.guards is not None:
                    self._log.guards.allow(of_worker(self._run, message.worker))
        return HelloReceived(position, message)

    # --- what does not count --------------------------------------------------------------------

    def _set_aside(self, at: Position, record: Record, why: str, code: str) -> None:
        """What does not count is kept apart, with its reason."""
        self._quarantine.add(at, why, record.value, code=code)

    def set_aside(self, action: SetAside) -> None:
        """So is what the machine refused: the record, if it came just now; of an update what it
        says of its tensors."""
        reason = action.reason
        self._quarantine.add(
            action.at,
            in_words(reason),
            self._recent.get(action.at),
            code=reason.code,
            facts=reason.facts,
            worker=action.worker,
            update=action.update,
        )

    def set_aside_voids(self, voids: list[tuple[int, str]]) -> None:
        """Records of others in our ledger: void by rule, and told. The list is emptied."""
        for offset, why in voids:
            at = Position(names.LEDGER, 0, offset)
            self._quarantine.add(at, f"void: {why}", code="void")
        voids.clear()
