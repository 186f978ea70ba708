"""In which order does a worker train its samples, and in which batches? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.chance import generator, permutation

Array: TypeAlias = npt.NDArray[Any]
Batch: TypeAlias = tuple[Array, Array]
Indices: TypeAlias = npt.NDArray[np.int64]

TOGETHER = 1 << 19
"""Bytes of samples that are gathered at once: few enough for a processor's cache, and one piece of
memory for many small batches instead of one between every two steps."""


class Part(NamedTuple):
    """Samples of a grant, and which of them are trained, in order."""

    x: Array
    y: Array
    indices: Indices

    def taken(self, start: int, stop: int) -> Batch:
        """The samples that are trained from the place `start` on, before `stop`."""
        chosen = self.indices[start:stop]
        return self.x[chosen], self.y[chosen]


def epoch_order(seed: int, worker: str, grant: int, pass_: int, size: int) -> Indices:
    """The order of a grant's `size` samples in one pass: the same for the same names, anywhere."""
    return permutation(generator(seed, "order", worker, grant, pass_), size)


def batches(
    parts: Iterable[Part], batch: int, *, joined: bool = False, together: int = TOGETHER
) -> Iterator[Batch]:
    """The samples of `parts`, in order, in batches of `batch` samples.

    Each part is cut for itself and its short last batch is kept; where `joined`, batches run on
    from part to part and only the very last may be short. `together`: bytes of samples that are
    gathered at once, in whole batches, which are views of them; one batch at least.
    """
    open_: list[Batch] = []
    have = 0
    for part in parts:
        first = min(batch - have, len(part.indices)) if have else 0
        if first:
            open_.append(part.taken(0, first))
            have += first
            if have == batch:
                yield _joined(open_)
                open_, have = [], 0
        for x, y in _cut(part, first, batch, together):
            if joined and len(x) < batch:
                open_, have = [(x, y)], len(x)
            else:
                yield x, y
    if open_:
        yield _joined(open_)


def _cut(part: Part, first: int, batch: int, together: int) -> Iterator[Batch]:
    """The samples of a part, from the first of these on."""
    size = (part.x[:1].nbytes + part.y[:1].nbytes) * batch
    step = batch * max(1, together // max(1, size))
    for start in range(first, len(part.indices), step):
        x, y = part.taken(start, start + step)
        for row in range(0, len(x), batch):
            yield x[row : row + batch], y[row : row + batch]


def _joined(pieces: list[Batch]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    x, y = (np.concatenate(some) for some in zip(*pieces, strict=True))
    return x, y
