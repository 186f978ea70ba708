"""Where do tensors and blocks lie? Payloads and records of one run's topics, put and got."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from hermes.errors import (
    BrokerRefused,
    BrokerUnreachable,
    NoSuchTopic,
    OutcomeUnknown,
    PeerError,
)
from hermes.perform.keeper import ChunkKeeper
from hermes.perform.room import make_room
from hermes.transport import names, tensors
from hermes.transport.log import Log, Reader
from hermes.transport.settings import FRAMING
from hermes.values import Payload

TRIES = 10
"""Sendings of one record whose outcome stays unknown."""

PATIENCE = 60.0
"""Seconds without a record after which we look whether the broker is there; given up after `TRIES`
times that."""


def stretches(offsets: Iterable[int]) -> Iterator[range]:
    """Offsets as stretches without a gap, in order."""
    begin = end = -1
    for offset in sorted(offsets):
        if offset != end and begin >= 0:
            yield range(begin, end)
        if offset != end:
            begin = offset
        end = offset + 1
    if begin >= 0:
        yield range(begin, end)


class Fetches(Protocol):
    """Where payloads are got from."""

    def get(self, payload: Payload) -> bytes | bytearray:
        """The bytes of a payload, verified; raises `PeerError` or `BrokerError`."""
        ...


class Shelves:
    """A store for each topic of a run. A reader that changes its topic waits for that (0.2 s with
    Kafka's client); readers of their own cost a connection each."""

    def __init__(self, log: Log, run: str) -> None:
        self._log, self._run = log, run
        self._stores: dict[str, Store] = {}
        self._ends: dict[tuple[str, int], int] = {}
        """Where topics end at least, by name and generation."""

    def get(self, payload: Payload) -> bytes | bytearray:
        """As `Store.get`; what a broker has lost is not waited for."""
        if payload.topic not in self._stores:
            self._stores[payload.topic] = Store(self._log, self._run)
        store, place = self._stores[payload.topic], (payload.topic, payload.generation)
        if self._ends.get(place, 0) <= payload.last:
            self._ends[place] = store.must_reach(payload)
        return store.get(payload)

    def close(self) -> None:
        """Let go of the readers (the log is the caller's)."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()


class Store:
    """The bulk side of a run's topics. Belongs to one thread; several may share a log."""

    def __init__(
        self,
        log: Log,
        run: str,
        *,
        chunk: int = tensors.CHUNK,
        keeper: ChunkKeeper | None = None,
        generations: dict[str, int] | None = None,
    ) -> None:
        """`keeper`: where chunks may lie already, that came by in another reader; `generations`:
        into which one of a topic is written, where that is not the first (it may be shared)."""
        self._log, self._run, self._chunk, self._keeper = log, run, chunk, keeper
        self._reader: Reader | None = None
        self.generations = {} if generations is None else generations

    @contextlib.contextmanager
    def shelves(self) -> Iterator[Shelves]:
        """For a while, a reader for each topic: for whoever goes from one to another and back."""
        shelves = Shelves(self._log, self._run)
        try:
            yield shelves
        finally:
            shelves.close()

    def put(self, short: str, data: bytes) -> Payload:
        """Send `data` in chunks to a topic; raises `BrokerError`."""
        generation = self.generations.get(short, 0)
        topic = names.physical(self._run, short, generation)
        self.make_room(len(data))
        return tensors.send_payload(
            self._log, topic, short, generation, data, self.name(), chunk_size=self._chunk
        )

    def name(self) -> str | None:
        """Of the payload that is put next, 32 hex digits; None: drawn at random."""
        return None

    def make_room(self, size: int) -> None:
        """Before `size` bytes are taken in."""
        make_room(size)

    def append(self, short: str, data: bytes) -> Callable[[], int]:
        """Send one record; what is returned waits for its offset. While the outcome is unknown
        the record is sent again: readers go by offset, so that a second copy does no harm."""
        topic = names.physical(self._run, short)
        receipt = self._log.append(topic, data)

        def offset() -> int:
            nonlocal receipt
            for _ in range(TRIES - 1):
                try:
                    return receipt.offset(tensors.OUTAGE)
                except OutcomeUnknown:
                    receipt = self._log.append(topic, data)
            return receipt.offset(tensors.OUTAGE)

        return offset

    def get(self, payload: Payload) -> bytes | bytearray:
        """The bytes of a payload, verified; raises `PeerError` or `BrokerError`."""
        topic = names.physical(self._run, payload.topic, payload.generation)
        kept = self._keeper.take(topic, payload) if self._keeper is not None else None
        if kept is not None:
            return kept
        self.make_room(payload.length)
        parts = tensors.Assembler(payload)
        for _ in range(TRIES - 1):
            try:
                return self._fetch(topic, payload, parts)
            except BrokerUnreachable:
                self._must_hold(topic, payload.last)
        return self._fetch(topic, payload, parts)

    def reaches(self, payload: Payload) -> bool:
        """Whether the topic holds as much as this payload says; False where the topic is gone.
        Raises `BrokerUnreachable`."""
        try:
            self.must_reach(payload)
        except (PeerError, NoSuchTopic):
            return False
        return True

    def must_reach(self, payload: Payload) -> int:
        """Where its topic ends: beyond what this payload says, or `PeerError` is raised. Raises
        `NoSuchTopic`, `BrokerUnreachable`."""
        topic = names.physical(self._run, payload.topic, payload.generation)
        return self._must_hold(topic, payload.last)

    def records(self, short: str, places: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
        """The records at these places (offset: bytes), in order, as (offset, value).

        What lies between two of them is not transferred. Raises `BrokerUnreachable` if one does
        not come, `BrokerRefused` if it is gone.
        """
        topic = names.physical(self._run, short)
        reader = self._bulk()
        try:
            for stretch in stretches(places):
                size = sum(places[offset] for offset in stretch)
                reader.follow(topic, stretch[0], need=size + FRAMING * len(stretch))
                yield from self._stretch(reader, topic, stretch)
        finally:
            reader.drop(topic)

    def _fetch(self, topic: str, payload: Payload, parts: tensors.Assembler) -> bytearray:
        """What is still missing; what `parts` has is not transferred again."""
        reader = self._bulk()
        return tensors.fetch_payload(reader, topic, payload, assembler=parts, patience=PATIENCE)

    def _must_hold(self, topic: str, offset: int) -> int:
        """The topic's end. A broker that is away is waited for, as long as the log does; raises
        `PeerError` if the topic does not reach this offset."""
        end = self._log.ends([topic])[topic]
        if end <= offset:
            raise PeerError(f"the topic ends at offset {end}, before {offset}", where=topic)
        return end

    def _stretch(self, reader: Reader, topic: str, stretch: range) -> Iterator[tuple[int, bytes]]:
        place, silent = stretch.start, 0
        while place < stretch.stop:
            found = reader.poll(PATIENCE, limit=min(64, stretch.stop - place))
            silent = 0 if found else silent + 1
            if silent == TRIES:
                raise BrokerUnreachable(
                    f"record {place} did not come for {TRIES * PATIENCE:g} s", where=topic
                )
            if not found:
                self._must_hold(topic, place)
            for record in found:
                if record.offset != place:
                    raise BrokerRefused(f"record {place} is gone", where=topic)
                yield place, record.value
                place += 1

    def close(self) -> None:
        """Let go of the reader (the log is the caller's)."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _bulk(self) -> Reader:
        if self._reader is None:
            self._reader = self._log.reader()
        return self._reader
