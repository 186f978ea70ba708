"""What came by anyway? Chunks of updates that the master read on its way to the small messages.

Reading a worker's topic brings its chunks before the message that names them; kept for a moment,
they need not be fetched again. A bounded convenience: what was pushed out is fetched.
"""

from __future__ import annotations

from collections import OrderedDict

from hermes.errors import PeerError
from hermes.transport.log import Record
from hermes.transport.tensors import Assembler, chunk_of
from hermes.values import Payload

LIMIT = 64 << 20
"""Bytes kept, at most."""

OVERHEAD = 1024
"""Bytes that a record costs beside its value: a flood of tiny ones is bounded, too."""


class ChunkKeeper:
    """Chunks by payload, the oldest payload going first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[tuple[str, str], list[Record]] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep one chunk, if there is room for its payload at all."""
        chunk = chunk_of(record)
        if chunk is None or not record.value or chunk.length > self._limit:
            return
        self._kept.setdefault((record.topic, chunk.id), []).append(record)
        self._size += len(record.value) + OVERHEAD
        while self._size > self._limit:
            self._drop(next(iter(self._kept)))

    def take(self, topic: str, payload: Payload) -> bytes | None:
        """The payload's bytes, verified, and no longer kept; None if they are not all here, as
        the topic (its physical name) has them: then a fetch decides."""
        records = self._kept.get((topic, payload.id))
        if records is None:
            return None
        self._drop((topic, payload.id))
        try:
            parts = Assembler(payload)
            for record in records:
                parts.take(record)
            return bytes(parts.result())
        except PeerError:
            return None

    def _drop(self, key: tuple[str, str]) -> None:
        self._size -= sum(len(record.value) + OVERHEAD for record in self._kept.pop(key))

    def __len__(self) -> int:
        """Payloads of which something is kept."""
        return len(self._kept)
