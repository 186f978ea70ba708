"""What do the codecs keep of a tensor, and what do their bytes tell a reader? Bounds, exactly."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from hermes.chance import bits
from hermes.coded import (
    codec_of,
    decode_tensors,
    decode_update,
    encode_update,
    encode_version,
    plain,
    published,
    size_under,
)
from hermes.errors import DecodeError, Defect, ForeignCodec
from hermes.halves import TILE, grow, shrink
from hermes.packing import encode_tensors
from hermes.policy import codecs

CHANCES = st.one_of(st.none(), st.integers(0, 2**32))


@st.composite
def floats(draw: st.DrawFn, finite: bool = True) -> np.ndarray:
    """Of either width, all magnitudes mixed, denormals and the largest among them."""
    dtype, width = draw(st.sampled_from([(np.float32, 32), (np.float64, 64)]))
    some = st.floats(allow_nan=not finite, allow_infinity=not finite, width=width)
    near = st.floats(-4, 4, width=32)
    return np.array(draw(st.lists(st.one_of(some, near), max_size=20)), dtype)


def through(array: np.ndarray, seed: int | None) -> np.ndarray:
    """There and back."""
    chance = None if seed is None else bits(seed, "test")
    return grow(shrink(array, chance), array.dtype)


@given(floats(), CHANCES)
def test_each_value_is_kept_within_its_bound(array: np.ndarray, seed: int | None) -> None:
    """To the nearest: 2**-11 of itself, or 2**-40 of the largest; at random: twice that."""
    found = through(array, seed)
    assert np.isfinite(found).all()
    twice = 1 if seed is None else 2
    x, largest = np.abs(array.astype(np.longdouble)), np.abs(array).max(initial=0)
    least = np.finfo(array.dtype).smallest_subnormal
    # The largest value of a type may be rounded down alone, and by as much as at random.
    edge = 2 if largest > np.finfo(array.dtype).max / 2 else 1
    bound = np.maximum(x * 2.0**-11, np.longdouble(largest) * 2.0**-40) * max(twice, edge)
    error = np.abs(found.astype(np.longdouble) - array)
    assert (error <= np.maximum(bound, least / 2)).all()
    assert (np.signbit(found) == np.signbit(array)).all()


@given(floats(finite=False), CHANCES, CHANCES)
def test_what_was_rounded_is_rounded_no_more(
    array: np.ndarray, first: int | None, second: int | None
) -> None:
    """And its bytes are a matter of its values: chance, or the largest before, leave no trace."""
    chance = None if first is None else bits(first, "test")
    once = shrink(array, chance)
    values = grow(once, array.dtype)
    again = shrink(values, None if second is None else bits(second, "other"))
    assert again.exponent == once.exponent
    assert again.halves.tobytes() == once.halves.tobytes()


@given(st.lists(st.integers(-24, 6), min_size=1), st.integers(-100, 100), CHANCES)
def test_powers_of_two_are_exact(places: list[int], far: int, seed: int | None) -> None:
    array = np.ldexp(np.float64(1), np.array(places) + far) * np.resize([1, -1], len(places))
    assert (through(array, seed) == array).all()
    narrow = array.astype(np.float32)
    assert (through(narrow, seed) == narrow).all()


def test_rounding_at_random_has_no_bias() -> None:
    """The mean of many roundings is the value, to five standard errors: also where nearest would
    always give nothing, and for what is smaller than a half's normal numbers."""
    count = 4 * TILE + 3
    values = [
        (1.0, 1.0 + 2**-14, 2**-10),
        (1.0, 2**-31 * 1.3, 2**-39),
        (1.0, -(0.3 + 1e-5), 2**-12),
    ]
    for dtype in (np.float32, np.float64):
        for largest, value, step in values:
            array = np.full(count, value, dtype)
            array[0] = largest
            found = through(array, 5)[1:].astype(np.float64)
            exact = np.float64(array[1])
            assert set(np.round((found - found.min()) / step)) == {0.0, 1.0}
            spread = found.std() / np.sqrt(count)
            assert abs(found.mean() - exact) < 5 * spread
            assert (through(array, None)[1:] == through(array, None)[1]).all()


def test_zeros_and_what_is_not_finite_stay() -> None:
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.0], np.float32)
    for seed in (None, 1):
        assert through(odd, seed).tobytes() == odd.tobytes()
        assert not through(np.zeros((2, 3), np.float32), seed).any()
        assert through(np.zeros((0, 3), np.float32), seed).shape == (0, 3)
        top = np.array([np.finfo(np.float32).max, 1], np.float32)
        assert np.isfinite(through(top, seed)).all()


# --- versions and updates -----------------------------------------------------------------------


def model(seed: int, scale: float = 0.1) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed % 2**32)
    return {
        "weight": (scale * chance.normal(size=(7, 5))).astype(np.float32),
        "bias": np.zeros(5, np.float32),
        "running_var": chance.uniform(1e-6, 1, size=5).astype(np.float32),
        "double": chance.normal(size=()).astype(np.float64),
        "half": chance.normal(size=3).astype(np.float16),
        "num_batches": np.array(2**40 + 1, np.int64),
        "mask": np.array([True, False]),
    }


BUFFERS = {"running_var", "num_batches", "mask"}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (other[n].dtype, other[n].shape, other[n].tobytes())
        for n, a in one.items()
    )


def test_fp32_is_what_it_was_bit_for_bit() -> None:
    whole, base = model(1), model(2)
    data = encode_tensors(whole)
    assert encode_version(whole, "fp32", "abc") == data == plain(data) == published(data, "fp32")
    assert encode_update(whole, base, "fp32", BUFFERS) == data
    assert same(dict(decode_update(data, "fp32", {})), whole)
    assert codec_of(data) == "fp32"


def test_a_version_is_its_bytes_and_its_bytes_are_the_version() -> None:
    """Whoever holds the decoded tensors, or their plain file, has the version's bytes again."""
    whole = model(3)
    data = encode_version(whole, "fp16", "abc")
    found = decode_tensors(data)
    assert encode_version(found, "fp16") == encode_version(found, "fp16", "else") == data
    assert encode_version(whole, "fp16", "abc") == data != encode_version(whole, "fp16", "abd")
    file = plain(data)
    assert same(safetensors.numpy.load(bytes(file)), found)
    assert published(file, "fp16") == data
    for name in ("half", "num_batches", "mask", "bias"):
        assert found[name].tobytes() == whole[name].tobytes()
    assert len({len(encode_version(model(n, 10.0**n), "fp16")) for n in range(-9, 9)}) == 1


def test_any_reader_of_safetensors_can_read_it() -> None:
    """By the two words of the metadata alone."""
    data = encode_version(model(4), "fp16", "abc")
    header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = header["__metadata__"]
    assert about["hermes.codec"] == "fp16"
    type_, kind, exponent = msgspec.json.decode(about["hermes.tensors"])["weight"].split()
    theirs = safetensors.numpy.load(data)["weight"].astype(np.float32) * 2.0 ** int(exponent)
    assert (type_, kind) == ("F32", "value")
    assert (theirs == decode_tensors(data)["weight"]).all()


@pytest.mark.parametrize("step", [1e-2, 1e-5])
def test_an_update_keeps_how_far_it_moved(step: float) -> None:
    """To 2**-11 of the move, and what float32 itself rounds; buffers to 2**-11 of their value."""
    base, moved = model(5), model(6)
    local = {
        n: (base[n] + step * moved[n]).astype(base[n].dtype)
        if base[n].dtype.kind == "f" and n not in BUFFERS
        else moved[n]
        for n in base
    }
    data = encode_update(local, base, "fp16", BUFFERS)
    found = decode_update(bytearray(data), "fp16", base)
    for name in ("weight", "double", "bias"):
        delta = np.abs(local[name] - base[name].astype(np.float64))
        own = np.spacing(np.abs(local[name])).astype(np.float64)
        assert (np.abs(found[name] - local[name]) <= delta * 2.0**-11 + own + 1e-300).all()
    assert np.allclose(found["running_var"], local["running_var"], rtol=2.0**-11, atol=0)
    for name in ("half", "num_batches", "mask"):
        assert found[name].tobytes() == local[name].tobytes()
    header = 8 + int.from_bytes(data[:8], "little")
    assert len(data) - header == size_under(local, "fp16") < size_under(local, "fp32")


def test_what_is_not_finite_arrives_so() -> None:
    base, local = model(7), model(7)
    local["weight"][0, 0] = np.nan
    found = decode_update(encode_update(local, base, "fp16", BUFFERS), "fp16", base)
    assert np.isnan(found["weight"][0, 0])
    assert np.isfinite(found["weight"][1:]).all()


def test_another_codec_than_was_said_is_named() -> None:
    base = model(8)
    lossy, lossless = encode_update(base, base, "fp16", BUFFERS), encode_tensors(base)
    with pytest.raises(ForeignCodec, match="fp16; their message says fp32"):
        decode_update(lossy, "fp32", base)
    with pytest.raises(ForeignCodec, match="fp32; their message says fp16"):
        decode_update(lossless, "fp16", base)
    with pytest.raises(DecodeError, match="no base"):
        decode_tensors(lossy)
    with pytest.raises(Defect, match="'int3'"):
        encode_version(base, "int3")


@pytest.mark.parametrize(
    "about",
    [
        {"hermes.codec": "int3"},
        {"hermes.codec": "fp16"},
        {"hermes.codec": "fp16", "hermes.tensors": "[]"},
        {"hermes.codec": "fp16", "hermes.tensors": '{"w":"F32 value"}'},
        {"hermes.codec": "fp16", "hermes.tensors": '{"w":"F16 value +0001"}'},
        {"hermes.codec": "fp16", "hermes.tensors": '{"w":"F32 guess +0001"}'},
        {"hermes.codec": "fp16", "hermes.tensors": '{"w":"F32 value +9999999999"}'},
        {"hermes.codec": "fp16", "hermes.tensors": '{"v":"F32 value +0001"}'},
        {"hermes.codec": "fp16", "hermes.tensors": '{"i":"F32 value +0001"}'},
    ],
)
def test_what_makes_no_sense_is_an_error_of_ours(about: dict[str, str]) -> None:
    data = encode_tensors({"w": np.ones(2, np.float16), "i": np.ones(1, np.int16)}, about)
    with pytest.raises(DecodeError):
        decode_tensors(data)


def test_what_does_not_fit_its_base_is_left_to_the_look_at_its_form() -> None:
    base = {"w": np.ones((2, 2), np.float32)}
    other = {"w": np.ones((4,), np.float32), "v": np.ones(1, np.float32)}
    data = encode_update(other, {n: np.zeros_like(a) for n, a in other.items()}, "fp16", ())
    found = decode_update(data, "fp16", base)
    assert {n: a.shape for n, a in found.items()} == {"w": (4,), "v": (1,)}


def test_every_codec_that_may_be_set_can_be_done() -> None:
    base = model(9)
    for codec in codecs.NAMES:
        assert codec_of(encode_version(base, codec, "x")) == codec
        assert codec_of(encode_update(base, base, codec, BUFFERS)) == codec
