"""How is the ordered log kept by a Kafka broker? The one file that knows the client library.

Settings that look odd here answer a measured trap; each says which. Every exception of the library
becomes one of ours in `translate`.

Here are its admin, producer and consumer as `Topics`, `BrokerLog` and `PlaceReader` want them, no
more: what is asked of them when, and how long a broker is waited for, is decided there.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from hermes.errors import (
    BrokerRefused,
    BrokerUnreachable,
    Defect,
    HermesError,
    NoSuchTopic,
    NotAllowed,
    OutcomeUnknown,
)
from hermes.transport.access import Access, access_to
from hermes.transport.broker_log import BrokerLog
from hermes.transport.log import Headers, Record
from hermes.transport.patience import Patience
from hermes.transport.reader import Fetched, Limits
from hermes.transport.reader import PlaceReader as KafkaReader
from hermes.transport.rights import Right
from hermes.transport.settings import MAX_RECORD, ROOM, SCRAM, SCRAM_ITERATIONS, Connection
from hermes.transport.topics import Facts

with warnings.catch_warnings():  # of its own use of importlib, where warnings are errors
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka import errors as trouble
    from kafka.admin import (
        ACL,
        ACLFilter,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        ConfigResource,
        ConfigResourceType,
        ResourcePattern,
        ResourcePatternFilter,
        ResourceType,
        UserScramCredentialUpsertion,
    )
    from kafka.net import manager as connections
    from kafka.net.compat import KafkaNetClient
    from kafka.net.inet import KafkaNetSocket
    from kafka.net.transport import KafkaSSLTransport
    from kafka.protocol import parser as protocol_parser
    from kafka.protocol.consumer import OffsetSpec

# The library warns at every reconnect and formats whole payloads at DEBUG: what matters of it
# reaches users as our errors.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

__all__ = ["KafkaLog", "KafkaReader", "translate"]

T = TypeVar("T")

_RETRY = 20
"""Milliseconds between two attempts of the library; its 100 ms would delay every first read."""

_POLLED = 500
"""Records taken from the library at once."""

_PIECE = 128 << 10
"""Bytes that a socket is asked for at once: below what glibc would map and unmap each time."""

_DROPPED = SCRAM_ITERATIONS + 1
"""Hashings of the password of a user who was dropped: one that nobody knows. Deleted they cannot
be: Kafka 4.3.1 may forget other users with one that is deleted, when it is started the next time
(measured: not even the broker itself got in again)."""

_NOT_OURS = (trouble.SecurityDisabledError, trouble.AuthorizationError)
"""What answers a question for rights at a broker where we give none: nobody checks any, or somebody
else gives them."""

_AWAY = trouble.UnknownBrokerIdError
"""What the library calls final: it comes of a broker that is leaving, whose topics nobody leads."""

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
        return NotAllowed(
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
    if isinstance(error, trouble.SaslAuthenticationFailedError):
        return NotAllowed(
            "the broker does not know this user any more, or not with this password",
            where=where,
            remedy="Was it revoked, or its password made anew? hermes up hands out what is in "
            "force; without SSH, and after hermes revoke: hermes invite NAME.",
        )
    if getattr(error, "retriable", False) or isinstance(error, _AWAY):
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


class _Wide(socket.socket):
    """Reads in large pieces: the library asks for 4 KiB at a time, a thousand times a payload."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """What is there, up to `PIECE` bytes, however little was asked for."""
        return super().recv(max(size, _PIECE), flags)


class _Frame(protocol_parser.KafkaBytes):  # type: ignore[misc]
    """A response as it comes in: written and read with one copy each, where the library makes two
    and three of every payload."""

    _idx: int

    def read(self, nbytes: int | None = None) -> bytes:
        """The next bytes, or all that are left."""
        start = self._idx
        end = len(self) if nbytes is None else min(start + nbytes, len(self))
        self._idx = end
        with memoryview(self) as view:
            return bytes(view[start:end])

    def write(self, data: bytes) -> None:
        """Put bytes behind those that were written."""
        start = self._idx
        self._idx += len(data)
        with memoryview(self) as view:
            view[start : self._idx] = data


protocol_parser.KafkaBytes = _Frame
# The only way in: the parser makes its frames by that name. A test sees that it does.


class _Socket(KafkaNetSocket):  # type: ignore[misc]
    """Plain sockets, chosen as the "proxy" `hermes://`: unlike the library's own they read in large
    pieces, and are closed when a connection attempt fails or is given up, so that an outage does
    not pile them up."""

    SCHEMES = ("hermes",)

    def socket(self, *kind: int) -> socket.socket:
        return _Wide(*kind)

    async def sock_connect(self, net: Any, sock: Any, *place: Any, **limits: Any) -> Any:
        try:
            return await super().sock_connect(net, sock, *place, **limits)
        except BaseException:  # GeneratorExit, too: the client was closed meanwhile
            sock.close()
            raise


class _WideTLS(ssl.SSLSocket):
    """The same under TLS."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """What is there, up to `PIECE` bytes, however little was asked for."""
        return super().recv(max(buflen, _PIECE), flags)


class _TLS(KafkaSSLTransport):  # type: ignore[misc]
    """One whose socket is closed, too, when its handshake fails or is given up."""

    async def handshake(self) -> None:
        try:
            await super().handshake()
        except BaseException:
            self.close()
            raise


connections.KafkaSSLTransport = _TLS
# The only way in here, too.


def _security(access: Access) -> dict[str, Any]:
    """How the library gets in. Raises `UsageError` where a file does not fit."""
    settings: dict[str, Any] = {}
    if access.mechanism is not None and access.password is not None:
        settings["sasl_mechanism"] = access.mechanism
        settings["sasl_plain_username"] = access.user
        settings["sasl_plain_password"] = access.password.reveal()
    if access.tls:
        context = access.context()
        context.sslsocket_class = _WideTLS
        settings["ssl_context"] = context
    sasl, tls = "SASL_" if access.mechanism else "", "SSL" if access.tls else "PLAINTEXT"
    return {"security_protocol": sasl + tls, **settings}


class _Opener:
    """Opens connections to one broker."""

    def __init__(self, broker: str, settings: Connection, patience: Patience) -> None:
        self._broker = broker
        self.settings = settings
        self._patience = patience

    def open(self, kind: Callable[..., T], **settings: Any) -> T:
        """One of the library's classes, connected. Raises `BrokerUnreachable`."""
        if self._patience.closed.is_set():
            raise Defect("this log is closed")
        settings = {"kafka_client": _Client, **_security(self._patience.access), **settings}

        def construct() -> T:
            return kind(
                bootstrap_servers=self._broker,
                client_id="hermes",
                proxy_url="hermes://direct",
                reconnect_backoff_max_ms=1000,  # its 30 s would outlast most outages
                **settings,
            )

        try:
            return self._patience.unless_gone(construct)
        except trouble.KafkaError as error:
            raise translate(error, self._broker) from error

    def consumer(self, client: Callable[..., Any], **settings: Any) -> KafkaConsumer:
        """A consumer, by way of `client`."""
        return self.open(
            KafkaConsumer,
            **settings,
            kafka_client=client,
            request_timeout_ms=int(self.settings.request_timeout * 1000),
            bootstrap_timeout_ms=int(self.settings.outage * 1000),
            retry_backoff_ms=_RETRY,
            group_id=None,  # groups rebalance for seconds; our offsets are in the ledger
            enable_auto_commit=False,
            auto_offset_reset="none",  # "latest" would skip in silence
            fetch_max_bytes=self.settings.fetch_bytes,
            max_partition_fetch_bytes=max(MAX_RECORD, self.settings.fetch_bytes // 2),
            metrics_enabled=False,
        )


class _Admin:
    """The library's administration as `Topics` wants it."""

    def __init__(self, opener: _Opener, patience: Patience) -> None:
        self._opener = opener
        self._patience = patience
        self._lock = threading.Lock()
        self._client: KafkaAdminClient | None = None

    def connect(self) -> None:
        with self._lock:
            self._client = self._opener.open(
                KafkaAdminClient, request_timeout_ms=10_000, bootstrap_timeout_ms=5_000
            )

    def create(self, topics: Iterable[str], config: Mapping[str, str]) -> None:
        spec = {"num_partitions": 1, "replication_factor": 1, "configs": dict(config)}
        wanted = dict.fromkeys(topics, spec)
        answer = self._ask("create topics", lambda a: a.create_topics(wanted, raise_errors=False))
        _refuse_errors(answer["topics"], trouble.TopicAlreadyExistsError)

    def delete(self, topics: list[str]) -> None:
        answer = self._ask("delete topics", lambda a: a.delete_topics(topics, raise_errors=False))
        _refuse_errors(answer["topics"], trouble.UnknownTopicOrPartitionError)

    def names(self, *, patient: bool = True) -> list[str]:
        return self._ask("list topics", lambda a: cast("list[str]", a.list_topics()), patient)

    def describe(self, topics: list[str], *, patient: bool = True) -> dict[str, Facts]:
        found = self._ask("look topics up", lambda a: a.describe_topics(topics), patient)
        return {facts["name"]: _facts(facts) for facts in found}

    def configs(self, topics: list[str], keys: Iterable[str]) -> dict[str, dict[str, str]]:
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        reported = self._ask(
            "describe topics", lambda a: a.describe_configs(asked, config_filter="all")
        )
        return {
            topic: {key: settings[key]["value"] for key in keys if key in settings}
            for topic, settings in reported.get("topic", {}).items()
        }

    def ends(self, topics: list[str]) -> dict[str, int]:
        return self._places(topics, OffsetSpec.LATEST, "ask for ends")

    def starts(self, topics: list[str]) -> dict[str, int]:
        return self._places(topics, OffsetSpec.EARLIEST, "ask for first offsets")

    def _places(self, topics: list[str], which: OffsetSpec, what: str) -> dict[str, int]:
        specs = {TopicPartition(topic, 0): which for topic in topics}
        found = self._ask(what, lambda a: a.list_partition_offsets(specs))
        return {place.topic: int(end.offset) for place, end in found.items()}

    def log_dirs(self, topics: list[str]) -> Iterable[Mapping[str, Any]]:
        asked = {topic: [0] for topic in topics}
        answers = self._ask("ask for sizes", lambda a: a.describe_log_dirs(asked), patient=False)
        return cast("Iterable[Mapping[str, Any]]", answers)

    def trim(self, topic: str, before: int) -> None:
        self._ask(topic, lambda a: a.delete_records({TopicPartition(topic, 0): before}))

    def users(self) -> list[str]:
        return [name for name, active in self._credentials().items() if active]

    def revoked(self) -> list[str]:
        return [name for name, active in self._credentials().items() if not active]

    def _credentials(self) -> dict[str, bool]:
        """Whether each user that the broker knows has a password that somebody knows."""
        told = self._ask("list users", lambda a: a.describe_user_scram_credentials())
        return {
            name: any(info["iterations"] != _DROPPED for info in user["credential_infos"])
            for name, user in sorted(told.items())
        }

    def set_user(self, name: str, password: str) -> None:
        wanted = UserScramCredentialUpsertion(name, SCRAM, password, iterations=SCRAM_ITERATIONS)
        self._alter(name, wanted)

    def drop_user(self, name: str) -> None:
        if name in self.users():
            unknown = secrets.token_urlsafe(32)
            wanted = UserScramCredentialUpsertion(name, SCRAM, unknown, iterations=_DROPPED)
            self._alter(name, wanted)

    def _alter(self, name: str, wanted: Any) -> None:
        told = self._ask(f"user {name}", lambda a: a.alter_user_scram_credentials([wanted]))
        if told.get(name):
            raise BrokerRefused(f"the broker said no: {told[name]}", where=f"user {name}")

    def is_guarded(self) -> bool:
        anything = _filter(None, ResourceType.ANY, None, ACLResourcePatternType.ANY)
        try:
            self._ask("ask for rights", lambda a: a.describe_acls(anything))
        except BrokerRefused as error:
            # Nobody checks any; or somebody does, and they are not ours to give.
            if isinstance(error.__cause__, _NOT_OURS):
                return False
            raise
        return True

    def allow(self, rights: Iterable[Right]) -> None:
        self._add_rules("give rights", [_rule(right) for right in rights])

    def forget_rights(self, prefix: str, user: str | None = None) -> None:
        patterns = (ACLResourcePatternType.LITERAL, ACLResourcePatternType.PREFIXED)
        anything = _filter(user, ResourceType.TOPIC, None, ACLResourcePatternType.ANY)
        found, _ = self._ask("ask for rights", lambda a: a.describe_acls(anything))
        gone = [
            _filter(rule.principal, ResourceType.TOPIC, rule.resource_pattern.resource_name, kind)
            for rule in found
            for kind in patterns
            if rule.resource_pattern.pattern_type == kind
            and rule.resource_pattern.resource_name.startswith(prefix)
        ]
        if gone:
            self._ask("take rights", lambda a: a.delete_acls(list(dict.fromkeys(gone))))

    def forbid(self, user: str) -> None:
        wanted = ACL(
            f"User:{user}",
            "*",
            ACLOperation.ALL,
            ACLPermissionType.DENY,
            ResourcePattern(ResourceType.TOPIC, "*"),
        )
        self._add_rules("take rights", [wanted])

    def _add_rules(self, what: str, wanted: list[ACL]) -> None:
        told = self._ask(what, lambda a: a.create_acls(wanted))
        for kind in told["failed"]:
            raise translate(kind(kind.message), what)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _ask(self, what: str, question: Callable[[KafkaAdminClient], T], patient: bool = True) -> T:
        admin = self._client
        if admin is None or self._patience.closed.is_set():
            raise Defect("this log is closed, or not connected yet", where=what)
        return self._patience.ask(what, lambda: question(admin), patient=patient)


def _rule(right: Right) -> ACL:
    """A right as the broker knows it. Reading holds describing, and so does writing."""
    kind = ACLResourcePatternType.PREFIXED if right.prefix else ACLResourcePatternType.LITERAL
    may = ACLOperation.READ if right.may == "read" else ACLOperation.WRITE
    resource = ResourcePattern(ResourceType.TOPIC, right.topic, kind)
    return ACL(f"User:{right.user}", "*", may, ACLPermissionType.ALLOW, resource)


def _filter(
    user: str | None, kind: ResourceType, name: str | None, pattern: ACLResourcePatternType
) -> ACLFilter:
    """All rules for these; None stands for any."""
    principal = user if user is None or ":" in user else f"User:{user}"
    resource = ResourcePatternFilter(kind, name, pattern)
    return ACLFilter(principal, None, ACLOperation.ANY, ACLPermissionType.ANY, resource)


def _refuse_errors(answers: list[dict[str, Any]], harmless: type[Exception]) -> None:
    for answer in answers:
        kind = trouble.for_code(answer["error_code"])
        if kind not in (trouble.NoError, harmless):
            raise translate(kind(answer.get("error_message") or kind.message), answer["name"])


def _facts(answer: dict[str, Any]) -> Facts:
    code, parts = answer["error_code"], answer["partitions"] or []
    return Facts(
        there=code != trouble.UnknownTopicOrPartitionError.errno,
        usable=code == 0 and bool(parts) and all(part["leader_id"] >= 0 for part in parts),
        partitions=len(parts),
    )


class _Scout:
    """Finds the true ends of the embedded broker's topics. What it says of itself is one after the
    *first* record of the last batch; only the answer to a fetch of that batch names the end."""

    def __init__(self, opener: _Opener) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._consumer: KafkaConsumer | None = None

    def true_ends(self, ends: dict[str, int]) -> dict[str, int]:
        """Of topics whose `ends`, as told, may be too low."""
        held = {TopicPartition(topic, 0): end for topic, end in ends.items() if end > 0}
        if not held:
            return ends
        with self._lock:
            if self._consumer is None:
                self._consumer = self._opener.consumer(_Client, fetch_max_wait_ms=1)
            try:
                found = _high_waters(self._consumer, held)
            except trouble.KafkaError as error:
                raise translate(error, "ask for ends") from error
        return {**ends, **{place.topic: end for place, end in found.items()}}

    def close(self) -> None:
        with self._lock:
            if self._consumer is not None:
                self._consumer.close(autocommit=False, timeout_ms=1000)


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


class _Promise:
    """The library's future as `BrokerLog` wants it."""

    def __init__(self, topic: str, future: Any) -> None:
        self._topic, self._future = topic, future

    @property
    def is_done(self) -> bool:
        return bool(self._future.is_done)

    def when_done(self, call: Callable[[], None]) -> None:
        self._future.add_both(lambda _: call())

    def wait(self, timeout: float) -> bool:
        try:
            self._future.get(timeout)
        except trouble.KafkaError:
            return bool(self._future.is_done)
        return True

    def offset(self) -> int:
        if self._future.failed():
            raise translate(self._future.exception, self._topic, sent=True)
        return int(self._future.value.offset)


class _Sending:
    """A producer, opened by the first record."""

    def __init__(self, opener: _Opener, patience: Patience) -> None:
        self._opener = opener
        self._patience = patience
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._written: set[str] = set()
        self._sent: set[str] = set()

    def send(
        self, topic: str, data: bytes, headers: Headers, lost: Callable[[str], None]
    ) -> _Promise:
        try:
            return _Promise(topic, self._send(topic, data, headers))
        except (trouble.KafkaError, ValueError) as error:
            lost(topic)
            if isinstance(error, ValueError):  # "unrecognized partition": the topic has just gone
                raise NoSuchTopic("there is no such topic", where=topic) from error
            raise translate(error, topic) from error

    def wrote_to(self, topics: set[str]) -> bool:
        with self._lock:
            return bool(self._producer and self._written & topics)

    def lost_sight_of(self, topic: str) -> bool:
        producer = self._producer
        if producer is None or topic not in self._sent:
            return False
        return producer._metadata.partitions_for_topic(topic) is None

    def renew(self) -> None:
        with self._lock:
            if self._producer:
                _close_producer(self._producer, orderly=True)
                self._producer = None
                self._written.clear()
                self._sent.clear()

    def close(self, idle: Callable[[], bool]) -> None:
        with self._lock:
            if self._producer is not None:
                _close_producer(self._producer, orderly=idle())

    def _producer_for(self, topic: str) -> KafkaProducer:
        with self._lock:
            if self._producer is None:
                settings = self._opener.settings
                outage = int(settings.outage * 1000)
                request = int(settings.request_timeout * 1000)
                self._producer = self._opener.open(
                    KafkaProducer,
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    batch_size=ROOM,  # a chunk fits with its framing: no batch is made to grow
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
        """The library's promise. Only a topic's first record may have to wait for its leader, and
        one after the library has lost sight of that."""
        producer = self._producer_for(topic)
        new = topic not in self._sent or self.lost_sight_of(topic)

        def send() -> Any:
            return producer.send(topic, value=data, headers=list(headers), partition=0)

        future = self._patience.unless_gone(send) if new else send()
        self._sent.add(topic)
        return future


def _close_producer(producer: KafkaProducer, *, orderly: bool) -> None:
    """Close it; what is still unacknowledged then is given up (its receipts say so)."""
    if not orderly:
        producer._sender.force_close()  # close() alone would raise and leave its thread behind
        producer._sender.join(2.0)
    try:
        producer.close(timeout=2.0)
    except trouble.KafkaError:
        producer._sender.force_close()


class _Fetching:
    """A consumer as `PlaceReader` wants it."""

    def __init__(self, opener: _Opener) -> None:
        clients: list[_Client] = []

        def client(**settings: Any) -> _Client:
            clients.append(_Client(**settings))
            return clients[-1]

        self._consumer = opener.consumer(client)
        self._cluster = clients[0].cluster

    def assign(self, topics: Iterable[str]) -> None:
        self._consumer.assign([TopicPartition(topic, 0) for topic in topics])

    def seek(self, topic: str, offset: int) -> None:
        self._consumer.seek(TopicPartition(topic, 0), offset)

    def fetch(self, limits: Limits, where: str) -> Fetched:
        # The library has no setting for a wait and a window that change: before each fetch, then.
        settings = self._consumer._fetcher.config
        settings["fetch_max_wait_ms"] = int(limits.wait * 1000)
        settings["fetch_max_bytes"] = limits.window
        settings["max_partition_fetch_bytes"] = limits.window_of_one
        try:
            batches = self._consumer.poll(timeout_ms=limits.timeout * 1000, max_records=_POLLED)
        except trouble.OffsetOutOfRangeError as error:
            outside = ", ".join(place.topic for place in error.args[0])
            raise translate(error, outside) from error
        except trouble.KafkaError as error:
            raise translate(error, where) from error
        return Fetched(
            [
                Record(record.topic, record.offset, record.value or b"", tuple(record.headers))
                for batch in batches.values()
                for record in batch
            ],
            {place.topic: self._consumer.highwater(place) or 0 for place in batches},
            sum(record.serialized_value_size for batch in batches.values() for record in batch),
        )

    def places(
        self, topics: Iterable[str], timeout: float, where: str
    ) -> dict[str, tuple[int, int]]:
        places = [TopicPartition(topic, 0) for topic in topics]
        try:
            firsts = self._consumer.beginning_offsets(places, timeout_ms=timeout * 1000)
            ends = self._consumer.end_offsets(places, timeout_ms=timeout * 1000)
        except trouble.KafkaError as error:
            raise translate(error, where) from error
        return {place.topic: (firsts[place], ends[place]) for place in places}

    def knows(self, topic: str) -> bool:
        return self._cluster.partitions_for_topic(topic) is not None

    def close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1000)


class _Library:
    """All that a log needs of the library."""

    def __init__(self, broker: str, settings: Connection, patience: Patience) -> None:
        self._opener = _Opener(broker, settings, patience)
        self._sending = _Sending(self._opener, patience)
        self._scout = _Scout(self._opener)
        self.admin = _Admin(self._opener, patience)
        self.connect = self.admin.connect
        self.send, self.wrote_to = self._sending.send, self._sending.wrote_to
        self.lost_sight_of = self._sending.lost_sight_of
        self.renew = self._sending.renew
        self.true_ends = self._scout.true_ends

    def client(self) -> _Fetching:
        return _Fetching(self._opener)

    def close(self, idle: Callable[[], bool]) -> None:
        self._sending.close(idle)
        self.admin.close()
        self._scout.close()


class KafkaLog(BrokerLog):
    """One connection to one broker. Construct, then `connect()`; or use it as a context manager.

    Once connected it rides outages out, for as long as `settings.outage` says.
    """

    def __init__(
        self,
        broker: str,
        *,
        patience: float = 5.0,
        settings: Connection | None = None,
        access: Access | None = None,
    ) -> None:
        """`broker` is HOST:PORT; `patience`, in seconds, is for the first connection; `access`:
        how we get in, by default as this machine is set up for that broker.

        Raises `UsageError` for text that is no address, and for an access that does not fit."""
        settings = settings or Connection()
        access = access_to(broker) if access is None else access
        waits = Patience(broker, settings.outage, trouble.KafkaError, translate, access)
        library = _Library(broker, settings, waits)
        super().__init__(broker, library, waits, settings, patience)
