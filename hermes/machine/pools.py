"""Which blocks are a pool's, and whose pool is it? Pure.

Where the train split was divided (`data.partition`), its blocks lie pool after pool, and each holds
samples of one pool only. Place k of the walk is block k mod B, as ever; a pool's own walk goes over
the places of its blocks, pass after pass, and a worker is granted those alone.
"""

from __future__ import annotations

import bisect
import functools
import itertools

from hermes.machine.state import MasterState
from hermes.messages import DataPublished, Own
from hermes.policy.own import cut

NONE = -1
"""The pool of a worker that has none: the data is not divided, or another one has it by now."""


@functools.lru_cache(maxsize=8)
def _starts(pools: tuple[int, ...], block: int) -> tuple[int, ...]:
    """The first block of each pool, and the end of the last."""
    return (0, *itertools.accumulate(-(-size // block) for size in pools))


def starts(data: DataPublished) -> tuple[int, ...]:
    """The place at which the walk over each pool begins; empty where there are no pools."""
    return _starts(data.pools, data.block)[:-1] if data.pools else ()


def pool_at(data: DataPublished, place: int) -> int:
    """The pool that this place of the walk belongs to."""
    if not data.pools:
        return NONE
    return bisect.bisect_right(_starts(data.pools, data.block), place % data.blocks["train"]) - 1


def block_samples(data: DataPublished, place: int) -> int:
    """Samples in the block at this place of the walk; the last one of a pass, or of a pool, may be
    short."""
    index, pool = place % data.blocks["train"], pool_at(data, place)
    if pool == NONE:
        return min(data.block, data.samples["train"] - index * data.block)
    first = _starts(data.pools, data.block)[pool]
    return min(data.block, data.pools[pool] - (index - first) * data.block)


def after(data: DataPublished, place: int) -> int:
    """The place that follows on this one in its own walk."""
    pool = pool_at(data, place)
    if pool == NONE:
        return place + 1
    blocks, bounds = data.blocks["train"], _starts(data.pools, data.block)
    if place % blocks + 1 < bounds[pool + 1]:
        return place + 1
    return (place // blocks + 1) * blocks + bounds[pool]


def largest(data: DataPublished, pool: int, own: Own | None = None) -> int:
    """Samples that a grant from this pool can have at most, or from the data that a worker has
    brought."""
    if own is not None:
        return cut(own.samples, data.shares).train
    return data.samples["train"] if pool == NONE else data.pools[pool]


def first_size(data: DataPublished, pool: int, own: Own | None = None) -> int:
    """Samples of the first grant of a worker of this pool, or with data of its own."""
    return min(data.first_size, largest(data, pool, own))


def pool_for(state: MasterState, worker: str) -> int | None:
    """The pool that a worker is admitted to: its own, else the first that nobody has had, else the
    first whose worker has left. NONE where there are no pools; None where all are in use."""
    assert state.data is not None
    if not state.data.pools:
        return NONE
    member = state.members.get(worker)
    if member is not None and member.pool != NONE:
        return member.pool
    had = {other.pool: other.status for other in state.members.values()}
    order = sorted(range(len(state.data.pools)), key=lambda pool: (pool in had, pool))
    return next((pool for pool in order if had.get(pool, "left") == "left"), None)
