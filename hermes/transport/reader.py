"""How are topics read by place? What is followed, where each reading stands, how long to wait.

Knows no client library: it asks a `Client`, whose errors are ours.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from hermes.errors import BrokerUnreachable, Defect, NoSuchTopic
from hermes.transport.flight import LinkPace, ReadAhead
from hermes.transport.log import Record
from hermes.transport.memory import outside
from hermes.transport.patience import LOOK
from hermes.transport.settings import FRAMING

_SHORT_WAIT = 0.008
"""Seconds of a fetch's wait at the broker right after news; doubled with each empty one."""
_LONG_WAIT, _LONG_WAIT_EMBEDDED = 0.5, 0.128
"""Seconds at most. Apache Kafka ends the wait when a record arrives; the embedded broker sleeps
through half of what is left, again and again, so that a long wait would make news late."""

_CHECK = 5.0
"""Seconds, at most, of a question for a topic's first and last offset."""

_DOUBT = 0.5
"""Seconds of silence after which a place is looked at that should have records."""


class Limits(NamedTuple):
    """Of one fetch."""

    timeout: float
    """Seconds until it gives what it has."""
    wait: float
    """Seconds that the broker may wait for records."""
    window: int
    """Bytes."""
    window_of_one: int
    """Bytes of one topic."""


class Fetched(NamedTuple):
    """What one fetch brought."""

    records: list[Record]
    ends: Mapping[str, int]
    """By topic, of those that records came of: the end as the answer tells it, or before it."""
    size: int
    """Bytes of all values."""


class Client(Protocol):
    """A connection that fetches records. `where` is for its errors: all are `HermesError`s."""

    def assign(self, topics: Iterable[str]) -> None:
        """Read these topics and no others; places of those that stay are kept."""
        ...

    def seek(self, topic: str, offset: int) -> None:
        """The next record of an assigned topic is the one at `offset`, or the first after it."""
        ...

    def fetch(self, limits: Limits, where: str) -> Fetched:
        """The next records. Raises `BrokerRefused` where a place lies outside its topic."""
        ...

    def places(
        self, topics: Iterable[str], timeout: float, where: str
    ) -> Mapping[str, tuple[int, int]]:
        """The first offset and the end of each topic, as the broker says; `timeout` in seconds."""
        ...

    def knows(self, topic: str) -> bool:
        """Whether the client's own picture of the broker has the topic; asks nothing."""
        ...

    def close(self) -> None: ...


class Broker(Protocol):
    """What a reader asks of the log that it belongs to."""

    def refuse_if_gone(self) -> None:
        """Raise `BrokerUnreachable` once the broker was given up."""
        ...

    def still_there(self, topics: list[str]) -> set[str]:
        """Those of the topics that the broker has. Raises `BrokerUnreachable` after one attempt."""
        ...

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset that the next record will get at least."""
        ...


class PlaceReader:
    """Reads topics by offset. Belongs to the thread that uses it."""

    def __init__(self, broker: Broker, client: Client, fetch_bytes: int, *, embedded: bool) -> None:
        """`fetch_bytes`: of one fetch, at most; `embedded`: whether the broker is that one."""
        self._broker = broker
        self._client = client
        self._followed: dict[str, None] = {}  # a set that keeps its order
        self._moves: dict[str, int] = {}  # places asked for and not yet taken
        self._assigned: set[str] = set()  # what the client reads; it learns of changes at a poll
        self._places: dict[str, int] = {}  # of what is assigned: the next record's offset
        self._kept: list[Record] = []  # came already, not yet asked for; the next is the last
        self._ends: dict[str, int] = {}  # seen in answers; the true ends are there or beyond
        self._unproven: set[str] = set()  # of `_places`: on the caller's word, until records come
        self._ahead = ReadAhead(fetch_bytes)
        self._link = LinkPace(fetch_bytes)
        self._waited = 0.0  # seconds for the answer under way
        self._is_full = False  # the last answer filled its window: more is there
        self._closed = False
        self._shortest, self._wait = _SHORT_WAIT, _SHORT_WAIT
        self._longest = _LONG_WAIT_EMBEDDED if embedded else _LONG_WAIT

    def follow(self, topic: str, offset: int, need: int | None = None) -> None:
        """Read `topic` from `offset` on; again for a topic already followed moves it there.
        `need`: bytes wanted from there on (see `Reader`)."""
        self._followed[topic] = None
        goes_on = topic in self._assigned and self._places.get(topic) == offset
        self._moves.pop(topic, None)
        self._unproven.discard(topic)
        if not goes_on:
            self._moves[topic] = offset
            if need is not None:
                self._unproven.add(topic)
        self._ahead.aim(need, goes_on=goes_on)
        self._waited, self._is_full = 0.0, False

    def drop(self, topic: str) -> None:
        """Follow `topic` no more; one that is not followed is no error."""
        self._followed.pop(topic, None)
        self._moves.pop(topic, None)
        self._unproven.discard(topic)

    def poll(self, timeout: float, limit: int = 500) -> list[Record]:
        """At most `limit` records; waits up to `timeout` seconds for the first (a little longer
        right after `follow`, whose place is checked first).

        Raises `NoSuchTopic` and `BrokerRefused` as long as a followed topic is gone or its place
        lies outside of it: drop the topic (the error's `where`) or move it. An outage raises
        nothing: nothing comes.
        """
        if self._closed:
            raise Defect("this reader is closed")
        deadline = time.monotonic() + timeout
        self._broker.refuse_if_gone()
        while not self._settle(min(timeout, _CHECK)):
            # The broker is away. Without a pause whoever polls again and again would take a core.
            left = deadline - time.monotonic()
            threading.Event().wait(max(0.0, min(left, LOOK)))
            self._broker.refuse_if_gone()
            if left <= LOOK:
                return []
        while True:
            self._broker.refuse_if_gone()
            left = deadline - time.monotonic()
            if not self._followed:
                threading.Event().wait(max(0.0, left))
                return []
            if self._kept or self._fetch(max(0.0, min(left, self._wait))):
                self._wait = self._shortest
                return self._hand_out(limit)
            self._raise_if_gone()
            if left <= 0:
                self._prove(timeout)
                return []
            self._wait = min(2 * self._wait, self._longest)

    def close(self) -> None:
        """Let go of the connection; may be called more than once."""
        if not self._closed:
            self._closed = True
            self._client.close()

    def _hand_out(self, limit: int) -> list[Record]:
        # Taking few records at a time from the library costs a turn of its thread each.
        given = [self._kept.pop() for _ in range(min(limit, len(self._kept)))]
        for record in given:
            self._places[record.topic] = record.offset + 1
        return given

    def _forget(self, topics: set[str]) -> None:
        """Let go of what came of these topics and was not asked for yet."""
        self._kept = [record for record in self._kept if record.topic not in topics]

    def _fetch(self, timeout: float) -> bool:
        """Have the client wait for records, into `_kept`; whether any came."""
        # The wait at the broker is short after news and grows while nothing comes. So a reader
        # that is in use is prompt even on the embedded broker, whose wait is a timer, and one
        # that is not costs nothing.
        window = min(self._ahead.window, self._link.window)
        one = min(window, self._link.whole(self._ahead.window_of_one))
        begun = time.monotonic()
        limits = Limits(timeout, self._wait, window, one)
        fetched = self._client.fetch(limits, ", ".join(self._followed))
        self._waited += time.monotonic() - begun
        self._ends.update(fetched.ends)
        self._unproven.difference_update(fetched.ends)
        self._learn(fetched, window)
        self._kept = fetched.records[::-1]
        return bool(self._kept)

    def _learn(self, fetched: Fetched, window: int) -> None:
        """How fast the link is, as far as this answer tells. Only where there was something to
        come is the wait for it the link's; what fills its window is not all."""
        count = len(fetched.records)
        is_due = self._is_full or self._ahead.expects
        if count:
            self._link.told(window, fetched.size, count, self._waited if is_due else 0.0)
            self._ahead.took(fetched.size + FRAMING * count)
            self._is_full = 2 * fetched.size >= window
            self._waited = 0.0
        elif is_due:
            self._link.silent(self._waited)

    def _settle(self, timeout: float) -> bool:
        """Make the client follow what we follow; False if the broker is away just now.

        Places are checked here because the embedded broker answers one that does not exist with
        silence, after a thought that is the longer the more records a topic has. So nothing is
        asked about places below an end that was seen, nor (before it is silent: `_prove`) about
        those that the caller knows to be there.
        """
        if not self._moves and self._assigned == set(self._followed):
            return True
        unsure = {
            topic: to
            for topic, to in self._moves.items()
            if to > self._ends.get(topic, -1) and topic not in self._unproven
        }
        try:
            if unsure:
                self._raise_if_gone(list(unsure))
            self._assign()
            if unsure:
                self._check_places(unsure, max(2.0, timeout))
        except BrokerUnreachable:
            return False
        self._forget(set(self._moves))
        for topic, offset in self._moves.items():
            self._client.seek(topic, offset)
            self._places[topic] = offset
        if self._moves:
            self._wait = self._shortest
        self._moves.clear()
        return True

    def _assign(self) -> None:
        wanted = set(self._followed)
        if wanted != self._assigned:
            self._client.assign(self._followed)
            self._forget(self._assigned - wanted)
            self._assigned = wanted
            self._places = {t: at for t, at in self._places.items() if t in wanted}

    def _prove(self, timeout: float) -> None:
        """Nothing came: is what we were told to be there outside of its topic?"""
        doubtful = {topic: self._places[topic] for topic in self._unproven & self._places.keys()}
        if doubtful and timeout >= _DOUBT:
            with contextlib.suppress(BrokerUnreachable):
                self._check_places(doubtful, max(2.0, timeout))

    def _check_places(self, wanted: Mapping[str, int], timeout: float) -> None:
        places = self._client.places(wanted, timeout, ", ".join(wanted))
        for topic, offset in wanted.items():
            first, end = places[topic]
            if offset > end:  # the embedded broker's word is too low (see `ends`)
                end = self._broker.ends([topic])[topic]
            if not first <= offset <= end:
                raise outside(topic, offset, first, end)
            self._ends[topic] = end

    def _raise_if_gone(self, suspects: list[str] | None = None) -> None:
        """Raise `NoSuchTopic` for a topic that is gone. Without `suspects` those are asked for
        that the client's own picture of the broker has lost, which costs nothing otherwise."""
        asked = suspects
        if asked is None:
            asked = [topic for topic in self._followed if not self._client.knows(topic)]
        if not asked:
            return
        try:
            there = self._broker.still_there(asked)
        except BrokerUnreachable:
            if suspects is None:
                return
            raise
        for topic in asked:
            if topic not in there:
                raise NoSuchTopic("there is no such topic", where=topic)
