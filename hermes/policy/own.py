"""How is the data that a worker brings cut into splits? In proportion, rounded down. Pure.

The master knows how many samples a worker has, never the samples: both cut by the same rule.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

FEWEST = 3
"""Samples that a worker brings at least: one for each of its splits."""


class Cut(NamedTuple):
    """Samples of each split of a worker's own data."""

    train: int
    probe: int
    validation: int


@functools.lru_cache(maxsize=1024)
def cut(samples: int, shares: tuple[float, ...]) -> Cut:
    """`samples`, FEWEST or more, cut by the shares of train, probe and validation."""
    found = in_proportion(samples, dict(zip(Cut._fields, shares, strict=True)))
    return Cut(**found)


def shares_of(train: float, probe: float, validation: float) -> tuple[float, float, float]:
    """Shares of what a worker brings: of a job's four, those that are not the test set's."""
    total = math.fsum((train, probe, validation))
    return train / total, probe / total, validation / total


def in_proportion(samples: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`samples`, at least as many as there are shares, in proportion to `shares`, each at least 1,
    adding up to all of them. Rounded down, what is left goes to the largest remainders."""
    total = math.fsum(shares.values())
    exact = {name: samples * share / total for name, share in shares.items()}
    sizes = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(shares, key=lambda name: sizes[name] - exact[name])
    for name in by_remainder[: samples - sum(sizes.values())]:
        sizes[name] += 1
    for name in shares:
        if sizes[name] == 0:
            sizes[max(sizes, key=lambda other: sizes[other])] -= 1
            sizes[name] = 1
    return sizes
