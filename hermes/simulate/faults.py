"""What goes wrong, and when? Faults are data: scripted, counted, and seen to have fired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from hermes.errors import OutcomeUnknown
from hermes.transport.log import Headers, Receipt, Record
from hermes.transport.memory import MemoryLog


class Killed(Exception):
    """The master's process is gone, at this very place."""


class AppendFault(Enum):
    """What happens at one append to the ledger."""

    LOST = "lost"
    """The record never reaches the broker; the outcome is unknown."""
    UNKNOWN = "unknown"
    """The record is there; the acknowledgement is lost."""
    KILLED_BEFORE = "killed-before"
    """The master dies before the append."""
    KILLED_AFTER = "killed-after"
    """The master dies after the append, before it knows."""


class WorkerFault(NamedTuple):
    """What happens to one worker at a time (ns)."""

    at: int
    worker: str
    kind: str
    """"kill" (its process is gone; started again after `lasts`), "cut" (nothing goes through for
    `lasts`), "leave" (it says bye; back after `lasts`), "clone" (a second process takes its name,
    without its outbox)."""
    lasts: int


class Faults(NamedTuple):
    """A script. Indices count from 0."""

    appends: Mapping[int, AppendFault] = {}
    """By the how-manieth append to the ledger."""
    duplicated: frozenset[int] = frozenset()
    """Worker messages (by the order of sending) that the broker stores twice."""
    dropped: frozenset[int] = frozenset()
    """Worker messages that the broker acknowledges and loses."""
    workers: tuple[WorkerFault, ...] = ()
    zombies: tuple[int, ...] = ()
    """Run times (ns) at which a second master takes over while the first lives on."""
    lags: Mapping[str, int] = {}
    """Reading delay (ns) of a topic: reorders between topics, never within one."""
    sleeps: tuple[tuple[int, int], ...] = ()
    """(at, lasts): the master's machine sleeps."""


class FaultyLog(MemoryLog):
    """A memory log whose ledger appends obey a script."""

    def __init__(
        self, ledger: str, appends: Mapping[int, AppendFault], fired: Counter[str]
    ) -> None:
        super().__init__()
        self._ledger, self._appends, self._fired, self._count = ledger, appends, fired, 0

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> Receipt:  # type: ignore[override]
        """As on the memory log, but for the script."""
        if topic != self._ledger:
            return super().append(topic, value, headers)
        fault = self._appends.get(self._count)
        self._count += 1
        if fault is None:
            return super().append(topic, value, headers)
        self._fired[fault.value] += 1
        if fault in (AppendFault.UNKNOWN, AppendFault.KILLED_AFTER):
            super().append(topic, value, headers)
        if fault in (AppendFault.LOST, AppendFault.UNKNOWN):
            raise OutcomeUnknown("scripted", where=topic)
        raise Killed(fault.value)

    def since(self, topic: str, first: int) -> list[Record]:
        """All records of a topic from an offset on; none of a topic that is not there yet."""
        with self._store.changed:
            found = self._store.topics.get(topic)
            return found.records[max(0, first - found.start) :] if found else []


def records_of(log: FaultyLog, topic: str, first: int = 0) -> list[Record]:
    """All records of a topic from an offset on."""
    return log.since(topic, first)
