"""How is a chart drawn as SVG in a page? Twice: as wide as a desk's page, as narrow as a phone's.

Colours are classes (the page's style sheet has them for light and dark); data points nearer to each
other than a pixel are one. Everything that comes from a run is escaped. Pure.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from hermes.report.charts.chart import Bars, Chart, Lane, Lanes, Lines, Series
from hermes.report.charts.looks import FILLS, HUES, MARKS, dash, hue
from hermes.report.charts.scales import Axis
from hermes.report.thin import merged
from hermes.values import SECOND


class Shape(NamedTuple):
    """Pixels of a drawing."""

    name: str
    width: int
    left: int
    right: int
    height: int
    """Of a chart of lines."""
    lane: int
    ticks: int
    """About so many along x."""
    apart: float
    """Marks nearer than this are one."""


WIDE = Shape("wide", 1000, 70, 16, 300, 34, 9, 7.0)
NARROW = Shape("narrow", 420, 54, 10, 260, 34, 4, 7.0)

BESIDE = 100
"""Pixels at the right of a wide curve, for what is said of points near its end."""

DENSE = 5
"""Pixels of a round, on average, below which rounds are drawn together."""

DOT = 5
"""Pixels: radius of a point."""

NUDGE = 3.0
"""Pixels that lines which would lie on each other are drawn apart."""

TOP, BOTTOM = 14, 44
"""Above and below a plot."""

LETTER = 7.2
"""Pixels of a letter, about."""


class Frame(NamedTuple):
    """Where things lie in one drawing."""

    x: Axis
    y: Axis | None
    left: float
    top: float
    right: float
    bottom: float

    def at_x(self, value: float) -> float:
        """Pixels from the left."""
        return self.left + self.x.place(value) * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """Pixels from the top."""
        assert self.y is not None
        return self.bottom - self.y.place(value) * (self.bottom - self.top)


def number(value: float) -> str:
    """A coordinate: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def drawn(chart: Chart) -> str:
    """Both drawings of a chart; the style sheet shows one."""
    return "".join(_svg(chart, shape) for shape in (WIDE, NARROW))


def _svg(chart: Chart, shape: Shape) -> str:
    if isinstance(chart, Lines):
        frame, body = _lines(chart, shape)
    elif isinstance(chart, Lanes):
        frame, body = _lanes(chart, shape)
    else:
        frame, body = _bars(chart, shape)
    height = frame.bottom + BOTTOM
    name = f"{chart.head.key}-{shape.name}"
    box = f"{number(frame.left)} {number(frame.top)} {number(frame.right)} {number(frame.bottom)}"
    logarithmic = " log" if frame.x.log else ""
    return (
        f'<svg class="{shape.name}" viewBox="0 0 {shape.width} {number(height)}" role="img" '
        f'aria-labelledby="{name}-t {name}-d" data-chart="{chart.head.key}" data-box="{box}" '
        f'data-x="{frame.x.low:.9g} {frame.x.high:.9g}{logarithmic}" '
        f'data-unit="{frame.x.unit}">'
        f'<title id="{name}-t">{escape(chart.head.title)}</title>'
        f'<desc id="{name}-d">{escape(chart.head.says)}</desc>'
        f'{body}<line class="cursor" y1="{number(frame.top)}" y2="{number(frame.bottom)}"/></svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{number(x)}" y="{number(y)}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _x_axis(frame: Frame, shape: Shape) -> str:
    """The line below, its numbers and its name."""
    parts = [
        f'<path class="axis" d="M{number(frame.left)} {number(frame.bottom)}'
        f'H{number(frame.right)}"/>'
    ]
    free = -1.0
    for value in frame.x.ticks(shape.ticks):
        at, text = frame.at_x(value), frame.x.text(value)
        half = len(text) * LETTER / 2
        if at - half < free:
            continue
        free = at + half + 4
        anchor, place = ("end", shape.width - 1.0) if at + half > shape.width else ("middle", at)
        parts.append(f'<path class="axis" d="M{number(at)} {number(frame.bottom)}v4"/>')
        parts.append(_text(place, frame.bottom + 18, text, anchor))
    middle = (frame.left + frame.right) / 2
    parts.append(_text(middle, frame.bottom + 37, frame.x.label, kind="label"))
    return "".join(parts)


def _y_axis(frame: Frame) -> str:
    assert frame.y is not None
    parts = []
    for value in frame.y.ticks(5):
        y = frame.at_y(value)
        parts.append(
            f'<path class="grid" d="M{number(frame.left)} {number(y)}H{number(frame.right)}"/>'
        )
        parts.append(_text(frame.left - 8, y + 4, frame.y.text(value), "end"))
    return "".join(parts)


# --- curves -------------------------------------------------------------------------------------


def _lines(chart: Lines, shape: Shape) -> tuple[Frame, str]:
    beside = BESIDE if chart.spots and shape is WIDE else 0
    right = shape.width - shape.right - beside
    frame = Frame(chart.x, chart.y, shape.left, TOP, right, shape.height - BOTTOM)
    body = [_y_axis(frame), _x_axis(frame, shape)]
    taken: list[tuple[float, float]] = []
    for index, series in enumerate(chart.series):
        owner = f' data-worker="{escape(series.name)}"' if series.worker else ""
        if series.scattered:
            body.append(_dots(series, frame, owner, taken))
            continue
        dashed = f' stroke-dasharray="{dash(series.look)}"' if dash(series.look) else ""
        body.append(
            f'<path class="curve c{hue(series.look)}" data-series="{escape(series.name)}"{owner}'
            f'{dashed} d="{_path(series, frame, NUDGE * _equal(chart, index))}"/>'
        )
        if len(series.xs) == 1:
            x, y = frame.at_x(series.xs[0]), frame.at_y(series.ys[0])
            body.append(
                f'<circle class="dot c{hue(series.look)}" cx="{number(x)}" '
                f'cy="{number(y)}" r="3"{owner}/>'
            )
    body.append(_spots(chart, frame, beside))
    return frame, "".join(body)


def _dots(series: Series, frame: Frame, owner: str, taken: list[tuple[float, float]]) -> str:
    """Points that no line joins, beside those that lie there already."""
    parts = []
    for x, y in zip(series.xs, series.ys, strict=True):
        place = _beside(frame.at_x(x), frame.at_y(y), frame, taken)
        taken.append(place)
        title = f"{owner}><title>{escape(series.name)}</title>"
        parts.append(_dot(series.look, *place, title))
    return "".join(parts)


def _beside(
    x: float, y: float, frame: Frame, taken: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """The first place, of rows of six from this one on, where a point is half a point or
    more beside all others."""
    way = -DOT if x + 5 * DOT > frame.right else DOT
    places = ((x + way * (n % 6), y - DOT * (n // 6)) for n in itertools.count())
    return next(
        (left, top)
        for left, top in places
        if all(max(abs(left - a), abs(top - b)) >= DOT for a, b in taken)
    )


def _dot(look: int, x: float, y: float, title: str) -> str:
    """Filled, of the second six looks a ring, of the third six a square."""
    kind, colour = look // HUES % 3, f"c{hue(look)}"
    if kind == 2:
        side = f'width="{2 * DOT}" height="{2 * DOT}"'
        at = f'x="{number(x - DOT)}" y="{number(y - DOT)}"'
        return f'<rect class="dot {colour}" {at} {side}{title}</rect>'
    ring = " ring" if kind else ""
    at = f'cx="{number(x)}" cy="{number(y)}" r="{DOT}"'
    return f'<circle class="dot{ring} {colour}" {at}{title}</circle>'


def _equal(chart: Lines, index: int) -> int:
    """Lines before this one that would hide it: steps that end where it ends, or the same."""
    assert chart.series[index].ys
    end = chart.y.place(chart.series[index].ys[-1])
    same = chart.series[index].ys
    before = (one for one in chart.series[:index] if one.step or one.ys == same)
    return sum(abs(chart.y.place(one.ys[-1]) - end) < 0.006 for one in before)


def _path(series: Series, frame: Frame, lower: float) -> str:
    """The line; where several points fall into one pixel, its lowest and highest."""
    known = zip(series.xs, series.ys, strict=True)
    points = _thinned([(frame.at_x(x), frame.at_y(y) + lower) for x, y in known])
    parts = [f"M{number(points[0][0])} {number(points[0][1])}"] if points else []
    for x, y in points[1:]:
        parts.append(f"H{number(x)}V{number(y)}" if series.step else f"L{number(x)} {number(y)}")
    return "".join(parts)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    column: list[tuple[float, float]] = []
    for point in [*points, None]:
        if point is not None and (not column or int(point[0]) == int(column[0][0])):
            column.append(point)
            continue
        keep = {0, len(column) - 1}
        if len(column) > 4:
            heights = [y for _, y in column]
            keep |= {heights.index(min(heights)), heights.index(max(heights))}
            found += [column[index] for index in sorted(keep)]
        else:
            found += column
        column = [point] if point is not None else []
    return found


def _spots(chart: Lines, frame: Frame, beside: int) -> str:
    """Points that are pointed out, each with its text at its free side."""
    parts: list[str] = []
    taken: list[float] = []
    for spot in chart.spots:
        x, y = frame.at_x(spot.x), frame.at_y(spot.y)
        if spot.kind == "best":
            parts.append(f'<circle class="spot" cx="{number(x)}" cy="{number(y)}" r="5"/>')
        else:
            parts.append(f'<path class="spot" d="M{number(x)} {number(y - 6)}l6 6l-6 6l-6 -6z"/>')
        above = y - frame.top > 0.45 * (frame.bottom - frame.top)
        outside = beside > 0 and x > frame.right - beside
        place = y + 4 if outside else y - 14 if above else y + 24
        while any(abs(place - other) < 16 for other in taken):
            place += -4 if above else 4
        taken.append(place)
        if outside:
            parts.append(_text(frame.right + 10, place, spot.text, "start", "said"))
            continue
        half = len(spot.text) * LETTER / 2
        middle = min(max(x, frame.left + half), frame.right - half)
        parts.append(_text(middle, place, spot.text, kind="said"))
    return "".join(parts)


# --- the timeline -------------------------------------------------------------------------------


def _lanes(chart: Lanes, shape: Shape) -> tuple[Frame, str]:
    longest = max((len(lane.name) for lane in chart.lanes), default=0)
    above = shape.name == "narrow"  # the name stands above its lane
    left = 12.0 if above else min(220.0, max(shape.left, longest * LETTER + 16))
    lane_height = shape.lane + (16 if above else 0)
    bottom = TOP + lane_height * len(chart.lanes)
    frame = Frame(chart.x, None, left, TOP, shape.width - shape.right, bottom)
    pattern = (
        f'<defs><pattern id="hatch-{shape.name}" width="5" height="5" '
        'patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="f-move" width="5" height="5"/><path class="hatch" d="M0 0V5"/>'
        "</pattern></defs>"
    )
    body = [pattern, _x_axis(frame, shape)]
    for value in chart.x.ticks(shape.ticks):
        x = number(frame.at_x(value))
        body.append(f'<path class="grid" d="M{x} {TOP}V{number(bottom)}"/>')
    for index, lane in enumerate(chart.lanes):
        top = TOP + index * lane_height + (16 if above else 0)
        name = _short(lane.name, 30)
        body.append(f'<g data-worker="{escape(lane.name)}">')
        at = (left, top - 2.0, name, "start") if above else (left - 8, top + 15.0, name, "end")
        body.append(_text(*at, kind="lane"))
        body += [_away(lane, frame, top), _bars_of(lane, chart.origin, frame, top, shape)]
        body += [_marks(lane, chart.origin, frame, top + 26, shape.apart), "</g>"]
    return frame, "".join(body)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _away(lane: Lane, frame: Frame, top: float) -> str:
    return "".join(
        f'<rect class="f-away" x="{number(frame.at_x(x0))}" y="{number(top + 2)}" '
        f'width="{number(max(1.0, frame.at_x(x1) - frame.at_x(x0)))}" height="18"/>'
        for x0, x1 in lane.away
    )


def pixel(frame: Frame) -> int:
    """Nanoseconds of a pixel."""
    return int((frame.x.high - frame.x.low) * SECOND / (frame.right - frame.left))


def _bars_of(lane: Lane, origin: int, frame: Frame, top: float, shape: Shape) -> str:
    """Waiting, transfer and training: beside each other where they can be seen, as shares of the
    height where they cannot."""
    paths: dict[str, list[str]] = {"train": [], "move": [], "wait": []}
    height = 18.0
    dense = len(lane.stretches) * DENSE > frame.right - frame.left
    for s in merged(lane.stretches, pixel(frame) * (DENSE if dense else 1)):
        start, end = ((at - origin) / SECOND for at in (s.start, s.end))
        x0, x1 = max(frame.left, frame.at_x(start)), frame.at_x(end)
        spent = s.busy + s.moved + s.waited
        if x1 <= frame.left or not spent:
            continue
        parts = (("move", s.moved), ("wait", s.waited), ("train", s.busy))
        if s.rounds == 1 and x1 - x0 >= 2:
            at = x0
            for kind, amount in parts:
                wide = (x1 - x0) * amount / spent
                if wide >= 0.05:
                    paths[kind].append(_box(at, top + 2, wide, height))
                at += wide
            continue
        low = top + 2 + height
        for kind, amount in (parts[2], parts[0], parts[1]):
            high = height * amount / spent
            low -= high
            if high >= 0.05:
                paths[kind].append(_box(x0, low, max(1.0, x1 - x0 + 0.4), high))
    fills = {"train": "f-train", "wait": "f-wait", "move": f"h-{shape.name}"}
    return "".join(
        f'<path class="{fills[kind]}" d="{"".join(boxes)}"/>'
        for kind, boxes in paths.items()
        if boxes
    )


def _box(x: float, y: float, width: float, height: float) -> str:
    wide = f"{width:.2f}"
    return f"M{number(x)} {number(y)}h{wide}v{number(height)}h-{wide}z"


SIGNS = {
    "push": "m0 -4.5l4 8h-8z",
    "quiet": "m-1.5 0h3",
    "veto": "m-3.5 -3.5l7 7m0 -7l-7 7",
    "rejected": "m0 -5l4.5 5l-4.5 5l-4.5 -5z",
    "lost": "m-4 -4h8v8h-8z",
    "back": "m-3.5 -3.5h7v7h-7z",
    "left": "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
}
"""From the middle of a mark on, its path."""


def _marks(lane: Lane, origin: int, frame: Frame, y: float, apart: float) -> str:
    """Marks below the bars; nearer than `apart` they are one."""
    places: dict[str, list[float]] = {}
    taken: list[float] = []
    known = _marked(lane, origin, frame)
    for kind in RARE:
        places[kind] = [x for x in _places(known[kind], apart) if _free(taken, x, apart)]
        taken = sorted(taken + places[kind])
    return "".join(
        f'<path class="m-{kind}" d="'
        + "".join(f"M{number(x)} {number(y)}{SIGNS[kind]}" for x in xs)
        + '"/>'
        for kind, xs in places.items()
        if xs
    )


def _marked(lane: Lane, origin: int, frame: Frame) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {kind: [] for kind in MARKS}
    for s in lane.stretches:
        x = frame.at_x((s.end - origin) / SECOND)
        for kind, times in (("push", s.pushes), ("quiet", s.quiet), ("veto", s.vetoed)):
            if times and frame.left <= x:
                found[kind].append(x)
    for mark in lane.marks:
        found[mark.kind].append(frame.at_x(mark.x))
    return found


RARE = ("lost", "back", "left", "rejected", "veto", "push", "quiet")
"""Which mark is drawn where several would lie on each other: the first."""


def _free(taken: list[float], x: float, apart: float) -> bool:
    """Whether nothing in `taken` (in order) is nearer than that."""
    at = bisect.bisect_left(taken, x - apart + 0.01)
    return at == len(taken) or taken[at] >= x + apart


def _places(xs: Iterable[float], apart: float) -> list[float]:
    found: list[float] = []
    for x in sorted(xs):
        if not found or x - found[-1] >= apart:
            found.append(x)
    return found


# --- bars ---------------------------------------------------------------------------------------


def _bars(chart: Bars, shape: Shape) -> tuple[Frame, str]:
    longest = max((len(bar.name) for bar in chart.bars), default=0)
    above = shape.name == "narrow"
    left = 12.0 if above else min(220.0, max(shape.left, longest * LETTER + 16))
    row = 40 if above else 26
    said = max((len(bar.text) for bar in chart.bars), default=0) * LETTER + 12
    bottom = TOP + row * max(1, len(chart.bars))
    frame = Frame(chart.x, None, left, TOP, shape.width - shape.right - said, bottom)
    colours = FILLS[len(chart.kinds)]
    body = [_x_axis(frame, shape)]
    for index, bar in enumerate(chart.bars):
        top = TOP + index * row + (18 if above else 4)
        at = (left, top - 4.0, "start") if above else (left - 8, top + 13.0, "end")
        body.append(_text(at[0], at[1], _short(bar.name, 30), at[2], "lane"))
        x = left
        for kind, colour, part in zip(chart.kinds, colours, bar.parts, strict=True):
            wide = frame.at_x(part) - frame.left
            if wide > 0:
                told = f"{bar.name}: {kind} {chart.x.text(float(f'{part:.3g}'))}"
                body.append(
                    f'<rect class="part f-{colour}" x="{number(x)}" y="{number(top)}" '
                    f'width="{wide:.2f}" height="17"><title>{escape(told)}</title></rect>'
                )
            x += wide
        body.append(_text(x + 6, top + 13, bar.text, "start", "said"))
    return frame, "".join(body)
