"""How does a large payload travel through a log of small records? In chunks, written into place.

A payload of `length` bytes is cut into `count` chunks; chunk i covers the bytes
`i * length // count .. (i + 1) * length // count`, so the place and size of each follow from its
header alone, and a header that lies is seen before a byte is copied. Order, duplicates and chunks
of other payloads in between do no harm. The announcement (`values.Payload`) carries the digest.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hermes.errors import BrokerUnreachable, DigestMismatch, OutcomeUnknown, PeerError
from hermes.transport.log import Log, Reader, Receipt, Record
from hermes.transport.settings import BATCH, FRAMING, MAX_RECORD
from hermes.values import Payload

CHUNK = BATCH
"""Bytes of a chunk, at most; 256 KiB is better over thin links."""

WINDOW = 16 << 20
"""Bytes on their way at once: the client copies what it has yet to send, without a bound."""

LIMIT = 16 << 30
"""Bytes of the largest payload that anyone may announce, where the caller knows no better."""

HEADER = "chunk"
"""The header that tells a chunk from a small message."""

_FIELDS = struct.Struct(">16sIIQ")  # payload id, index, count, length in bytes
_TRIES = 3
OUTAGE = 600.0
"""Seconds that one acknowledgement is waited for: whoever gives a broker up abandons its log."""

Progress = Callable[[int], None]
"""Called with the bytes that are through so far."""


@dataclass(frozen=True)
class Chunk:
    """What a chunk's header says."""

    id: str
    index: int
    count: int
    length: int
    """Bytes of the whole payload."""

    @property
    def span(self) -> tuple[int, int]:
        """The bytes first .. end - 1 of the payload that this chunk holds."""
        return (
            self.index * self.length // self.count,
            (self.index + 1) * self.length // self.count,
        )

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """As they travel."""
        fields = _FIELDS.pack(bytes.fromhex(self.id), self.index, self.count, self.length)
        return ((HEADER, fields),)


def new_payload_id() -> str:
    """A random payload id: 32 hex digits."""
    return secrets.token_hex(16)


def is_chunk(record: Record) -> bool:
    """Whether the record is a chunk (of whatever payload), not a small message."""
    return any(key == HEADER for key, _ in record.headers)


def chunk_of(record: Record) -> Chunk | None:
    """The chunk's header; None for a record that is no chunk or whose header does not fit it."""
    fields = next((data for key, data in record.headers if key == HEADER), b"")
    if len(fields) != _FIELDS.size:
        return None
    name, index, count, length = _FIELDS.unpack(fields)
    if index >= count:
        return None
    chunk = Chunk(name.hex(), index, count, length)
    first, end = chunk.span
    return chunk if len(record.value) == end - first else None


def send_payload(
    log: Log,
    topic: str,
    short: str,
    generation: int,
    data: bytes | bytearray | memoryview,
    payload_id: str | None = None,
    *,
    chunk_size: int = CHUNK,
    progress: Progress | None = None,
) -> Payload:
    """Append `data` in chunks to `topic` (its physical name) and wait for every acknowledgement.

    `short` and `generation` go into the payload that is returned, as does the id, random if not
    given. A chunk whose outcome is unknown is appended again: duplicates are harmless. Raises
    what `Log.append` and `Receipt.offset` raise.
    """
    view = memoryview(data).cast("B")  # a view of floats would count elements, not bytes
    count = max(1, -(-len(view) // chunk_size))
    name = payload_id or new_payload_id()
    chunks = [Chunk(name, index, count, len(view)) for index in range(count)]

    def append(chunk: Chunk) -> Receipt:
        first, end = chunk.span
        return log.append(topic, bytes(view[first:end]), chunk.headers())

    offsets: list[int] = []
    waiting: deque[tuple[Chunk, Receipt]] = deque()

    def settle() -> None:
        chunk, receipt = waiting.popleft()
        offsets.append(_acknowledged(chunk, receipt, append))
        if progress:
            progress(chunk.span[1])

    most = max(2, WINDOW // chunk_size)
    for chunk in chunks:
        if len(waiting) == most:
            settle()
        waiting.append((chunk, append(chunk)))
    digest = hashlib.sha256(view).hexdigest()
    while waiting:
        settle()
    return Payload(
        id=name,
        topic=short,
        generation=generation,
        first=min(offsets),
        last=max(offsets),
        chunks=count,
        length=len(view),
        digest=digest,
    )


def _acknowledged(chunk: Chunk, receipt: Receipt, append: Callable[[Chunk], Receipt]) -> int:
    """The chunk's offset; appended again while its outcome is unknown, a few times."""
    for _ in range(_TRIES - 1):
        try:
            return receipt.offset(OUTAGE)
        except OutcomeUnknown:
            receipt = append(chunk)
    return receipt.offset(OUTAGE)


class Assembler:
    """Puts a payload together from chunks, and keeps what it has over broken transfers.

    `place` is the offset from which reading goes on. Memory is taken with the first chunk that
    fits, not on a claim alone.
    """

    def __init__(self, payload: Payload, *, limit: int = LIMIT) -> None:
        """Raises `PeerError` for a payload that cannot be, or is beyond `limit` bytes."""
        _refuse_impossible(payload, limit)
        self.payload = payload
        self.place = payload.first
        self.taken = 0
        """Bytes so far."""
        self._have: set[int] = set()
        self._buffer: bytearray | None = None

    @property
    def complete(self) -> bool:
        return len(self._have) == self.payload.chunks

    @property
    def read_through(self) -> bool:
        """Whether the whole announced range has been seen."""
        return self.place > self.payload.last

    def missing(self) -> Iterator[int]:
        """Indices of the chunks that are not there yet, in order."""
        return (index for index in range(self.payload.chunks) if index not in self._have)

    def take(self, record: Record) -> bool:
        """Take the record in if it is a chunk of this payload; whether all are there now.

        Never raises: what is no chunk of ours, or lies, is skipped.
        """
        self.place = max(self.place, record.offset + 1)
        chunk = chunk_of(record)
        if chunk is None or not self._ours(chunk) or chunk.index in self._have:
            return self.complete
        first, end = chunk.span
        if self._buffer is None:
            self._buffer = bytearray(self.payload.length)
        self._buffer[first:end] = record.value
        self._have.add(chunk.index)
        self.taken += end - first
        return self.complete

    def result(self) -> bytearray:
        """The payload's bytes, verified.

        Raises `PeerError` if chunks are missing, `DigestMismatch` if the bytes are not those
        announced.
        """
        name = f"payload {self.payload.id[:8]} in {self.payload.topic}"
        if not self.complete or self._buffer is None:
            raise PeerError(
                f"{self.payload.chunks - len(self._have)} of {self.payload.chunks} chunks are "
                f"missing (the first is number {next(self.missing())})",
                where=name,
            )
        if hashlib.sha256(self._buffer).hexdigest() != self.payload.digest:
            raise DigestMismatch("the bytes are not those announced", where=name)
        return self._buffer

    def _ours(self, chunk: Chunk) -> bool:
        payload = self.payload
        return (chunk.id, chunk.count, chunk.length) == (payload.id, payload.chunks, payload.length)


def _refuse_impossible(payload: Payload, limit: int) -> None:
    span = payload.last - payload.first + 1
    possible = (
        payload.first >= 0
        and 1 <= payload.chunks <= span
        and 0 <= payload.length <= payload.chunks * MAX_RECORD
    )
    name = f"payload {payload.id[:8]} in {payload.topic}"
    if not possible:
        raise PeerError(
            f"{payload.length} bytes in {payload.chunks} chunks at offsets "
            f"{payload.first} .. {payload.last} cannot be",
            where=name,
        )
    if payload.length > limit:
        raise PeerError(f"{payload.length} bytes; the limit is {limit}", where=name)


def fetch_payload(
    reader: Reader,
    topic: str,
    payload: Payload,
    *,
    assembler: Assembler | None = None,
    patience: float = 60.0,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> bytearray:
    """Read the payload's range of `topic` (its physical name) and return its bytes, verified.

    The reader must follow nothing else meanwhile (keep one for bulk beside the one that waits for
    news); the topic is dropped at the end. `patience` is in seconds without any record. With an
    `assembler` that has seen a part, reading goes on where that part ended.

    Raises `PeerError` for a payload that cannot be, is beyond `limit` bytes or lacks a chunk,
    `DigestMismatch`, `BrokerUnreachable` if nothing comes, and what `Reader.poll` raises.
    """
    parts = assembler or Assembler(payload, limit=limit)
    if not (parts.complete or parts.read_through):
        rest = payload.length - parts.taken + FRAMING * payload.chunks
        reader.follow(topic, parts.place, need=rest)
        try:
            _read_range(reader, parts, patience, progress)
        finally:
            reader.drop(topic)
    return parts.result()


def _read_range(
    reader: Reader, parts: Assembler, patience: float, progress: Progress | None
) -> None:
    heard = time.monotonic()
    while not (parts.complete or parts.read_through):
        left = parts.payload.last - parts.place + 1
        records = reader.poll(min(1.0, patience), limit=min(500, left))
        for record in records:
            parts.take(record)
        if records:
            heard = time.monotonic()
            if progress:
                progress(parts.taken)
        elif time.monotonic() - heard > patience:
            raise BrokerUnreachable(
                f"no chunk came for {patience:g} s, {parts.taken} of {parts.payload.length} "
                "bytes are there",
                where=parts.payload.topic,
            )
