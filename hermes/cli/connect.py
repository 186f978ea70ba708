"""How does a command reach its broker, and how does it hear Ctrl-C?"""

from __future__ import annotations

import base64
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from hermes.errors import UsageError

if TYPE_CHECKING:
    from hermes.transport.kafka import KafkaLog

FIRST = 3.0
"""Seconds for the first connection: with the start of Python, a cause is told within 5 s."""


BRIEF = 1.0
"""Seconds for a command that only looks: a broker that is not there now is the answer."""


def connected(broker: str, patience: float | None = None, first: float = FIRST) -> KafkaLog:
    """A connection, made within `first` seconds; `patience`, where given, is for that and for
    outages. Raises `UsageError` for text that is no address, `BrokerUnreachable` with the cause."""
    from hermes.transport.kafka import KafkaLog
    from hermes.transport.settings import Connection

    if patience is None:
        return KafkaLog(broker, patience=first).connect()
    return KafkaLog(broker, patience=patience, settings=Connection(outage=patience)).connect()


@contextlib.contextmanager
def on_interrupt(first: Callable[[], object]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) calls `first`; the second leaves at once."""

    def handle(_number: int, _frame: object) -> None:
        for number in old:
            signal.signal(number, signal.default_int_handler)
        first()

    old = {
        number: signal.getsignal(number) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number in old:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


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
