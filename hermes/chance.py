"""Where does chance come from? From one seed, in streams that are named by what they are for. Pure.

A stream is drawn afresh for every purpose, worker and round, so that what one part of Hermes draws
never moves what another draws (protocol 12): no decision depends on who asked first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """The stream of this seed under this name, always from its beginning.

    `generator(7, "order", "worker-1", 3)`: other keys, or the same in another order, give a stream
    that has nothing to do with this one. 1 and "1" are different keys.
    """
    digest = hashlib.sha256(b"".join(_encoded(part) for part in (seed, *keys))).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))


def bits(seed: int, *keys: str | int) -> Callable[[int], npt.NDArray[np.uint64]]:
    """The raw bits of the stream of this name, in words of 64: the next so many at each call. NumPy
    promises to keep them from release to release."""
    stream = generator(seed, *keys).bit_generator

    def drawn(count: int) -> npt.NDArray[np.uint64]:
        return np.asarray(stream.random_raw(count), dtype=np.uint64)

    return drawn


def permutation(stream: np.random.Generator, size: int) -> npt.NDArray[np.int64]:
    """The numbers 0 .. size - 1, shuffled. Memory: 24 bytes a number while it runs.

    Made from raw bits, which NumPy promises to keep from release to release; what
    `Generator.permutation` draws it does not.
    """
    bits = np.asarray(stream.bit_generator.random_raw(size), dtype=np.uint64)
    return np.argsort(bits, kind="stable").astype(np.int64, copy=False)


def _encoded(part: str | int) -> bytes:
    """Kind, length and text, so that no two lists of keys are written alike."""
    text = str(part).encode()
    return b"%c%d:%s" % (b"s" if isinstance(part, str) else b"i", len(text), text)
