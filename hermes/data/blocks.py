"""How do samples become blocks, and blocks samples again? Pure.

A block is a fixed number of samples of one split, in one record: the tensors "x" and "y", deflated
(RFC 1951, in zlib's frame) where that makes them smaller by an eighth: every link carries every
sample of a pass, and on thin ones images as bytes take longer than the training on them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes import codec
from hermes.errors import DecodeError, JobError

Array: TypeAlias = npt.NDArray[Any]

Deflate: TypeAlias = Callable[[bytes], bytes]
"""What makes bytes smaller: `deflated`, or what remembers what that gave."""

LARGEST = 960 * 1024
"""Bytes of a block at most, also inflated: below a stock broker's 1 MiB a record."""

HEADER = 1024
"""Bytes of an encoded block that are not samples, at most."""

DEFLATED = b"deflated"
"""How such a block begins. As the length with which plain tensors begin it is out of the question
(`packing.MAX_HEADER`)."""

LEVEL = 6
"""zlib's own default: at 1 images of MNIST take a fifth more, at 9 a hundredth less."""


def block_samples(first_size: int, bytes_each: int) -> int:
    """Samples of a block: a 32nd of a first shard, 1 to 256, and never above LARGEST bytes.

    Raises `JobError` where a single sample is too large.
    """
    fitting = (LARGEST - HEADER) // max(1, bytes_each)
    if fitting < 1:
        raise JobError(
            f"one sample takes {bytes_each} bytes, and a block holds {LARGEST - HEADER}",
            remedy="Store it in fewer bytes (uint8 or float16), or cut it into smaller samples.",
        )
    return min(max(1, min(first_size // 32, 256)), fitting)


def count_blocks(samples: int, block: int) -> int:
    """Blocks that hold this many samples; the last may be short."""
    return -(-samples // block)


def deflated(plain: bytes) -> bytes:
    """In zlib's frame; the same bytes always give the same, with the same zlib."""
    return zlib.compress(plain, LEVEL)


def encode_block(x: Array, y: Array, *, deflate: Deflate | None = deflated) -> bytes:
    """The bytes of a block, deflated where that helps (None: it is not tried); the same samples
    always give the same."""
    plain = codec.encode_tensors({"x": native(x), "y": native(y)})
    if deflate is None:
        return plain
    small = deflate(plain)
    return DEFLATED + small if pays(small, plain) else plain


def pays(small: bytes, plain: bytes) -> bool:
    """Whether these bytes, deflated, are smaller by an eighth."""
    return len(DEFLATED) + len(small) <= len(plain) - len(plain) // 8


def decode_block(data: bytes) -> tuple[Array, Array]:
    """x and y of a block, types as they were. Raises `DecodeError`."""
    tensors = codec.decode_tensors(_inflated(data))
    if tensors.keys() != {"x", "y"}:
        raise DecodeError("not a block: it holds other tensors than x and y")
    x, y = tensors["x"], tensors["y"]
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DecodeError(f"not a block: x has the shape {x.shape}, y {y.shape}")
    return x, y


def _inflated(data: bytes) -> bytes:
    """The tensors' bytes; never more than LARGEST of them, whatever the data claim to hold."""
    if not data.startswith(DEFLATED):
        return data
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(memoryview(data)[len(DEFLATED) :], LARGEST)
    except zlib.error as error:
        raise DecodeError(f"not a block: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise DecodeError("not a block: it is cut short, too large, or more follows")
    return plain


def join_blocks(blocks: Iterable[bytes], size: int) -> tuple[Array, Array]:
    """The first `size` samples of these blocks, as a grant counts them."""
    pairs = [decode_block(data) for data in blocks]
    try:
        x = np.concatenate([x for x, _ in pairs])[:size]
        y = np.concatenate([y for _, y in pairs])[:size]
    except ValueError as error:
        raise DecodeError(f"blocks that do not belong together: {error}") from None
    return x, y


def native(array: Array) -> Array:
    """In this machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
