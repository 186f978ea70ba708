"""What do we ask of a broker? An ordered log: append, read from an offset, ends, create, delete.

Promised: a topic has one partition; records of one topic are read in the order of their offsets;
offsets grow (not always by one: a broker may keep marker records to itself); a record whose receipt
gave an offset is read back with the same bytes.

Not promised: exactly once (a receipt may raise `OutcomeUnknown`: the record may be there, once or
more); order between topics; record timestamps; consumer groups; transactions; keys.

Threads: `Log` methods may be called from any thread; a `Reader` belongs to the thread that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from hermes.errors import BrokerUnreachable
from hermes.transport.guards import Guards
from hermes.transport.held import Held

Headers = Sequence[tuple[str, bytes]]


class Record(NamedTuple):
    """One record as read."""

    topic: str
    offset: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Receipt(Protocol):
    """The promise of an append."""

    def offset(self, timeout: float = 60.0) -> int:
        """Wait (seconds) for the acknowledgement and return the record's offset.

        Raises `OutcomeUnknown` if it did not come, `BrokerRefused` if the broker said no,
        `NoSuchTopic` if the topic is gone.
        """
        ...


class Reader(Protocol):
    """Reads topics by offset. Topics are followed until dropped."""

    def follow(self, topic: str, offset: int, need: int | None = None) -> None:
        """Read `topic` from `offset` on; again for a topic already followed moves it there.

        `need`: bytes that are wanted from there on, where the caller knows: no more is transferred
        than that, unless place after place turns out to follow on the last (then reading runs
        ahead). Records that were transferred are never lost: `limit` keeps the rest for later.
        """
        ...

    def drop(self, topic: str) -> None: ...

    def poll(self, timeout: float, limit: int = 500) -> list[Record]:
        """At most `limit` records, in offset order within each topic; waits up to `timeout`
        seconds for the first. An empty list says only that nothing came in that time.

        Raises `NoSuchTopic` for a topic that is gone, `BrokerError` where an offset lies outside
        the topic.
        """
        ...

    def close(self) -> None: ...


class Log(Protocol):
    """One connection to one broker (or to memory)."""

    def create(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Create topics of one partition and wait until they can be used; existing ones stay."""
        ...

    def delete(self, topics: Iterable[str]) -> None:
        """Delete topics; ones that are not there are no error."""
        ...

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, sorted."""
        ...

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset that the next record will get at least."""
        ...

    def starts(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset of its first record; what lay before it was trimmed. Raises
        `NoSuchTopic`, `BrokerUnreachable`."""
        ...

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> Receipt:
        """Send a record. Returns at once unless the bytes in flight are at their bound; then it
        waits. Never changes `value`; the caller must not either.
        """
        ...

    def check_topics(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Raise `BrokerRefused` where a topic's settings are not those that `create` asks for.
        Only what the broker reports is compared.
        """
        ...

    @property
    def can_trim(self) -> bool:
        """Whether `trim` works here; where not, topics are rotated."""
        ...

    def trim(self, topic: str, before: int) -> None:
        """Forget the records with offsets below `before`. Raises `BrokerRefused` where the log
        cannot, `NoSuchTopic`.
        """
        ...

    @property
    def guards(self) -> Guards | None:
        """Users and their rights; None where nobody checks any, or where they are not ours to
        give."""
        ...

    def held(self, prefix: str) -> Held | None:
        """Bytes of the topics that begin with `prefix`, and the room left; None where the broker
        does not say (the embedded one). One attempt: raises `BrokerUnreachable` in an outage.
        """
        ...

    def reader(self) -> Reader: ...

    @property
    def place(self) -> str:
        """Where it is, for people: HOST:PORT."""
        ...

    def complaint(self) -> str:
        """Why it does not answer a question just now; "" if it does. Takes 2 s at most. From any
        thread.
        """
        ...

    def abandon(self, why: BrokerUnreachable | None = None) -> None:
        """It is given up: whoever waits for it, now or later, gets `BrokerUnreachable` (as `why`
        has it) within a second. From any thread; the first reason stays."""
        ...

    def close(self) -> None:
        """Wait for what is in flight (bounded), then let go of everything."""
        ...
