"""How do values become bytes, and bytes values? On any bytes: a value, or `DecodeError`. Pure."""

from __future__ import annotations

import hashlib
import hmac
import math

import msgspec
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from hermes.errors import DecodeError
from hermes.messages import PROTOCOL, AnyMessage, Count, Hello, StopRequested
from hermes.values import Tensors

MAGIC = b"HM"
"""The first bytes of every small message; the third byte is the protocol's number."""

MAX_MESSAGE = 1 << 20
"""Bytes of the largest small message that we look at: a stock broker's record limit."""

MAX_HEADER = 100_000_000
"""Bytes of a safetensors header, as the library has it."""

_HEAD = MAGIC + bytes([PROTOCOL])

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """The bytes of a small message."""
    return _HEAD + _ENCODER.encode(message)


def decode(data: bytes | bytearray, limit: int = MAX_MESSAGE) -> AnyMessage:
    """The message in `data`, of at most `limit` bytes. Raises `DecodeError` for anything that is
    not one of ours."""
    if data[:2] != MAGIC:
        raise DecodeError("not a message of Hermes")
    if data[2:3] != bytes([PROTOCOL]):
        raise DecodeError(f"a message of another protocol than {PROTOCOL}")
    if len(data) > limit:
        raise DecodeError(f"a message of {len(data)} bytes; the limit is {limit}")
    try:
        return _DECODER.decode(memoryview(data)[3:])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise DecodeError(f"a damaged message: {error}") from None


def proof_of(key: bytes, message: Hello | StopRequested) -> str:
    """HMAC-SHA256 (hex) of the message without its proof, under the cluster key."""
    bare = msgspec.structs.replace(message, proof="")
    return hmac.new(key, encode(bare), hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two proofs are the same, in a time that tells nothing; any text may be given."""
    return hmac.compare_digest(one.encode(), other.encode())


def verified(key: bytes, message: Hello | StopRequested) -> bool:
    """Whether the message carries the proof that the cluster key gives."""
    return same(message.proof, proof_of(key, message))


def sign(key: bytes, *parts: str) -> str:
    """HMAC-SHA256 (hex) over texts, unambiguously joined."""
    return hmac.new(key, _ENCODER.encode(parts), hashlib.sha256).hexdigest()


def encode_tensors(tensors: Tensors) -> bytes:
    """Safetensors bytes; the same tensors always give the same bytes (keys are ordered).

    Arrays are any shape, of a dtype that safetensors knows. Raises `DecodeError` for others.
    """
    plain = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    try:
        return bytes(safetensors.numpy.save(plain))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DecodeError(f"tensors that cannot be encoded: {error}") from None


def decode_tensors(data: bytes | bytearray) -> dict[str, np.ndarray]:
    """The tensors in `data`, by name: read-only views of it, which must not change any more.

    The library would copy them twice, and a master has no room for three times a model; what it
    knows and we do not (rare dtypes) is left to it.
    """
    try:
        specs = _specs(data)
        if all(spec.dtype in _DTYPES for spec in specs.values()):
            return {name: _view(data, spec) for name, spec in specs.items()}
        return dict(safetensors.numpy.load(bytes(data)))
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise DecodeError(f"not safetensors: {error}") from None


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the header of a safetensors file says of one tensor."""

    dtype: str
    shape: tuple[Count, ...]
    data_offsets: tuple[Count, Count]
    """First and end, in bytes of the file."""


_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _specs(data: bytes | bytearray) -> dict[str, _Spec]:
    """The header, checked as the format asks: the tensors fill the rest of the file, in the order
    of their offsets, without a gap. Raises `ValueError`."""
    begin = 8 + int.from_bytes(data[:8], "little")
    if not 10 <= begin <= min(len(data), 8 + MAX_HEADER):
        raise ValueError("the header's length cannot be")
    raw = msgspec.json.decode(data[8:begin], type=dict[str, msgspec.Raw])
    raw.pop("__metadata__", None)
    specs = {name: msgspec.json.decode(spec, type=_Spec) for name, spec in raw.items()}
    place = begin
    for spec in sorted(specs.values(), key=lambda spec: spec.data_offsets):
        first, end = (begin + offset for offset in spec.data_offsets)
        dtype = _DTYPES.get(spec.dtype)
        if first != place or (dtype and end - first != math.prod(spec.shape) * _size_of(dtype)):
            raise ValueError("a tensor's place cannot be")
        place = end
    if place != len(data):
        raise ValueError("the tensors are not what the file holds")
    return {
        name: msgspec.structs.replace(
            spec, data_offsets=(spec.data_offsets[0] + begin, spec.data_offsets[1] + begin)
        )
        for name, spec in specs.items()
    }


def _size_of(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def _view(data: bytes | bytearray, spec: _Spec) -> np.ndarray:
    array: np.ndarray = np.ndarray(
        spec.shape, _DTYPES[spec.dtype], buffer=data, offset=spec.data_offsets[0]
    )
    array.flags.writeable = False
    return array


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
