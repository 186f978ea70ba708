"""What came that does not count? Records that are no message of ours, forged, or out of place.

Each is told apart by topic and offset, with its reason; nothing of it is ever used. A flood of them
is a number, not a flood of lines.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from hermes.codec import decode, digest_of
from hermes.errors import PeerError
from hermes.messages import (
    AnyMessage,
    Envelope,
    Hello,
    LogLine,
    MasterBeat,
    StopRequested,
)
from hermes.runtime.logs import utc_now
from hermes.transport import names

KEPT = 1000
"""Records that the file tells in full; of later ones every number that is a power of two."""

HEAD = 32
"""Bytes of a record that are kept."""

REASON = 200
"""Characters of a reason."""

LARGEST_INPUT = 4096
"""Bytes of a small message of a worker: a report with its update takes some hundred."""

BELONGS: dict[str, tuple[type, ...]] = {
    names.LOBBY: (Hello, StopRequested),
    names.LOGS: (LogLine, MasterBeat),
}
"""What may lie in the topics that anyone may write to; in a worker's own: envelopes."""


def fitting(data: bytes, short: str) -> AnyMessage:
    """The message in a record of this topic. Raises `PeerError` for what is none, or another's."""
    message = decode(data, LARGEST_INPUT)
    if not isinstance(message, BELONGS.get(short, (Envelope,))):
        raise PeerError(f"a {type(message).__name__} does not belong here")
    return message


class Aside(msgspec.Struct, frozen=True):
    """One record, as a line of `log/quarantine.jsonl` tells it."""

    number: int
    """1, 2, 3, ... within the run."""
    topic: str
    offset: int
    reason: str
    digest: str
    """SHA-256 of its bytes; "" where only its place is known."""
    head: str
    """Its first bytes, in hex."""
    time: str
    """When it was found: ISO 8601, UTC."""


class Quarantine:
    """Keeps what does not count, in a bounded file, and says so."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.count = 0
        self._path, self._say = path, say
        self._by_topic: Counter[str] = Counter()

    def add(self, topic: str, offset: int, reason: str, data: bytes | None = None) -> None:
        """One more; `topic` is its short name."""
        self.count += 1
        self._by_topic[topic] += 1
        reason = reason[:REASON]
        if self.count <= KEPT or self.count.bit_count() == 1:
            aside = Aside(
                self.count,
                topic,
                offset,
                reason,
                digest_of(data) if data is not None else "",
                (data or b"")[:HEAD].hex(),
                utc_now(),
            )
            with contextlib.suppress(OSError), self._path.open("ab") as file:
                file.write(msgspec.json.encode(aside) + b"\n")
        found = self._by_topic[topic]
        if found in (1, 10, 100) or found % 1000 == 0:
            more = f" ({found} in this topic so far)" if found > 1 else ""
            self._say(f"quarantined: {topic}, offset {offset}: {reason}{more}")


class Quarantined(NamedTuple):
    """What a run's folder tells of its quarantine."""

    total: int
    last: tuple[Aside, ...]
    """The last few."""

    def __str__(self) -> str:
        """`3 records; the last: lobby, offset 5: not a message of Hermes`."""
        if not self.total:
            return "none"
        last = self.last[-1]
        records = "record" if self.total == 1 else "records"
        return (
            f"{self.total} {records}; the last: {last.topic}, offset {last.offset}: {last.reason}"
        )


def read_quarantine(path: Path, last: int = 5) -> Quarantined:
    """The quarantine of a run; lines that are not ours are skipped."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines[-last:]:
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=Aside))
    return Quarantined(found[-1].number if found else 0, tuple(found))
