"""In which order does a worker train its samples, and in which batches? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.chance import generator, permutation

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Samples of a grant, and which of them are trained, in order."""

    x: Array
    y: Array
    indices: Indices


def epoch_order(seed: int, worker: str, grant: int, pass_: int, size: int) -> Indices:
    """The order of a grant's `size` samples in one pass: the same for the same names, anywhere."""
    return permutation(generator(seed, "order", worker, grant, pass_), size)


def batches(
    parts: Iterable[Part], batch: int, *, joined: bool = False
) -> Iterator[tuple[Array, Array]]:
    """The samples of `parts`, in order, in batches of `batch` samples.

    Each part is cut for itself and its short last batch is kept; where `joined`, batches run on
    from part to part and only the very last may be short.
    """
    cuts = _joined(parts, batch) if joined else _apart(parts, batch)
    for cut in cuts:
        x = [part.x[part.indices] for part in cut]
        y = [part.y[part.indices] for part in cut]
        yield (x[0], y[0]) if len(cut) == 1 else (np.concatenate(x), np.concatenate(y))


def _apart(parts: Iterable[Part], batch: int) -> Iterator[list[Part]]:
    for part in parts:
        for start in range(0, len(part.indices), batch):
            yield [part._replace(indices=part.indices[start : start + batch])]


def _joined(parts: Iterable[Part], batch: int) -> Iterator[list[Part]]:
    open_, have = [], 0
    for part in parts:
        start = 0
        while start < len(part.indices):
            piece = part.indices[start : start + batch - have]
            open_.append(part._replace(indices=piece))
            start, have = start + len(piece), have + len(piece)
            if have == batch:
                yield open_
                open_, have = [], 0
    if open_:
        yield open_
