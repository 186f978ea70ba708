"""Values become bytes and come back; other bytes are an error that says so, and nothing else."""

from __future__ import annotations

import random
import types
import typing
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes import messages
from hermes.codec import (
    MAGIC,
    decode,
    decode_tensors,
    encode,
    encode_tensors,
    proof_of,
    sign,
    verified,
)
from hermes.errors import DecodeError
from hermes.messages import (
    PROTOCOL,
    AnyMessage,
    Count,
    Entry,
    Envelope,
    Heartbeat,
    Hello,
    LedgerRecord,
    Message,
    Own,
    Round,
    Software,
    StopRequested,
    WorkerBody,
)
from hermes.policy.gate import GateSettings, start, zscore_gate
from hermes.values import Reason

# --- a generator of any value of a type ---------------------------------------------------------

FLOATS = (0.0, -0.0, 1.5, -1e300, 5e-324, float("inf"))
TEXTS = ("", "worker-1", "ü✓", "\x00", "x" * 70)


def value(kind: Any, chance: random.Random) -> Any:
    """A value of a type, drawn from its annotations; small, and with odd corners."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind == Count:
        return chance.choice([0, 1, 2**31, 2**53, chance.getrandbits(40)])
    if origin in (typing.Union, types.UnionType):
        return value(chance.choice(arguments), chance)
    if origin is tuple:
        return tuple(value(arguments[0], chance) for _ in range(chance.randint(0, 2)))
    if origin is dict:
        keys = [value(arguments[0], chance) for _ in range(chance.randint(0, 2))]
        return {key: value(arguments[1], chance) for key in keys}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(*(value(hints[field], chance) for field in kind.__struct_fields__))
    return SCALARS[kind](chance)


SCALARS: dict[Any, Any] = {
    int: lambda c: c.choice([0, 1, -1, 2**31, 2**63 - 1, -(2**63), c.getrandbits(40)]),
    float: lambda c: c.choice([*FLOATS, c.random()]),
    str: lambda c: c.choice(TEXTS),
    bytes: lambda c: c.randbytes(c.choice([0, 1, 32])),
    bool: lambda c: c.random() < 0.5,
    type(None): lambda _: None,
    object: lambda c: c.choice([1, "x", None, True, 2.5, [1, "y"], {"z": {"deep": 1}}]),
}

KINDS = typing.get_args(AnyMessage)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_comes_back(kind: type[Message]) -> None:
    """Whatever its fields hold: the same value, and the same bytes again."""
    chance = random.Random(kind.__name__)
    for _ in range(60):
        message = value(kind, chance)
        data = encode(message)
        again = decode(data)
        assert again == message
        assert type(again) is kind
        assert encode(again) == data


@pytest.mark.parametrize("kind", [*typing.get_args(Entry), *typing.get_args(WorkerBody)])
def test_every_entry_and_body_comes_back(kind: type[Message]) -> None:
    """Inside a record, inside an envelope: tags tell them apart."""
    chance = random.Random(kind.__name__)
    for _ in range(10):
        inner = value(kind, chance)
        whole: AnyMessage = (
            LedgerRecord(1, "n", 2, b"c", 3, (), (inner,))
            if kind in typing.get_args(Entry)
            else Envelope("s", 1, 2, b"c", inner)
        )
        assert decode(encode(whole)) == whole


def test_every_message_type_is_reached() -> None:
    """What is declared in `messages` can travel: by itself or inside another."""
    declared = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }
    seen: set[type] = set()
    chance = random.Random(0)
    for kind in [*KINDS, *typing.get_args(Entry), *typing.get_args(WorkerBody)]:
        for _ in range(20):
            collect(value(kind, chance), seen)
    assert declared <= seen


def collect(item: Any, seen: set[type]) -> None:
    """The types of all structs in a value."""
    if isinstance(item, msgspec.Struct):
        seen.add(type(item))
        for field in msgspec.structs.astuple(item):
            collect(field, seen)
    elif isinstance(item, tuple):
        for part in item:
            collect(part, seen)
    elif isinstance(item, dict):
        for part in item.values():
            collect(part, seen)


# --- bytes that are not ours --------------------------------------------------------------------


def outcome(data: bytes) -> object:
    """A value or `DecodeError`; anything else fails the test by itself."""
    try:
        return decode(data)
    except DecodeError as error:
        return error


def test_damaged_bytes_are_a_value_or_an_error_of_ours() -> None:
    """Thousands of messages with bytes changed, cut, doubled or swapped."""
    chance = random.Random(1)
    good = [encode(value(kind, chance)) for kind in KINDS for _ in range(20)]
    errors = 0
    for number in range(4000):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(3, len(data)) if len(data) > 3 else 0
            what = number % 4
            if what == 0:
                data[place] = chance.getrandbits(8)
            elif what == 1:
                del data[place:]
            elif what == 2:
                data[place:place] = data[3:place]
            else:
                data[place : place + 1] = chance.randbytes(3)
        errors += isinstance(outcome(bytes(data)), DecodeError)
    assert 2000 < errors < 4000


def test_deep_nesting_is_an_error_of_ours() -> None:
    """Arrays in arrays a million deep neither crash nor hang."""
    head = MAGIC + bytes([PROTOCOL])
    assert isinstance(outcome(head + b"\x91" * 1_000_000), DecodeError)
    assert isinstance(outcome(head + b"\x93\xa9RunOpened" + b"\x81\xa1x" * 300_000), DecodeError)


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_an_error_of_ours(noise: bytes) -> None:
    """With our head before them or not."""
    outcome(noise)
    outcome(MAGIC + bytes([PROTOCOL]) + noise)
    with pytest.raises(DecodeError):
        decode_tensors(noise)


def test_another_protocol_is_told_apart_from_damage() -> None:
    """The third byte is the protocol's number; the error names ours."""
    data = bytearray(encode(messages.LogLine("a", "info", "", "x")))
    data[2] = PROTOCOL + 1
    with pytest.raises(DecodeError, match=f"another protocol than {PROTOCOL}"):
        decode(data)
    with pytest.raises(DecodeError, match="not a message of Hermes"):
        decode(b"\x00" + data[1:])


def test_a_message_beyond_the_limit_is_not_looked_at() -> None:
    """The limit is the caller's to raise, for a manifest."""
    data = encode(messages.JobSource("job", "x" * 100, ()))
    with pytest.raises(DecodeError, match="the limit is 100"):
        decode(data, 100)
    assert decode(data, len(data))


def test_fields_may_be_added_at_the_end_and_left_out_there() -> None:
    """An older writer's message has the defaults; a newer one's extra field is passed by."""
    data = encode(Envelope("s", 0, 0, b"", Heartbeat(1, 2, (3,))))
    old = data.replace(b"\x94\xa9Heartbeat\x01\x02\x91\x03", b"\x93\xa9Heartbeat\x01\x02")
    assert old != data
    assert decode(old) == Envelope("s", 0, 0, b"", Heartbeat(1, 2))
    new = data.replace(
        b"\x94\xa9Heartbeat\x01\x02\x91\x03", b"\x95\xa9Heartbeat\x01\x02\x91\x03\x07"
    )
    assert decode(new) == decode(data)


# --- how small ----------------------------------------------------------------------------------


def test_a_quiet_rounds_report_is_small() -> None:
    """With the gate's facts over a full window and a whole chain: at most 256 bytes."""
    chance = random.Random(3)
    rules = GateSettings()
    state = start(rules)
    for _ in range(rules.window + 2):
        verdict = zscore_gate(rules, state, 1.0 + chance.random())
        state = verdict.state
        if verdict.push == "push":
            state = start(rules)
    verdict = zscore_gate(rules, state, 3.0)
    assert verdict.push == "quiet"
    assert {"n", "threshold", "loss", "mean", "std", "z"} <= set(verdict.reason.facts)
    report = Round(
        round=12_345,
        base=54_321,
        steps=4_000,
        samples=125_000,
        busy=123_456_789_012,
        waited=12_345_678_901,
        loss=1.23456789,
        probe=1.98765432,
        verdict="quiet",
        reason=verdict.reason,
        finished=(12_345,),
    )
    size = len(encode(Envelope("0123456789abcdef", 99_999, 1_234_567, b"c" * 32, report)))
    assert size <= 256, size


# --- proofs -------------------------------------------------------------------------------------

HELLO = Hello("run", "w1", "i", "n", Software("1", 1, "3", "numpy"), "before")
REQUEST = StopRequested("run", "n", "because")
KEY = b"k" * 32


@pytest.mark.parametrize("message", [HELLO, REQUEST], ids=["Hello", "StopRequested"])
def test_a_proof_holds_for_its_message_only(message: Hello | StopRequested) -> None:
    """Any field changed, the proof cut or another key: it does not hold."""
    proven = msgspec.structs.replace(message, proof=proof_of(KEY, message))
    assert verified(KEY, proven)
    assert decode(encode(proven)) == proven
    assert not verified(b"another", proven)
    assert not verified(KEY, message)
    for field in message.__struct_fields__:
        others = {"software": Software("2", 1, "3", "numpy"), "own": Own(8, "x", "digest")}
        wrong = others.get(field) or getattr(proven, field) + "x"
        assert not verified(KEY, msgspec.structs.replace(proven, **{field: wrong})), field


def test_a_proof_is_of_one_kind_of_message() -> None:
    """Fields alike, a hello's proof proves no request to stop."""
    texts = [proof_of(KEY, StopRequested("run", "n", "x")), proof_of(KEY, HELLO)]
    assert len(set(texts)) == 2
    assert all(len(text) == 64 for text in texts)


def test_signed_parts_are_joined_unambiguously() -> None:
    """Where one part ends and the next begins is signed too."""
    assert sign(KEY, "ab", "c") != sign(KEY, "a", "bc") != sign(KEY, "abc")


# --- tensors ------------------------------------------------------------------------------------

DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_tensors_come_back_bit_for_bit(shape: tuple[int, ...]) -> None:
    """Any dtype and shape; a view, a transposed and a strided array as what they show."""
    chance = np.random.default_rng(1)
    for dtype in DTYPES:
        array = chance.integers(0, 2, (*shape, 2)).astype(dtype)[..., 0]
        for shown in (array, array.T):
            found = decode_tensors(encode_tensors({"a": shown, "b.c": array}))
            assert found["a"].dtype == array.dtype
            assert found["a"].shape == shown.shape
            assert found["a"].tobytes() == np.ascontiguousarray(shown).tobytes()


def test_odd_floats_keep_their_bits() -> None:
    """Negative zero, subnormals, infinities and NaN."""
    array = np.array([-0.0, 1e-45, np.inf, -np.inf, np.nan], np.float32)
    assert decode_tensors(encode_tensors({"a": array}))["a"].tobytes() == array.tobytes()


def test_the_same_tensors_give_the_same_bytes() -> None:
    """Whatever the order of their names, and of their memory."""
    a, b = np.arange(6.0).reshape(2, 3), np.ones(3, np.int64)
    assert encode_tensors({"a": a, "b": b}) == encode_tensors({"b": b, "a": np.asfortranarray(a)})
    assert encode_tensors({"a": a, "b": b}) != encode_tensors({"a": a, "b": b + 1})


def test_damaged_tensors_are_an_error_of_ours() -> None:
    """Bytes cut or changed: tensors or `DecodeError`."""
    good = encode_tensors({"a": np.arange(8, dtype=np.float32), "b": np.ones((2, 2))})
    chance = random.Random(2)
    errors = 0
    for _ in range(500):
        data = bytearray(good)
        if chance.random() < 0.5:
            del data[chance.randrange(len(data)) :]
        else:
            data[chance.randrange(100)] = chance.getrandbits(8)
        try:
            decode_tensors(bytes(data))
        except DecodeError:
            errors += 1
    assert errors > 250


def test_what_is_no_tensor_is_refused() -> None:
    """Objects and texts are not tensors."""
    for array in (np.array([object()]), np.array(["x"])):
        with pytest.raises(DecodeError):
            encode_tensors({"a": array})


def test_reasons_are_plain_values() -> None:
    """They compare by value, and travel."""
    assert Reason("x", {"a": 1}) == Reason("x", {"a": 1})
