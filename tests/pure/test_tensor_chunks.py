"""A payload comes out of its chunks in any order, with any company; a lie does no harm."""

from __future__ import annotations

import hashlib
import struct
from array import array
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.errors import (
    BrokerUnreachable,
    DigestMismatch,
    OutcomeUnknown,
    PeerError,
    UsageError,
)
from hermes.transport import names
from hermes.transport.log import Headers, Record
from hermes.transport.memory import MemoryLog, MemoryReceipt
from hermes.transport.tensors import (
    HEADER,
    WINDOW,
    Assembler,
    Chunk,
    chunk_of,
    fetch_payload,
    is_chunk,
    new_payload_id,
    send_payload,
)
from hermes.values import Payload


def sent(data: bytes, chunk_size: int) -> tuple[Payload, list[Record]]:
    """A payload and its records."""
    log = MemoryLog()
    log.create(["t"])
    payload = send_payload(log, "t", "model", 0, data, chunk_size=chunk_size)
    reader = log.reader()
    reader.follow("t", 0)
    return payload, reader.poll(0.0, 10_000)


@given(st.binary(max_size=300), st.integers(1, 64), st.randoms(use_true_random=False))
def test_any_order_duplicates_and_foreign_chunks(data: bytes, chunk_size: int, rng) -> None:  # type: ignore[no-untyped-def]
    payload, records = sent(data, chunk_size)
    assert all(len(record.value) <= chunk_size for record in records)
    foreign = sent(data[::-1] + b"x", chunk_size)[1]
    message = Record("t", 0, b"a message")
    company = [*records, *records, *foreign, message]
    rng.shuffle(company)
    parts = Assembler(payload)
    for record in company:
        parts.take(record)
    assert parts.complete
    assert parts.result() == data
    assert parts.taken == len(data)


@given(
    st.binary(max_size=40)
    | st.builds(
        struct.Struct(">16sIIQ").pack,
        st.binary(min_size=16, max_size=16),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 2**64 - 1),
    ),
    st.binary(max_size=40),
)
def test_a_lying_header_is_skipped(fields: bytes, value: bytes) -> None:
    payload, records = sent(b"0123456789", 4)
    liar = Record("t", 0, value, ((HEADER, fields),))
    assert is_chunk(liar)
    parts = Assembler(payload)
    for record in (liar, *records, liar):
        parts.take(record)
    assert parts.result() == b"0123456789"


@pytest.mark.parametrize(
    ("index", "count", "length"),
    [(3, 3, 10), (0, 2, 10), (0, 3, 11), (2**32 - 1, 0, 0), (1, 3, 2**63)],
)
def test_our_id_with_other_numbers_is_skipped(index: int, count: int, length: int) -> None:
    payload, records = sent(b"0123456789", 4)
    lie = Chunk(payload.id, index, count, length)
    parts = Assembler(payload)
    assert not parts.take(Record("t", 0, b"0123", lie.headers()))
    assert parts.taken == 0
    for record in records:
        parts.take(record)
    assert parts.result() == b"0123456789"


def test_a_chunk_of_the_wrong_size_is_none() -> None:
    chunk = Chunk(new_payload_id(), 0, 3, 10)
    assert chunk_of(Record("t", 0, b"012", chunk.headers())) == chunk
    assert chunk_of(Record("t", 0, b"0123", chunk.headers())) is None


@given(st.integers(1, 50), st.integers(0, 10**12))
def test_the_spans_cover_every_byte_once(count: int, length: int) -> None:
    spans = [Chunk("", index, count, length).span for index in range(count)]
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(one[1] == two[0] for one, two in pairwise(spans))


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": 0},
        {"chunks": 10**15, "last": 5},
        {"length": -1},
        {"length": 10**15},
        {"first": -1},
        {"first": 9, "last": 0},
        {"chunks": 10**15, "last": 10**16, "length": 10**15},
    ],
)
def test_a_payload_that_cannot_be_is_refused(change: dict[str, int]) -> None:
    payload, _ = sent(b"0123456789", 4)
    with pytest.raises(PeerError):
        Assembler(msgspec.structs.replace(payload, **change))


def test_a_payload_beyond_the_limit_is_refused() -> None:
    payload, _ = sent(b"0123456789", 4)
    with pytest.raises(PeerError, match="limit is 9"):
        Assembler(payload, limit=9)


def test_a_claim_alone_takes_no_memory() -> None:
    payload, _ = sent(b"0123456789", 4)
    huge = msgspec.structs.replace(payload, chunks=10**4, last=10**4, length=10**10)
    parts = Assembler(huge)
    assert next(parts.missing()) == 0
    with pytest.raises(PeerError, match="10000 of 10000 chunks are missing"):
        parts.result()


def test_missing_chunks_and_wrong_bytes_are_told_apart() -> None:
    payload, records = sent(b"0123456789", 4)
    parts = Assembler(payload)
    for record in records[:2]:
        parts.take(record)
    assert list(parts.missing()) == [2]
    assert parts.place == 2
    with pytest.raises(PeerError, match="1 of 3 chunks are missing") as caught:
        parts.result()
    assert not isinstance(caught.value, DigestMismatch)
    parts.take(records[2]._replace(value=b"6780"))
    with pytest.raises(DigestMismatch):
        parts.result()


def test_a_gap_in_the_range_is_an_error_not_a_wait() -> None:
    log = MemoryLog()
    log.create(["t"])
    payload, records = sent(b"0123456789", 4)
    for record in (records[0], Record("t", 1, b"foreign"), records[2]):
        log.append("t", record.value, record.headers)
    reader = log.reader()
    with pytest.raises(PeerError, match="the first is number 1"):
        fetch_payload(reader, "t", payload, patience=0.01)
    short = msgspec.structs.replace(payload, last=9)
    with pytest.raises(BrokerUnreachable, match="no chunk came"):
        fetch_payload(reader, "t", short, patience=0.01)


def test_a_view_of_floats_travels_as_its_bytes() -> None:
    log = MemoryLog()
    log.create(["t"])
    numbers = array("d", range(100))
    payload = send_payload(log, "t", "model", 2, memoryview(numbers), chunk_size=64)
    assert (payload.length, payload.generation) == (800, 2)
    assert payload.digest == hashlib.sha256(numbers.tobytes()).hexdigest()
    assert fetch_payload(log.reader(), "t", payload) == numbers.tobytes()


class _Unsure(MemoryLog):
    """A log that keeps every third record and does not say so."""

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> MemoryReceipt:
        receipt = super().append(topic, value, headers)
        return _Lost(receipt.at) if receipt.at % 3 == 0 else receipt


class _Lost(MemoryReceipt):
    def offset(self, timeout: float = 60.0) -> int:
        raise OutcomeUnknown("no acknowledgement")


class _Counting(MemoryLog):
    """Counts how many appends are not yet acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.most = 0, 0

    def append(self, topic: str, value: bytes, headers: Headers = ()) -> MemoryReceipt:
        self.open += 1
        self.most = max(self.most, self.open)
        receipt = _Counted(super().append(topic, value, headers).at)
        receipt.log = self
        return receipt


class _Counted(MemoryReceipt):
    log: _Counting

    def offset(self, timeout: float = 60.0) -> int:
        self.log.open -= 1
        return super().offset(timeout)


def test_no_more_than_a_window_is_on_its_way() -> None:
    log, size = _Counting(), 1 << 20
    log.create(["t"])
    payload = send_payload(log, "t", "model", 0, bytes(40 << 20), chunk_size=size)
    assert log.most == WINDOW // size
    assert log.open == 0
    assert payload.chunks == payload.last - payload.first + 1 == 40


def test_chunks_of_unknown_outcome_are_sent_again() -> None:
    log = _Unsure()
    log.create(["t"])
    payload = send_payload(log, "t", "model", 0, b"0123456789", chunk_size=2)
    assert payload.first == 1
    assert fetch_payload(log.reader(), "t", payload) == b"0123456789"


@settings(max_examples=50)
@given(
    st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True),
    st.sampled_from([*names.RUN_TOPICS, "from.g1", "from.a-1"]),
    st.integers(0, 10**6),
)
def test_names_are_read_back(run: str, short: str, generation: int) -> None:
    physical = names.physical(run, short, generation)
    assert names.parse(physical) == names.Name(run, short, generation)
    assert physical.startswith(names.prefix_of(run))


@pytest.mark.parametrize(
    "name",
    ["", "hermes.a", "hermes.a.b", "hermes.A.model", "hermes.a.model.g0", "hermes.a.from.b.c"],
)
def test_other_topics_are_not_ours(name: str) -> None:
    assert names.parse(name) is None


def test_bad_names_are_refused() -> None:
    assert names.physical("r", "model") == "hermes.r.model"
    assert names.physical("r", names.from_worker("w-1"), 3) == "hermes.r.from.w-1.g3"
    assert names.worker_of("from.w-1") == "w-1"
    assert names.worker_of("model") is None
    for bad in ("", "A", "a.b", "a" * 41, "a\n"):
        with pytest.raises(UsageError):
            names.checked_run(bad)
        with pytest.raises(UsageError):
            names.from_worker(bad)
    with pytest.raises(UsageError):
        names.physical("r", "nonsense")
    with pytest.raises(UsageError):
        names.physical("r", "model", -1)
