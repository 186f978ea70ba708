"""Where do a grant's samples stand while they are trained? In memory if they are few, else in a
file without a name that is mapped: no data set fills a small board's memory."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hermes.errors import RunFailed
from hermes.train.protocol import Array, Batch

IN_MEMORY = 24 << 20
"""Bytes of a grant up to which it is held in memory."""


def gather(
    pairs: Iterator[Batch], size: int, folder: Path | None = None, most: int = IN_MEMORY
) -> Batch:
    """The first `size` samples of these blocks; above `most` bytes, in a file. It lies in `folder`
    (None: where temporary files do).

    Raises `RunFailed` where the temporary file cannot be written.
    """
    first = next(pairs)
    if size * sum(array.nbytes for array in first) <= most * len(first[0]):
        blocks = list(_again(first, pairs))
        x, y = (np.concatenate([block[i] for block in blocks])[:size] for i in (0, 1))
        return x, y
    try:
        return _mapped(first, pairs, size, folder)
    except OSError as error:
        raise RunFailed(
            f"the samples of a grant cannot be laid down: {error.strerror or error}",
            where=str(folder or tempfile.gettempdir()),
            remedy="Make room there, or set TMPDIR.",
        ) from None


def _mapped(first: Batch, pairs: Iterator[Batch], size: int, folder: Path | None) -> Batch:
    x, y = _file(first[0], size, folder), _file(first[1], size, folder)
    place = 0
    for block in _again(first, pairs):
        take = min(len(block[0]), size - place)
        x[place : place + take] = block[0][:take]
        y[place : place + take] = block[1][:take]
        place += take
    return x, y


def _file(like: Array, size: int, folder: Path | None) -> Array:
    with tempfile.TemporaryFile(dir=folder) as file:  # the map keeps it; nobody else has its name
        count = size * math.prod(like.shape[1:]) * like.itemsize
        if hasattr(os, "posix_fallocate") and count:
            # A map of a file whose space is only promised ends the process on a full disk.
            os.posix_fallocate(file.fileno(), 0, count)
        return np.memmap(file, like.dtype, "w+", shape=(size, *like.shape[1:]))


def _again(first: Batch, rest: Iterator[Batch]) -> Iterator[Batch]:
    yield first
    yield from rest
