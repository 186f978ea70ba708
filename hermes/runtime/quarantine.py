"""What came that does not count? Records that are no message of ours, forged, or out of place; and
updates that were rejected since they should not have come.

Each is told apart by its place, with its reason and its evidence; nothing of it is used.
A flood of them is a number, not a flood of lines.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    Update,
)
from hermes.runtime.logs import utc_now
from hermes.transport import names
from hermes.values import Facts, Position

KEPT = 250
"""Of each reason, those that the file tells in full; of later ones every number that is a power of
two. There are some twenty reasons: a flood of one does not hide the others."""

SHORT = 80
"""Letters of what a peer calls itself, or names."""

OTHER = "other"
"""The code of lines that say none."""

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


class Evidence(msgspec.Struct, frozen=True):
    """What an update claims of itself, and where its tensors lie."""

    incarnation: str
    number: int
    """Of its birth."""
    base: int
    base_digest: str
    samples: int
    payload_topic: str
    generation: int
    first: int
    last: int
    """Offsets of its first and last chunk."""
    length: int
    payload_digest: str

    @classmethod
    def of(cls, update: Update) -> Evidence:
        """As the message has it, in texts of bounded length."""
        birth, base, payload = update.birth, update.base, update.payload
        return cls(
            birth.incarnation[:SHORT],
            birth.number,
            base.version,
            base.digest[:SHORT],
            update.samples,
            payload.topic[:SHORT],
            payload.generation,
            payload.first,
            payload.last,
            payload.length,
            payload.digest[:SHORT],
        )


class Aside(msgspec.Struct, frozen=True, omit_defaults=True):
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
    code: str = OTHER
    """The reason in short: what `hermes status` counts by."""
    counted: int = 0
    """How many of this code there were with it."""
    facts: Facts = {}
    worker: str = ""
    """Whose topic it came by, where the machine refused it."""
    update: Evidence | None = None
    generation: int = 0
    """Of the topic."""


class Quarantine:
    """Keeps what does not count, in a bounded file, and says so. A run that goes on goes on
    counting, and what is read a second time is no news."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        found = list(_lines(path))
        self.path, self.counts = path, _counts(found)
        """`counts`: by code; replaced, never changed, so that any thread may read it."""
        self._say = say
        self._by_topic: Counter[str] = Counter()
        self._known = {
            (Position(aside.topic, aside.generation, aside.offset), aside.code) for aside in found
        }

    @property
    def count(self) -> int:
        """All that was set aside."""
        return sum(self.counts.values())

    def add(
        self,
        at: Position,
        reason: str,
        data: bytes | None = None,
        *,
        code: str = OTHER,
        facts: Facts | None = None,
        worker: str = "",
        update: Update | None = None,
    ) -> None:
        """One more; `data` is the record, where it is at hand."""
        at, reason = msgspec.structs.replace(at, topic=at.topic[:SHORT]), reason[:REASON]
        topic, offset = at.topic, at.offset
        if (at, code) in self._known:
            return
        counted = self.counts.get(code, 0) + 1
        self.counts = {**self.counts, code: counted}
        self._by_topic[topic] += 1
        if counted <= KEPT or counted.bit_count() == 1:
            evidence = Evidence.of(update) if update is not None else None
            digest = digest_of(data) if data is not None else ""
            self._write(
                Aside(
                    self.count,
                    topic,
                    offset,
                    reason,
                    digest,
                    (data or b"")[:HEAD].hex(),
                    utc_now(),
                    code,
                    counted,
                    facts or {},
                    worker,
                    evidence,
                    at.generation,
                )
            )
            self._known.add((at, code))
        found = self._by_topic[topic]
        if found in (1, 10, 100) or found % 1000 == 0:
            more = f" ({found} in this topic so far)" if found > 1 else ""
            self._say(f"quarantined: {topic}, offset {offset}: {reason}{more}")

    def _write(self, aside: Aside) -> None:
        with contextlib.suppress(OSError), self.path.open("ab") as file:
            file.write(msgspec.json.encode(aside) + b"\n")


class Quarantined(NamedTuple):
    """What is known of a run's quarantine."""

    total: int
    last: tuple[Aside, ...] = ()
    """The last few."""
    counts: Mapping[str, int] = {}
    """By code."""
    path: Path | None = None
    """Where all of it is told, on this machine."""

    @classmethod
    def heard(cls, counts: Mapping[str, int]) -> Quarantined:
        """As its master tells it from afar."""
        return cls(sum(counts.values()), (), counts)

    def __str__(self) -> str:
        """`3 records; the last: lobby, offset 5: not a message of Hermes`."""
        if not self.total:
            return "none"
        records = "1 record" if self.total == 1 else f"{self.total} records"
        if not self.last:
            return records
        last = self.last[-1]
        return f"{records}; the last: {last.topic}, offset {last.offset}: {last.reason}"

    def where(self) -> str:
        """`2 void, 1 absurd-norm, in /runs/r/log/quarantine.jsonl`."""
        most = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        place = str(self.path) if self.path else "log/quarantine.jsonl, on its master's machine"
        return f"{', '.join(f'{count} {code}' for code, count in most)}, in {place}"


def read_quarantine(path: Path, last: int = 5) -> Quarantined:
    """The quarantine of a run; lines that are not ours are skipped. Of a flood of one reason its
    last power of two is known."""
    found = list(_lines(path))
    total = max((aside.number for aside in found), default=0)
    return Quarantined(total, tuple(found[-last:]), _counts(found), path.absolute())


def _counts(found: Iterable[Aside]) -> dict[str, int]:
    """How many of each code there were with the last that the file tells of."""
    counts: dict[str, int] = {}
    for aside in found:
        counts[aside.code] = max(aside.counted, counts.get(aside.code, 0))
    return counts


def _lines(path: Path) -> Iterator[Aside]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=Aside)
