"""What does the ordered log look like without a broker? In this process's memory: for tests, the
simulator and deterministic runs.

The same promises and refusals as on Kafka: unknown topics raise `NoSuchTopic`, nothing is created
by asking for it, a record beyond the size limit is refused. Appends are acknowledged at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hermes.errors import BrokerRefused, BrokerUnreachable, Defect, NoSuchTopic
from hermes.transport.held import Held
from hermes.transport.log import Headers, Record
from hermes.transport.settings import MAX_VALUE


class MemoryReceipt(NamedTuple):
    """The promise of an append, already kept."""

    at: int

    def offset(self, timeout: float = 60.0) -> int:  # noqa: ARG002  (the interface's argument)
        """The record's offset; never waits, never raises."""
        return self.at


class _Topic:
    """One topic: its records, the oldest of which has offset `start`."""

    def __init__(self) -> None:
        self.start = 0
        self.records: list[Record] = []

    @property
    def end(self) -> int:
        return self.start + len(self.records)


class _Store:
    """The topics, a lock that guards them, and a condition of it that announces every change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.topics: dict[str, _Topic] = {}

    def topic(self, name: str) -> _Topic:
        """Raises `NoSuchTopic`."""
        try:
            return self.topics[name]
        except KeyError:
            raise NoSuchTopic("there is no such topic", where=name) from None


class MemoryLog:
    """An ordered log in memory. `connect()` gives another connection to the same records."""

    def __init__(self, *, _store: _Store | None = None) -> None:
        self._store = _store or _Store()
        self._closed = False

    def connect(self) -> MemoryLog:
        """Another connection to the same records, to be closed by itself."""
        return MemoryLog(_store=self._store)

    def create(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:  # noqa: ARG002
        """Create topics; existing ones stay as they are. `config` has no meaning in memory."""
        with self._open().changed:
            for name in topics:
                self._store.topics.setdefault(name, _Topic())

    def check_topics(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Memory has no settings: there is nothing to compare."""

    def delete(self, topics: Iterable[str]) -> None:
        """Delete topics; ones that are not there are no error."""
        with self._open().changed:
            for name in topics:
                self._store.topics.pop(name, None)
            self._store.changed.notify_all()

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, sorted."""
        with self._open().changed:
            return sorted(name for name in self._store.topics if name.startswith(prefix))

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset that the next record will get. Raises `NoSuchTopic`."""
        with self._open().lock:
            return {name: self._store.topic(name).end for name in topics}

    def starts(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset of its first record. Raises `NoSuchTopic`."""
        with self._open().changed:
            return {name: self._store.topic(name).start for name in topics}

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> MemoryReceipt:
        """Append a record. Raises `NoSuchTopic`, and `BrokerRefused` for one that is too large."""
        size = record_size(value, headers)
        if size > MAX_VALUE:
            raise too_large(topic, size)
        with self._open().lock:
            log = self._store.topic(topic)
            offset = log.end
            log.records.append(Record(topic, offset, bytes(value), tuple(headers)))
            self._store.changed.notify_all()
            return MemoryReceipt(offset)

    @property
    def can_trim(self) -> bool:
        """Always, in memory."""
        return True

    def trim(self, topic: str, before: int) -> None:
        """Forget the records with offsets below `before`. Raises `NoSuchTopic`."""
        with self._open().changed:
            log = self._store.topic(topic)
            gone = max(0, min(before, log.end) - log.start)
            del log.records[:gone]
            log.start += gone

    @property
    def guards(self) -> None:
        """Nobody is kept out of it."""
        return None

    def held(self, prefix: str) -> Held:
        """Bytes of the topics that begin with `prefix`; there is no disk."""
        with self._open().changed:
            return Held(
                {
                    name: sum(record_size(record.value, record.headers) for record in topic.records)
                    for name, topic in self._store.topics.items()
                    if name.startswith(prefix)
                },
                None,
            )

    def reader(self) -> MemoryReader:
        """A reader that follows nothing yet."""
        return MemoryReader(self._open())

    place = "memory"

    def complaint(self) -> str:
        """None, ever."""
        return ""

    def abandon(self, why: BrokerUnreachable | None = None) -> None:
        """Nobody ever waits for it."""

    def close(self) -> None:
        """Let go of this connection; the records stay for the others."""
        self._closed = True

    def __enter__(self) -> MemoryLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> _Store:
        if self._closed:
            raise Defect("this log is closed")
        return self._store


class MemoryReader:
    """Reads topics in memory by offset."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._places: dict[str, int] = {}
        self._closed = False

    def follow(self, topic: str, offset: int, need: int | None = None) -> None:
        """Read `topic` from `offset` on; again for a topic already followed moves it there."""
        del need  # nothing is transferred
        self._places[topic] = offset

    def drop(self, topic: str) -> None:
        """Follow `topic` no more; one that is not followed is no error."""
        self._places.pop(topic, None)

    def poll(self, timeout: float, limit: int = 500) -> list[Record]:
        """At most `limit` records; waits up to `timeout` seconds for the first.

        Raises `NoSuchTopic` and `BrokerRefused` as long as a followed topic is gone or its place
        lies outside of it: drop the topic (the error's `where`) or move it.
        """
        if self._closed:
            raise Defect("this reader is closed")
        deadline = time.monotonic() + timeout
        with self._store.changed:
            while True:
                records = self._take(limit)
                left = deadline - time.monotonic()
                if records or left <= 0:
                    return records
                self._store.changed.wait(left)

    def close(self) -> None:
        """Let go; may be called more than once."""
        self._closed = True

    def _take(self, limit: int) -> list[Record]:
        taken: list[Record] = []
        for name, place in self._places.items():
            log = self._store.topic(name)
            if not log.start <= place <= log.end:
                raise outside(name, place, log.start, log.end)
        for name, place in list(self._places.items()):
            log = self._store.topic(name)
            index = place - log.start
            found = log.records[index : index + limit - len(taken)]
            taken += found
            self._places[name] = place + len(found)
            if found:  # to the back of the queue: the next poll begins with another topic
                self._places[name] = self._places.pop(name)
        return taken


def record_size(value: bytes, headers: Headers) -> int:
    """Bytes of value and headers."""
    if not headers:
        return len(value)
    return len(value) + sum(len(key.encode()) + len(data) for key, data in headers)


def too_large(topic: str, size: int) -> BrokerRefused:
    """The error for a record beyond the limit."""
    return BrokerRefused(
        f"a record of {size} bytes; the limit is {MAX_VALUE}",
        where=topic,
        remedy="Send large payloads in chunks (hermes.transport.tensors).",
    )


def outside(topic: str, offset: int, first: int, end: int) -> BrokerRefused:
    """The error for a place that the topic does not have (any more)."""
    return BrokerRefused(
        f"offset {offset} lies outside the topic, which holds {first} .. {end - 1}", where=topic
    )
