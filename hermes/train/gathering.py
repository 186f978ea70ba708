"""How are small batches put together, and large ones cut, where their size does not matter? For
evaluations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from hermes.train.protocol import Batch


def gathered(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same samples in the same order, in fewer batches: small ones are put together until they
    are of `size` samples at least."""
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(x) for x, _ in waiting) >= size:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def of_whole_blocks(batch: Batch, block: int, size: int) -> Iterator[tuple[Batch, list[slice]]]:
    """The same samples in the same order, in batches of about `size` samples that are whole blocks
    of `block` samples each; with each batch the rows of its blocks."""
    x, y = batch
    step = max(1, size // block) * block
    for start in range(0, len(x), step):
        part = x[start : start + step], y[start : start + step]
        yield part, [slice(row, row + block) for row in range(0, len(part[0]), block)]


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return x, y
