"""What reaches the master? Records of the topics that it reads become events; what does not count
is set aside, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hermes.codec import verified
from hermes.errors import PeerError
from hermes.machine.events import (
    ChunkSeen,
    EnvelopeReceived,
    Event,
    HelloReceived,
    StopReceived,
    TopicRead,
)
from hermes.machine.rules import NAME
from hermes.messages import Envelope, Hello, LogLine, StopRequested
from hermes.perform.keeper import ChunkKeeper
from hermes.runtime.lines import MasterLines
from hermes.runtime.options import MasterOptions
from hermes.runtime.quarantine import Quarantine, fitting
from hermes.transport import names, tensors
from hermes.transport.log import Log, Record
from hermes.values import Position


class Inbox:
    """The topics that the master reads, and how far it has read them."""

    def __init__(
        self, log: Log, options: MasterOptions, lines: MasterLines, seen: Callable[[Record], None]
    ) -> None:
        """`seen` is told of each record, whatever it holds."""
        self.keeper = ChunkKeeper()
        """Chunks of updates that came by."""
        self._log, self._run, self._key = log, options.run, options.key
        self._lines, self._seen = lines, seen
        self._quarantine = Quarantine(options.folder.quarantine, lines.warn)
        self._targets: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._reader = log.reader()
        self._reader.follow(names.physical(options.run, names.LOGS), 0)

    @property
    def aside(self) -> int:
        """Records that were set aside."""
        return self._quarantine.count

    def close(self) -> None:
        """Nothing is read any more."""
        self._reader.close()

    # --- which topics ---------------------------------------------------------------------------

    def follow(self, short: str, after: Position | None) -> None:
        """Read this topic, too: after this place, or from where it was read to."""
        place = max(after.offset + 1 if after else 0, self._places.get(short, 0))
        self._places[short] = place
        self._reader.follow(names.physical(self._run, short), place)

    def note_end(self, short: str) -> None:
        """A worker's topic is to be read to its present end; `caught_up` tells when it was."""
        topic = names.physical(self._run, short)
        self._targets[short] = self._log.ends([topic])[topic]

    def caught_up(self) -> list[Event]:
        """Workers whose topics have been read to the end that was noted; each is told once."""
        found: list[Event] = []
        for short, end in list(self._targets.items()):
            if self._places.get(short, 0) >= end:
                del self._targets[short]
                worker = names.worker_of(short)
                assert worker is not None
                found.append(TopicRead(worker))
        return found

    # --- what is in them ------------------------------------------------------------------------

    def poll(self, timeout: float, limit: int = 500) -> Iterator[Event]:
        """What one poll brings, as events; it waits `timeout` seconds at most. A record is looked
        at only once the event before it was taken; of a worker's chunks one is told. Raises
        `HermesError`."""
        heard: set[str] = set()
        for record in self._reader.poll(timeout, limit=limit):
            event = self._event_of(record)
            if isinstance(event, ChunkSeen):
                if event.worker in heard:
                    continue
                heard.add(event.worker)
            if event is not None:
                yield event

    def _event_of(self, record: Record) -> Event | None:
        name = names.parse(record.topic)
        assert name is not None
        self._places[name.short] = record.offset + 1
        self._seen(record)
        worker = names.worker_of(name.short)
        if worker is not None and tensors.is_chunk(record):
            return self._chunk(name.short, worker, record)
        try:
            message = fitting(record.value, name.short)
        except PeerError as error:
            self._set_aside(name.short, record, error.what)
            return None
        position = Position(name.short, name.generation, record.offset)
        if isinstance(message, LogLine):
            self._lines.heard(message)
        elif isinstance(message, (Hello, StopRequested)):
            return self._knock(position, message, record)
        elif isinstance(message, Envelope) and worker is not None:
            return EnvelopeReceived(worker, position, message)
        return None

    def _chunk(self, short: str, worker: str, record: Record) -> Event | None:
        if tensors.chunk_of(record) is None:
            self._set_aside(short, record, "a chunk whose header does not fit it")
            return None
        self.keeper.add(record)
        return ChunkSeen(worker)

    def _knock(
        self, position: Position, message: Hello | StopRequested, record: Record
    ) -> Event | None:
        if message.run != self._run or not verified(self._key, message):
            who = f"worker {message.worker[:40]!r}" if isinstance(message, Hello) else "a stop"
            what = f"signed with another cluster key, or forged: {who}; that is ignored"
            self._set_aside(position.topic, record, what)
            return None
        if isinstance(message, StopRequested):
            return StopReceived(position, message)
        if NAME.fullmatch(message.worker):
            # Created before anyone is told of it (protocol 1).
            self._log.create([names.physical(self._run, f"from.{message.worker}")])
        return HelloReceived(position, message)

    # --- what does not count --------------------------------------------------------------------

    def _set_aside(self, short: str, record: Record, why: str) -> None:
        """What does not count is kept apart, with its reason."""
        self._quarantine.add(short, record.offset, why, record.value)

    def set_aside_voids(self, voids: list[tuple[int, str]]) -> None:
        """Records of others in our ledger: void by rule, and told. The list is emptied."""
        for offset, why in voids:
            self._quarantine.add(names.LEDGER, offset, f"void: {why}")
        voids.clear()
