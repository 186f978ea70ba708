"""How does a command reach its broker?"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from hermes.errors import UsageError

if TYPE_CHECKING:
    from hermes.transport.kafka import KafkaLog

FIRST = 3.0
"""Seconds for the first connection: with the start of Python, a cause is told within 5 s."""


BRIEF = 1.0
"""Seconds for a command that only looks: a broker that is not there now is the answer."""


def connected(
    broker: str, patience: float | None = None, first: float = FIRST, *, master: bool = False
) -> KafkaLog:
    """A connection, a `master`'s or not, made within `first` seconds; `patience`, where given, is
    for that and for outages. Raises `UsageError` for text that is no address, `BrokerUnreachable`
    with the cause."""
    from hermes.transport.kafka import KafkaLog
    from hermes.transport.probe import parse_address
    from hermes.transport.settings import OF_MASTER, Connection

    with at_flag("--broker"):
        parse_address(broker)
    settings = OF_MASTER if master else Connection()
    if patience is None:
        return KafkaLog(broker, patience=first, settings=settings).connect()
    settings = settings._replace(outage=patience)
    return KafkaLog(broker, patience=patience, settings=settings).connect()


@contextlib.contextmanager
def at_flag(flag: str) -> Iterator[None]:
    """Names the flag in a `UsageError` about its value."""
    try:
        yield
    except UsageError as error:
        if error.where:
            raise
        raise type(error)(error.what, where=flag, remedy=error.remedy) from None


class Token(msgspec.Struct, frozen=True):
    """What `hermes worker --join` is given: where to, and which key it takes (not the key)."""

    broker: str
    run: str
    key: str
    """Fingerprint."""

    def text(self) -> str:
        """As it is typed."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def read_token(text: str) -> Token:
    """The token in this text. Raises `UsageError`."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(data, type=Token)
    except (ValueError, msgspec.DecodeError):
        raise UsageError(
            "this is not a token",
            where="--join",
            remedy="Copy the whole line that the master printed: hermes worker --join TOKEN",
        ) from None


def advertised(broker: str) -> str:
    """What the broker tells clients to use, if it is more than this machine's own address."""
    from hermes.transport.probe import probe

    for address in probe(broker).advertised:
        if not is_local(address.host):
            return str(address)
    return broker


def is_local(host: str) -> bool:
    """Whether this address means the machine that uses it."""
    return host in ("localhost", "::1") or host.startswith("127.")
