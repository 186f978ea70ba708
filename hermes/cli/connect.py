"""How does a command reach its broker?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hermes.errors import UsageError

if TYPE_CHECKING:
    from hermes.transport.access import Access
    from hermes.transport.kafka import KafkaLog

FIRST = 3.0
"""Seconds for the first connection: with the start of Python, a cause is told within 5 s."""


BRIEF = 1.0
"""Seconds for a command that only looks: a broker that is not there now is the answer."""


def connected(
    broker: str,
    patience: float | None = None,
    first: float = FIRST,
    *,
    master: bool = False,
    access: Access | None = None,
) -> KafkaLog:
    """A connection, a `master`'s or not, made within `first` seconds; `patience`, where given, is
    for that and for outages; `access`: how we get in, by default as this machine is set up.

    Raises `UsageError` for text that is no address, `BrokerRefused` where it does not let us in,
    `BrokerUnreachable` with the cause for everything else."""
    from hermes.transport.address import parse_address
    from hermes.transport.kafka import KafkaLog
    from hermes.transport.settings import OF_MASTER, Connection

    with at_flag("--broker"):
        parse_address(broker)
    settings = OF_MASTER if master else Connection()
    if patience is None:
        return KafkaLog(broker, patience=first, settings=settings, access=access).connect()
    settings = settings._replace(outage=patience)
    return KafkaLog(broker, patience=patience, settings=settings, access=access).connect()


@contextlib.contextmanager
def at_flag(flag: str) -> Iterator[None]:
    """Names the flag in a `UsageError` about its value."""
    try:
        yield
    except UsageError as error:
        if error.where:
            raise
        raise type(error)(error.what, where=flag, remedy=error.remedy) from None


def advertised(broker: str, access: Access | None = None) -> str:
    """What the broker tells clients to use, if it is more than this machine's own address."""
    from hermes.transport.address import is_local
    from hermes.transport.probe import probe

    for address in probe(broker, access=access).advertised:
        if not is_local(address.host):
            return str(address)
    return broker
