"""What does a comparison come to? When each cell reached the target, and the ratios by seed. Pure.

What was never reached took infinitely long; so it does in medians, ratios and intervals.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from hermes.compare.outcome import Outcome, Point

IN_A_ROW = 3
"""Points of the grid that must hold the target, for the first of them to count."""

ENOUGH = 6
"""Seeds from which on an interval is told: min .. max of six pairs holds the median with a
probability of 1 - 2 / 2^6 = 96.9 %, whatever the distribution."""

TEST, VALIDATION = "test_accuracy", "validation_accuracy"
"""Of a point: what is reported, and what settings are chosen by."""

MEASURES = ("seconds", "bytes", "samples", "pushes")
"""What is measured up to the target."""


class Reached(NamedTuple):
    """What it took to the target; all infinite where it was never reached."""

    seconds: float
    """Virtual, since the run began."""
    bytes: float
    samples: float
    """Sample passes trained, merged or not."""
    pushes: float
    version: int | None = None
    calls: float = math.inf
    """Reports of rounds, updates pushed and versions fetched."""

    @property
    def ever(self) -> bool:
        """Whether it was reached."""
        return self.version is not None


NEVER = Reached(math.inf, math.inf, math.inf, math.inf)


def reached(outcome: Outcome, target: float, on: str = TEST) -> Reached:
    """The first of three points of the grid in a row at which the accuracy (on the test set, unless
    told otherwise) was the target or above. A point without a new version has the accuracy of the
    one before."""
    first = held(outcome.points, outcome.grid, outcome.seconds, target, on)
    if first is None:
        return NEVER
    calls = math.inf if first.calls is None else first.calls
    measured = (first.seconds, first.bytes, first.trained, first.pushes)
    return Reached(*measured, first.version, calls)


def held(
    points: Sequence[Point], grid: float, seconds: float, target: float, on: str = TEST
) -> Point | None:
    """The first of three points of the grid in a row, up to so many seconds, with that accuracy."""
    last = math.floor(seconds / grid + 1e-9)
    """Number of the last point of the grid before the end."""
    first: Point | None = None
    for index, point in enumerate(points):
        accuracy: float | None = getattr(point, on)
        if accuracy is None or accuracy < target:
            first = None
            continue
        first = first or point
        until = round(points[index + 1].seconds / grid) - 1 if index + 1 < len(points) else last
        if until - round(first.seconds / grid) + 1 >= IN_A_ROW:
            return first
    return None


def cut_short(outcome: Outcome, target: float, on: str = TEST) -> bool:
    """Whether it was there at its last points, and they are fewer than three: that is never."""
    if not outcome.points or reached(outcome, target, on).ever:
        return False
    last: float | None = getattr(outcome.points[-1], on)
    return last is not None and last >= target


def accuracy_at_end(outcome: Outcome) -> float | None:
    """On validation, at the last point of the grid."""
    return outcome.points[-1].validation_accuracy if outcome.points else None


def ratio(baseline: float, own: float) -> float | None:
    """How many times less it took than the baseline: 0 where it never got there, infinite where
    the baseline never did, None where neither did."""
    if math.isinf(baseline) and math.isinf(own):
        return None
    if math.isinf(own):
        return 0.0
    if own == 0:
        return 1.0 if baseline == 0 else math.inf
    return baseline / own


class Ratios(NamedTuple):
    """Of one measure, paired by seed."""

    by_seed: dict[int, float | None]
    interval: tuple[float, float] | None
    """Smallest and largest, where there are enough pairs to claim something."""


def ratios(
    baseline: Mapping[int, float], own: Mapping[int, float], seeds: Collection[int]
) -> Ratios:
    """Baseline / own, for the seeds that both have. `seeds`: all that there are to be; who fails on
    some of them has no interval, as those that fail are not just any."""
    found = {seed: ratio(baseline[seed], own[seed]) for seed in own if seed in baseline}
    known = [value for value in found.values() if value is not None]
    if len(known) < len(seeds) or len(known) < ENOUGH:
        return Ratios(found, None)
    return Ratios(found, (min(known), max(known)))


def coverage(pairs: int) -> float:
    """With which probability min .. max of so many pairs holds the median."""
    return 1 - 2.0 ** (1 - pairs)


class Row(NamedTuple):
    """One strategy on one file of devices, over its seeds."""

    devices: str
    strategy: str
    outcomes: dict[int, Outcome]
    """By seed; those that there are."""
    reached: dict[int, Reached]
    ratios: dict[str, Ratios]
    """By measure."""
    baseline: dict[int, Reached]
    """What it took the baseline, by seed."""
    cut_short: int
    """Seeds with which it came to the target at its last points, fewer than three."""
    on_front: bool = False
    """Whether no other strategy took less time with no more bytes, or fewer bytes in no more
    time (medians)."""

    def median(self, measure: str) -> float:
        """Of a measure to the target; infinite where half of the seeds or more never got there."""
        values = [getattr(one, measure) for one in self.reached.values()]
        return statistics.median(values) if values else math.inf

    @property
    def shares(self) -> dict[str, float] | None:
        """Of the workers' time: training, transfer, waiting; None where no round was finished."""
        kinds = ("training", "transfer", "waiting")
        sums = [sum(getattr(o.spent, kind) for o in self.outcomes.values()) for kind in kinds]
        whole = sum(sums)
        return {k: s / whole for k, s in zip(kinds, sums, strict=True)} if whole else None


def rows(
    outcomes: Sequence[Outcome],
    strategies: Sequence[str],
    worlds: Sequence[str],
    baseline: str,
    target: float,
    seeds: Collection[int],
) -> list[Row]:
    """One for each strategy and file of devices. `seeds`: all that there are to be."""
    found: list[Row] = []
    for devices in worlds:
        known = {
            name: {o.seed: o for o in outcomes if (o.strategy, o.devices) == (name, devices)}
            for name in strategies
        }
        got = {
            name: {seed: reached(one, target) for seed, one in sorted(by_seed.items())}
            for name, by_seed in known.items()
        }
        of_world = [
            Row(
                devices,
                name,
                known[name],
                got[name],
                _against(got[baseline], got[name], seeds),
                got[baseline],
                sum(cut_short(one, target) for one in known[name].values()),
            )
            for name in strategies
        ]
        found += [row._replace(on_front=_on_front(row, of_world)) for row in of_world]
    return found


def _against(
    base: Mapping[int, Reached], own: Mapping[int, Reached], seeds: Collection[int]
) -> dict[str, Ratios]:
    return {
        measure: ratios(
            {seed: getattr(one, measure) for seed, one in base.items()},
            {seed: getattr(one, measure) for seed, one in own.items()},
            seeds,
        )
        for measure in MEASURES
    }


def _on_front(row: Row, others: Sequence[Row]) -> bool:
    time, size = row.median("seconds"), row.median("bytes")
    if math.isinf(time):
        return False
    pairs = [(other.median("seconds"), other.median("bytes")) for other in others]
    return not any(t <= time and b <= size and (t, b) != (time, size) for t, b in pairs)


# --- as JSON ------------------------------------------------------------------------------------


def told(row: Row) -> dict[str, Any]:
    """A row as JSON has it: what is infinite is null."""
    finals = [o.test_accuracy for o in row.outcomes.values() if o.test_accuracy is not None]
    return {
        "devices": row.devices,
        "strategy": row.strategy,
        "reached": sum(one.ever for one in row.reached.values()),
        "seeds": len(row.reached),
        "cut_short": row.cut_short,
        "median": {measure: plain(row.median(measure)) for measure in MEASURES},
        "test_accuracy_at_end": round(statistics.median(finals), 6) if finals else None,
        "on_front": row.on_front,
        "shares": row.shares,
        "ratios": {measure: _ratios(row, measure) for measure in MEASURES},
    }


def _ratios(row: Row, measure: str) -> dict[str, Any]:
    known = row.ratios[measure]
    found: dict[str, Any] = {
        "by_seed": [
            {
                "seed": seed,
                "ratio": None if value is None else plain(value),
                "reached": row.reached[seed].ever,
                "baseline_reached": row.baseline[seed].ever,
            }
            for seed, value in known.by_seed.items()
        ],
        "interval": None,
    }
    if known.interval is not None:
        low, high = known.interval
        pairs = len(known.by_seed)
        found["interval"] = {"low": plain(low), "high": plain(high), "covers": coverage(pairs)}
    return found


def plain(value: float) -> float | None:
    """A number; None for an infinite one."""
    return round(value, 6) if math.isfinite(value) else None
