"""How much work does each worker get? Sizes of shards from measured round times. Pure.

A rule is asked about one worker, `me`, among the `others` alive, and answers with a new size and
batch (`Sizing`) or with the reason why nothing changes (`Keep`). Every answer is absolute, computed
from what was measured and never from the last answer: asked twice, a rule says the same.

- `fixed`: nothing ever changes.
- `iqr` (arXiv 2410.20495): an outlier among the round times is sized to meet the others' median.
- `speed`: everyone's size is proportional to its samples a second, so that all rounds last alike.
- `quota`: no size changes; how many steps a worker takes goes with each version (`zipline`).
- `fastest`: one has all the work, the others none; who it is may change (`fastest`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from hermes.policy.ranges import Allowed, check_section, number, one_of, whole
from hermes.values import SECOND, Facts, Reason, Value

HISTORY = 8
"""Rounds of a worker that count."""

BATCHES = (32, 16, 8, 4, 2, 1)
"""Batches to fall back on, where a shard is smaller than the job's."""


class SizeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set size.X` sets."""

    rule: str = "iqr"
    """`fixed`, `iqr` (outliers to the others' median), `speed` (everyone, by samples a second),
    `quota` (each version says how many steps) or `fastest` (the quickest has all, others none)."""
    first: int = 2500
    """Samples in a worker's first shard, at most: train / expected workers bounds it, too. At
    least 1. Source: the paper's code."""
    mean: int | None = None
    """`speed`: samples of a shard on average, once speeds are known: fast ones have more, slow ones
    less. At least 1; off: that of the first shards. All together are one pass over the train set at
    most."""
    slowest: float | None = None
    """`speed`: a worker slower than this share of the quickest one's speed has no work, and stands
    by; above 0, below 1; off: all have some."""
    fence: float = 1.5
    """`iqr`: interquartile ranges beyond Q1 and Q3 from which a round time is an outlier; finite,
    at least 0. Source: the paper's code (Tukey's fences)."""
    near: float = 0.1
    """`iqr`: a round time within this share of the median is never re-sized; 0 <= near < 1. Keeps
    trivial jitter in equal clusters from counting as outliers."""
    deadband: float = 0.05
    """`speed`: a change of size within this share is not made; 0 <= deadband < 1. Source: Tyagi &
    Sharma, ACSOS 2020."""
    lookahead: int = 15
    """`quota`: the most rounds' work that a worker does between two barriers; at least 1, which is
    bsp. ZipLine's R (arXiv 2001.01347 takes 15 to 240, and finds no gain beyond 30)."""


class Timing(Value, frozen=True):
    """One finished round."""

    steps: int
    """Mini-batches."""
    busy: int
    """Nanoseconds of work, waiting not counted."""


class WorkerTimes(Value, frozen=True):
    """What is known of a worker's pace."""

    name: str
    timings: tuple[Timing, ...]
    """Newest last; only the last HISTORY count. Measured with `batch`: where the batch changes,
    they start anew."""
    size: int
    """Samples of its shard."""
    batch: int
    """Samples of a mini-batch."""
    pool: int | None = None
    """Samples that it can be granted at most, where it has a pool of its own; None: `largest`."""


class Work(NamedTuple):
    """What the job fixes."""

    batch: int
    """The job's own."""
    epochs: int
    """Passes over the shard in a round."""
    largest: int
    """Samples that a shard can have: the train set's."""
    total: int
    """`speed`: samples shared out (`total`)."""

    def most(self, worker: WorkerTimes) -> int:
        """Samples that this worker's shard can have."""
        return self.largest if worker.pool is None else min(self.largest, worker.pool)


class Sizing(NamedTuple):
    """From the next grant on."""

    size: int
    batch: int
    reason: Reason


class Keep(NamedTuple):
    """Nothing changes."""

    reason: Reason


Answer: TypeAlias = Sizing | Keep
Rule: TypeAlias = Callable[[SizeSettings, WorkerTimes, Sequence[WorkerTimes], Work], Answer]


def resize(
    settings: SizeSettings, me: WorkerTimes, others: Sequence[WorkerTimes], work: Work
) -> Answer:
    """The answer of the rule in force, after a round of `me`."""
    return SIZES[settings.rule](settings, me, others, work)


def first_size(settings: SizeSettings, train: int, expected: int) -> int:
    """Samples of a worker's first shard."""
    return max(1, min(settings.first, train // max(1, expected)))


def total(settings: SizeSettings, firsts: Sequence[int], most: Sequence[int], train: int) -> int:
    """Samples that rule `speed` shares out among the workers alive, by what their first shards had
    and what their shards can have at most, in the same order."""
    if settings.mean is None:
        return sum(firsts)
    return min(train, sum(min(settings.mean, bound) for bound in most))


def fitting_batch(size: int, batch: int) -> int:
    """The job's batch, or the largest of BATCHES below it that a shard of `size` fills."""
    if size >= batch:
        return batch
    return next((smaller for smaller in BATCHES if smaller <= size), 1)


# --- fixed --------------------------------------------------------------------------------------


def fixed(
    _settings: SizeSettings, me: WorkerTimes, _others: Sequence[WorkerTimes], _work: Work
) -> Answer:
    """Nothing ever changes."""
    return Keep(Reason("fixed", {"size": me.size, "batch": me.batch}))


# --- iqr ----------------------------------------------------------------------------------------


class Quartiles(NamedTuple):
    """Of round times, in seconds."""

    q1: float
    median: float
    q3: float

    def facts(self, time: float) -> Facts:
        spread = self.q3 - self.q1
        return {"time": time, "q1": self.q1, "q3": self.q3, "iqr": spread, "median": self.median}


def iqr(
    settings: SizeSettings, me: WorkerTimes, others: Sequence[WorkerTimes], work: Work
) -> Answer:
    """An outlier among the latest round times is sized so that a + b * steps meets their median.

    Kept, in this order: "no-timing", "too-few" (under three others have finished a round),
    "near-median", "inside" the fences, "nothing-fits" (not one batch a pass), "same-size".
    """
    mine, latest = _usable(me), [timing.busy for timing in map(_last, others) if timing]
    if not mine:
        return Keep(Reason("no-timing"))
    time = mine[-1].busy / SECOND
    if len(latest) < 3:
        return Keep(Reason("too-few", {"time": time, "others": len(latest)}))
    quartiles = quartiles_of(latest)
    facts = quartiles.facts(time)
    q1, median, q3 = quartiles
    if abs(time - median) <= settings.near * median:
        return Keep(Reason("near-median", facts))
    reach = settings.fence * (q3 - q1)
    if q1 - reach <= time <= q3 + reach:
        return Keep(Reason("inside", facts))
    return _meet(median, me, mine, work, facts)


def quartiles_of(times: Sequence[int]) -> Quartiles:
    """Q1, median and Q3 of nanoseconds, in seconds; Hyndman and Fan's method 7. Bit for bit as
    NumPy's `linear`, which takes some twenty times as long for a dozen numbers."""
    ordered = sorted(map(float, times))
    return Quartiles(*(_at(ordered, part) / SECOND for part in (0.25, 0.5, 0.75)))


def _at(ordered: Sequence[float], part: float) -> float:
    """The value that this part of the way through them lies at."""
    place = (len(ordered) - 1) * part
    index = math.floor(place)
    low, high, over = ordered[index], ordered[min(index + 1, len(ordered) - 1)], place - index
    apart = high - low
    return high - apart * (1 - over) if over >= 0.5 else low + apart * over


def fit(timings: Sequence[Timing], target: float) -> tuple[float, float]:
    """Seconds (a, b) of the line a + b * steps that lies best by least squares.

    Where the best line makes no sense for the target (a below 0, b not above 0, a not below the
    target) or only one step count was seen, the best line through the origin: a = 0.
    """
    steps = [float(timing.steps) for timing in timings]
    times = [timing.busy / SECOND for timing in timings]
    if len(set(steps)) > 1:
        middle, centre = math.fsum(steps) / len(steps), math.fsum(times) / len(times)
        apart = [step - middle for step in steps]
        slope = math.fsum(
            x * (time - centre) for x, time in zip(apart, times, strict=True)
        ) / math.fsum(x * x for x in apart)
        offset = centre - slope * middle
        if slope > 0 and 0 <= offset < target:
            return offset, slope
    squares = math.fsum(step * step for step in steps)
    return 0.0, math.fsum(s * t for s, t in zip(steps, times, strict=True)) / squares


def _meet(
    median: float, me: WorkerTimes, timings: Sequence[Timing], work: Work, facts: Facts
) -> Answer:
    """Size `me` so that its round lasts `median` seconds."""
    a, b = fit(timings, median)
    steps = round((median - a) / b, 6)  # so that 49.9999999 steps are the 50 they stand for
    facts |= {"a": a, "b": b, "steps": steps}
    if steps < work.epochs:
        return Keep(Reason("nothing-fits", facts))
    # The steps were measured with this worker's batch, so that batch turns them into samples.
    wanted, most = math.floor(steps * me.batch / work.epochs), work.most(me)
    size = _clip(wanted, 1, most)
    if me.pool is not None and wanted > most:
        facts |= {"wanted": wanted, "pool": most}
    return _answer("outlier", size, me, work, facts)


# --- speed --------------------------------------------------------------------------------------


def speed(
    settings: SizeSettings, me: WorkerTimes, others: Sequence[WorkerTimes], work: Work
) -> Answer:
    """This worker's share of the total, in proportion to its samples a second.

    Kept: "no-timing", "dead-band" (the change is too small to matter), "same-size".
    """
    mine = samples_per_second(me)
    if mine is None:
        return Keep(Reason("no-timing"))
    size = shares([me, *others], work)[0]
    facts: Facts = {"speed": mine, "total": work.total, "before": me.size, "share": size}
    if me.pool is not None and size == work.most(me):
        facts |= {"pool": size}
    if abs(size - me.size) <= settings.deadband * me.size:
        return Keep(Reason("dead-band", facts))
    return _answer("by-speed", size, me, work, facts)


def samples_per_second(worker: WorkerTimes) -> float | None:
    """The median over the last rounds; None before the first."""
    rates = sorted(timing.steps / timing.busy for timing in _usable(worker))
    if not rates:
        return None
    middle = len(rates) // 2
    rate = rates[middle] if len(rates) % 2 else (rates[middle - 1] + rates[middle]) / 2
    return rate * worker.batch * SECOND


def shares(workers: Sequence[WorkerTimes], work: Work) -> list[int]:
    """Sizes for all, each at least one batch, whose sum is the total (each rounded down).

    A worker that was not measured yet keeps its size; an equal part of the total is kept for it, so
    that the first one measured is not given what all are to have.
    """
    speeds = [samples_per_second(worker) for worker in workers]
    known = [value for value in speeds if value is not None]
    left = max(work.total * len(known) // len(workers), len(known))
    least = max(1, min(work.batch, work.largest, left // max(1, len(known))))
    measured = [w for w, value in zip(workers, speeds, strict=True) if value is not None]
    found = iter(_divide(known, left, least, [work.most(worker) for worker in measured]))
    return [
        worker.size if value is None else next(found)
        for worker, value in zip(workers, speeds, strict=True)
    ]


def _divide(speeds: Sequence[float], total: int, least: int, most: Sequence[int]) -> list[int]:
    """`total` in proportion to `speeds`, each part from `least` to its own `most`, rounded down.

    Parts out of bounds are settled at the bound and the rest is divided again. A pass settles
    only the side that is off by more, since settling it moves the others towards the other side.
    """
    settled: dict[int, int] = {}
    while True:
        free = [index for index in range(len(speeds)) if index not in settled]
        left, pace = total - sum(settled.values()), math.fsum(speeds[index] for index in free)
        # The small term: a share that is a whole number must not lose one to rounding.
        part = {index: left * speeds[index] / pace + 1e-6 for index in free}
        low = {index: least - value for index, value in part.items() if value < least}
        high = {i: value - most[i] for i, value in part.items() if value >= most[i] + 1}
        if not low and not high:
            return [settled.get(i, math.floor(part.get(i, 0))) for i in range(len(speeds))]
        if math.fsum(low.values()) >= math.fsum(high.values()):
            settled |= dict.fromkeys(low, least)
        else:
            settled |= {index: most[index] for index in high}


# --- shared -------------------------------------------------------------------------------------

SIZES: dict[str, Rule] = {
    "fixed": fixed,
    "iqr": iqr,
    "speed": speed,
    "quota": fixed,
    "fastest": fixed,
}


def compares(settings: SizeSettings) -> bool:
    """Whether a worker's size depends on the pace of others."""
    return settings.rule in ("iqr", "speed")


def shares_out(settings: SizeSettings) -> bool:
    """Whether all that there is to train on is divided among those alive."""
    return settings.rule == "speed"


def sets_quotas(settings: SizeSettings) -> bool:
    """Whether each version says how much everybody trains on it."""
    return settings.rule == "quota"


def one_alone(settings: SizeSettings) -> bool:
    """Whether the quickest worker trains, and nobody else."""
    return settings.rule == "fastest"


RANGES: dict[str, Allowed] = {
    "rule": one_of(*SIZES),
    "first": whole(1),
    "mean": whole(1, off=True),
    "slowest": number(above=0, below=1, off=True),
    "fence": number(least=0),
    "near": number(least=0, below=1),
    "deadband": number(least=0, below=1),
    "lookahead": whole(1, 1000),
}
"""What each of `SizeSettings` may be."""


def check_size(settings: SizeSettings) -> list[str]:
    """Warnings (none yet); raises `SettingError` for a value out of range."""
    check_section("size", settings, RANGES)
    return []


def _usable(worker: WorkerTimes) -> tuple[Timing, ...]:
    """The last rounds that say something about pace: some work, some time."""
    return tuple([t for t in worker.timings[-HISTORY:] if t.steps > 0 and t.busy > 0])


def _last(worker: WorkerTimes) -> Timing | None:
    """The last of them."""
    return next(
        (t for t in worker.timings[: -HISTORY - 1 : -1] if t.steps > 0 and t.busy > 0), None
    )


def _answer(code: str, size: int, me: WorkerTimes, work: Work, facts: Facts) -> Answer:
    batch = fitting_batch(size, work.batch)
    facts |= {"size": size, "batch": batch}
    if (size, batch) == (me.size, me.batch):
        return Keep(Reason("same-size", facts))
    return Sizing(size, batch, Reason(code, facts))


def _clip(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
