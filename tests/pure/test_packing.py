"""Are our safetensors those of the library, bit for bit, and do we refuse what it refuses?"""

from __future__ import annotations

import random

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from hermes.codec import decode_tensors
from hermes.errors import DecodeError
from hermes.packing import DTYPES, encode_tensors

NAMES = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda n: n != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def model(of: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Tensors of these dtypes and shapes."""
    return {
        name: np.arange(np.prod(shape)).astype(DTYPES[dtype]).reshape(shape)
        for name, (dtype, shape) in of.items()
    }


MODELS = st.dictionaries(NAMES, st.tuples(st.sampled_from(list(DTYPES)), SHAPES), max_size=6).map(
    model
)


@given(MODELS)
def test_the_bytes_are_those_of_the_library(tensors: dict[str, np.ndarray]) -> None:
    data = encode_tensors(tensors)
    assert data == safetensors.numpy.save(tensors)
    found = decode_tensors(bytearray(data))
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@given(MODELS, st.integers(0, 2**32))
def test_what_the_library_refuses_is_refused(tensors: dict[str, np.ndarray], seed: int) -> None:
    """Damaged bytes: if we read them, the library reads the same."""
    chance = random.Random(seed)
    data = bytearray(encode_tensors(tensors))
    for _ in range(chance.choice([1, 1, 3])):
        place = chance.randrange(len(data))
        data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    try:
        found = decode_tensors(data)
    except DecodeError:
        return
    try:
        theirs = safetensors.numpy.load(bytes(data))
    except (SafetensorError, ValueError, KeyError, TypeError):
        pytest.fail(f"the library does not read {bytes(data)!r}")
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in theirs.items()}


def test_views_are_not_to_be_written_to() -> None:
    data = bytearray(encode_tensors({"a": np.ones(3)}))
    with pytest.raises(ValueError, match="read-only"):
        decode_tensors(data)["a"][0] = 2


def test_a_rare_dtype_is_left_to_the_library() -> None:
    data = safetensors.numpy.save({"a": np.ones(2, np.complex64)})
    assert decode_tensors(data)["a"].dtype == np.complex64
    assert encode_tensors({"a": np.ones(2, np.complex64)}) == data
