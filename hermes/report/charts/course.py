"""Which charts does a run give? Curves, timeline, shards and speeds, from its story. Pure."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import NamedTuple

from hermes.report import words
from hermes.report.charts.chart import (
    Chart,
    Head,
    Lane,
    Lanes,
    Lines,
    Mark,
    Series,
    Spot,
    Table,
    table,
)
from hermes.report.charts.scales import Axis, axis, in_order, rate
from hermes.report.scores import ACCURACY, metric_of
from hermes.report.story import Happening, Point, Story
from hermes.report.thin import Stretch, merged
from hermes.values import SECOND

SPEEDS = 120
"""Parts of the run over which a worker's speed is averaged."""

XS = ("time", "samples", "bytes")
"""What a curve can be drawn over."""

LABELS = {
    "time": "time since training started",
    "samples": "samples merged into the model",
    "bytes": "bytes of updates and versions stored",
}


class Run(NamedTuple):
    """A story, and the workers' looks."""

    story: Story
    workers: tuple[str, ...]
    """In order; a worker's place is its look."""

    @property
    def seconds(self) -> float:
        """Of training, so far."""
        return self.story.seconds(self.story.last)

    @property
    def time(self) -> Axis:
        """The axis of time of everything that is not a curve of the model."""
        return axis(LABELS["time"], "time", [self.seconds or 1.0], zero=True)


def run_of(story: Story) -> Run:
    """The run that a story tells."""
    return Run(story, tuple(in_order(list({**story.shards, **story.rounds}))))


def curves(run: Run, x: str) -> list[Lines]:
    """Accuracy and loss over `x`; nothing where nothing was evaluated."""
    made = (_curve(run, name, x) for name in ("accuracy", "loss"))
    return [chart for chart in made if chart is not None]


def courses(run: Run) -> list[Chart]:
    """Timeline, shards and speeds; without workers there are none."""
    return [timeline(run), shards(run), speeds(run)] if run.workers else []


# --- the model ----------------------------------------------------------------------------------


def _curve(run: Run, name: str, x: str) -> Lines | None:
    story = run.story
    known = [(p, v) for p in story.points if (v := getattr(p, name)) is not None and isfinite(v)]
    if not known:
        return None
    called = name if name == "loss" else metric_of(story.data)
    xs = [_over(story, point, x) for point, _ in known]
    ys = [float(value) for _, value in known]
    at = _best(called, known)
    best = ys[at]
    spots = [Spot(xs[at], best, f"best {words.score(best)}", "best")]
    final = getattr(story.scored, f"test_{name}") if story.scored else None
    if final is not None and isfinite(final):
        spots.append(Spot(xs[-1], final, f"test {words.score(final)}", "test"))
    values = ys + [spot.y for spot in spots]
    head = Head(
        f"{name}-{x}",
        f"{called.capitalize()} on validation",
        _curve_says(run, called, known, at),
        _curve_table(run, called, known, story.points.stride),
        "The ring marks the best version"
        + (", the diamond the last version on the test set." if len(spots) > 1 else "."),
    )
    series = Series("validation", tuple(xs), tuple(ys), 0 if name == "loss" else 2)
    vertical = axis(f"{called} on validation", "score", values, may_be_log=name == "loss")
    return Lines(head, axis(LABELS[x], x, xs, zero=True), vertical, (series,), tuple(spots))


def _best(called: str, known: list[tuple[Point, float]]) -> int:
    """Which point is. Of a metric of the job's own it is not known which way is up: there it is
    the one with the least loss."""
    if called == ACCURACY:
        return max(range(len(known)), key=lambda at: known[at][1])
    return min(range(len(known)), key=lambda at: _loss(known[at][0]))


def _loss(point: Point) -> float:
    return math.inf if point.loss is None else point.loss


def _over(story: Story, point: Point, x: str) -> float:
    if x == "time":
        return story.seconds(point.at)
    return float(point.samples if x == "samples" else point.moved)


def _curve_says(run: Run, name: str, known: list[tuple[Point, float]], at: int) -> str:
    point, best = known[at]
    last = known[-1][1]
    text = f"Best {words.score(best)} with version {point.version}, "
    text += f"after {words.duration(run.story.seconds(point.at))} and "
    text += f"{words.count(point.samples)} samples; last {words.score(last)}."
    if name == "accuracy" and len(known) > 2:
        goal = next((g for g in (0.99, 0.98, 0.95, 0.9, 0.8, 0.5) if g <= best), None)
        if goal is not None:
            first = next(p for p, value in known if value >= goal)
            text += f" {goal:g} was reached after {words.duration(run.story.seconds(first.at))}."
    return text


def _curve_table(run: Run, name: str, known: list[tuple[Point, float]], stride: int) -> Table:
    rows = [
        (
            str(point.version),
            words.duration(run.story.seconds(point.at)),
            words.count(point.samples),
            words.size(point.moved),
            words.score(value),
        )
        for point, value in known
    ]
    note = f"One evaluation of {stride} is kept." if stride > 1 else ""
    return table(("version", "time", "samples", "bytes", name), rows, note=note)


# --- the workers --------------------------------------------------------------------------------

LANES = (
    *("worker", "rounds", "pushes", "quiet", "vetoed", "rejected"),
    *("training", "transfer", "waiting", "training share"),
)


def timeline(run: Run) -> Lanes:
    """One lane a worker."""
    totals = {name: total(run.story.rounds.get(name, ())) for name in run.workers}
    rows = [
        (
            name,
            *(words.count(n) for n in (t.rounds, t.pushes, t.quiet, t.vetoed)),
            words.count(_times(run.story, name, "rejected")),
            *(words.duration(n / SECOND) for n in (t.busy, t.moved, t.waited)),
            _share(t.busy, t.busy + t.moved + t.waited),
        )
        for name, t in totals.items()
    ]
    head = Head(
        "timeline",
        "Timeline of the workers",
        _timeline_says(totals),
        table(LANES, rows),
        "Rounds narrower than the picture can show are drawn together: the height of each colour "
        "is then its share of the time. A round is placed where the master heard of it; of marks "
        "that would lie on each other the rarest kind is drawn.",
    )
    lanes = tuple(_lane(run, name) for name in run.workers)
    return Lanes(head, run.time, run.story.started or 0, lanes)


def total(stretches: Iterable[Stretch]) -> Stretch:
    """All of a worker's rounds as one."""
    known = list(stretches)
    if not known:
        return Stretch(0, 0, 0, 0, 0, rounds=0)
    return merged(known, known[-1].end - known[0].start)[0]


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _times(story: Story, worker: str, kind: str) -> int:
    """How often the reasons say so: exact, whatever was thinned."""
    known = story.decisions.get(worker, Counter())
    return sum(count for what, count in known.items() if what.startswith(f"{kind}: "))


def _timeline_says(totals: Mapping[str, Stretch]) -> str:
    all_of = [t for t in totals.values() if t.rounds]
    if not all_of:
        return "No round is finished yet."
    busy, moved, waited = (sum(t[i] for t in all_of) for i in (2, 3, 4))
    spent = busy + moved + waited
    rounds, pushes = sum(t.rounds for t in all_of), sum(t.pushes for t in all_of)
    return (
        f"All together trained {_share(busy, spent)} of their time, waited {_share(waited, spent)} "
        f"and spent {_share(moved, spent)} in transfers; of {words.count(rounds)} rounds "
        f"{words.count(pushes)} were pushed."
    )


def _lane(run: Run, name: str) -> Lane:
    story = run.story
    happened = list(story.happened.get(name, ()))
    marks = [
        Mark(story.seconds(one.at), one.kind, one.reason)
        for one in happened
        if one.kind in ("rejected", "lost", "back") or (one.kind == "left" and one.at < story.last)
    ]
    stretches = story.rounds.get(name, ())
    return Lane(name, tuple(stretches), tuple(marks), _away(story, happened))


def _away(story: Story, happened: list[Happening]) -> tuple[tuple[float, float], ...]:
    """From when to when it was lost, or had left."""
    found, since = [], None
    for one in happened:
        if one.kind in ("lost", "left") and since is None:
            since = one.at
        elif one.kind in ("back", "admitted") and since is not None:
            found.append((story.seconds(since), story.seconds(one.at)))
            since = None
    if since is not None and since < story.last:
        found.append((story.seconds(since), story.seconds(story.last)))
    return tuple(found)


def shards(run: Run) -> Lines:
    """Samples of each worker's shard over time."""
    story, end = run.story, run.seconds
    series = []
    rows = []
    for look, name in enumerate(run.workers):
        known: list[tuple[int, int]] = [*story.shards.get(name, ())]
        xs = [story.seconds(at) for at, _ in known]
        ys = [float(size) for _, size in known]
        if ys:
            series.append(_of_worker(name, (*xs, max(end, xs[-1])), (*ys, ys[-1]), look, step=True))
        rows += [
            (name, words.duration(x), words.count(round(y))) for x, y in zip(xs, ys, strict=True)
        ]
    sizes = [y for one in series for y in one.ys]
    says = "Nobody was re-sized."
    if story.resizes:
        most = max(story.resizes, key=lambda one: _ratio(one.before, one.after))
        says = f"{words.count(story.resizes.seen)} re-sizings; the largest: "
        says += f"{most.worker}, {words.count(most.before)} to {words.count(most.after)} samples "
        says += f"after {words.duration(story.seconds(most.at))}."
    head = Head(
        "shards",
        "Shard of each worker",
        says,
        table(("worker", "time", "samples"), rows),
        "Lines that would lie on each other are drawn beside each other.",
    )
    vertical = axis("samples in the shard", "samples", sizes, zero=True, may_be_log=True)
    return Lines(head, run.time, _with_room(vertical), tuple(series))


def _ratio(one: float, other: float) -> float:
    return abs(math.log(max(one, 1) / max(other, 1)))


def _with_room(known: Axis) -> Axis:
    return known if known.log else known._replace(high=known.high * 1.06)


def _of_worker(
    name: str, xs: tuple[float, ...], ys: tuple[float, ...], look: int, *, step: bool = False
) -> Series:
    return Series(name, xs, ys, look, step=step, worker=True)


def speeds(run: Run) -> Lines:
    """Samples a second of each worker while it trains, averaged over parts of the run."""
    story = run.story
    width = int(run.seconds * SECOND / SPEEDS)
    series, rows = [], []
    means: dict[str, float] = {}
    for look, name in enumerate(run.workers):
        known = [s for s in merged(story.rounds.get(name, ()), width) if s.busy and s.samples]
        if not known:
            continue
        xs = tuple(story.seconds(s.end) for s in known)
        ys = tuple(s.samples / s.busy * SECOND for s in known)
        series.append(_of_worker(name, xs, ys, look))
        rows += [
            (name, words.duration(x), rate(y), words.count(s.rounds))
            for x, y, s in zip(xs, ys, known, strict=True)
        ]
        whole = total(known)
        means[name] = whole.samples / whole.busy * SECOND
    says = "No round is finished yet."
    if means:
        fast, slow = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        says = f"Fastest {fast} with {rate(means[fast])} on average"
        says += f", slowest {slow} with {rate(means[slow])}" if fast != slow else ""
        says += f": {means[fast] / means[slow]:.1f} times slower." if fast != slow else "."
    head = Head(
        "speeds",
        "Speed of each worker while it trains",
        says,
        table(("worker", "until", "speed", "rounds"), rows),
        "Sample passes trained by seconds of training and probing; waiting does not count.",
    )
    values = [y for one in series for y in one.ys]
    vertical = axis("samples a second", "rate", values, zero=True, may_be_log=True)
    return Lines(head, run.time, _with_room(vertical), tuple(series))


def running_sum(parts: Iterable[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Times, and sums up to them, of (time, amount) in any order."""
    ordered = sorted(parts)
    return [at for at, _ in ordered], list(itertools.accumulate(part for _, part in ordered))
