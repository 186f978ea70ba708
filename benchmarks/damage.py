"""What do damaged records do? Nothing: each is refused with its reason, or void by rule.

Real records of every type are collected from runs under virtual time, damaged (bytes, or values
inside them), and given to whoever reads that topic: the fold of the ledger, the master's machine,
a worker's machine, the reader of an upload, the assembler of chunks. Whatever they say, nobody may
crash, and the master's state must keep its invariants.
"""

from __future__ import annotations

import copy
import hashlib
import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hermes.codec import decode, decode_tensors, encode, encode_tensors, verified
from hermes.errors import DecodeError, PeerError
from hermes.machine import master, worker
from hermes.machine.events import (
    Began,
    EnvelopeReceived,
    HelloReceived,
    LedgerSeen,
    SetAside,
    StopReceived,
)
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState, check
from hermes.machine.worker import WorkerState
from hermes.messages import (
    Block,
    Entry,
    Envelope,
    Forked,
    Hello,
    JobSource,
    LedgerRecord,
    LogLine,
    Manifest,
    MasterBeat,
    Moved,
    Rewound,
    Rotated,
    RunReopened,
    ShardResized,
    StateReset,
    StopRequested,
    UpdateRejected,
    WorkerAdmitted,
    WorkerRefused,
)
from hermes.perform.ledger import Void, read_record
from hermes.runtime.logs import as_text
from hermes.runtime.quarantine import fitting
from hermes.simulate import schedules
from hermes.transport import names
from hermes.transport.log import Record
from hermes.transport.tensors import Assembler, Chunk, is_chunk
from hermes.values import SECOND, Payload, Position, Reason

KEY = b"a cluster key that nobody who damages records has"

HEAD = 3
"""Bytes before a message's body."""

SEEDS = (*range(14), 21, 31, 43, 51, 1_000_001)
"""Schedules that have records of every type between them (a test sees to it)."""

NASTY: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, -0.0, 1e308,
    math.nan, math.inf, -math.inf, None, True, "", "x" * 300, "../../etc/passwd", "\x1b[2J\n", "\0",
    "from.worker-1", "worker-1", b"", b"\xff" * 40, [], {}, [[]], {"": 0}, [None] * 50,
)  # fmt: skip
"""What is put in the place of a value."""


class Sample(NamedTuple):
    """One sound record, and what its reader knew when it came."""

    where: str
    """"ledger", "from", "lobby", "logs", "data", "chunk" or "tensors"."""
    kind: str
    """Name of its type; of a ledger record and an envelope, that of what it holds."""
    data: bytes
    headers: tuple[tuple[str, bytes], ...]
    state: MasterState
    """The master's, just before a ledger record, and at some time for an input."""
    at_worker: WorkerState
    offset: int
    payload: Payload | None = None


class Outcome(NamedTuple):
    """What became of one damaged record."""

    kind: str
    verdict: str


# --- sound records ------------------------------------------------------------------------------


def collect(seeds: Iterable[int] = SEEDS) -> list[Sample]:
    """Records of every type, from as many runs as there are seeds, with faults and without."""
    samples: list[Sample] = []
    for seed in seeds:
        samples += _of_run(seed)
    return samples + _of_rare(samples) + _of_uploads(samples[-1])


def _of_run(seed: int) -> list[Sample]:
    driver = schedules.run(schedules.draw(seed))
    found, states, following = [], [MasterState()], WorkerState("worker-1", "")
    for raw in driver.log.since(driver.topic, 0):
        record = decode(raw.value)
        assert isinstance(record, LedgerRecord)
        before = states[-1]
        kinds = [type(entry).__name__ for entry in record.entries]
        found += [
            Sample("ledger", kind, raw.value, (), before, following, raw.offset) for kind in kinds
        ]
        after = read_record(before, raw)
        states.append(before if isinstance(after, Void) else after[0])
        following = _follow(following, record, raw)
    # Inputs are read once there is a version that workers may be admitted to.
    ready = [state for state in states if state.newest is not None]
    chance = random.Random(seed)
    for topic in driver.log.topics(names.prefix_of(schedules.RUN)):
        name = names.parse(topic)
        if name is None or name.short in (names.LEDGER, names.MODEL, names.DATA, names.STATE):
            continue
        for raw in driver.log.since(topic, 0):
            found.append(_input(raw, chance.choice(ready), following))
    return found


def _of_rare(samples: Sequence[Sample]) -> list[Sample]:
    """Entries that few schedules come to, each as the next record of a run that is under way."""
    (like, *_) = [
        sample
        for sample in samples
        if sample.where == "ledger"
        and sample.state.newest is not None
        and sample.state.newest.version >= 2
        and sample.state.stopped is None
    ]
    (begun, *_) = [sample for sample in samples if sample.state.authority.term == 1]
    state, why = like.state, Reason("lost", {"why": "a test"})
    assert state.newest is not None
    last, before = state.newest, state.versions[state.newest.version - 1]
    found: list[tuple[Sample, Entry]] = [
        (like, Rewound(before, (last.version,), last.members, why)),
        (like, Rotated("model", state.generations.get("model", 0) + 1)),
        (like, StateReset(last.version, why)),
        (like, ShardResized(state.alive()[0], 10, 5, Reason("by-speed", {"speed": 2.5}))),
        (like, RunReopened(state.opened.settings if state.opened else {}, Reason("asked"))),
        (begun, Forked("parent", 3, 99, b"\1" * 32, "ab" * 32, 0, 0, {"merge.rule": "mean"})),
    ]
    name = state.alive()[0]
    sender = state.members[name].incarnation
    marker = encode(Envelope(sender, 0, state.authority.offset, state.authority.chain, Moved(1)))
    moved = Sample("from", "Moved", marker, (), state, like.at_worker, 99)
    return [moved, *(_next_record(sample, entry) for sample, entry in found)]


def _next_record(like: Sample, entry: Entry) -> Sample:
    place, time = like.state.authority, like.state.time
    head = (place.term, place.nonce, place.next_n, place.chain, time)
    data = encode(LedgerRecord(*head, (), (entry,)))
    kind = type(entry).__name__
    return Sample("ledger", kind, data, (), like.state, like.at_worker, place.offset + 1)


def _follow(state: WorkerState, record: LedgerRecord, raw: Record) -> WorkerState:
    """A worker that only listens: its state after this record."""
    for entry in record.entries:
        ours = isinstance(entry, WorkerAdmitted) and entry.worker == "worker-1"
        if ours and entry.hello and not state.admitted:
            fresh = WorkerState("worker-1", entry.incarnation)
            state = worker.decide(fresh, 0, Began(entry.hello, "", ())).state
    if not state.incarnation:
        return state
    digest = hashlib.sha256(raw.value).digest()
    return worker.decide(state, record.time, LedgerSeen(record, raw.offset, digest)).state


def _input(raw: Record, state: MasterState, at_worker: WorkerState) -> Sample:
    name = names.parse(raw.topic)
    assert name is not None
    if is_chunk(raw):
        length = len(raw.value)
        claim = Payload("", name.short, 0, raw.offset, raw.offset, 1, length, "")
        payload = msgspec.structs.replace(claim, digest=hashlib.sha256(raw.value).hexdigest())
        return Sample(
            "chunk", "Chunk", raw.value, raw.headers, state, at_worker, raw.offset, payload
        )
    message = decode(raw.value)
    kind = type(message).__name__
    where = name.short.partition(".")[0]
    if isinstance(message, Envelope):
        kind = type(message.body).__name__
    return Sample(where, kind, raw.value, (), state, at_worker, raw.offset)


def _of_uploads(like: Sample) -> list[Sample]:
    """What schedules, which have references in place of data, do not hold."""
    block = Block(7, 1000, "ab" * 32)
    manifest = Manifest({"train": (block, block), "probe": (block,), "validation": (), "test": ()})
    weights = {"0.weight": np.ones((4, 3), np.float32), "0.bias": np.zeros(3, np.float32)}
    software = schedules.setup_of(schedules.draw(1)).run.software
    plain = [
        ("data", JobSource("job.py", "import hermes\n", ("--depth", "3"))),
        ("data", manifest),
        ("logs", LogLine("worker-1", "info", "2026-01-01T00:00:00Z", "round 3: push")),
        ("logs", MasterBeat(1, "ab" * 16, 4, 1000, 2000)),
        ("lobby", StopRequested("schedule", "ab", "requested", "cd" * 32)),
        ("lobby", Hello("schedule", "worker-9", "ab", "cd", software, "", "ef" * 32)),
    ]
    nobody, state = like.at_worker, like.state
    found = [
        Sample(where, type(one).__name__, encode(one), (), state, nobody, 5) for where, one in plain
    ]
    data = encode_tensors(weights)
    chunk = Chunk("ab" * 16, 0, 1, 4)
    payload = Payload("ab" * 16, "model", 0, 3, 3, 1, 4, hashlib.sha256(b"\0" * 4).hexdigest())
    return [
        *found,
        Sample("tensors", "safetensors", data, (), state, nobody, 0),
        Sample("chunk", "Chunk", b"\0" * 4, chunk.headers(), state, nobody, 3, payload),
    ]


# --- damage -------------------------------------------------------------------------------------


def damaged(chance: random.Random, sample: Sample, others: Sequence[Sample]) -> Sample:
    """The sample with its bytes, its headers or a value inside it changed."""
    if sample.headers and chance.random() < 0.7:
        ((key, fields),) = sample.headers
        return sample._replace(headers=((key, _bytes(chance, fields, fields)),))
    how = chance.random()
    if sample.where not in ("tensors", "chunk") and how < 0.6:
        return sample._replace(data=_values(chance, sample.data, chance.choice(others).data))
    return sample._replace(data=_bytes(chance, sample.data, chance.choice(others).data))


def _bytes(chance: random.Random, data: bytes, other: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at = chance.randrange(len(out) + 1)
        end = min(len(out), at + chance.choice([1, 1, 2, 8, 64]))
        _once(chance, out, at, end, other)
    return bytes(out)


def _once(chance: random.Random, out: bytearray, at: int, end: int, other: bytes) -> None:
    how = chance.randrange(7)
    if how == 0 and at < len(out):
        out[at] ^= 1 << chance.randrange(8)
    elif how == 1 and at < len(out):
        out[at] = chance.choice([0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xCF, 0xDC, 0xDD, 0xFF])
    elif how == 2:
        del out[at:end]
    elif how == 3:
        out[at:at] = out[at:end]
    elif how == 4:
        out[at:at] = chance.randbytes(chance.choice([1, 4, 32]))
    elif how == 5:
        del out[at:]
    else:
        out[at:] = other[chance.randrange(len(other) + 1) :]


def _values(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Some values inside the message replaced: it mostly still decodes."""
    tree = msgspec.msgpack.decode(data[HEAD:])
    places = list(_places(tree))
    donor = [value for _, _, value in _places(_tree_of(other))]
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        holder, key, value = chance.choice(places)
        how = chance.random()
        alike = [one for one in donor if type(one) is type(value)]
        if how < 0.3 and isinstance(value, int) and not isinstance(value, bool):
            holder[key] = value + chance.choice([-1, 1, 2, 1000])
        elif how < 0.6 and alike:  # of the same type: it may well pass for sound
            holder[key] = copy.deepcopy(chance.choice(alike))
        elif how < 0.7:
            holder[key] = copy.deepcopy(chance.choice(places)[2])  # never into itself
        elif how < 0.8 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        else:
            holder[key] = copy.deepcopy(chance.choice(NASTY))
        places = list(_places(tree)) or places
    try:
        return data[:HEAD] + msgspec.msgpack.encode(tree)
    except (RecursionError, OverflowError, ValueError):  # a value that holds itself
        return data[:HEAD]


def _tree_of(data: bytes) -> Any:
    try:
        return msgspec.msgpack.decode(data[HEAD:])
    except msgspec.DecodeError:
        return []


def _places(tree: Any, depth: int = 0) -> Iterable[tuple[Any, Any, Any]]:
    """Every (holder, key, value) of a tree of lists and mappings."""
    if depth > 20:
        return
    pairs = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in list(pairs):
        yield tree, key, value
        yield from _places(value, depth + 1)


# --- what becomes of it -------------------------------------------------------------------------


def verdict_on(sample: Sample) -> Outcome:
    """What the reader of that topic makes of it. Whatever it raises is a crash."""
    return Outcome(sample.kind, READERS[sample.where](sample))


def _read(sample: Sample, limit: int = 1 << 20) -> Any:
    return decode(sample.data, limit)


def _ledger(sample: Sample) -> str:
    """The fold, and a worker that follows the same topic."""
    raw = Record("ledger", sample.offset, sample.data)
    after = read_record(sample.state, raw)
    if isinstance(after, Void):
        verdict = f"void: {re.sub(r'[0-9][0-9]+', 'N', after.why.partition(':')[0])}"
    else:
        check(after[0])
        verdict = "counts (nobody but the master may write here)"
    try:
        record = _read(sample)
    except DecodeError:
        return verdict
    if isinstance(record, LedgerRecord) and sample.at_worker.incarnation:
        digest = hashlib.sha256(sample.data).digest()
        seen = LedgerSeen(record, sample.offset, digest)
        following = worker.decide(sample.at_worker, 10**12, seen).state
        if isinstance(after, Void) and after.defect is None:
            assert following in (sample.at_worker, gone(sample.at_worker, following))
    return verdict


def gone(before: WorkerState, after: WorkerState) -> WorkerState:
    """A worker that meets what it cannot place begins again; it follows nothing of it."""
    return msgspec.structs.replace(before, phase=after.phase, over=after.over)


def _from_worker(sample: Sample) -> str:
    try:
        message = fitting(sample.data, "from.worker-1")
    except PeerError as error:
        return f"quarantined: {_short(error)}"
    assert isinstance(message, Envelope)
    event = EnvelopeReceived("worker-1", Position("from.worker-1", 0, sample.offset), message)
    return _decided(sample.state, event)


def _lobby(sample: Sample) -> str:
    try:
        message = fitting(sample.data, names.LOBBY)
    except PeerError as error:
        return f"quarantined: {_short(error)}"
    assert isinstance(message, (Hello, StopRequested))
    if not verified(KEY, message):
        # Even from somebody who holds the key, nonsense must do no harm.
        position = Position("lobby", 0, sample.offset)
        kind = HelloReceived if isinstance(message, Hello) else StopReceived
        _decided(sample.state, kind(position, message))  # type: ignore[arg-type]
        return "quarantined: not signed with the cluster key"
    return "taken"


def _decided(state: MasterState, event: Any) -> str:
    decision = master.decide(state, Soft(), state.time + SECOND, event)
    check(decision.state)
    for entry in decision.entries:
        if isinstance(entry, UpdateRejected):
            return f"rejected: {entry.reason.code}"
        if isinstance(entry, WorkerRefused):
            return f"refused: {entry.reason.code}"
    for action in decision.actions:
        if isinstance(action, SetAside):
            return f"quarantined: {action.reason.code}"
    return "taken" if decision.entries else "void: repeated, a gap, or not the one in force"


def _logs(sample: Sample) -> str:
    try:
        message = fitting(sample.data, names.LOGS)
    except PeerError as error:
        return f"quarantined: {_short(error)}"
    if isinstance(message, LogLine):
        assert as_text(message).replace("\n", "").isprintable()
        return "taken: a line"
    return "taken: a beat"


def _data(sample: Sample) -> str:
    """Whoever fetches an upload: the digest guards it; here even what passes that is read."""
    try:
        message = _read(sample, 1 << 28)
    except DecodeError as error:
        return f"quarantined: {_short(error)}"
    if not isinstance(message, (JobSource, Manifest)):
        return "quarantined: another kind of message"
    return "void: its digest is not the one announced"


def _chunk(sample: Sample) -> str:
    assert sample.payload is not None
    parts = Assembler(sample.payload)
    parts.take(Record("model", sample.offset, sample.data, sample.headers))
    try:
        parts.result()
    except PeerError as error:
        return f"quarantined: {type(error).__name__}"
    return "taken"


def _tensors(sample: Sample) -> str:
    try:
        decode_tensors(sample.data)
    except DecodeError:
        return "quarantined: not safetensors"
    return "void: its digest is not the one announced"


def _short(error: PeerError) -> str:
    return re.sub(r"\d\d+", "N", error.what.partition(":")[0])


READERS: dict[str, Callable[[Sample], str]] = {
    "ledger": _ledger,
    "from": _from_worker,
    "lobby": _lobby,
    "logs": _logs,
    "data": _data,
    "chunk": _chunk,
    "tensors": _tensors,
}
