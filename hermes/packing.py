"""How do tensors become bytes, and bytes tensors, without a copy too many? Pure.

The bytes are those of the safetensors library, which would copy a model twice on the way out and
twice on the way in; a master has no room for that. Dtypes that NumPy lacks are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from hermes.errors import DecodeError
from hermes.messages import Count
from hermes.values import Tensors

MAX_HEADER = 100_000_000
"""Bytes of a header, as the library has it."""

DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4",
    "F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""The format's name of a dtype -> NumPy's, in the order in which the library writes them."""

_NAMES = {numpy: name for name, numpy in DTYPES.items()}
_RANK = {name: place for place, name in enumerate(DTYPES)}

_BROKEN = (SafetensorError, KeyError, ValueError, TypeError, OverflowError)


_ABOUT = "__metadata__"


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]
    """First byte and end, counted from the end of the header."""


_SPEC = msgspec.json.Decoder(Spec)
"""Made here: two threads must not teach msgspec a type at the same moment (`policy.presets`)."""


def encode_tensors(tensors: Tensors, about: Mapping[str, str] | None = None) -> bytes:
    """Safetensors bytes; the same tensors always give the same bytes, those of the library.
    `about`: their metadata, word by word.

    Arrays are any shape, of a dtype that safetensors knows. Raises `DecodeError` for others.
    """
    plain = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    try:
        if any(_portable(array) not in _NAMES for array in plain.values()):
            return bytes(safetensors.numpy.save(plain, dict(about) if about else None))
        return _packed(plain, about or {})
    except _BROKEN as error:
        raise DecodeError(f"tensors that cannot be encoded: {error}") from None


def unpack(data: bytes | bytearray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors in `data`, by name, and their metadata: read-only views of `data`, which must not
    change any more.

    Raises `DecodeError` for bytes that are not safetensors.
    """
    try:
        specs, about, begin = _header(data)
        if all(spec.dtype in DTYPES for spec in specs.values()):
            return {name: _view(data, begin, spec) for name, spec in specs.items()}, about
        return dict(safetensors.numpy.load(bytes(data))), about
    except _BROKEN as error:
        raise DecodeError(f"not safetensors: {error}") from None


def _portable(array: np.ndarray) -> str:
    return array.dtype.newbyteorder("<").str


def _packed(plain: Mapping[str, np.ndarray], about: Mapping[str, str]) -> bytes:
    specs: dict[str, Spec | Mapping[str, str]] = {_ABOUT: about} if about else {}
    place = 0
    ranked = sorted(plain, key=lambda name: (_RANK[_NAMES[_portable(plain[name])]], name))
    for name in ranked:
        array, first = plain[name], place
        place += array.nbytes
        specs[name] = Spec(_NAMES[_portable(array)], array.shape, (first, place))
    header = msgspec.json.encode(specs)
    header += b" " * (-len(header) % 8)
    body = (plain[name].astype(_portable(plain[name]), copy=False) for name in ranked)
    flat = (array.reshape(-1).view(np.uint8).data for array in body)
    return b"".join([len(header).to_bytes(8, "little"), header, *flat])


def _header(data: bytes | bytearray) -> tuple[dict[str, Spec], dict[str, str], int]:
    """What the header says, its metadata, and where it ends; checked as the format asks: the
    tensors fill the rest, in the order of their offsets, without a gap. Raises `ValueError`."""
    begin = 8 + int.from_bytes(data[:8], "little")
    if not 10 <= begin <= min(len(data), 8 + MAX_HEADER):
        raise ValueError("the header's length cannot be")
    raw = msgspec.json.decode(data[8:begin], type=dict[str, msgspec.Raw])
    about = msgspec.json.decode(raw.pop(_ABOUT, b"{}"), type=dict[str, str] | None) or {}
    specs = {name: _SPEC.decode(spec) for name, spec in raw.items()}
    place = 0
    for spec in sorted(specs.values(), key=lambda spec: spec.data_offsets):
        first, end = spec.data_offsets
        dtype = DTYPES.get(spec.dtype)
        size = end - first if dtype is None else math.prod(spec.shape) * np.dtype(dtype).itemsize
        if first != place or end - first != size or size < 0:
            raise ValueError("a tensor's place cannot be")
        place = end
    if begin + place != len(data):
        raise ValueError("the tensors are not what the bytes hold")
    return specs, about, begin


def _view(data: bytes | bytearray, begin: int, spec: Spec) -> np.ndarray:
    place = begin + spec.data_offsets[0]
    array: np.ndarray = np.ndarray(spec.shape, DTYPES[spec.dtype], buffer=data, offset=place)
    array.flags.writeable = False
    return array
