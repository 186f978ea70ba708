"""How is a chart drawn as a picture of its own, PNG or SVG? With matplotlib, on white."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hermes.errors import UsageError
from hermes.report.charts.chart import Bars, Chart, Lanes, Lines
from hermes.report.charts.looks import DASHES, FILLS, HUES, LIGHT, MARKS, hue
from hermes.report.charts.scales import Axis
from hermes.report.thin import merged
from hermes.values import SECOND

WIDTH = 9.0
"""Inches."""

PARTS = 400
"""Of a lane, that can be told apart."""

SHAPES = {
    "push": "^",
    "quiet": ".",
    "veto": "x",
    "rejected": "D",
    "lost": "s",
    "back": "s",
    "left": "o",
}


def can_draw() -> bool:
    """Whether matplotlib is here."""
    return importlib.util.find_spec("matplotlib") is not None


def save_all(charts: Sequence[Chart], folder: Path, kind: str) -> list[Path]:
    """Each chart as a file `KEY.png` or `KEY.svg`. Raises `UsageError` for a folder that cannot be
    written."""
    found = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chart in charts:
            path = folder / f"{chart.head.key}.{kind}"
            _save(chart, path, kind)
            found.append(path)
    except OSError as error:
        raise UsageError(
            f"the charts cannot be written: {error.strerror or error}",
            where=str(folder),
            remedy=f"Choose another place with --{kind} DIR.",
        ) from None
    return found


def _save(chart: Chart, path: Path, kind: str) -> None:
    rows = len(chart.lanes) if isinstance(chart, Lanes) else 0
    rows = len(chart.bars) if isinstance(chart, Bars) else rows
    figure = new_figure(3.6 if isinstance(chart, Lines) else 1.6 + 0.36 * rows)
    axes = figure.subplots()
    draw_on(axes, chart)
    axes.set_title(chart.head.title, loc="left", fontsize=11, fontweight="bold", color=LIGHT["ink"])
    import matplotlib as mpl

    # Text stays text, and the same chart gives the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.head.key}):
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)


def new_figure(height: float) -> Any:
    """An empty figure, so many inches high, that needs no screen."""
    _choose_cache()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _choose_cache() -> None:
    """Where there is no home to write to, matplotlib would warn on stderr."""
    home = Path.home()
    if "MPLCONFIGDIR" not in os.environ and not os.access(home, os.W_OK):
        os.environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / "hermes-matplotlib")


def draw_on(axes: Any, chart: Chart) -> None:
    """Draw a chart on these axes."""
    _dress(axes)
    if isinstance(chart, Lines):
        _lines(axes, chart)
    elif isinstance(chart, Lanes):
        _lanes(axes, chart)
    else:
        _bars(axes, chart)
    axes.set_xlabel(chart.x.label, color=LIGHT["grey"], fontsize=9)


def _dress(axes: Any) -> None:
    axes.grid(axis="y", color=LIGHT["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=LIGHT["grey"], labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LIGHT["line"])


def _scale(axis: Any, limits: Any, scale: Any, known: Axis, count: int) -> None:
    if known.log:
        scale("log")
    limits(known.low, known.high)
    ticks = known.ticks(count)
    axis.set_ticks(ticks, [known.text(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def _across(axes: Any, known: Axis) -> None:
    _scale(axes.xaxis, axes.set_xlim, axes.set_xscale, known, 8)


def _lines(axes: Any, chart: Lines) -> None:
    for one in chart.series:
        dash = [float(part) for part in DASHES[one.look // HUES % len(DASHES)].split()]
        axes.plot(
            one.xs,
            one.ys,
            color=LIGHT[f"c{hue(one.look)}"],
            linewidth=1.7,
            linestyle=(0, tuple(dash)) if dash else "-",
            drawstyle="steps-post" if one.step else "default",
            marker="o" if len(one.xs) == 1 else None,
            label=one.name,
        )
    _across(axes, chart.x)
    _scale(axes.yaxis, axes.set_ylim, axes.set_yscale, chart.y, 5)
    axes.set_ylabel(chart.y.label, color=LIGHT["grey"], fontsize=9)
    taken: list[float] = []
    for spot in chart.spots:
        shape = "o" if spot.kind == "best" else "D"
        axes.plot(
            [spot.x], [spot.y], shape, color="white", markeredgecolor=LIGHT["ink"], clip_on=False
        )
        high = chart.y.place(spot.y)
        while any(abs(high - other) < 0.09 for other in taken):
            high += 0.01 if high < 0.5 else -0.01
        taken.append(high)
        axes.text(1.015, high, spot.text, transform=axes.transAxes, fontsize=9, va="center")
    if len(chart.series) > 1:
        _legend(axes)


def _legend(axes: Any) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def _names(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.grid(visible=False)


def _lanes(axes: Any, chart: Lanes) -> None:
    from matplotlib.collections import PolyCollection

    boxes = _boxes(chart)
    for name, found in boxes.items():
        # One collection a colour: an artist a box would take minutes.
        axes.add_collection(PolyCollection(found, facecolors=LIGHT[name], linewidths=0))
    for row, lane in enumerate(chart.lanes):
        _marks(axes, lane, chart.origin, row + 0.33)
    _names(axes, [lane.name for lane in chart.lanes])
    _across(axes, chart.x)
    _sign_legend(axes)


Box = list[tuple[float, float]]


def _boxes(chart: Lanes) -> dict[str, list[Box]]:
    """Corners of what is drawn in each colour: shares of the height, as in the page."""
    found: dict[str, list[Box]] = {name: [] for name in ("away", "train", "move", "wait")}
    dense = max((len(lane.stretches) for lane in chart.lanes), default=0) > PARTS / 2
    width = int((chart.x.high - chart.x.low) * SECOND / (PARTS / 3 if dense else PARTS))
    for row, lane in enumerate(chart.lanes):
        found["away"] += [_box(x0, x1, row - 0.4, row + 0.15) for x0, x1 in lane.away]
        for s in merged(lane.stretches, width):
            start, end = ((at - chart.origin) / SECOND for at in (s.start, s.end))
            low, spent = row + 0.15, s.busy + s.moved + s.waited
            for name, part in (("train", s.busy), ("move", s.moved), ("wait", s.waited)):
                high = 0.55 * part / spent if spent else 0.0
                low -= high
                if high:
                    found[name].append(_box(max(0.0, start), end, low, low + high))
    return found


def _box(x0: float, x1: float, y0: float, y1: float) -> Box:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _marks(axes: Any, lane: Any, origin: int, row: float) -> None:
    found: dict[str, list[float]] = {kind: [] for kind in MARKS}
    for s in lane.stretches:
        for kind, times in (("quiet", s.quiet), ("push", s.pushes), ("veto", s.vetoed)):
            if times:
                found[kind].append((s.end - origin) / SECOND)
    for mark in lane.marks:
        found[mark.kind].append(mark.x)
    for kind in reversed(MARKS):
        if found[kind]:
            colour = LIGHT[MARKS[kind][0]]
            hollow = kind in ("rejected", "back", "left")
            size = 1.5 if kind == "quiet" else 4
            axes.plot(
                found[kind],
                [row] * len(found[kind]),
                SHAPES[kind],
                color="white" if hollow else colour,
                markeredgecolor=colour,
                markersize=size,
                zorder=1 if kind == "quiet" else 3,
            )


def _sign_legend(axes: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    fills = (("train", "training"), ("move", "transfer"), ("wait", "waiting"), ("away", "away"))
    handles: list[Any] = [Patch(color=LIGHT[key], label=name) for key, name in fills]
    for kind, (colour, _, name) in MARKS.items():
        hollow = kind in ("rejected", "back", "left")
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker=SHAPES[kind],
                color="white" if hollow else LIGHT[colour],
                markeredgecolor=LIGHT[colour],
                label=name,
            )
        )
    axes.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8
    )


def _bars(axes: Any, chart: Bars) -> None:
    names = FILLS[len(chart.kinds)]
    rows = range(len(chart.bars))
    left = [0.0] * len(chart.bars)
    for index, (kind, colour) in enumerate(zip(chart.kinds, names, strict=True)):
        parts = [bar.parts[index] for bar in chart.bars]
        axes.barh(rows, parts, left=left, height=0.62, color=LIGHT[colour], label=kind)
        left = [a + b for a, b in zip(left, parts, strict=True)]
    for row, bar in enumerate(chart.bars):
        axes.text(left[row], row, f" {bar.text}", va="center", fontsize=8, color=LIGHT["ink"])
    _names(axes, [bar.name for bar in chart.bars])
    _across(axes, chart.x._replace(high=chart.x.high * 1.18))
    _legend(axes)
