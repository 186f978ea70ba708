"""What is at this address, and if it is not a usable Kafka broker, why not?

The client library retries in silence; here one socket asks what a broker must answer (ApiVersions,
then Metadata) and names the cause within about two seconds; TLS and passwords are in `doors`. The
client library has no part in it.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import NamedTuple

from hermes.errors import BrokerError, BrokerUnreachable
from hermes.transport import doors
from hermes.transport.access import Access, access_to, refuse_elsewhere
from hermes.transport.address import Address, parse_address

START = "Start one: hermes broker start"

_API_VERSIONS, _METADATA, _METADATA_VERSION = 18, 3, 4
_OFFSET_FOR_LEADER_EPOCH = 23
_MOST = 16 << 20  # bytes of an answer that we are ready to read


class Greeting(NamedTuple):
    """What a broker says of itself."""

    apis: dict[int, tuple[int, int]]
    """The oldest and newest version of each request that it knows, by the request's number."""
    advertised: tuple[Address, ...]
    """Where it tells clients to go; empty if it speaks no metadata that we know."""

    @property
    def embedded(self) -> bool:
        """Whether this is the embedded broker, which alone lacks OffsetForLeaderEpoch.

        It offers DeleteRecords and panics when asked; its long poll is a timer.
        """
        return _OFFSET_FOR_LEADER_EPOCH not in self.apis


class _NotKafka(Exception):
    """The bytes that came are no answer of a broker."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        super().__init__(data)


def probe(broker: str, timeout: float = 2.0, access: Access | None = None) -> Greeting:
    """Ask the broker at HOST:PORT who it is, and see that its advertised address can be reached.
    `access`: how we get in; default: as this machine is set up for that broker.

    Takes at most about 1.5 times `timeout` (seconds). Raises `UsageError` for text that is no
    address, for an access that does not fit, and for a broker without TLS that sends us to another
    machine where nobody has said that this is wanted; `BrokerRefused` where the broker does not
    let us in, `BrokerUnreachable` with the cause for everything else; its `retriable` tells
    whether waiting may help (a broker that is still starting).
    """
    address = parse_address(broker)
    access = access_to(broker) if access is None else access
    greeting = greet(address, timeout, access)
    refuse_elsewhere(address, greeting.advertised, access)
    _reach_advertised(address, greeting, timeout / 2, access)
    return greeting


def greet(address: Address, timeout: float = 2.0, access: Access | None = None) -> Greeting:
    """As `probe`, without a look at the advertised addresses; `access`: default none at all."""
    access = access or Access()
    deadline = time.monotonic() + timeout
    with _opened(address, access, deadline) as connection:
        try:
            return _greeting(connection, address, access, time.monotonic() + timeout / 2)
        except _NotKafka as error:
            raise _unusable(address, _guess(error.data)) from None
        except TimeoutError:
            pass
        except OSError as error:
            raise _hung_up(address, access, error, timeout) from None
    if not access.tls and _speaks_http(address, time.monotonic() + timeout / 2):
        raise _unusable(address, _HTTP)
    raise BrokerUnreachable(
        "something accepts the connection but does not answer as a Kafka broker does",
        where=str(address),
        remedy="Is it another service, or a broker that is starting or stuck?",
    )


def _opened(address: Address, access: Access, deadline: float) -> socket.socket:
    """A connection, under TLS where that is wanted. Raises `BrokerUnreachable`."""
    connection = _connected(address, deadline)
    if not access.tls:
        return connection
    try:
        return doors.secured(connection, address, access, doors.time_left(deadline))
    except BaseException:
        connection.close()
        raise


def _hung_up(address: Address, access: Access, error: OSError, timeout: float) -> BrokerError:
    """What to say of a listener that ended the connection at a question of ours."""
    told = doors.refused_by(error, access)
    if told is not None:
        trouble = BrokerUnreachable(told[0], where=str(address), remedy=told[1])
        trouble.retriable = False
        return trouble
    if access.mechanism is None:
        offered = _offers(address, access, time.monotonic() + timeout / 2)
        if offered:
            return doors.wants_a_user(address, offered)
    what = f"it hangs up on us ({_cause(error)})"
    trouble = _unusable(address, what if access.tls else f"{what}; perhaps it expects TLS")
    trouble.retriable = True  # so does a forwarded port (ssh, Docker) of one that starts
    return trouble


def _offers(address: Address, access: Access, deadline: float) -> str:
    """What a listener offers for proving who one is; "" if nothing, or if it does not say."""
    try:
        with _opened(address, access, deadline) as connection:
            return doors.mechanisms(_asker(connection, deadline))
    except (OSError, BrokerError, _NotKafka, struct.error):
        return ""


def _connected(address: Address, deadline: float) -> socket.socket:
    """A connection. Raises `BrokerUnreachable`: the name, a refusal, or no answer."""
    where = str(address)
    try:
        return socket.create_connection(address, timeout=max(0.05, deadline - time.monotonic()))
    except socket.gaierror as error:
        trouble = BrokerUnreachable(
            f"the name {address.host!r} does not resolve ({_cause(error)})",
            where=where,
            remedy="Check the spelling of --broker, or use the address in digits.",
        )
        trouble.retriable = False
    except ConnectionRefusedError:
        trouble = BrokerUnreachable(
            "nothing listens there (connection refused)", where=where, remedy=START
        )
    except TimeoutError:
        trouble = BrokerUnreachable(
            "no answer to the connection attempt (timeout)",
            where=where,
            remedy="Is the host up, and does a firewall let this port through?",
        )
    except OSError as error:
        trouble = BrokerUnreachable(f"cannot connect: {_cause(error)}", where=where)
    raise trouble from None


def _greeting(
    connection: socket.socket, address: Address, access: Access, deadline: float
) -> Greeting:
    """Both questions, and between them who we are. Raises `_NotKafka`, `OSError`,
    `BrokerRefused`."""
    answer = _ask(connection, _API_VERSIONS, 0, b"", deadline)
    apis = _read_api_versions(_Answer(answer))
    if access.mechanism is not None:
        try:
            doors.authenticate(_asker(connection, deadline + 1.0), address, access)
        except struct.error:
            raise _NotKafka(answer) from None
    oldest, newest = apis.get(_METADATA, (0, -1))
    if not oldest <= _METADATA_VERSION <= newest:
        return Greeting(apis, ())
    no_topics_no_creation = struct.pack(">ib", 0, 0)
    answer = _ask(connection, _METADATA, _METADATA_VERSION, no_topics_no_creation, deadline + 1.0)
    return Greeting(apis, _read_brokers(_Answer(answer)))


def _ask(connection: socket.socket, api: int, version: int, body: bytes, deadline: float) -> bytes:
    """One request; the answer after its correlation number."""
    client = b"hermes-probe"
    head = struct.pack(">hhih", api, version, api, len(client)) + client
    request = head + body
    connection.settimeout(max(0.05, deadline - time.monotonic()))
    connection.sendall(struct.pack(">i", len(request)) + request)
    start = _receive(connection, 8, deadline)
    size, correlation = struct.unpack(">ii", start)
    if correlation != api or not 4 <= size <= _MOST:
        raise _NotKafka(start)
    return _receive(connection, size - 4, deadline)


def _asker(connection: socket.socket, deadline: float) -> doors.Ask:
    """Questions at this connection."""

    def ask(api: int, version: int, body: bytes) -> bytes:
        return _ask(connection, api, version, body, deadline)

    return ask


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        connection.settimeout(max(0.05, deadline - time.monotonic()))
        piece = connection.recv(size - len(data))
        if not piece:
            if data:
                raise _NotKafka(data)
            raise ConnectionResetError("closed without an answer")
        data += piece
        if len(data) < 8 and _guess(data) == _HTTP:
            raise _NotKafka(data)
    return data


class _Answer:
    """Reads the fields of an answer one after the other; `_NotKafka` at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def numbers(self, layout: str) -> tuple[int, ...]:
        fields = struct.Struct(">" + layout)
        if self._at + fields.size > len(self._data):
            raise _NotKafka(self._data)
        values = fields.unpack_from(self._data, self._at)
        self._at += fields.size
        return values

    def text(self) -> str:
        (size,) = self.numbers("h")
        end = self._at + max(0, size)
        if end > len(self._data):
            raise _NotKafka(self._data)
        text = self._data[self._at : end].decode("utf-8", "replace")
        self._at = end
        return text


def _read_api_versions(answer: _Answer) -> dict[int, tuple[int, int]]:
    _error, count = answer.numbers("hi")
    apis = {}
    for _ in range(max(0, min(count, 1000))):
        api, oldest, newest = answer.numbers("hhh")
        apis[api] = (oldest, newest)
    return apis


def _read_brokers(answer: _Answer) -> tuple[Address, ...]:
    _throttle, count = answer.numbers("ii")
    brokers = []
    for _ in range(max(0, min(count, 1000))):
        answer.numbers("i")
        host = answer.text()
        (port,) = answer.numbers("i")
        answer.text()  # the rack
        brokers.append(Address(host, port))
    return tuple(brokers)


_HTTP = "it is a web server"
_TLS = "it expects TLS, and we came without"
_ACCESS = (
    "Is it a secure broker? HERMES_ACCESS=FILE names its access file; hermes invite NAME, on the "
    "master's machine, lets a worker in."
)


def _guess(data: bytes) -> str:
    """What the first bytes of a strange answer tell."""
    if data[:5] in (b"HTTP/", b"<html", b"<!DOC", b"<HTML"):
        return _HTTP
    if data[:2] == b"\x15\x03":
        return _TLS
    return "its answer is not one of the Kafka protocol"


def _speaks_http(address: Address, deadline: float) -> bool:
    """Whether a service that was silent to a broker's question answers a browser's."""
    try:
        with _connected(address, deadline) as connection:
            connection.settimeout(max(0.05, deadline - time.monotonic()))
            connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return _guess(connection.recv(16)) == _HTTP
    except (OSError, BrokerUnreachable):
        return False


def _unusable(address: Address, what: str) -> BrokerUnreachable:
    error = BrokerUnreachable(
        what if what == _TLS else f"what listens there is not a Kafka broker: {what}",
        where=str(address),
        remedy=f"Check host and port of --broker. {START if what != _TLS else _ACCESS}",
    )
    error.retriable = False
    return error


def _reach_advertised(address: Address, greeting: Greeting, timeout: float, access: Access) -> None:
    """One of the addresses that the broker gives to clients must take a connection."""
    causes = []
    for target in greeting.advertised:
        if target == address:
            return
        try:
            connection = socket.create_connection(target, timeout=timeout)
        except OSError as error:
            causes.append(_cause(error))
            continue
        with connection:
            if access.tls:
                doors.secured(connection, target, access, timeout).close()
            return
    if causes:
        trouble = BrokerUnreachable(
            f"the broker at {address} says that it is to be reached at "
            f"{' or '.join(str(target) for target in greeting.advertised)}, and that cannot be "
            f"reached from here: {', '.join(causes)}",
            where=str(address),
            remedy="Start it with an address that its clients can reach: "
            "hermes broker start --listen 0.0.0.0 --advertise HOST:PORT",
        )
        trouble.retriable = False
        raise trouble


def _cause(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
