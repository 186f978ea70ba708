"""What came by anyway? Chunks of updates that the master read on its way to the small messages.

Reading a worker's topic brings its chunks before the message that names them; kept for a moment,
they need not be fetched again. A bounded convenience: what was pushed out is fetched.
"""

from __future__ import annotations

from collections import OrderedDict

from hermes.transport.log import Record
from hermes.transport.tensors import Assembler, chunk_of
from hermes.values import Payload

LIMIT = 64 << 20
"""Bytes kept, at most."""


class ChunkKeeper:
    """Chunks by payload, the oldest payload going first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[str, list[Record]] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep one chunk, if there is room for its payload at all."""
        chunk = chunk_of(record)
        if chunk is None or chunk.length > self._limit:
            return
        self._kept.setdefault(chunk.id, []).append(record)
        self._size += len(record.value)
        while self._size > self._limit:
            self._drop(next(iter(self._kept)))

    def take(self, payload: Payload) -> bytes | None:
        """The payload's bytes, verified, and no longer kept; None if they are not all here.

        Raises `PeerError` as a fetch would.
        """
        records = self._kept.get(payload.id)
        if records is None:
            return None
        parts = Assembler(payload)
        for record in records:
            parts.take(record)
        self._drop(payload.id)
        return bytes(parts.result()) if parts.complete else None

    def _drop(self, name: str) -> None:
        self._size -= sum(len(record.value) for record in self._kept.pop(name))
