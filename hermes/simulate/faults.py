"""What goes wrong, and when? Faults are data: scripted, counted, and seen to have fired."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

from hermes.errors import BrokerRefused, OutcomeUnknown
from hermes.transport.log import Headers, Receipt, Record
from hermes.transport.memory import MemoryLog
from hermes.transport.tensors import Chunk, chunk_of
from hermes.values import Payload


class Killed(Exception):
    """The master's process is gone, at this very place."""


class AppendFault(Enum):
    """What happens at one append to the ledger; in brackets the step of the commit (design, part
    3) after which the master dies."""

    LOST = "lost"
    """The record never reaches the broker; the outcome is unknown."""
    UNKNOWN = "unknown"
    """The record is there; the acknowledgement is lost."""
    KILLED_BEFORE = "killed-before"
    """(2) The master dies before the append: it has decided, and nobody knows."""
    KILLED_AFTER = "killed-after"
    """(4) The master dies after the append, before it knows."""
    KILLED_TAKEN = "killed-taken"
    """(1) It dies with the next input in its hands, nothing decided."""
    KILLED_STORED = "killed-stored"
    """(3) It dies where tensors lie in the log, and no record names them."""
    KILLED_APPLIED = "killed-applied"
    """(5) It dies once the record is applied, before any of its actions is performed."""
    KILLED_PERFORMING = "killed-performing"
    """(5) It dies between two actions of the record."""


LOSES = (AppendFault.LOST, AppendFault.KILLED_BEFORE)
"""The record does not reach the broker."""
UNCERTAIN = (AppendFault.LOST, AppendFault.UNKNOWN)
KILLS_AT_APPEND = (AppendFault.KILLED_BEFORE, AppendFault.KILLED_AFTER)
KILLS_BESIDE = (
    AppendFault.KILLED_TAKEN,
    AppendFault.KILLED_STORED,
    AppendFault.KILLED_APPLIED,
    AppendFault.KILLED_PERFORMING,
)
"""These strike between two appends: the log is asked (`FaultyLog.strike`)."""
KILLS = (*KILLS_AT_APPEND, *KILLS_BESIDE)


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
    without its outbox), "slow-worker" (its disk gives nothing for `lasts`), "hang" (its training
    gets nowhere for `lasts`, while its heartbeats go on)."""
    lasts: int


class MasterFault(NamedTuple):
    """What happens to the master in force at a time (ns)."""

    at: int
    kind: str
    """"restart" (its process is gone; started again after `lasts`), "zombie" (a second master
    takes over while it lives on), "sleep" (its machine sleeps for `lasts`), "overslept" (half-way
    through its sleep a second master takes over; then it wakes up and goes on)."""
    lasts: int = 0


class BrokerFault(NamedTuple):
    """What happens to the broker at a time (ns)."""

    at: int
    kind: str
    """"tail" (it is gone for a moment, and with it the last `lasts` records of `topic`), "full"
    (for `lasts` ns it refuses whatever the master appends; whoever runs it starts it again)."""
    topic: str
    lasts: int


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
    delayed: Mapping[int, int] = {}
    """Updates (by the order of storing) whose chunks are so much longer (ns) under way."""
    truncated: frozenset[int] = frozenset()
    """Updates (by the order of storing) whose last chunk the broker acknowledges and loses."""
    workers: tuple[WorkerFault, ...] = ()
    brokers: tuple[BrokerFault, ...] = ()
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
        self._ledger, self._appends, self._fired = ledger, appends, fired
        self.count = 0
        """Appends to the ledger so far, whatever became of them."""
        self.places: dict[AppendFault, set[int]] = {fault: set() for fault in KILLS_BESIDE}
        """Where each of these could have struck: appends."""
        self._before = before
        self.refuses: Callable[[str], bool] = lambda _topic: False
        """Whether the broker takes nothing for this topic just now."""
        self.generations: dict[str, int] = {}
        """The generation that each topic of the master goes on in, as the ledger has it."""

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> Receipt:  # type: ignore[override]
        """As on the memory log, but for the script."""
        if self.refuses(topic):
            self._fired["full"] += 1
            raise BrokerRefused("its disk is full", where=topic)
        if topic != self._ledger:
            return super().append(topic, value, headers)
        fault = self._appends.get(self.count)
        self.count += 1
        if fault is None or fault in KILLS_BESIDE:
            return super().append(topic, value, headers)
        self._fired[fault.value] += 1
        if isinstance(fault, Disturbance):
            self._before(fault, value)
        if fault not in LOSES:
            receipt = super().append(topic, value, headers)
        if fault in UNCERTAIN:
            raise OutcomeUnknown("scripted", where=topic)
        if fault in KILLS_AT_APPEND:
            raise Killed(fault.value)
        return receipt

    def strike(self, fault: AppendFault, append: int) -> None:
        """The master has come to where this fault strikes, for this append: raises `Killed` if the
        script says so."""
        self.places[fault].add(append)
        if self._appends.get(append) is fault:
            self._fired[fault.value] += 1
            raise Killed(fault.value)

    def lose(self, topic: str, count: int) -> int:
        """The broker loses the last records of a topic; how many it were."""
        with self._store.changed:
            records = self._store.topics[topic].records
            gone = min(count, len(records))
            del records[len(records) - gone :]
            return gone

    def garble(self, topic: str, offset: int) -> None:
        """In the place of this record lies a chunk of nobody's."""
        with self._store.changed:
            found = self._store.topics[topic]
            header = Chunk("f" * 32, 0, 1, 1).headers()
            found.records[offset - found.start] = Record(topic, offset, b"?", header)

    def holds(self, topic: str, payload: Payload) -> bool:
        """Whether all chunks of a payload lie where it says."""
        chunks = (chunk_of(record) for record in self.since(topic, payload.first))
        span = payload.last - payload.first + 1
        ours = [
            chunk.index
            for chunk in itertools.islice(chunks, span)
            if chunk is not None and chunk.id == payload.id
        ]
        return sorted(set(ours)) == list(range(payload.chunks))

    def intrude(self, topic: str, value: bytes) -> None:
        """Somebody else writes: no fault of the script is met."""
        super().append(topic, value)

    def end_of(self, topic: str) -> int:
        """The next offset of a topic; 0 for one that is not there. (Nobody else writes to this log:
        no lock is needed to look.)"""
        found = self._store.topics.get(topic)
        return found.end if found else 0

    def since(self, topic: str, first: int) -> list[Record]:
        """All records of a topic from an offset on; none of a topic that is not there yet."""
        found = self._store.topics.get(topic)
        return found.records[max(0, first - found.start) :] if found else []


def records_of(log: FaultyLog, topic: str, first: int = 0) -> list[Record]:
    """All records of a topic from an offset on."""
    return log.since(topic, first)
