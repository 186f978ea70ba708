"""How does a person see a comparison? One page that opens offline, made as a run's report is.

Pure: values in, HTML out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from hermes.compare.outcome import Outcome, Point
from hermes.compare.score import ENOUGH, IN_A_ROW, MEASURES, Row, coverage
from hermes.report import words
from hermes.report.charts.chart import Bar, Bars, Chart, Head, Lines, Series, Table
from hermes.report.charts.looks import HUES
from hermes.report.charts.scales import axis
from hermes.report.page.page import document, figure, none, said_html, table_of

KINDS = ("training", "transfer", "waiting")


class Told(NamedTuple):
    """What a page tells of."""

    name: str
    job: str
    target: float
    baseline: str
    limit: str
    """What ends each cell, the target apart."""
    grid: float
    seeds: tuple[int, ...]
    rows: list[Row]
    failed: list[tuple[str, str]]
    """(cell, error)."""
    cells: int
    """That were to be run."""
    written: str
    """Wall time, ISO 8601, UTC."""
    tuned: str = ""
    """How the settings were chosen; empty where the file does not say."""
    first: str = ""
    """What stands before all else, as HTML."""
    floors: tuple[str, ...] = ()
    """Strategies without a cluster: one device alone, or the master's place."""
    codes: int = 1
    """States of Hermes's source that ran the cells."""
    stops: bool = False
    """Whether the target ends a cell, too."""


def page(told: Told) -> str:
    """The whole page."""
    worlds = list(dict.fromkeys(row.devices for row in told.rows))
    parts, shown = [], list[Chart]()
    for devices in worlds:
        here = [row for row in told.rows if row.devices == devices]
        html, charts = _world(told, devices, here)
        parts.append(html)
        shown += charts
    body = [
        _header(told, worlds),
        "<main>",
        told.first,
        *parts,
        _failed(told),
        _method(told),
        "</main>",
        f"<footer><p>Written by hermes compare, {escape(told.written)}.</p></footer>",
    ]
    attributes = f'data-run="compare-{escape(told.name)}" data-written="{escape(told.written)}"'
    return document(f"{told.name}: comparison", "".join(body), shown, attributes)


def _header(told: Told, worlds: Sequence[str]) -> str:
    links = "".join(f'<a href="#on-{escape(name)}">{escape(name)}</a>' for name in worlds)
    done = sum(len(row.outcomes) for row in told.rows)
    return (
        '<header><div class="top"><p class="kind">Hermes: a comparison of simulated runs</p>'
        '<button class="script" id="theme" type="button" title="Light or dark">Dark</button></div>'
        f"<h1>{escape(told.name)}</h1>"
        f'<p class="answer">{said_html(_headline(told))}</p>'
        f'<p class="kind">{escape(told.job)} to {told.target:g} on test; {done} of {told.cells} '
        f"cells; each to {escape(told.limit)}{' or until it holds the target' * told.stops}</p>"
        f'<p class="note">{escape(claim(told))}</p>'
        f'<nav aria-label="Parts">{links}<a href="#method">Method</a></nav></header>'
    )


def claim(told: Told) -> str:
    """What so many seeds, and the cells that are there, allow to be said."""
    seeds = len(told.seeds)
    if seeds >= ENOUGH:
        without = [_name(told, r) for r in told.rows if r.ratios["seconds"].interval is None]
        names = words.listed(without, 99)
        return (
            f"{seeds} seeds: smallest and largest ratio hold the median ratio with "
            f"{100 * coverage(seeds):.1f} % confidence, whatever the distribution."
            + f" Points only, as a pair is missing, or neither got there: {names}."
            * bool(names)
        )
    return (
        f"{words.counted(seeds, 'seed')}: points only. No claim of significance is made; "
        f"{ENOUGH} seeds would allow an interval."
    )


def short_of(name: str, count: int, what: str) -> str:
    """That so many of its cells ended before the target was held."""
    return (
        f"{name}: {words.counted(count, what)} came to the target at the last points, and ended "
        "before three held it: that counts as never. A smaller grid or a higher limit would tell."
    )


def cut_short(told: Told) -> list[str]:
    """Of whom it is to be said."""
    return [
        short_of(_name(told, row), short, "seed") for row in told.rows if (short := row.cut_short)
    ]


def _name(told: Told, row: Row) -> str:
    """With its devices, where there are several."""
    several = len({one.devices for one in told.rows}) > 1
    return f"{row.strategy} on {row.devices}" if several else row.strategy


def _headline(told: Told) -> str:
    """Whose median was least, on each file of devices."""
    found = []
    for devices in dict.fromkeys(row.devices for row in told.rows):
        here = [row for row in told.rows if row.devices == devices]
        least = min(row.median("seconds") for row in here)
        if math.isinf(least):
            there = any(row.outcomes for row in here)
            said = f"in the median nobody reached {told.target:g}" if there else "no cell is done"
            found.append(f"{devices}: {said}.")
            continue
        first = [row.strategy for row in here if row.median("seconds") == least]
        said = f"{devices}: least median time to {told.target:g}: {words.listed(first)}, "
        said += f"{words.duration(least)} of virtual time."
        found.append(said + _but_for_floors(told, here, first))
    return " ".join(found)


def _but_for_floors(told: Told, here: list[Row], first: Sequence[str]) -> str:
    """Who is first of those that use the cluster, where a floor is first of all."""
    floors = [name for name in first if name in told.floors]
    rest = [row for row in here if row.strategy not in told.floors]
    if not floors or not rest:
        return ""
    least = min(row.median("seconds") for row in rest)
    who = words.listed([row.strategy for row in rest if row.median("seconds") == least])
    found = "nobody reached it" if math.isinf(least) else f"{who}, {words.duration(least)}"
    return f" A floor, which uses no cluster: {words.listed(floors)}; with one: {found}."


# --- one file of devices ------------------------------------------------------------------------


def _world(told: Told, devices: str, here: list[Row]) -> tuple[str, list[Chart]]:
    """Its section, and the numbers at the pointer."""
    looks = {row.strategy: look for look, row in enumerate(here)}
    over_time = _curves(told, devices, here, looks, OVER_TIME)
    over_bytes = _curves(told, devices, here, looks, OVER_BYTES)
    front, used = _front(told, devices, here, looks), _used(devices, here)
    drawn = [over_time.drawn, front, over_bytes.drawn]
    html = "".join(figure([chart]) for chart in drawn if chart)
    html = html or none("No cell of it has run to its end.")
    body = f"{table_of(_short(table(here)), 'sortable')}{html}{figure([used]) if used else ''}"
    title = f"How do they compare on {devices}?"
    part = f'<section id="on-{escape(devices)}"><h2>{escape(title)}</h2>{body}</section>'
    at_pointer = [over_time.medians, front, over_bytes.medians]
    return part, [chart for chart in at_pointer if chart]


class Over(NamedTuple):
    """What accuracy is drawn over."""

    key: str
    title: str
    label: str
    unit: str
    of: Callable[[Point], float]


OVER_TIME = Over(
    "accuracy",
    "Accuracy on test over virtual time",
    "virtual time since the run began",
    "time",
    lambda point: point.seconds,
)
OVER_BYTES = Over(
    "bytes",
    "Accuracy on test over bytes",
    "bytes of models and updates, sent and received",
    "bytes",
    lambda point: float(point.bytes),
)


class Curves(NamedTuple):
    """All seeds, to be drawn; and their medians, for the pointer."""

    drawn: Lines | None = None
    medians: Lines | None = None


def _curves(told: Told, devices: str, here: list[Row], looks: dict[str, int], over: Over) -> Curves:
    """Accuracy over time, or over bytes; from `_floor` on."""
    low = _floor(told.target, here)
    series, medians = [], []
    for row in here:
        lines = [known for one in row.outcomes.values() if (known := _course(one, over, low))[0]]
        for xs, ys in lines:
            series.append(_series(row, looks, *_corners(xs, ys)))
        if lines:
            xs, ys = _median_of(lines)
            medians.append(_series(row, looks, xs, ys)._replace(step=True))
    if not series:
        return Curves()
    rows = [
        (one.strategy, str(o.seed), words.duration(o.seconds), words.score(o.test_accuracy))
        for one in here
        for o in one.outcomes.values()
    ]
    below = f" What is below {low:g} is drawn at the bottom." if low else ""
    head = Head(
        f"{over.key}-{devices}",
        over.title,
        f"Every seed of every strategy: {words.counted(len(series), 'run')}.",
        Table(("strategy", "seed", "ended after", "accuracy at the end"), tuple(rows), left=1),
        "Scored off the clock at fixed points of virtual time, the same for all; of a cell that "
        "ends at the target, at as many of them as tell when it was reached. At the pointer: the "
        f"median of the seeds.{below}",
    )
    xs_all = [x for s in series for x in s.xs if x > 0]
    x = axis(over.label, over.unit, xs_all, zero=True, may_be_log=over is OVER_BYTES)
    y = axis("accuracy on test", "score", [low, *(y for s in series for y in s.ys)])
    y = y._replace(low=low) if low else y
    chart = Lines(head, x, y, tuple(series))
    return Curves(chart, chart._replace(series=tuple(medians)))


def _floor(target: float, here: Sequence[Row]) -> float:
    """The least accuracy that is drawn: what is well below the target, and below everybody's best,
    is the same for all."""
    bests = [
        max((p.test_accuracy or 0.0 for p in one.points), default=0.0)
        for row in here
        for one in row.outcomes.values()
    ]
    low = 1 - max(4 * (1 - target), 2 * (1 - min(bests, default=0.0)))
    return math.floor(100 * max(0.0, low)) / 100


def _series(row: Row, looks: dict[str, int], xs: Sequence[float], ys: Sequence[float]) -> Series:
    return Series(row.strategy, tuple(xs), tuple(ys), looks[row.strategy], worker=True)


def _corners(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Steps as a line: a chart would draw steps that end alike beside each other."""
    pairs = [(x, y) for i, x in enumerate(xs) for y in (ys[max(0, i - 1)], ys[i])]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _course(outcome: Outcome, over: Over, low: float) -> tuple[list[float], list[float]]:
    known = [p for p in outcome.points if p.test_accuracy is not None]
    xs, ys = [over.of(p) for p in known], [max(low, p.test_accuracy or 0.0) for p in known]
    if xs and over is OVER_TIME and outcome.seconds > xs[-1]:
        xs, ys = [*xs, outcome.seconds], [*ys, ys[-1]]
    return xs, ys


def _median_of(lines: list[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """Of steps: at each place where one of them changes, while all of them last."""
    begin, end = max(xs[0] for xs, _ in lines), min(xs[-1] for xs, _ in lines)
    places = sorted({x for xs, _ in lines for x in xs if begin <= x <= end} or {begin})
    at = [0] * len(lines)
    found = []
    for place in places:
        for index, (xs, _) in enumerate(lines):
            while at[index] + 1 < len(xs) and xs[at[index] + 1] <= place:
                at[index] += 1
        found.append(statistics.median(ys[at[i]] for i, (_, ys) in enumerate(lines)))
    return places, found


def _front(told: Told, devices: str, here: list[Row], looks: dict[str, int]) -> Lines | None:
    """Time and bytes to the target, a point a seed."""
    series = []
    rows = []
    for row in here:
        known = sorted((r.seconds, r.bytes, s) for s, r in row.reached.items() if r.ever)
        if known:
            points = _series(row, looks, [k[0] for k in known], [k[1] for k in known])
            series.append(points._replace(scattered=True))
        rows += [(row.strategy, str(s), words.duration(x), words.size(y)) for x, y, s in known]
    if not series:
        return None
    front = [row.strategy for row in here if row.on_front]
    head = Head(
        f"front-{devices}",
        f"What {told.target:g} on test takes",
        f"On the front, by medians: {words.listed(front, 9)}: nobody took less time with no more "
        "bytes."
        if front
        else "In the median nobody reached it.",
        Table(("strategy", "seed", "time", "bytes"), tuple(rows)),
        "One point a seed; left and below is better. Runs that never reached it are not here. "
        f"{_marks(len(here))}What coincides lies side by side.",
    )
    xs, ys = [x for s in series for x in s.xs], [y for s in series for y in s.ys]
    x_axis = axis("virtual time to the target", "time", xs, zero=True)
    x_axis = x_axis._replace(high=x_axis.high * 1.05)
    y_axis = axis("bytes of models and updates", "bytes", ys, zero=True, may_be_log=True)
    if not y_axis.log:
        y_axis = y_axis._replace(high=y_axis.high * 1.08)
    return Lines(head, x_axis, y_axis, tuple(series))


def _marks(strategies: int) -> str:
    """What tells two of one colour apart."""
    if strategies <= HUES:
        return ""
    if strategies <= 2 * HUES:
        return f"Filled points are the first {HUES} strategies, rings the others. "
    return f"Filled points are the first {HUES} strategies, rings the next {HUES}, then squares. "


def _used(devices: str, here: list[Row]) -> Bars | None:
    """What the workers' time went into."""
    known = [(row.strategy, shares) for row in here if (shares := row.shares) is not None]
    if not known:
        return None
    bars = [
        Bar(name, tuple(shares[kind] for kind in KINDS), f"{100 * shares['training']:.0f} %")
        for name, shares in known
    ]
    rows = [(n, *(f"{100 * shares[kind]:.1f} %" for kind in KINDS)) for n, shares in known]
    best = max(known, key=lambda one: one[1]["training"])
    head = Head(
        f"used-{devices}",
        "What the devices' time went into",
        f"{best[0]} trained most of the time: {100 * best[1]['training']:.0f} %.",
        Table(("strategy", *KINDS), tuple(rows)),
        "Shares of all rounds that were finished, over all seeds. Waiting is for others, and for "
        "the master.",
    )
    return Bars(
        head, axis("share of the devices' time", "score", [1.0], zero=True), KINDS, tuple(bars)
    )


# --- tables -------------------------------------------------------------------------------------


def _short(known: Table) -> Table:
    """Without what the bars show."""
    kept = [place for place, name in enumerate(known.columns) if name not in KINDS]

    def cut(row: Sequence[str]) -> tuple[str, ...]:
        return tuple(row[place] for place in kept)

    return known._replace(columns=cut(known.columns), rows=tuple(map(cut, known.rows)))


def table(here: Sequence[Row]) -> Table:
    """One row a strategy: medians to the target, and ratios to the baseline."""
    columns = (
        *("strategy", "reached", "time", "time ratio", "bytes", "bytes ratio"),
        *("samples", "pushes", "at end", *KINDS, "front"),
    )
    return Table(columns, tuple(_row(row) for row in here), left=1)


def _row(row: Row) -> tuple[str, ...]:
    finals = [o.test_accuracy for o in row.outcomes.values() if o.test_accuracy is not None]
    shares = row.shares or {}
    medians = {measure: row.median(measure) for measure in MEASURES}
    texts = {measure: _amount(measure, value) for measure, value in medians.items()}
    if not row.reached:
        texts = dict.fromkeys(MEASURES, "-")
    return (
        row.strategy,
        f"{sum(one.ever for one in row.reached.values())} of {len(row.reached)}",
        texts["seconds"],
        ratio_text(row, "seconds"),
        texts["bytes"],
        ratio_text(row, "bytes"),
        texts["samples"],
        texts["pushes"],
        words.score(statistics.median(finals)) if finals else "-",
        *(f"{100 * shares[kind]:.0f} %" if shares else "-" for kind in KINDS),
        "yes" if row.on_front else "",
    )


def _amount(measure: str, value: float) -> str:
    if math.isinf(value):
        return "never"
    if measure == "seconds":
        return words.duration(value)
    return words.size(value) if measure == "bytes" else words.count(round(value))


def ratio_text(row: Row, measure: str) -> str:
    """`3.1 .. 3.6` with enough seeds, else each seed's: `3.1, 3.6`."""
    known = row.ratios[measure]
    if known.interval is not None:
        return " .. ".join(_times(value) for value in known.interval)
    return ", ".join(_times(value) for value in known.by_seed.values()) or "-"


def _times(value: float | None) -> str:
    if value is None:
        return "-"
    if math.isinf(value):
        return "∞"
    return "0" if value == 0 else f"{value:.3g}"


# --- the foot -----------------------------------------------------------------------------------


def _failed(told: Told) -> str:
    if not told.failed:
        return ""
    items = "".join(
        f"<dt>{escape(cell)}</dt><dd>{escape(error)}</dd>" for cell, error in told.failed
    )
    return f'<section id="failed"><h2>What failed?</h2><dl class="facts">{items}</dl></section>'


def _method(told: Told) -> str:
    base = told.baseline
    facts = {
        "target": f"accuracy {told.target:g} on test: the first of {IN_A_ROW} points in a row of "
        f"the grid (every {told.grid:g} s of virtual time) that hold it",
        "time": "virtual, since the run began; found after the run, off its clock",
        "bytes": "of models and updates, sent and received by all workers until then",
        "samples": "sample passes trained until then, merged or not",
        "never": f"not reached before {told.limit}: infinitely long, in medians and ratios, too",
        "ratios": f"{base}'s number / a strategy's own, paired by seed: above 1 is better than "
        f"{base}, 0 never got there, ∞ where {base} never did, - where neither did",
        "seeds": ", ".join(map(str, told.seeds)),
        "claim": claim(told),
        "at end": "accuracy on test at the end of a cell, median of the seeds",
        "front": "no other strategy took less time with no more bytes, by medians",
    }
    if short := cut_short(told):
        facts["cut short"] = " ".join(short)
    if told.codes > 1:
        facts["source"] = (
            f"the cells were run by {told.codes} states of Hermes's source, of the same version; "
            "compare.json says which ran which"
        )
    if told.tuned:
        facts["settings"] = told.tuned
    items = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    title = "How was it measured?"
    return f'<section id="method"><h2>{title}</h2><dl class="facts">{items}</dl></section>'
