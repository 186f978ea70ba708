"""As what do a version and an update travel? Under a named codec, which their bytes name. Pure.

The bytes are safetensors in any case. Under `fp32` they hold the model as it is, and name no codec.
Else their metadata has two words: `hermes.codec`, and `hermes.tensors`, which says of each tensor
that is not as it was: its type, what it stands for, and its exponent.

    {"hermes.codec": "fp16", "hermes.tensors": "{\\"0.weight\\":\\"F32 delta -0012\\"}"}

Here the float32 tensor `0.weight` is its base less halves * 2**-12; a `value` is halves * 2**n.
Learned floats of an update are deltas, since a delta is small and keeps its bits; buffers go by
value (a variance that is rounded stays positive). Integers, booleans and floats of 16 bits are as
they are. The length of the bytes depends on names, shapes and types alone.

Another codec is another name, another word in `hermes.tensors`, and its arithmetic beside `halves`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from hermes.chance import bits
from hermes.errors import DecodeError, Defect, ForeignCodec
from hermes.halves import FARTHEST, Array, Chance, Floats, Scaled, grow, shrink
from hermes.packing import DTYPES, encode_tensors, unpack
from hermes.policy.codecs import FP16, FP32, NAMES
from hermes.values import Tensors

CODEC, LISTING = "hermes.codec", "hermes.tensors"
"""Words of the metadata."""
VALUE, DELTA = "value", "delta"
"""What the halves of a tensor stand for; of equal length, as all that is said of a tensor."""

_WIDE = {np.dtype(DTYPES[name]): name for name in ("F32", "F64")}
"""The types that are made smaller."""


class _Made(NamedTuple):
    """What is said of one tensor."""

    dtype: np.dtype[np.generic]
    kind: str
    exponent: int

    def __str__(self) -> str:
        return f"{_WIDE[self.dtype]} {self.kind} {self.exponent:+05d}"

    @classmethod
    def read(cls, text: str) -> _Made:
        """Raises `ValueError`."""
        name, kind, exponent = text.split(" ")
        if name not in _WIDE.values() or kind not in (VALUE, DELTA):
            raise ValueError(f"nobody knows what {text[:40]!r} means")
        if not -FARTHEST <= int(exponent) <= FARTHEST:
            raise ValueError("an exponent that cannot be")
        return cls(np.dtype(DTYPES[name]), kind, int(exponent))


# --- versions -----------------------------------------------------------------------------------


def encode_version(model: Tensors, codec: str, replaces: str = "") -> bytes:
    """A version's bytes; `replaces`: the digest of the version before, which names the chance that
    rounds it. Without one ("") it is rounded to the nearest: a model that was decoded from a
    version gives that version's bytes again, either way."""
    if _known(codec) == FP32:
        return encode_tensors(model)

    def chance(name: str) -> Chance | None:
        return bits(0, "version", replaces, name) if replaces else None

    halves = {
        name: shrink(array, chance(name)) for name, array in model.items() if array.dtype in _WIDE
    }
    return _encoded(model, halves, ())


def decode_tensors(data: bytes | bytearray) -> dict[str, Array]:
    """The tensors in `data`, by name: of a version under any codec, or any that are as they were.

    Those that are as they were are read-only views of `data`, which must not change any more.
    Raises `DecodeError`, also for an update that is told as deltas.
    """
    tensors, codec, made = _opened(data)
    if any(one.kind == DELTA for one in made.values()):
        raise DecodeError(f"deltas under the codec {codec}, and no base was asked for")
    return {name: _valued(array, made.get(name)) for name, array in tensors.items()}


def plain(data: bytes | bytearray) -> bytes | bytearray:
    """A version's bytes for people and other programs: its tensors in their own types, with no
    codec to know of. Under `fp32` these are the version's very bytes."""
    return data if codec_of(data) == FP32 else encode_tensors(decode_tensors(data))


def published(data: bytes | bytearray, codec: str) -> bytes | bytearray:
    """The bytes of the version that `plain` made these of. Raises `DecodeError`, also for tensors
    that no version under this codec has: a damaged bit may be one that is rounded away."""
    if codec == FP32:
        return data
    version = encode_version(decode_tensors(data), codec)
    if plain(version) != data:
        raise DecodeError(f"tensors that no version under the codec {codec} has")
    return version


# --- updates ------------------------------------------------------------------------------------


def encode_update(local: Tensors, base: Tensors, codec: str, buffers: Collection[str]) -> bytes:
    """An update's bytes: the model, or how far it lies from its base; `buffers`: names of the
    tensors that are not learned."""
    if _known(codec) == FP32:
        return encode_tensors(local)
    wide = {name: array for name, array in local.items() if array.dtype in _WIDE}
    halves = {
        name: shrink(array if name in buffers else _distance(base[name], array))
        for name, array in wide.items()
    }
    return _encoded(local, halves, wide.keys() - set(buffers))


def decode_update(data: bytes | bytearray, codec: str, base: Tensors) -> Tensors:
    """The model of an update whose message names this codec; `base`: the version that it started
    from (under `fp32` nobody looks at it).

    What does not fit the base is left as it is: whoever looks at the form says what is wrong.
    Raises `DecodeError`, `ForeignCodec` where the bytes name another codec.
    """
    tensors, found, made = _opened(data)
    if found != codec:
        raise ForeignCodec(found, codec)
    return {
        name: _moved(array, made[name], base.get(name))
        if name in made and made[name].kind == DELTA
        else _valued(array, made.get(name))
        for name, array in tensors.items()
    }


def codec_of(data: bytes | bytearray) -> str:
    """Which codec these bytes name. Raises `DecodeError`."""
    return _opened(data)[1]


def size_under(model: Tensors, codec: str) -> int:
    """Bytes of the tensors of a version, or of an update, without the header."""
    if codec == FP32:
        return sum(array.nbytes for array in model.values())
    return sum(2 * a.size if a.dtype in _WIDE else a.nbytes for a in model.values())


# --- in the bytes -------------------------------------------------------------------------------


def _known(codec: str) -> str:
    if codec not in NAMES:
        raise Defect(f"nobody encodes by {codec!r}")
    return codec


def _encoded(model: Tensors, halves: Mapping[str, Scaled], deltas: Collection[str]) -> bytes:
    listing = {
        name: str(_Made(model[name].dtype, DELTA if name in deltas else VALUE, one.exponent))
        for name, one in sorted(halves.items())
    }
    small = {name: one.halves for name, one in halves.items()}
    about = {CODEC: FP16, LISTING: msgspec.json.encode(listing).decode()}
    return encode_tensors({**model, **small}, about)


def _opened(data: bytes | bytearray) -> tuple[dict[str, Array], str, dict[str, _Made]]:
    """The tensors as they lie there, the codec, and what is said of some of them."""
    tensors, about = unpack(data)
    codec = about.get(CODEC, FP32)
    if codec not in NAMES:
        known = ", ".join(NAMES)
        raise DecodeError(f"they are under the codec {codec[:40]!r}, and {known} are known")
    if codec == FP32:
        return tensors, codec, {}
    try:
        listing = msgspec.json.decode(about.get(LISTING, ""), type=dict[str, str])
        made = {name: _Made.read(text) for name, text in listing.items()}
    except (msgspec.DecodeError, ValueError) as error:
        raise DecodeError(f"what they say of their codec cannot be read: {error}") from None
    for name in made:
        if name not in tensors or tensors[name].dtype != np.float16:
            raise DecodeError(f"they speak of a tensor that is not there: {name[:40]!r}")
    return tensors, codec, made


def _valued(array: Array, made: _Made | None) -> Array:
    return array if made is None else grow(_scaled(array, made), made.dtype)


def _scaled(array: Array, made: _Made) -> Scaled:
    return Scaled(array.astype(np.float16, copy=False), made.exponent)


def _distance(base: Array, local: Array) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.subtract(base, local, dtype=np.float64)


def _moved(array: Array, made: _Made, base: Array | None) -> Array:
    if base is None or base.shape != array.shape or base.dtype != made.dtype:
        return _valued(array, made)
    delta = grow(_scaled(array, made), np.dtype(np.float64))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.subtract(base, delta, dtype=np.float64).astype(made.dtype)
