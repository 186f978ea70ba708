"""What goes wrong, and when? Faults are data: scripted, counted, and seen to have fired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
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


class Disturbance(Enum):
    """What else goes on at one append to the ledger: it takes time, or workers along."""

    FORGED = "forged"
    """Just before it somebody writes a record in the master's name, all right but for the chain."""
    RACED = "raced"
    """Just before it a second master claims the run."""
    SLOW = "slow-append"
    """The broker's disk takes its time: nobody reads the record, nor is it acknowledged, for
    `Costs.slow`."""


class WorkerFault(NamedTuple):
    """What happens to one worker at a time (ns)."""

    at: int
    worker: str
    kind: str
    """"kill" (its process is gone; started again after `lasts`), "cut" (nothing goes through for
    `lasts`), "leave" (it says bye; back after `lasts`), "clone" (a second process takes its name,
    without its outbox), "slow-worker" (its disk gives nothing for `lasts`)."""
    lasts: int


class MasterFault(NamedTuple):
    """What happens to the master in force at a time (ns)."""

    at: int
    kind: str
    """"restart" (its process is gone; started again after `lasts`), "zombie" (a second master
    takes over while it lives on), "sleep" (its machine sleeps for `lasts`), "overslept" (half-way
    through its sleep a second master takes over; then it wakes up and goes on)."""
    lasts: int = 0


class Faults(NamedTuple):
    """A script. Indices count from 0."""

    appends: Mapping[int, AppendFault | Disturbance] = {}
    """By the how-manieth append to the ledger."""
    duplicated: frozenset[int] = frozenset()
    """Worker messages (by the order of sending) that the broker stores twice."""
    unacknowledged: frozenset[int] = frozenset()
    """Worker messages that arrive, and are sent again later since nobody said so."""
    dropped: frozenset[int] = frozenset()
    """Worker messages that the broker acknowledges and loses."""
    lies: frozenset[int] = frozenset()
    """Updates (by the order of pushing) that claim what cannot be."""
    slow: Mapping[int, int] = {}
    """By the how-manieth action of the master: how much longer (ns) its disk takes, while nothing
    else is done."""
    late: Mapping[int, int] = {}
    """The same, while the master goes on."""
    workers: tuple[WorkerFault, ...] = ()
    masters: tuple[MasterFault, ...] = ()
    lags: Mapping[str, int] = {}
    """Reading delay (ns) of a topic: reorders between topics, never within one."""
    stops: tuple[int, ...] = ()
    """Run times (ns) at which somebody asks the run to stop."""


class FaultyLog(MemoryLog):
    """A memory log whose ledger appends obey a script. `before` is told of each disturbance that
    fires, and of the bytes, before they are written."""

    def __init__(
        self,
        ledger: str,
        appends: Mapping[int, AppendFault | Disturbance],
        fired: Counter[str],
        before: Callable[[Disturbance, bytes], None] = lambda _what, _data: None,
    ) -> None:
        super().__init__()
        self._ledger, self._appends, self._fired, self._count = ledger, appends, fired, 0
        self._before = before

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> Receipt:  # type: ignore[override]
        """As on the memory log, but for the script."""
        if topic != self._ledger:
            return super().append(topic, value, headers)
        fault = self._appends.get(self._count)
        self._count += 1
        if fault is None:
            return super().append(topic, value, headers)
        self._fired[fault.value] += 1
        if isinstance(fault, Disturbance):
            self._before(fault, value)
        if fault not in (AppendFault.LOST, AppendFault.KILLED_BEFORE):
            receipt = super().append(topic, value, headers)
        if fault in (AppendFault.LOST, AppendFault.UNKNOWN):
            raise OutcomeUnknown("scripted", where=topic)
        if fault in (AppendFault.KILLED_BEFORE, AppendFault.KILLED_AFTER):
            raise Killed(fault.value)
        return receipt

    def intrude(self, topic: str, value: bytes) -> None:
        """Somebody else writes: no fault of the script is met."""
        super().append(topic, value)

    def since(self, topic: str, first: int) -> list[Record]:
        """All records of a topic from an offset on; none of a topic that is not there yet."""
        with self._store.changed:
            found = self._store.topics.get(topic)
            return found.records[max(0, first - found.start) :] if found else []


def records_of(log: FaultyLog, topic: str, first: int = 0) -> list[Record]:
    """All records of a topic from an offset on."""
    return log.since(topic, first)
