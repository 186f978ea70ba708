"""How do samples become blocks, and blocks samples again? Pure.

A block is a fixed number of samples of one split, in one record: the tensors "x" and "y".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes import codec
from hermes.errors import DecodeError, JobError

Array: TypeAlias = npt.NDArray[Any]

LARGEST = 960 * 1024
"""Bytes of an encoded block at most: below a stock broker's 1 MiB a record."""

HEADER = 1024
"""Bytes of an encoded block that are not samples, at most."""


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


def encode_block(x: Array, y: Array) -> bytes:
    """The bytes of a block; the same samples always give the same."""
    return codec.encode_tensors({"x": _native(x), "y": _native(y)})


def decode_block(data: bytes) -> tuple[Array, Array]:
    """x and y of a block, types as they were. Raises `DecodeError`."""
    tensors = codec.decode_tensors(data)
    if tensors.keys() != {"x", "y"}:
        raise DecodeError("not a block: it holds other tensors than x and y")
    x, y = tensors["x"], tensors["y"]
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DecodeError(f"not a block: x has the shape {x.shape}, y {y.shape}")
    return x, y


def join_blocks(blocks: Iterable[bytes], size: int) -> tuple[Array, Array]:
    """The first `size` samples of these blocks, as a grant counts them."""
    pairs = [decode_block(data) for data in blocks]
    try:
        x = np.concatenate([x for x, _ in pairs])[:size]
        y = np.concatenate([y for _, y in pairs])[:size]
    except ValueError as error:
        raise DecodeError(f"blocks that do not belong together: {error}") from None
    return x, y


def _native(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
