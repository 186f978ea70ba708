"""How is the place of a broker written? HOST:PORT."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from hermes.errors import UsageError


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """HOST:PORT as an address. Raises `UsageError`."""
    match = re.fullmatch(
        r"\s*(?:\[(?P<v6>[0-9a-fA-F:.%]+)\]|(?P<host>[^\s:/@\[\]]+)):(?P<port>\d+)\s*", text
    )
    port = int(match["port"]) if match else 0
    if match is None or not 0 < port < 65536:
        raise UsageError(f"{text!r} is not HOST:PORT", remedy="For example --broker 127.0.0.1:9092")
    return Address(match["v6"] or match["host"], port)


def is_local(host: str) -> bool:
    """Whether this address means the machine that uses it, whatever machine that is. (A name that
    only begins like one of those, 127.evil.example, may lead anywhere.)"""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback
