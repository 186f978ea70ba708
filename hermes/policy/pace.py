"""How long may something take that has its own pace? A deadline learned from what was seen. Pure.

The limit is the median of the last durations and `SPREADS` times their spread, between a floor and
a ceiling. Median and median absolute deviation, not mean and standard deviation: one outage among
thirty heartbeats must not teach anybody patience.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

KEPT = 32
"""Durations that a pace looks back on."""

FEWEST = 4
"""Durations without which there is no median worth the name."""

SPREADS = 6
"""How many spreads beyond the median are still nothing unusual."""

SIGMA = 1.4826
"""Standard deviation over median absolute deviation, for a normal distribution."""

STEADY = 8
"""The spread is at least this part of the median: what came every 20.0 s so far has not promised
to come at 20.0 s, and without this a deadline would be the very moment of the next sign."""

DIGITS = 3
"""Milliseconds: what is recorded is what the limit is computed from."""


class Pace(NamedTuple):
    """The last durations, in seconds, and what is made of them."""

    values: tuple[float, ...] = ()
    """The last `KEPT`, newest last."""
    median: float = 0.0
    spread: float = 0.0

    @property
    def known(self) -> bool:
        """Whether enough was seen."""
        return len(self.values) >= FEWEST

    def after(self, seconds: float) -> Pace:
        """The pace once one more was seen."""
        return _pace((*self.values, seconds)[-KEPT:])


def pace(values: Sequence[float]) -> Pace:
    """Median and spread of these durations, in seconds, to a millisecond.

    Of fewer than `FEWEST` the largest stands for the median and a sixth of it for the spread, so
    that the limit is twice the largest: too little is known to call any of them an exception.
    """
    if len(values) < FEWEST:
        largest = round(max(values, default=0.0), DIGITS)
        return Pace(tuple(values), largest, round(largest / SPREADS, DIGITS))
    middle = _median(values)
    spread = SIGMA * _median([abs(value - middle) for value in values])
    return Pace(tuple(values), round(middle, DIGITS), round(max(spread, middle / STEADY), DIGITS))


_pace = functools.lru_cache(1 << 10)(pace)
"""Heartbeats of a steady worker bring the same durations again and again."""


@functools.lru_cache(1 << 12)
def limit(median: float, spread: float, floor: float, ceiling: float) -> float:
    """Seconds after which it has taken too long; `floor <= limit <= ceiling`.

    Where nothing was seen (both are 0) that is the floor.
    """
    return min(max(round(median + SPREADS * spread, DIGITS), floor), ceiling)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
