"""By which address do others reach this machine?"""

from __future__ import annotations

import contextlib
import ipaddress
import socket

EXAMPLES = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
"""Addresses that stand in documents, and belong to no machine."""


def towards(host: str, port: int = 22) -> str | None:
    """The address that this machine has on its way to another one; None where there is no way, or
    the name is not known. Sends nothing."""
    with contextlib.suppress(OSError, UnicodeError):
        for family, kind, protocol, _, target in socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind, protocol) as way:  # connecting it sends no packet
                way.connect(target)
                return str(way.getsockname()[0])
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine itself is reached there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def is_example(host: str) -> bool:
    """Whether it stands there to be replaced."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".").endswith((".example", "example.org", "example.com"))
    return any(address in network for network in EXAMPLES)
