"""Which worker trains, where one alone does? The quickest of those that came. Pure.

All begin a round. The first that finishes it has all the work from then on, and nobody waits for
the rest; those have none. Whoever of them finishes its round later and was quicker at it (it began
later, say), by a margin, takes the place of the one that trains; so does one that was measured
before, where that one has become slow. Whoever comes later waits, and is not tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Runner(NamedTuple):
    """A worker alive."""

    worker: str
    speed: float | None
    """Samples a second; None before its first round."""
    works: bool
    """Whether it has work; else it waits."""


QUICKER = 1.25
"""How many times as fast as the one that trains another must be to take its place: more than
jitter makes of equals."""


def quickest(runners: Sequence[Runner]) -> Runner | None:
    """The one that trains; None while all are on trial, or nobody is there. Of equals the first by
    name."""
    working = [runner for runner in runners if runner.works]
    if len(working) == len(runners) and all(runner.speed is None for runner in working):
        return None
    one, other = min(working or runners, key=_rank), min(runners, key=_rank)
    if one.speed is not None and other.speed is not None and other.speed > QUICKER * one.speed:
        return other
    return one


def _rank(runner: Runner) -> tuple[float, str]:
    return (-(runner.speed or 0.0), runner.worker)
