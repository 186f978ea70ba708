"""What does one connection to a broker do, whatever the library? It keeps the promises of `Log`.

The library is behind a `Library`, whose errors are ours.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar, cast

from hermes.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnreachable,
    Defect,
    HermesError,
    NoSuchTopic,
    OutcomeUnknown,
)
from hermes.transport.address import parse_address
from hermes.transport.flight import Budget
from hermes.transport.guards import Guards
from hermes.transport.held import Held
from hermes.transport.log import Headers
from hermes.transport.memory import record_size, too_large
from hermes.transport.patience import Patience
from hermes.transport.probe import Greeting, greet
from hermes.transport.reader import Client, PlaceReader
from hermes.transport.settings import MAX_VALUE, Connection
from hermes.transport.topics import Admin, Topics

L = TypeVar("L", bound="BrokerLog")


class Promise(Protocol):
    """The library's promise of an append."""

    @property
    def is_done(self) -> bool:
        """Whether it is known how it ended."""
        ...

    def when_done(self, call: Callable[[], None]) -> None: ...

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; whether it is known how it ended."""
        ...

    def offset(self) -> int:
        """Of one that is done; below 0 where the broker does not say. Raises how it failed."""
        ...


class GuardedAdmin(Admin, Guards, Protocol):
    """About topics, users and rights."""

    def is_guarded(self) -> bool:
        """Whether the broker checks rights, and lets us give them."""
        ...


class Library(Protocol):
    """A client library's connections to one broker. Its errors are `HermesError`s."""

    @property
    def admin(self) -> GuardedAdmin: ...

    def connect(self) -> None:
        """Make `admin` ready. Raises `BrokerUnreachable`."""
        ...

    def send(
        self, topic: str, data: bytes, headers: Headers, lost: Callable[[str], None]
    ) -> Promise:
        """Send a record; `lost` is called with a topic whose leader could not be learned."""
        ...

    def wrote_to(self, topics: set[str]) -> bool:
        """Whether the producer has written to one of these topics."""
        ...

    def lost_sight_of(self, topic: str) -> bool:
        """Whether the producer has written to this topic and sees it no longer: is it gone?"""
        ...

    def renew(self) -> None:
        """Let the producer go; the next record gets a new one. Nothing is under way."""
        ...

    def client(self) -> Client:
        """A new connection that fetches records."""
        ...

    def true_ends(self, ends: dict[str, int]) -> dict[str, int]:
        """The ends of the embedded broker's topics; as it tells them, they may be too low."""
        ...

    def close(self, idle: Callable[[], bool]) -> None:
        """Let go of everything but the clients; `idle` waits for what is under way."""
        ...


class BrokerLog:
    """One connection to one broker. Construct, then `connect()`; or use it as a context manager.

    Once connected it rides outages out, for as long as `settings.outage` says.
    """

    def __init__(
        self, broker: str, library: Library, patience: Patience, settings: Connection, first: float
    ) -> None:
        """`broker` is HOST:PORT; `first`, in seconds, is for the first connection."""
        self.broker = broker
        self._library = library
        self._patience = patience
        self._settings = settings
        self._first = first
        self._greeting: Greeting | None = None
        self._asked, self._guards = False, cast("Guards | None", None)
        self._budget = Budget(settings.in_flight, settings.outage + settings.request_timeout)
        self._readers: weakref.WeakSet[PlaceReader] = weakref.WeakSet()
        self._topics = Topics(broker, library.admin, patience)

    def connect(self: L) -> L:
        """Connect, or say why that cannot be, within the seconds given (at least one attempt). Does
        nothing where it is connected: whoever gets it so may still use it as a context manager.

        Raises `UsageError` for a bad address, `BrokerUnreachable` with the cause.
        """
        if self._patience.closed.is_set():
            raise Defect("this log is closed")
        end = time.monotonic() + self._first
        while self._greeting is None:
            greeting = self._patience.first_greeting(max(0.0, end - time.monotonic()))
            try:
                self._library.connect()
            except BrokerUnreachable as error:  # it has greeted us, and is gone or busy
                if not error.retriable or time.monotonic() > end:
                    raise
            else:
                self._greeting = greeting
        return self

    @property
    def embedded(self) -> bool:
        """Whether the broker is the embedded one: memory only, no settings, no trim."""
        if self._greeting is None:
            raise Defect("this log is not connected")
        return self._greeting.embedded

    @property
    def can_trim(self) -> bool:
        """Whether `trim` works here; where not, topics are rotated."""
        return not self.embedded

    def create(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Create topics of one partition, with `TOPIC_CONFIG` and then `config`, and wait until
        they can be used; existing ones stay as they are (see `check_topics`).

        Raises `BrokerRefused`, `BrokerUnreachable`.
        """
        self._topics.create(topics, config)

    def delete(self, topics: Iterable[str]) -> None:
        """Delete topics and wait until they are gone; ones that are not there are no error.

        Raises `BrokerRefused`, `BrokerUnreachable`.
        """
        names = list(topics)
        self._topics.delete(names)
        if names:
            self._renew_producer(set(names))

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, sorted. Raises `BrokerUnreachable`."""
        return self._topics.names(prefix)

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset that the next record will get at least.

        Raises `NoSuchTopic`, `BrokerUnreachable`.
        """
        ends = self._topics.ends(topics)
        return self._library.true_ends(ends) if ends and self.embedded else ends

    def starts(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset of its first record. Raises `NoSuchTopic`,
        `BrokerUnreachable`. (The embedded broker forgets none.)"""
        if self.embedded:
            return dict.fromkeys(self._topics.ends(topics), 0)
        return self._topics.starts(topics)

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> BrokerReceipt:
        """Send a record. Returns at once unless the bytes in flight are at their bound.

        Raises `NoSuchTopic`, `BrokerRefused` for a record that is too large,
        `BrokerUnreachable` if the topic's leader cannot be learned (nothing was sent then).
        """
        data = bytes(value)  # the library would measure a view of floats by its elements
        size = record_size(data, headers)
        if size > MAX_VALUE:
            raise too_large(topic, size)
        if self._library.lost_sight_of(topic):
            self._topics.forget(topic)  # it would be waited for, for as long as for a broker
        self._topics.must_exist([topic])
        if not self._budget.take(size):
            self.refuse_if_gone()
        try:
            promise = self._library.send(topic, data, headers, self._topics.forget)
        except HermesError:
            self._budget.give(size)
            raise
        promise.when_done(lambda: self._budget.give(size))
        return BrokerReceipt(self, topic, promise)

    def trim(self, topic: str, before: int) -> None:
        """Have the broker forget the records with offsets below `before`.

        Raises `BrokerRefused` where the broker cannot (see `can_trim`), `NoSuchTopic`.
        """
        if not self.can_trim:  # it offers the request, and panics on it
            raise BrokerRefused("the embedded broker cannot trim a topic", where=topic)
        self._topics.trim(topic, before)

    def held(self, prefix: str) -> Held | None:
        """Bytes of the topics that begin with `prefix`, and the room on the broker's disk; None
        where it does not say, or not to us. One attempt. Raises `BrokerUnreachable`.
        """
        if self.embedded:  # it does not know the request
            return None
        return self._topics.held(prefix)

    @property
    def guards(self) -> Guards | None:
        """Users and their rights at this broker; None where it checks none, or where they are not
        ours to give (asked once). Raises `BrokerUnreachable`."""
        if not self._asked:
            secured = self._patience.access.mechanism is not None and not self.embedded
            if secured and self._library.admin.is_guarded():
                self._guards = self._library.admin
            self._asked = True
        return self._guards

    def reader(self) -> PlaceReader:
        """A reader that follows nothing yet, with a connection and a thread of its own.

        Keep one for what you wait for and one for bulk that is known to be there: a new place
        takes effect when the fetch under way ends (0.5 s at most, if nothing comes meanwhile).
        """
        embedded = self.embedded
        client = self._library.client()
        reader = PlaceReader(self, client, self._settings.fetch_bytes, embedded=embedded)
        self._readers.add(reader)
        return reader

    def check_topics(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Compare the topics' settings, as far as the broker reports any, with `TOPIC_CONFIG` and
        `config`. Raises `BrokerRefused` for the first difference, `NoSuchTopic`.
        """
        self._topics.check(topics, config)

    def close(self) -> None:
        """Wait up to 5 s for what is in flight, then let go of everything, readers too."""
        if self._patience.closed.is_set():
            return
        self._patience.closed.set()
        for reader in list(self._readers):
            reader.close()
        self._library.close(lambda: self._budget.idle(0.0 if self.abandoned else 5.0))

    def abandon(self, why: BrokerUnreachable | None = None) -> None:
        """The broker is given up: whoever waits for it, now or later, gets `BrokerUnreachable` (as
        `why` has it) within a second. From any thread; the first reason stays."""
        self._patience.give_up(why)
        self._budget.end()

    @property
    def place(self) -> str:
        """HOST:PORT, as it was given."""
        return self.broker

    def complaint(self) -> str:
        """Why the broker does not answer just now; "" if it does. Asks for 2 s at most."""
        try:
            greet(parse_address(self.broker), 1.3, self._patience.access)
        except BrokerError as error:
            return error.what
        return ""

    @property
    def abandoned(self) -> bool:
        """Whether the broker was given up."""
        return self._patience.given_up

    def refuse_if_gone(self) -> None:
        """Raise `BrokerUnreachable` once the broker was given up."""
        self._patience.refuse_if_gone()

    def __enter__(self: L) -> L:
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the receipts and readers of this log ask of it.

    def still_there(self, topics: list[str]) -> set[str]:
        """Those of the topics that the broker has. Raises `BrokerUnreachable` after one attempt."""
        return set(self._topics.present(topics, patient=False))

    def _renew_producer(self, gone: set[str]) -> None:
        """Let the producer go if it has written to a topic that is gone (it asks for that again and
        again), as soon as nothing is under way; not at all if that takes long: it is a matter of
        thrift."""
        if not self._library.wrote_to(gone):
            return
        with self._budget.alone(5.0) as alone:
            if alone:
                self._library.renew()


class BrokerReceipt:
    """The promise of an append to a broker."""

    def __init__(self, log: BrokerLog, topic: str, promise: Promise) -> None:
        self._log, self._topic, self._promise = log, topic, promise

    def offset(self, timeout: float = 60.0) -> int:
        """Wait up to `timeout` seconds for the acknowledgement and return the record's offset.

        May be called again after `OutcomeUnknown`: the client goes on trying for as long as the
        log's `outage`. Raises `OutcomeUnknown`, `BrokerRefused`, `NoSuchTopic`.
        """
        now = time.monotonic()
        deadline, look, pause = now + timeout, now + 1.0, 1.0
        while not self._promise.is_done:
            self._log.refuse_if_gone()
            now = time.monotonic()
            if now >= deadline:
                raise OutcomeUnknown(f"no acknowledgement in {timeout:g} s", where=self._topic)
            if self._promise.wait(min(deadline - now, 0.5)):
                break
            if time.monotonic() >= look:
                # The library asks a topic that is gone again and again: look ourselves.
                self._raise_if_gone()
                pause = min(2 * pause, 8.0)
                look = time.monotonic() + pause
        offset = self._promise.offset()
        if offset < 0:  # a repeated attempt, known by its number only
            raise OutcomeUnknown("the broker kept it but does not say where", where=self._topic)
        return offset

    def _raise_if_gone(self) -> None:
        try:
            there = self._log.still_there([self._topic])
        except BrokerError:
            return  # an outage says nothing about the topic
        if not there:
            raise NoSuchTopic("there is no such topic", where=self._topic)
