"""What is told of a version's scores, so that several workers' can be put together? Sums."""

from __future__ import annotations

import math
from typing import NamedTuple

from hermes.train.protocol import Scores


class Sums(NamedTuple):
    """Scores before they are divided."""

    loss: float | None
    """Of all samples; None where it is not finite."""
    correct: float | None
    """The metric, summed; None where there is none, or it is not finite."""
    n: int
    """Samples."""


NO_SUMS = Sums(None, None, 0)
"""Of a version that could not be read."""


def sums_of(scores: Scores, *, counted: bool = False) -> Sums:
    """These scores, as they are told; `counted`: the metric says how many are right, a whole
    number."""
    correct = finite(scores.metric_sum)
    if correct is not None and counted:
        correct = float(round(correct))
    return Sums(finite(scores.loss_sum), correct, scores.samples)


def finite(value: float | None) -> float | None:
    """The value, or None where it is not finite: JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None
