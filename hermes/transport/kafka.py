"""How is the ordered log kept by a Kafka broker? The one file that knows the client library.

Settings that look odd here answer a measured trap; each says which. Every exception of the library
becomes one of ours in `translate`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from hermes.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnreachable,
    Defect,
    HermesError,
    NoSuchTopic,
    OutcomeUnknown,
)
from hermes.transport.flight import Budget, ReadAhead
from hermes.transport.held import Held, read_log_dirs
from hermes.transport.log import Headers, Record
from hermes.transport.memory import outside, record_size, too_large
from hermes.transport.probe import Greeting, greet, parse_address, probe
from hermes.transport.settings import MAX_RECORD, MAX_VALUE, TOPIC_CONFIG, Connection

with warnings.catch_warnings():  # of its own use of importlib, where warnings are errors
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka import errors as trouble
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.net.compat import KafkaNetClient
    from kafka.net.inet import KafkaNetSocket
    from kafka.protocol.consumer import OffsetSpec

# The library warns at every reconnect and formats whole payloads at DEBUG: what matters of it
# reaches users as our errors.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

T = TypeVar("T")

_SHORT_WAIT = 0.008
"""Seconds of a fetch's wait at the broker right after news; doubled with each empty one."""
_LONG_WAIT, _LONG_WAIT_EMBEDDED = 0.5, 0.128
"""Seconds at most. Apache Kafka ends the wait when a record arrives; the embedded broker sleeps
through half of what is left, again and again, so that a long wait would make news late."""
_RETRY = 20
"""Milliseconds between two attempts of the library; its 100 ms would delay every first read."""

_LOOK = 0.2
"""Seconds between two looks at whether the broker was given up, and at one that is away."""
_CHECK = 5.0
"""Seconds, at most, of a question for a topic's first and last offset."""

_DOUBT = 0.5
"""Seconds of silence after which a place is looked at that should have records."""
_POLLED = 500
"""Records taken from the library at once."""

_MAYBE_DONE = (
    trouble.OutOfOrderSequenceNumberError,
    trouble.InvalidProducerEpochError,
    trouble.UnknownProducerIdError,
    trouble.UnknownError,
)
"""Answers to an append that leave open whether an earlier attempt of it was kept."""


def translate(error: Exception, where: str, *, sent: bool = False) -> HermesError:
    """Our error for one of the library's; `sent`: a record was under way when it came."""
    if isinstance(error, trouble.UnknownTopicOrPartitionError):
        return NoSuchTopic("there is no such topic", where=where)
    if isinstance(error, trouble.AuthorizationError):
        return BrokerRefused(
            f"the broker does not let us ({_name(error)})",
            where=where,
            remedy="Give this user the right to it (ACLs).",
        )
    if isinstance(error, (trouble.MessageSizeTooLargeError, trouble.RecordListTooLargeError)):
        return BrokerRefused(
            f"the record is too large for the broker ({_name(error)})",
            where=where,
            remedy=f"The topic needs max.message.bytes={MAX_RECORD}.",
        )
    if isinstance(error, trouble.OffsetOutOfRangeError):
        return BrokerRefused("the offset lies outside the topic", where=where)
    if sent and (isinstance(error, _MAYBE_DONE) or not _is_a_no(error)):
        return OutcomeUnknown(f"the record may or may not be there ({_name(error)})", where=where)
    if getattr(error, "retriable", False):
        return BrokerUnreachable(f"the broker does not answer ({_name(error)})", where=where)
    return BrokerRefused(f"the broker said no: {error}", where=where)


def _is_a_no(error: Exception) -> bool:
    return isinstance(error, trouble.BrokerResponseError) and not error.retriable


def _name(error: Exception) -> str:
    return type(error).__name__.removesuffix("Error")


class _Client(KafkaNetClient):  # type: ignore[misc]
    """The library's network client, with its picture of the cluster mended in three places.

    It takes the setting against auto-creation and does not pass it on: asking for a topic's leader
    would create the topic on many brokers. Its pause between two questions is not to be set. And a
    producer that has once written to a topic that is gone asks for it without a pause, waking
    itself by asking: a core is gone with it. Here a question that waits to be sent is not repeated,
    and after many in a row they become rare.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.cluster.config["allow_auto_create_topics"] = False
        self.cluster.config["retry_backoff_ms"] = _RETRY
        self._ask_cluster = self.cluster.request_update
        self._asked: Any = None
        self._last = 0.0
        self._in_a_row = 0
        self.cluster.request_update = self._ask_once

    def _ask_once(self) -> Any:
        asked = self._asked
        if asked is None or asked.is_done or not self.cluster.need_update:
            now = time.monotonic()
            self._in_a_row = self._in_a_row + 1 if now - self._last < 0.5 else 0
            self._last = now
            self.cluster.config["retry_backoff_ms"] = _RETRY if self._in_a_row < 20 else 10 * _RETRY
            asked = self._asked = self._ask_cluster()
        return asked


class _Socket(KafkaNetSocket):  # type: ignore[misc]
    """Plain sockets, chosen as the "proxy" `hermes://`: unlike the library's own they are closed
    when a connection attempt fails, so that an outage does not pile them up."""

    SCHEMES = ("hermes",)

    async def sock_connect(self, net: Any, sock: Any, *place: Any, **limits: Any) -> Any:
        try:
            return await super().sock_connect(net, sock, *place, **limits)
        except (OSError, trouble.KafkaError):
            sock.close()
            raise


class KafkaLog:
    """One connection to one broker. Construct, then `connect()`; or use it as a context manager.

    Once connected it rides outages out, for as long as `settings.outage` says.
    """

    def __init__(
        self, broker: str, *, patience: float = 5.0, settings: Connection | None = None
    ) -> None:
        """`broker` is HOST:PORT; `patience`, in seconds, is for the first connection."""
        self.broker = broker
        self._patience = patience
        self._settings = settings or Connection()
        self._greeting: Greeting | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._gone: BrokerUnreachable | None = None
        self._budget = Budget(self._settings.in_flight)
        self._known: set[str] = set()
        self._readers: weakref.WeakSet[KafkaReader] = weakref.WeakSet()
        self._producer: KafkaProducer | None = None
        self._written: set[str] = set()
        self._sent: set[str] = set()
        self._admin: KafkaAdminClient | None = None
        self._scouting = threading.Lock()
        self._scout: KafkaConsumer | None = None

    def connect(self) -> KafkaLog:
        """Connect, or say why that cannot be, within `patience` seconds (at least one attempt).

        Raises `UsageError` for a bad address, `BrokerUnreachable` with the cause.
        """
        self._greeting = self._patient_probe()
        with self._lock:
            self._admin = self._open(
                KafkaAdminClient, request_timeout_ms=10_000, bootstrap_timeout_ms=5_000
            )
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
        wanted = list(topics)
        configs = {**TOPIC_CONFIG, **(config or {})}
        spec = {"num_partitions": 1, "replication_factor": 1, "configs": configs}
        if not wanted:
            return
        answer = self._ask(
            "create topics",
            lambda admin: admin.create_topics(dict.fromkeys(wanted, spec), raise_errors=False),
        )
        self._refuse_errors(answer["topics"], trouble.TopicAlreadyExistsError)
        self._wait_until(lambda: not self._unusable(wanted), f"create {', '.join(wanted)}")
        self._known.update(wanted)

    def delete(self, topics: Iterable[str]) -> None:
        """Delete topics and wait until they are gone; ones that are not there are no error.

        Raises `BrokerRefused`, `BrokerUnreachable`.
        """
        names = list(topics)
        self._known.difference_update(names)
        if not names:
            return
        answer = self._ask(
            "delete topics", lambda admin: admin.delete_topics(names, raise_errors=False)
        )
        self._refuse_errors(answer["topics"], trouble.UnknownTopicOrPartitionError)
        self._wait_until(lambda: not self._present(names), f"delete {', '.join(names)}")
        self._renew_producer(set(names))

    def topics(self, prefix: str = "") -> list[str]:
        """Names of the topics that begin with `prefix`, sorted. Raises `BrokerUnreachable`."""
        names: list[str] = self._ask("list topics", lambda admin: admin.list_topics())
        return sorted(name for name in names if name.startswith(prefix))

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """For each topic the offset that the next record will get at least.

        Raises `NoSuchTopic`, `BrokerUnreachable`.
        """
        specs = {TopicPartition(topic, 0): OffsetSpec.LATEST for topic in topics}
        if not specs:
            return {}
        self._must_exist([place.topic for place in specs], afresh=True)
        found = self._ask("ask for ends", lambda admin: admin.list_partition_offsets(specs))
        ends = {place: int(end.offset) for place, end in found.items()}
        if self.embedded:
            ends = self._scouted(ends)
        return {place.topic: end for place, end in ends.items()}

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> KafkaReceipt:
        """Send a record. Returns at once unless the bytes in flight are at their bound.

        Raises `NoSuchTopic`, `BrokerRefused` for a record that is too large,
        `BrokerUnreachable` if the topic's leader cannot be learned (nothing was sent then).
        """
        data = bytes(value)  # the library would measure a view of floats by its elements
        size = record_size(data, headers)
        if size > MAX_VALUE:
            raise too_large(topic, size)
        self._must_exist([topic])
        if not self._budget.take(size):
            self.refuse_if_gone()
        try:
            future = self._send(topic, data, headers)
        except HermesError:
            self._budget.give(size)
            raise
        except (trouble.KafkaError, ValueError) as error:
            self._budget.give(size)
            self._known.discard(topic)
            if isinstance(error, ValueError):  # "unrecognized partition": the topic has just gone
                raise NoSuchTopic("there is no such topic", where=topic) from error
            raise translate(error, topic) from error
        future.add_both(lambda _: self._budget.give(size))
        return KafkaReceipt(self, topic, future)

    def trim(self, topic: str, before: int) -> None:
        """Have the broker forget the records with offsets below `before`.

        Raises `BrokerRefused` where the broker cannot (see `can_trim`), `NoSuchTopic`.
        """
        if not self.can_trim:  # it offers the request, and panics on it
            raise BrokerRefused("the embedded broker cannot trim a topic", where=topic)
        place = TopicPartition(topic, 0)
        self._must_exist([topic], afresh=True)
        self._ask(topic, lambda admin: admin.delete_records({place: before}))

    def held(self, prefix: str) -> Held | None:
        """Bytes of the topics that begin with `prefix`, and the room on the broker's disk; None
        where it does not say, or not to us. One attempt. Raises `BrokerUnreachable`.
        """
        if self.embedded:  # it does not know the request
            return None
        try:
            names = self._ask("list topics", lambda admin: admin.list_topics(), patient=False)
            asked = {name: [0] for name in names if name.startswith(prefix)}
            answers = self._ask(
                "ask for sizes", lambda admin: admin.describe_log_dirs(asked), patient=False
            )
        except BrokerRefused:
            return None
        return read_log_dirs(answers, prefix)

    def reader(self) -> KafkaReader:
        """A reader that follows nothing yet, with a connection and a thread of its own.

        Keep one for what you wait for and one for bulk that is known to be there: a new place
        takes effect when the fetch under way ends (0.5 s at most, if nothing comes meanwhile).
        """
        reader = KafkaReader(self, self._settings, embedded=self.embedded)
        self._readers.add(reader)
        return reader

    def check_topics(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Compare the topics' settings, as far as the broker reports any, with `TOPIC_CONFIG` and
        `config`. Raises `BrokerRefused` for the first difference, `NoSuchTopic`.
        """
        wanted = {**TOPIC_CONFIG, **(config or {})}
        names = list(topics)
        self._must_exist(names, afresh=True)
        found = {
            topic: {"partitions": str(len(facts["partitions"]))}
            for topic, facts in self._describe(names).items()
        }
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in names]
        reported = self._ask(
            "describe topics", lambda admin: admin.describe_configs(asked, config_filter="all")
        )
        for topic, settings in reported.get("topic", {}).items():
            found[topic].update((key, settings[key]["value"]) for key in wanted if key in settings)
        for topic, settings in found.items():
            _compare(self.broker, topic, settings, {"partitions": "1", **wanted})

    def close(self) -> None:
        """Wait up to 5 s for what is in flight, then let go of everything, readers too."""
        if self._closed.is_set():
            return
        self._closed.set()
        for reader in list(self._readers):
            reader.close()
        with self._lock:
            if self._producer is not None:
                patience = 0.0 if self._gone else 5.0
                _close_producer(self._producer, orderly=self._budget.idle(patience))
            if self._admin is not None:
                self._admin.close()
        with self._scouting:
            if self._scout is not None:
                self._scout.close(autocommit=False, timeout_ms=1000)

    def abandon(self, why: BrokerUnreachable | None = None) -> None:
        """The broker is given up: whoever waits for it, now or later, gets `BrokerUnreachable` (as
        `why` has it) within a second. From any thread; the first reason stays."""
        if self._gone is None:
            self._gone = why or BrokerUnreachable("the broker is given up", where=self.broker)
            self._budget.end()

    @property
    def place(self) -> str:
        """HOST:PORT, as it was given."""
        return self.broker

    def complaint(self) -> str:
        """Why the broker does not answer just now; "" if it does. Asks for 2 s at most."""
        try:
            greet(parse_address(self.broker), timeout=1.3)
        except BrokerUnreachable as error:
            return error.what
        return ""

    @property
    def abandoned(self) -> bool:
        """Whether the broker was given up."""
        return self._gone is not None

    def refuse_if_gone(self) -> None:
        """Raise `BrokerUnreachable` once the broker was given up."""
        gone = self._gone
        if gone is not None:
            raise BrokerUnreachable(gone.what, where=gone.where, remedy=gone.remedy)

    def __enter__(self) -> KafkaLog:
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()

    # What the receipts and readers of this log ask of it.

    def still_there(self, topics: list[str]) -> set[str]:
        """Those of the topics that the broker has. Raises `BrokerUnreachable` after one attempt."""
        return set(self._present(topics, patient=False))

    def open_consumer(self, client: Callable[..., Any], **settings: Any) -> KafkaConsumer:
        """A consumer on this log's broker, by way of `client`."""
        return self._open(
            KafkaConsumer,
            **settings,
            kafka_client=client,
            request_timeout_ms=int(self._settings.request_timeout * 1000),
            bootstrap_timeout_ms=int(self._settings.outage * 1000),
            retry_backoff_ms=_RETRY,
            group_id=None,  # groups rebalance for seconds; our offsets are in the ledger
            enable_auto_commit=False,
            auto_offset_reset="none",  # "latest" would skip in silence
            fetch_max_bytes=self._settings.fetch_bytes,
            max_partition_fetch_bytes=max(MAX_RECORD, self._settings.fetch_bytes // 2),
            metrics_enabled=False,
        )

    # Within.

    def _patient_probe(self) -> Greeting:
        deadline = time.monotonic() + self._patience
        timeout = 2.0
        while True:
            try:
                return probe(self.broker, timeout)
            except BrokerUnreachable as error:
                timeout = min(2.0, (deadline - time.monotonic() - 0.2) / 1.5)
                if not error.retriable or timeout < 0.4:
                    raise
            self._closed.wait(0.2)

    def _open(self, kind: Callable[..., T], **settings: Any) -> T:
        if self._closed.is_set():
            raise Defect("this log is closed")
        settings = {"kafka_client": _Client, **settings}

        def construct() -> T:
            return kind(
                bootstrap_servers=self.broker,
                client_id="hermes",
                proxy_url="hermes://direct",
                reconnect_backoff_max_ms=1000,  # its 30 s would outlast most outages
                **settings,
            )

        try:
            return self._unless_gone(construct)
        except trouble.KafkaError as error:
            raise translate(error, self.broker) from error

    def _producer_for(self, topic: str) -> KafkaProducer:
        with self._lock:
            if self._producer is None:
                outage = int(self._settings.outage * 1000)
                request = int(self._settings.request_timeout * 1000)
                self._producer = self._open(
                    KafkaProducer,
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    batch_size=1 << 20,
                    max_request_size=MAX_RECORD,
                    compression_type=None,
                    retry_backoff_ms=_RETRY,
                    request_timeout_ms=request,
                    delivery_timeout_ms=max(outage, request + 1000),
                    max_block_ms=outage,
                    bootstrap_timeout_ms=outage,
                    metrics_enabled=False,
                )
            if topic not in self._written:
                # It adds a topic that it lacks by itself, but the embedded broker tells it of all
                # that exist at the start: it would lose sight of those with the next question.
                self._producer._sender.add_topic(topic)
                self._written.add(topic)
            return self._producer

    def _send(self, topic: str, data: bytes, headers: Headers) -> Any:
        """The library's promise. Only a topic's first record may have to wait for its leader."""
        producer, new = self._producer_for(topic), topic not in self._sent

        def send() -> Any:
            return producer.send(topic, value=data, headers=list(headers), partition=0)

        future = self._unless_gone(send) if new else send()
        self._sent.add(topic)
        return future

    def _unless_gone(self, work: Callable[[], T]) -> T:
        """What `work`, which may wait for the broker for long, gives or raises. It is left alone
        where the broker is given up meanwhile: then `BrokerUnreachable`."""
        outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def do() -> None:
            try:
                outcome.put((work(), None))
            except BaseException as error:  # noqa: BLE001  (raised by who asked)
                outcome.put((None, error))

        threading.Thread(target=do, name="broker-question", daemon=True).start()
        while True:
            self.refuse_if_gone()
            with contextlib.suppress(queue.Empty):
                found, error = outcome.get(timeout=_LOOK)
                if error is not None:
                    raise error
                return cast(T, found)

    def _renew_producer(self, gone: set[str]) -> None:
        """Let the producer go if it has written to a topic that is gone (see `_Client`), as soon
        as nothing is under way; not at all if that takes long: it is a matter of thrift."""
        with self._lock:
            if not (self._producer and self._written & gone):
                return
        with self._budget.alone(5.0) as alone, self._lock:
            if alone and self._producer:
                _close_producer(self._producer, orderly=True)
                self._producer = None
                self._written.clear()
                self._sent.clear()

    def _ask(self, what: str, question: Callable[[KafkaAdminClient], T], patient: bool = True) -> T:
        """The answer, asked again while the broker is away (once only, if not `patient`)."""
        admin = self._admin
        if admin is None or self._closed.is_set():
            raise Defect("this log is closed, or not connected yet", where=what)
        deadline = time.monotonic() + (self._settings.outage if patient else 0.0)
        while True:
            self.refuse_if_gone()
            try:
                return self._unless_gone(lambda: question(admin))
            except trouble.KafkaError as error:
                ours = translate(error, what)
                if not ours.retriable or time.monotonic() > deadline or self._closed.is_set():
                    raise ours from error
            self._closed.wait(0.1)

    def _scouted(self, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The true ends. What the embedded broker says of itself is one after the *first* record
        of the last batch; only the answer to a fetch of that batch names the end."""
        held = {place: end for place, end in ends.items() if end > 0}
        if not held:
            return ends
        with self._scouting:
            if self._scout is None:
                self._scout = self.open_consumer(_Client, fetch_max_wait_ms=1)
            try:
                return {**ends, **_high_waters(self._scout, held)}
            except trouble.KafkaError as error:
                raise translate(error, "ask for ends") from error

    def _describe(self, topics: list[str], patient: bool = True) -> dict[str, Any]:
        """What the broker says of each topic; asking creates nothing."""
        found = self._ask("look topics up", lambda admin: admin.describe_topics(topics), patient)
        return {facts["name"]: facts for facts in found}

    def _present(self, topics: list[str], patient: bool = True) -> list[str]:
        unknown = trouble.UnknownTopicOrPartitionError.errno
        found = self._describe(topics, patient)
        return [name for name, facts in found.items() if facts["error_code"] != unknown]

    def _unusable(self, topics: list[str]) -> list[str]:
        found = self._describe(topics)
        return [name for name in topics if not _usable(found.get(name))]

    def _must_exist(self, topics: list[str], afresh: bool = False) -> None:
        asked = topics if afresh else [topic for topic in topics if topic not in self._known]
        if not asked:
            return
        present = set(self._present(asked))
        for topic in asked:
            if topic not in present:
                self._known.discard(topic)
                raise NoSuchTopic("there is no such topic", where=topic)
        self._known.update(asked)

    def _refuse_errors(self, answers: list[dict[str, Any]], harmless: type[Exception]) -> None:
        for answer in answers:
            kind = trouble.for_code(answer["error_code"])
            if kind not in (trouble.NoError, harmless):
                raise translate(kind(answer.get("error_message") or kind.message), answer["name"])

    def _wait_until(self, reached: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not reached():
            if time.monotonic() > deadline:
                raise BrokerUnreachable(f"the broker has not got it done in {timeout:g} s: {what}")
            self._closed.wait(_RETRY / 1000)


class KafkaReceipt:
    """The promise of an append to a broker."""

    def __init__(self, log: KafkaLog, topic: str, future: Any) -> None:
        self._log, self._topic, self._future = log, topic, future

    def offset(self, timeout: float = 60.0) -> int:
        """Wait up to `timeout` seconds for the acknowledgement and return the record's offset.

        May be called again after `OutcomeUnknown`: the client goes on trying for as long as the
        log's `outage`. Raises `OutcomeUnknown`, `BrokerRefused`, `NoSuchTopic`.
        """
        now = time.monotonic()
        deadline, look, pause = now + timeout, now + 1.0, 1.0
        while not self._future.is_done:
            self._log.refuse_if_gone()
            now = time.monotonic()
            if now >= deadline:
                raise OutcomeUnknown(f"no acknowledgement in {timeout:g} s", where=self._topic)
            if self._settled(min(deadline - now, 0.5)):
                break
            if time.monotonic() >= look:
                # The library asks a topic that is gone again and again: look ourselves.
                self._raise_if_gone()
                pause = min(2 * pause, 8.0)
                look = time.monotonic() + pause
        if self._future.failed():
            raise translate(self._future.exception, self._topic, sent=True)
        if self._future.value.offset < 0:  # a repeated attempt, known by its number only
            raise OutcomeUnknown("the broker kept it but does not say where", where=self._topic)
        return int(self._future.value.offset)

    def _settled(self, timeout: float) -> bool:
        try:
            self._future.get(timeout)
        except trouble.KafkaError:
            return bool(self._future.is_done)
        return True

    def _raise_if_gone(self) -> None:
        try:
            there = self._log.still_there([self._topic])
        except BrokerError:
            return  # an outage says nothing about the topic
        if not there:
            raise NoSuchTopic("there is no such topic", where=self._topic)


class KafkaReader:
    """Reads topics by offset. Belongs to the thread that uses it."""

    def __init__(self, log: KafkaLog, settings: Connection, *, embedded: bool) -> None:
        self._log = log
        self._followed: dict[str, TopicPartition] = {}
        self._moves: dict[str, int] = {}  # places asked for and not yet taken
        self._assigned: set[str] = set()  # what the client reads; it learns of changes at a poll
        self._places: dict[str, int] = {}  # of what is assigned: the next record's offset
        self._kept: list[Record] = []  # came already, not yet asked for; the next is the last
        self._ends: dict[str, int] = {}  # seen in answers; the true ends are there or beyond
        self._unproven: set[str] = set()  # of `_places`: on the caller's word, until records come
        self._ahead = ReadAhead(settings.fetch_bytes)
        self._closed = False
        self._shortest, self._wait = _SHORT_WAIT, _SHORT_WAIT
        self._longest = _LONG_WAIT_EMBEDDED if embedded else _LONG_WAIT
        self._timeout = settings.request_timeout
        clients: list[_Client] = []

        def client(**settings: Any) -> _Client:
            clients.append(_Client(**settings))
            return clients[-1]

        self._consumer = log.open_consumer(client)
        self._cluster = clients[0].cluster

    def follow(self, topic: str, offset: int, need: int | None = None) -> None:
        """Read `topic` from `offset` on; again for a topic already followed moves it there.
        `need`: bytes wanted from there on (see `Reader`)."""
        self._followed[topic] = TopicPartition(topic, 0)
        goes_on = topic in self._assigned and self._places.get(topic) == offset
        self._moves.pop(topic, None)
        if not goes_on:
            self._moves[topic] = offset
            if need is not None:
                self._unproven.add(topic)
        self._ahead.aim(need, goes_on=goes_on)

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
        self._log.refuse_if_gone()
        while not self._settle(min(timeout, _CHECK)):
            # The broker is away. Without a pause whoever polls again and again would take a core.
            left = deadline - time.monotonic()
            threading.Event().wait(max(0.0, min(left, _LOOK)))
            self._log.refuse_if_gone()
            if left <= _LOOK:
                return []
        while True:
            self._log.refuse_if_gone()
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
            self._consumer.close(autocommit=False, timeout_ms=1000)

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
        """Have the library wait for records, into `_kept`; whether any came."""
        # The wait at the broker is short after news and grows while nothing comes. So a reader
        # that is in use is prompt even on the embedded broker, whose wait is a timer, and one
        # that is not costs nothing. The library has no setting for that.
        settings = self._consumer._fetcher.config
        settings["fetch_max_wait_ms"] = int(self._wait * 1000)
        settings["fetch_max_bytes"] = self._ahead.window
        settings["max_partition_fetch_bytes"] = self._ahead.window_of_one
        try:
            batches = self._consumer.poll(timeout_ms=timeout * 1000, max_records=_POLLED)
        except trouble.OffsetOutOfRangeError as error:
            where = ", ".join(place.topic for place in error.args[0])
            raise translate(error, where) from error
        except trouble.KafkaError as error:
            raise translate(error, ", ".join(self._followed)) from error
        for place, batch in batches.items():
            self._ends[place.topic] = self._consumer.highwater(place) or 0
            self._unproven.discard(place.topic)
            self._ahead.took(sum(record.serialized_value_size for record in batch))
        self._kept = [
            Record(record.topic, record.offset, record.value or b"", tuple(record.headers))
            for batch in reversed(batches.values())
            for record in reversed(batch)
        ]
        return bool(self._kept)

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
            self._consumer.seek(self._followed[topic], offset)
            self._places[topic] = offset
        if self._moves:
            self._wait = self._shortest
        self._moves.clear()
        return True

    def _assign(self) -> None:
        wanted = set(self._followed)
        if wanted != self._assigned:
            self._consumer.assign(list(self._followed.values()))
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
        places = [self._followed[topic] for topic in wanted]
        try:
            firsts = self._consumer.beginning_offsets(places, timeout_ms=timeout * 1000)
            ends = self._consumer.end_offsets(places, timeout_ms=timeout * 1000)
        except trouble.KafkaError as error:
            raise translate(error, ", ".join(self._moves)) from error
        for topic, offset in wanted.items():
            place = self._followed[topic]
            first, end = firsts[place], ends[place]
            if offset > end:  # the embedded broker's word is too low (see `ends`)
                end = self._log.ends([topic])[topic]
            if not first <= offset <= end:
                raise outside(topic, offset, first, end)
            self._ends[topic] = end

    def _raise_if_gone(self, suspects: list[str] | None = None) -> None:
        """Raise `NoSuchTopic` for a topic that is gone. Without `suspects` those are asked for
        that the client's own picture of the broker has lost, which costs nothing otherwise."""
        asked = suspects
        if asked is None:
            known = self._cluster.partitions_for_topic
            asked = [topic for topic in self._followed if known(topic) is None]
        if not asked:
            return
        try:
            there = self._log.still_there(asked)
        except BrokerUnreachable:
            if suspects is None:
                return
            raise
        for topic in asked:
            if topic not in there:
                raise NoSuchTopic("there is no such topic", where=topic)


def _usable(facts: dict[str, Any] | None) -> bool:
    return (
        facts is not None
        and facts["error_code"] == 0
        and bool(facts["partitions"])
        and all(part["leader_id"] >= 0 for part in facts["partitions"])
    )


def _compare(broker: str, topic: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise `BrokerRefused` for a topic whose settings, as far as they are known, are others."""
    other = {key: value for key, value in wanted.items() if found.get(key, value) != value}
    if not other:
        return
    told = "; ".join(f"{key}={found[key]} (wanted: {key}={value})" for key, value in other.items())
    changes = ",".join(f"{key}={value}" for key, value in other.items())
    tool = f"kafka-configs.sh --bootstrap-server {broker} --alter --topic {topic} --add-config "
    remedy = f"Use another run id (--run), or set it: {tool}{changes}"
    if "partitions" in other:
        remedy = "Use another run id (--run), or delete the topic, if nobody needs it: "
        remedy += f"kafka-topics.sh --bootstrap-server {broker} --delete --topic {topic}"
    raise BrokerRefused(
        f"the topic exists already, with other settings than a run needs: {told}",
        where=topic,
        remedy=remedy,
    )


def _high_waters(
    consumer: KafkaConsumer, held: dict[TopicPartition, int], timeout: float = 10.0
) -> dict[TopicPartition, int]:
    """The ends of partitions that are not empty, as the answers to fetches of the record before
    the (too low) ends in `held` tell them."""
    deadline = time.monotonic() + timeout
    consumer.assign(list(held))
    for place, end in held.items():
        consumer.seek(place, end - 1)
    try:
        while True:
            found = {place: consumer.highwater(place) or 0 for place in held}
            if all(found[place] >= end for place, end in held.items()):
                return found
            if time.monotonic() > deadline:
                raise trouble.KafkaTimeoutError("no answer to a fetch")
            consumer.poll(timeout_ms=100)
    finally:
        consumer.unsubscribe()


def _close_producer(producer: KafkaProducer, *, orderly: bool) -> None:
    """Close it; what is still unacknowledged then is given up (its receipts say so)."""
    if not orderly:
        producer._sender.force_close()  # close() alone would raise and leave its thread behind
        producer._sender.join(2.0)
    try:
        producer.close(timeout=2.0)
    except trouble.KafkaError:
        producer._sender.force_close()
