"""Where do brokers keep their things, and which addresses do they take?"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import NamedTuple

from hermes.broker.ports import listener
from hermes.errors import BrokerUnreachable, UsageError
from hermes.transport.address import Address, parse_address
from hermes.transport.probe import greet

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
            try:
                return parse_address(self.advertise)
            except UsageError as error:
                raise UsageError(
                    error.what,
                    where="--advertise",
                    remedy="The address by which clients reach it, such as 192.168.0.5:9092",
                ) from None
        if self.listen in ANY:
            return Address(socket.gethostname(), self.port)
        return Address(self.listen, self.port)


def settled(wanted: Wanted) -> Wanted:
    """With a port that is free just now. Raises `UsageError` if the port asked for is taken, or
    the address is none of this machine's."""
    with _socket_for(wanted.listen) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.listen or "?", wanted.port))
        except OSError as error:
            raise _cannot_listen(wanted, error) from None
        return wanted._replace(port=int(probe.getsockname()[1]))


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


def _cannot_listen(wanted: Wanted, error: OSError) -> UsageError:
    where = str(Address(wanted.listen, wanted.port))
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {wanted.port} is taken by {_who(wanted.local)}",
            where=where,
            remedy="Choose another one: --port P, or --port 0 for any that is free. "
            "What Hermes started: hermes broker status",
        )
    if error.errno == errno.EACCES:
        return UsageError(
            f"port {wanted.port} is for privileged programs",
            where=where,
            remedy="Choose one from 1024 up: --port P",
        )
    return UsageError(
        f"{wanted.listen!r} is no address of this machine ({error.strerror})",
        where="--listen",
        remedy="--listen 127.0.0.1 for this machine alone, 0.0.0.0 for all its interfaces.",
    )


def _who(address: Address) -> str:
    """What answers there, and its process where that can be known."""
    try:
        greeting = greet(address, timeout=1.0)
        what = "an embedded broker" if greeting.embedded else "a Kafka broker"
    except BrokerUnreachable:
        what = "a program that is no Kafka broker"
    process = listener(address.port)
    return f"{what}: {process}" if process else what
