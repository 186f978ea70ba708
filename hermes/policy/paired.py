"""Is a model worse than the one that it came from? A paired test on the same samples. Pure.

Samples are put together in blocks of equal size, and the unit of the test is a block: its mean
loss, as the job's own loss has it. Both models are asked the same blocks, so what makes one sample
harder than another falls out of the differences: d is their mean, se = s / sqrt(n) its standard
error over n blocks. *Worse* is d > k x se.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

FEWEST = 16
"""Blocks below which nothing is said: of few differences s is chance (and n = 1 has none)."""

BLOCKS = 64
"""Blocks at least, where there are twice as many samples: more would tell little more of se."""

SMALLEST = 2
"""Samples of a block: many a loss drops every dimension of length 1, and a single sample's has one
more."""

SHARE = 0.1
"""Samples that a test looks at, by samples trained since the last push: what bounds its cost on a
slow device, whose rounds are short."""

LEAST = 32
"""Samples that it looks at, however short the rounds."""


class Cut(NamedTuple):
    """What a test looks at."""

    n: int
    """Blocks."""
    size: int
    """Samples of each."""


class Paired(NamedTuple):
    """What a test found; the losses' own unit."""

    d: float
    """Mean of (loss after - loss before). Infinite where one side alone has a loss that is not
    finite, nan where both have."""
    se: float
    """Standard error of d; nan where d is not finite, or n < 2."""
    n: int
    """Blocks."""


def blocks_of(available: int, trained: int) -> Cut:
    """The blocks of a test, out of so many samples, after so many were trained."""
    wanted = min(available, max(LEAST, math.floor(SHARE * trained)))
    size = max(SMALLEST, wanted // BLOCKS)
    return Cut(wanted // size, size)


def paired(before: Sequence[float], after: Sequence[float]) -> Paired:
    """The test of two models' losses, a number for each block, in the same order.

    Exact sums: the same answer on every platform, and multiplying all losses by a power of two
    multiplies d and se by it.
    """
    n = len(before)
    if n == 0:
        return Paired(0.0, math.nan, 0)
    sound = [all(map(math.isfinite, losses)) for losses in (before, after)]
    if not all(sound):
        d = math.nan if not any(sound) else math.inf if sound[0] else -math.inf
        return Paired(d, math.nan, n)
    differences = [b - a for a, b in zip(before, after, strict=True)]
    if not all(map(math.isfinite, differences)):
        return Paired(math.copysign(math.inf, max(differences, key=abs)), math.nan, n)
    d = _mean(differences)
    if n == 1:
        return Paired(d, math.nan, n)
    largest = max(abs(one - d) for one in differences)
    if largest == 0:
        return Paired(d, 0.0, n)
    # Scaled by a power of two: no square overflows or underflows.
    exponent = math.frexp(largest)[1]
    squares = math.fsum(math.ldexp(one - d, -exponent) ** 2 for one in differences)
    return Paired(d, math.ldexp(math.sqrt(squares / (n - 1) / n), exponent), n)


def worse(found: Paired, errors: float) -> bool:
    """Whether the model after is worse than the one before by more than so many standard errors.

    Never with fewer than FEWEST blocks. With se = 0 any d above 0 is; so is a loss that is not
    finite where it was before.
    """
    if found.n < FEWEST or not found.d > 0:
        return False
    return found.d == math.inf or found.d > errors * found.se


def _mean(values: Sequence[float]) -> float:
    """Between the least and the largest of them, which rounding is not let past."""
    exponent = math.frexp(max(map(abs, values)))[1]
    mean = math.ldexp(
        math.fsum(math.ldexp(one, -exponent) for one in values) / len(values), exponent
    )
    return max(min(values), min(max(values), mean))
