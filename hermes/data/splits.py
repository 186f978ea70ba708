"""Which sample goes into which split? Pure.

The samples are shuffled once and cut into train, probe, validation and test, by shares.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hermes.chance import permutation
from hermes.errors import JobError
from hermes.policy.own import in_proportion

Indices = npt.NDArray[np.int64]

SPLITS = ("train", "probe", "validation", "test")


def split_sizes(samples: int, shares: Mapping[str, float]) -> dict[str, int]:
    """`samples` in proportion to `shares`, each at least 1, adding up to all of them.

    Rounded down, what is left goes to the largest remainders. Raises `JobError` where there are
    fewer samples than shares.
    """
    if samples < len(shares):
        raise JobError(
            f"{samples} sample{'s' * (samples != 1)} cannot be split into {', '.join(shares)}",
            remedy=f"Give at least {len(shares)} samples, one for each split; more, to learn "
            "something.",
        )
    return in_proportion(samples, shares)


def split_indices(stream: np.random.Generator, sizes: Mapping[str, int]) -> dict[str, Indices]:
    """Which samples each split holds, in its order: disjoint, covering, shuffled."""
    shuffled = permutation(stream, sum(sizes.values()))
    starts = np.cumsum(list(sizes.values()))[:-1]
    return dict(zip(sizes, np.split(shuffled, starts), strict=True))
