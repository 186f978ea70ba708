"""What came by anyway? Chunks of updates that the master read on its way to the small messages.

Reading a worker's topic brings its chunks before the message that names them; kept for a moment,
they need not be fetched again. A bounded convenience: what was pushed out is fetched.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from hermes.errors import PeerError
from hermes.transport.log import Record
from hermes.transport.tensors import Assembler, chunk_of
from hermes.values import Payload

LIMIT = 64 << 20
"""Bytes kept, at most: a dozen workers' updates of a million parameters."""

LARGEST = 32 << 20
"""Bytes of one payload, at most: a larger model is rather transferred twice than held twice."""

OVERHEAD = 1024
"""Bytes that a record costs beside its value: a flood of tiny ones is bounded, too."""

STALE = 4096
"""Chunks of others after which a payload makes room that nobody has asked for."""


class Kept(NamedTuple):
    """Chunks of one payload."""

    records: list[Record]
    size: int
    """Bytes of the whole payload, kept free for it from its first chunk on: of two payloads that
    come at the same time, one whole is worth more than two halves."""
    last: int
    """Number of the chunk that came last."""


class ChunkKeeper:
    """Chunks by payload."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._size, self._seen = limit, 0, 0
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep one chunk, if there is room for its payload."""
        chunk = chunk_of(record)
        if chunk is None or not record.value:
            return
        self._seen += 1
        key, size = (record.topic, chunk.id), cost(chunk.length, chunk.count)
        kept = self._kept.get(key)
        if kept is None:
            if self._kept and self._seen - next(iter(self._kept.values())).last > STALE:
                self._drop(next(iter(self._kept)))
            if size > LARGEST or self._size + size > self._limit:
                return
            self._size += size
            kept = Kept([], size, 0)
        if kept.size == size and len(kept.records) < chunk.count:
            kept.records.append(record)
        self._kept[key] = kept._replace(last=self._seen)
        self._kept.move_to_end(key)

    def take(self, topic: str, payload: Payload) -> bytearray | None:
        """The payload's bytes, verified, and no longer kept; None if they are not all here, as
        the topic (its physical name) has them: then a fetch decides."""
        kept = self._kept.get((topic, payload.id))
        if kept is None:
            return None
        records = kept.records
        self._drop((topic, payload.id))
        try:
            parts = Assembler(payload)
            while records:
                parts.take(records.pop())  # what is taken over need not be held twice
            return parts.result()
        except PeerError:
            return None

    def _drop(self, key: tuple[str, str]) -> None:
        self._size -= self._kept.pop(key).size

    def __len__(self) -> int:
        """Payloads of which something is kept."""
        return len(self._kept)


def cost(length: int, count: int) -> int:
    """Bytes that a payload in so many chunks takes."""
    return length + count * OVERHEAD
