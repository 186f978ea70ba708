"""Where do tensors and blocks lie? Payloads and records of one run's topics, put and got."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hermes.errors import BrokerUnreachable, OutcomeUnknown
from hermes.perform.keeper import ChunkKeeper
from hermes.transport import names, tensors
from hermes.transport.log import Log, Reader
from hermes.values import Payload

TRIES = 10
"""Sendings of one record whose outcome stays unknown."""

PATIENCE = 60.0
"""Seconds without a record after which a transfer is given up."""


class Store:
    """The bulk side of a run's topics. Belongs to one thread; several may share a log."""

    def __init__(
        self, log: Log, run: str, *, chunk: int = tensors.CHUNK, keeper: ChunkKeeper | None = None
    ) -> None:
        """`keeper`: where chunks may lie already, that came by in another reader."""
        self._log, self._run, self._chunk, self._keeper = log, run, chunk, keeper
        self._reader: Reader | None = None

    def put(self, short: str, data: bytes) -> Payload:
        """Send `data` in chunks to a topic; raises `BrokerError`."""
        topic = names.physical(self._run, short)
        return tensors.send_payload(self._log, topic, short, 0, data, chunk_size=self._chunk)

    def append(self, short: str, data: bytes) -> Callable[[], int]:
        """Send one record; what is returned waits for its offset. While the outcome is unknown
        the record is sent again: readers go by offset, so that a second copy does no harm."""
        topic = names.physical(self._run, short)
        receipt = self._log.append(topic, data)

        def offset() -> int:
            nonlocal receipt
            for _ in range(TRIES - 1):
                try:
                    return receipt.offset()
                except OutcomeUnknown:
                    receipt = self._log.append(topic, data)
            return receipt.offset()

        return offset

    def get(self, payload: Payload) -> bytes:
        """The bytes of a payload, verified; raises `PeerError` or `BrokerError`."""
        topic = names.physical(self._run, payload.topic, payload.generation)
        kept = self._keeper.take(topic, payload) if self._keeper is not None else None
        if kept is not None:
            return kept
        return bytes(tensors.fetch_payload(self._bulk(), topic, payload, patience=PATIENCE))

    def records(self, short: str, offsets: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """The records at these offsets (ascending), as (offset, value).

        Raises `BrokerUnreachable` if one does not come.
        """
        topic = names.physical(self._run, short)
        reader = self._bulk()
        wanted = list(offsets)
        place = -1
        try:
            while wanted:
                if wanted[0] != place:
                    reader.follow(topic, wanted[0])
                found = reader.poll(PATIENCE, limit=min(64, wanted[-1] - wanted[0] + 1))
                if not found:
                    raise BrokerUnreachable(
                        f"record {wanted[0]} did not come for {PATIENCE:g} s", where=topic
                    )
                place = found[-1].offset + 1
                for record in found:
                    if wanted and record.offset == wanted[0]:
                        yield wanted.pop(0), record.value
        finally:
            reader.drop(topic)

    def close(self) -> None:
        """Let go of the reader (the log is the caller's)."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _bulk(self) -> Reader:
        if self._reader is None:
            self._reader = self._log.reader()
        return self._reader
