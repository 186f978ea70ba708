"""How does a log look that lies in files? A run's topics as they were exported: they are only read.

A folder with `log.json`, the index, and a file a topic. A file holds frames, one after the other:
offset (8 bytes), bytes of the headers (4), bytes of the value (4), all big-endian; then the headers
(msgpack: pairs of name and bytes) and the value. What a broker had forgotten is not there; offsets
stay what they were.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

from hermes.errors import BrokerRefused, BrokerUnreachable, NoSuchTopic, RunError
from hermes.transport.held import Held
from hermes.transport.log import Headers, Receipt, Record
from hermes.transport.memory import outside

INDEX = "log.json"
FORMAT = 1

_FRAME = struct.Struct(">QII")
_PIECE = 1 << 20

Progress = Callable[[int], None]
"""Told of the bytes that were read, piece by piece."""


class TopicFile(msgspec.Struct, frozen=True):
    """One topic, as the index has it."""

    file: str
    """Its name, in the folder of the index."""
    start: int
    """First offset that was there."""
    end: int
    """The offset that the next record would have got."""
    records: int
    bytes: int
    sha256: str
    """Of the file, hex."""


class Index(msgspec.Struct, frozen=True):
    """`log.json`."""

    format: int
    run: str
    protocol: int
    """Of the records in it."""
    hermes: str
    """Version of the program that wrote it."""
    exported: str
    """Wall time, ISO 8601 UTC."""
    source: str
    """The broker that the records are from."""
    topics: dict[str, TopicFile]
    """By name at the broker."""


# --- writing ------------------------------------------------------------------------------------


class TopicWriter:
    """Writes one topic's file. Raises `OSError`."""

    def __init__(self, path: Path, start: int) -> None:
        """`start`: the first offset that the topic has."""
        self.path, self.start, self.next = path, start, start
        self.records, self.bytes = 0, 0
        self._digest = hashlib.sha256()
        self._file = path.open("xb")

    def add(self, record: Record) -> None:
        """The next record, whatever its offset is."""
        headers = msgspec.msgpack.encode(list(record.headers))
        for piece in (
            _FRAME.pack(record.offset, len(headers), len(record.value)) + headers,
            record.value,
        ):
            self._file.write(piece)
            self._digest.update(piece)
            self.bytes += len(piece)
        self.records, self.next = self.records + 1, record.offset + 1

    def close(self) -> TopicFile:
        """No more comes: all is on the disk; what the index says of it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name, digest = self.path.name, self._digest.hexdigest()
        return TopicFile(name, self.start, self.next, self.records, self.bytes, digest)

    def abandon(self) -> None:
        """It is not wanted any more."""
        self._file.close()


def write_index(folder: Path, index: Index) -> None:
    """The last file of an export. Raises `OSError`."""
    data = msgspec.json.format(msgspec.json.encode(index), indent=2)
    (folder / INDEX).write_bytes(data + b"\n")


# --- reading ------------------------------------------------------------------------------------


def is_exported(path: Path) -> bool:
    """Whether an exported log lies here."""
    return (path / INDEX).is_file()


def read_index(folder: Path) -> Index:
    """The index of an exported log. Raises `RunError`."""
    path = folder / INDEX
    try:
        raw = path.read_bytes()
        number = msgspec.json.decode(raw, type=_Format).format
        if number > FORMAT:
            raise RunError(
                f"the log is of format {number}; this program reads {FORMAT}",
                where=str(path),
                remedy="Take the version of Hermes that wrote it, or a newer one.",
            )
        index = msgspec.json.decode(raw, type=Index)
    except (OSError, msgspec.DecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise RunError(
            f"this is no exported log: {why}",
            where=str(path),
            remedy="Name a folder that `hermes export RUN --format log` wrote.",
        ) from None
    for topic in index.topics.values():
        if Path(topic.file).name != topic.file:
            raise RunError("the index names a file elsewhere", where=f"{path}: {topic.file!r}")
    return index


class _Format(msgspec.Struct, frozen=True):
    format: int


class _Places:
    """Where the records of one file are."""

    def __init__(self, path: Path, told: TopicFile, progress: Progress | None) -> None:
        self.path = path
        self.offsets, self.seeks = array("Q"), array("Q")
        self.damage = ""
        """What is wrong with the file, in words."""
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                read = self._scan(file, digest.update, progress)
        except OSError as error:
            self.damage = f"it cannot be read: {error.strerror or error}"
            read = 0
        if not self.damage and (digest.hexdigest() != told.sha256 or read != told.bytes):
            self.damage = "its digest is not the one that the index has"
        self.start = min(told.start, *self.offsets[:1]) if self.offsets else told.end
        last = self.offsets[-1] + 1 if self.offsets else told.end
        # A file that was cut short ends where it ends, whatever the index says.
        whole = len(self.offsets) == told.records
        self.end = max(last, told.end) if whole else last

    def _scan(
        self, file: BinaryIO, update: Callable[[bytes], None], progress: Progress | None
    ) -> int:
        place = 0
        while head := file.read(_FRAME.size):
            update(head)
            if len(head) < _FRAME.size:
                self.damage = f"its last record is torn (byte {place})"
                return place
            offset, headers, value = _FRAME.unpack(head)
            left, begin = headers + value, place
            if self.offsets and offset <= self.offsets[-1]:
                self.damage = f"it is no file of records from byte {place} on"
                return place
            while left:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    self.damage = f"its last record is torn (byte {begin})"
                    return begin
                update(piece)
                left -= len(piece)
            place += _FRAME.size + headers + value
            self.offsets.append(offset)
            self.seeks.append(begin)
            if progress is not None:
                progress(place - begin)
        return place


class FiledLog:
    """An exported log, as an ordered log that nobody can write to."""

    can_trim = False

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        """Reads all files once, for their digests. Raises `RunError` where there is no log."""
        self.index = read_index(folder)
        self._folder = folder
        self._topics = {
            name: _Places(folder / told.file, told, progress)
            for name, told in sorted(self.index.topics.items())
        }

    @property
    def damage(self) -> Mapping[str, str]:
        """By file name: how it is not what was exported."""
        return {one.path.name: one.damage for one in self._topics.values() if one.damage}

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, sorted."""
        return sorted(name for name in self._topics if name.startswith(prefix))

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset after its last record. Raises `NoSuchTopic`."""
        return {name: self.places(name).end for name in topics}

    def starts(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset of its first record. Raises `NoSuchTopic`."""
        return {name: self.places(name).start for name in topics}

    def places(self, topic: str) -> _Places:
        """For the readers. Raises `NoSuchTopic`."""
        if topic not in self._topics:
            raise NoSuchTopic("there is no such topic", where=topic)
        return self._topics[topic]

    def reader(self) -> FiledReader:
        """A reader that follows nothing yet."""
        return FiledReader(self)

    @property
    def guards(self) -> None:
        """Nobody is kept out of it."""
        return None

    def held(self, prefix: str) -> Held:
        """Bytes of the topics that begin with `prefix`."""
        told = self.index.topics
        return Held({name: told[name].bytes for name in self.topics(prefix)}, None)

    def complaint(self) -> str:
        """Never any: nobody is asked."""
        return ""

    def abandon(self, why: BrokerUnreachable | None = None) -> None:
        """Nobody ever waits for it."""

    def close(self) -> None:
        """Readers have files of their own."""

    def __enter__(self) -> FiledLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What changes a log is refused.

    def create(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Refused: raises `BrokerRefused`."""
        del topics, config
        self._refuse()

    def delete(self, topics: Iterable[str]) -> None:
        """Refused: raises `BrokerRefused`."""
        del topics
        self._refuse()

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> Receipt:
        """Refused: raises `BrokerRefused`."""
        del topic, value, headers
        self._refuse()

    def trim(self, topic: str, before: int) -> None:
        """Refused: raises `BrokerRefused`."""
        del topic, before
        self._refuse()

    def check_topics(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Files have no settings: there is nothing to compare."""

    def _refuse(self) -> NoReturn:
        raise BrokerRefused("an exported log is only read", where=self.place)


class FiledReader:
    """Reads topics in files by offset. Nothing ever comes later: an empty answer is the end."""

    def __init__(self, log: FiledLog) -> None:
        self._log = log
        self._open: dict[str, BinaryIO] = {}
        self._next: dict[str, int] = {}

    def follow(self, topic: str, offset: int, need: int | None = None) -> None:
        """Read `topic` from `offset` on."""
        del need
        self._next[topic] = offset

    def drop(self, topic: str) -> None:
        """Follow `topic` no more."""
        self._next.pop(topic, None)
        held = self._open.pop(topic, None)
        if held is not None:
            held.close()

    def poll(self, timeout: float, limit: int = 500) -> list[Record]:
        """At most `limit` records, at once. Raises `NoSuchTopic`, `BrokerRefused`."""
        del timeout
        found: list[Record] = []
        for topic in list(self._next):
            places = self._log.places(topic)
            if not places.start <= self._next[topic] <= places.end:
                raise outside(topic, self._next[topic], places.start, places.end)
            found += self._records(topic, places, limit - len(found))
        return found

    def _records(self, topic: str, places: _Places, limit: int) -> list[Record]:
        first = bisect_left(places.offsets, self._next[topic])
        wanted = range(first, min(first + limit, len(places.offsets)))
        if not wanted:
            return []
        file = self._file(topic, places)
        file.seek(places.seeks[first])
        found = [_read(file, topic) for _ in wanted]
        self._next[topic] = found[-1].offset + 1
        return found

    def _file(self, topic: str, places: _Places) -> BinaryIO:
        if topic not in self._open:
            try:
                self._open[topic] = places.path.open("rb")
            except OSError as error:
                raise BrokerRefused(
                    f"it cannot be read: {error.strerror or error}", where=str(places.path)
                ) from None
        return self._open[topic]

    def close(self) -> None:
        """Let go of the files."""
        for topic in [*self._next, *self._open]:
            self.drop(topic)


def _read(file: BinaryIO, topic: str) -> Record:
    offset, headers, value = _FRAME.unpack(file.read(_FRAME.size))
    raw = file.read(headers)
    try:
        pairs = msgspec.msgpack.decode(raw, type=list[tuple[str, bytes]])
    except msgspec.DecodeError:
        pairs = []  # a damaged header: the record is no chunk of anybody's
    return Record(topic, offset, file.read(value), tuple(pairs))
