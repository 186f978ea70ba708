"""Which pool does each training sample belong to?

A pool is what one worker is granted from. Every sample is in exactly one pool; which one follows
from the labels and a named stream of the seed. The rules are told in `hermes.policy.partition`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes.chance import permutation
from hermes.data.splits import Indices
from hermes.errors import JobError, SettingError
from hermes.policy.partition import Partition

TRIES = 100
"""Draws of a Dirichlet partition, before it is given up that each pool gets a batch."""


def owners(
    partition: Partition, labels: npt.NDArray[np.generic], stream: np.random.Generator
) -> Indices:
    """The pool, 0 .. pools - 1, of each sample of these labels of shape (n,).

    Raises `JobError` for labels that are no classes, `SettingError` where a pool would hold less
    than `partition.least` samples, or other classes than were asked for.
    """
    rule = partition.settings.partition
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise JobError(
            f"data.partition={rule} goes by a sample's class, and y has the type {labels.dtype} "
            f"and the shape {labels.shape}",
            remedy="Return y as whole numbers of shape (n,), one class a sample, or take "
            "--set data.partition=iid.",
        )
    if len(labels) < partition.pools * partition.least:
        raise SettingError(
            f"{len(labels)} training samples are less than a batch of {partition.least} for each "
            f"of {partition.pools} pools",
            where=f"data.partition={rule}",
            remedy="Take fewer workers or pools, a smaller batch, or more data.",
        )
    by_label = np.argsort(labels, kind="stable").astype(np.int64, copy=False)
    names, firsts = np.unique(labels[by_label], return_index=True)
    classes = np.split(by_label, firsts[1:])
    if rule == "dirichlet":
        return _dirichlet(partition, classes, stream)
    return _by_class(partition, classes, names, stream)


def in_order(pool_of: Indices, pools: int) -> tuple[Indices, tuple[int, ...]]:
    """The places of all samples, pool after pool, in their order within each; and the pools'
    sizes."""
    sizes = np.bincount(pool_of, minlength=pools)
    places = np.argsort(pool_of, kind="stable").astype(np.int64, copy=False)
    return places, tuple(int(size) for size in sizes)


def _dirichlet(
    partition: Partition, classes: list[Indices], stream: np.random.Generator
) -> Indices:
    """Drawn anew until every pool holds a batch, as Li et al. do."""
    a, pools = partition.settings.dirichlet, partition.pools
    for _ in range(TRIES):
        found = np.empty(sum(map(len, classes)), np.int64)
        for members in classes:
            shares = stream.dirichlet(np.full(pools, a))
            cuts = np.floor(np.cumsum(shares)[:-1] * len(members) + 0.5).astype(np.int64)
            shuffled = members[permutation(stream, len(members))]
            _deal(found, np.split(shuffled, cuts), range(pools))
        if np.bincount(found, minlength=pools).min() >= partition.least:
            return found
    raise SettingError(
        f"in {TRIES} draws there was always one of {pools} pools with less than a batch of "
        f"{partition.least} samples",
        where=f"data.dirichlet={a:g}",
        remedy="Raise data.dirichlet, or take fewer workers or pools, or a smaller batch.",
    )


def _by_class(
    partition: Partition,
    classes: list[Indices],
    names: npt.NDArray[np.generic],
    stream: np.random.Generator,
) -> Indices:
    """Each pool gets the classes that the fewest pools have so far, ties by chance."""
    each, pools = partition.settings.classes, partition.pools
    where = f"data.classes={each}"
    if each > len(classes):
        raise SettingError(
            f"the training samples have {len(classes)} classes",
            where=where,
            remedy=f"--set data.classes={len(classes)} at most, or data.partition=iid.",
        )
    if each * pools < len(classes):
        raise SettingError(
            f"{pools} pools of {each} hold {each * pools} of the {len(classes)} classes: the "
            "others' samples would be nobody's",
            where=where,
            remedy=f"--set data.classes={-(-len(classes) // pools)} or more, or more pools.",
        )
    holders: list[list[int]] = [[] for _ in classes]
    for pool in range(pools):
        chance = permutation(stream, len(classes))
        wanted = sorted(range(len(classes)), key=lambda k: (len(holders[k]), chance[k]))
        for index in wanted[:each]:
            holders[index].append(pool)
    found = np.empty(sum(map(len, classes)), np.int64)
    for name, members, held in zip(names, classes, holders, strict=True):
        if len(members) < len(held):
            raise SettingError(
                f"class {name} has {len(members)} training samples, and {len(held)} pools share it",
                where=where,
                remedy="Take fewer classes a pool, fewer pools, or more data.",
            )
        shuffled = members[permutation(stream, len(members))]
        _deal(found, np.array_split(shuffled, len(held)), held)
    sizes = np.bincount(found, minlength=pools)
    if sizes.min() < partition.least:
        raise SettingError(
            f"pool {int(sizes.argmin())} of {pools} would hold {int(sizes.min())} samples, less "
            f"than a batch of {partition.least}",
            where=where,
            remedy="Take more classes a pool, fewer pools, a smaller batch, or more data.",
        )
    return found


def _deal(found: Indices, parts: list[Indices], pools: range | list[int]) -> None:
    """These parts of a class, of which each has the places of its samples, go to these pools."""
    for part, pool in zip(parts, pools, strict=True):
        found[part] = pool
