"""What has a broker of this machine said before it fell silent? Its output is in a file."""

from __future__ import annotations

from typing import NamedTuple

from hermes.broker.places import state_folder
from hermes.errors import UsageError
from hermes.transport.address import parse_address

TAIL = 256 << 10
"""Bytes of its output that are looked at."""

FULL = ("No space left on device", "ENOSPC", "Disk quota exceeded")
"""How a full disk is told; a full memory file system ends Java with a bus error instead."""

LOCAL = ("127.0.0.1", "localhost", "::1")


class LastWords(NamedTuple):
    """What its output tells."""

    output: str
    """Path of the file."""
    no_room: bool
    """Whether it says that its disk is full."""


def last_words(broker: str) -> LastWords | None:
    """Of the broker at HOST:PORT; None if `hermes broker start` did not start it here."""
    try:
        address = parse_address(broker)
    except UsageError:
        return None
    output = state_folder() / "brokers" / str(address.port) / "broker.log"
    if address.host not in LOCAL or not output.is_file():
        return None
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    return LastWords(str(output), any(words in text for words in FULL))
