"""Where do brokers keep their things, and which addresses do they take?"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import NamedTuple

from hermes.errors import BrokerUnreachable, UsageError
from hermes.transport.probe import Address, greet, parse_address

ANY = ("0.0.0.0", "::")  # noqa: S104  (only compared with)
"""What `--listen` says for all interfaces."""


class Wanted(NamedTuple):
    """What a user asks for."""

    port: int
    """0 stands for any free one (see `settled`)."""
    listen: str = "127.0.0.1"
    advertise: str | None = None
    """HOST:PORT that clients are told; by default where it listens."""
    data: Path | None = None

    @property
    def local(self) -> Address:
        """Where a client on this machine reaches it."""
        return Address("127.0.0.1" if self.listen in ANY else self.listen, self.port)

    @property
    def advertised(self) -> Address:
        """What clients are told. Raises `UsageError` for text that is no address."""
        if self.advertise is not None:
            return parse_address(self.advertise)
        if self.listen in ANY:
            return Address(socket.gethostname(), self.port)
        return Address(self.listen, self.port)


def settled(wanted: Wanted) -> Wanted:
    """With a port that is free just now. Raises `UsageError` if the port asked for is taken."""
    if wanted.port:
        _refuse_taken(wanted)
        return wanted
    return wanted._replace(port=free_port(wanted.listen))


def free_port(listen: str = "127.0.0.1") -> int:
    """A port of this interface that is free just now."""
    with _socket_for(listen) as probe:
        probe.bind((listen, 0))
        return int(probe.getsockname()[1])


def state_folder() -> Path:
    """Where running brokers are noted: `$HERMES_STATE`, else `~/.local/state/hermes`."""
    chosen = os.environ.get("HERMES_STATE")
    return Path(chosen) if chosen else Path.home() / ".local" / "state" / "hermes"


def cache_folder() -> Path:
    """Where downloads are kept: `$HERMES_CACHE`, else `~/.cache/hermes`."""
    chosen = os.environ.get("HERMES_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "hermes"


def _socket_for(listen: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET)


def _refuse_taken(wanted: Wanted) -> None:
    with _socket_for(wanted.listen) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.listen, wanted.port))
        except OSError as error:
            where = f"{wanted.listen}:{wanted.port}"
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"port {wanted.port} is taken by {_who(wanted.local)}",
                    where=where,
                    remedy="Choose another one: --port P, or --port 0 for any that is free. "
                    "What Hermes started: hermes broker status",
                ) from None
            raise UsageError(
                f"cannot listen there: {error.strerror}",
                where=where,
                remedy="--listen takes an address of this machine, --port 1024 or more.",
            ) from None


def _who(address: Address) -> str:
    try:
        greeting = greet(address, timeout=1.0)
    except BrokerUnreachable:
        return "another program, not a Kafka broker"
    return "an embedded broker" if greeting.embedded else "a Kafka broker"
