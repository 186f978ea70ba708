"""How many bytes went where? Counts the records of a log by purpose, values and headers."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping

from hermes.errors import BrokerUnreachable
from hermes.transport import names
from hermes.transport.guards import Guards
from hermes.transport.held import Held
from hermes.transport.log import Headers, Log, Reader, Receipt, Record
from hermes.transport.tensors import HEADER

KINDS = ("data", "model", "update", "control", "logs")

Appended = Callable[[str, int], None]

_BY_TOPIC = {
    names.DATA: "data",
    names.MODEL: "model",
    names.STATE: "model",
    names.LOGS: "logs",
    names.LEDGER: "control",
    names.LOBBY: "control",
}


def kind_of(topic: str, headers: Headers) -> str:
    """The purpose of a record: a worker's chunks are updates, its small messages control."""
    name = names.parse(topic)
    if name is None:
        return "control"
    if names.worker_of(name.short) is None:
        return _BY_TOPIC[name.short]
    return "update" if any(key == HEADER for key, _ in headers) else "control"


def size_of(value: bytes, headers: Headers) -> int:
    """Bytes of a record: value and headers."""
    return len(value) + sum(len(key) + len(data) for key, data in headers)


class Traffic:
    """Bytes sent and received, by kind. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = {kind: [0, 0] for kind in KINDS}

    def add(self, way: int, topic: str, value: bytes, headers: Headers) -> None:
        """Count one record; `way` is 0 for sent, 1 for received."""
        kind, size = kind_of(topic, headers), size_of(value, headers)
        with self._lock:
            self._bytes[kind][way] += size

    def flat(self) -> tuple[int, ...]:
        """(sent, received) by kind, in the order of KINDS, as a heartbeat carries them."""
        with self._lock:
            return tuple(number for kind in KINDS for number in self._bytes[kind])


def added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Two flat traffics together; a shorter one counts as zeros at its end."""
    return tuple(a + b for a, b in itertools.zip_longest(one, other, fillvalue=0))


def by_kind(flat: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """A flat traffic as `result.json` shows it."""
    known = added(flat, (0,) * (2 * len(KINDS)))
    return {
        kind: {"sent": known[2 * i], "received": known[2 * i + 1]} for i, kind in enumerate(KINDS)
    }


def summed(all_of: Iterable[tuple[int, ...]]) -> dict[str, dict[str, int]]:
    """Traffics of several processes in one."""
    return by_kind(functools.reduce(added, all_of, ()))


class CountingLog:
    """A log that counts what goes through it."""

    def __init__(self, log: Log, appended: Appended | None = None) -> None:
        """`appended` is told of each record that is sent: its topic and bytes."""
        self._log, self._appended = log, appended
        self.traffic = Traffic()

    def create(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """As on the log."""
        self._log.create(topics, config)

    def check_topics(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """As on the log."""
        self._log.check_topics(topics, config)

    def delete(self, topics: Iterable[str]) -> None:
        """As on the log."""
        self._log.delete(topics)

    def topics(self, prefix: str = "") -> list[str]:
        """As on the log."""
        return self._log.topics(prefix)

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """As on the log."""
        return self._log.ends(topics)

    def starts(self, topics: Iterable[str]) -> dict[str, int]:
        """As on the log."""
        return self._log.starts(topics)

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> Receipt:
        """As on the log, counted as sent."""
        receipt = self._log.append(topic, value, headers)
        self.traffic.add(0, topic, value, headers)
        if self._appended is not None:
            self._appended(topic, size_of(value, headers))
        return receipt

    @property
    def can_trim(self) -> bool:
        """As on the log."""
        return self._log.can_trim

    def trim(self, topic: str, before: int) -> None:
        """As on the log."""
        self._log.trim(topic, before)

    @property
    def guards(self) -> Guards | None:
        """As on the log."""
        return self._log.guards

    def held(self, prefix: str) -> Held | None:
        """As on the log."""
        return self._log.held(prefix)

    def reader(self) -> CountingReader:
        """As on the log; what it reads is counted as received."""
        return CountingReader(self._log.reader(), self.traffic)

    @property
    def place(self) -> str:
        """As on the log."""
        return self._log.place

    def complaint(self) -> str:
        """As on the log."""
        return self._log.complaint()

    def abandon(self, why: BrokerUnreachable | None = None) -> None:
        """As on the log."""
        self._log.abandon(why)

    def close(self) -> None:
        """As on the log."""
        self._log.close()


class CountingReader:
    """A reader that counts what it reads."""

    def __init__(self, reader: Reader, traffic: Traffic) -> None:
        self._reader, self._traffic = reader, traffic

    def follow(self, topic: str, offset: int, need: int | None = None) -> None:
        """As on the reader."""
        self._reader.follow(topic, offset, need)

    def drop(self, topic: str) -> None:
        """As on the reader."""
        self._reader.drop(topic)

    def poll(self, timeout: float, limit: int = 500) -> list[Record]:
        """As on the reader, counted."""
        records = self._reader.poll(timeout, limit)
        for record in records:
            self._traffic.add(1, record.topic, record.value, record.headers)
        return records

    def close(self) -> None:
        """As on the reader."""
        self._reader.close()
