"""How does a run look? One picture: loss, accuracy and shards over time. Needs matplotlib."""

from __future__ import annotations

import bisect
import importlib.util
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes.errors import RunFailed
from hermes.report.story import Story

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774", "#b8860b", "#3b5bdb")
INK, GREY, GRID = "#2f3437", "#787774", "#e3e2e0"

REMEDY = "For the picture: pip install 'hermes-edge[plots]'"


def can_draw() -> bool:
    """Whether matplotlib is here."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(story: Story, title: str, path: Path) -> None:
    """Write the picture as a PNG. Raises `RunFailed` if the file cannot be written."""
    _choose_cache()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 8.0), dpi=140, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    loss, accuracy, shards = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    _curve(loss, story, "loss", COLOURS[0])
    _curve(accuracy, story, "accuracy", COLOURS[2])
    _shards(shards, story)
    shards.set_xlabel("seconds since training started", color=GREY)
    shards.set_xlim(0, max(story.seconds(story.stopped or story.end), 1e-3))
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise RunFailed(
            f"the picture cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="Make room there, or choose another place with --out DIR.",
        ) from None


def _choose_cache() -> None:
    """Where there is no home to write to, matplotlib would warn on stderr."""
    home = Path.home()
    if "MPLCONFIGDIR" not in os.environ and not os.access(home, os.W_OK):
        os.environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / "hermes-matplotlib")


def _curve(axes: Any, story: Story, name: str, colour: str) -> None:
    points = [
        (story.seconds(point.at), value)
        for point in story.points
        if (value := getattr(point, name)) is not None and math.isfinite(value)
    ]
    _dress(axes, f"{name} on validation")
    if not points:
        return
    times, values = zip(*points, strict=True)
    axes.plot(times, values, color=colour, linewidth=1.8, marker="o", markersize=2.5)
    best = (min if name == "loss" else max)(values)
    at = times[values.index(best)]
    axes.plot([at], [best], "o", color=colour, markersize=6, markerfacecolor="white")
    axes.annotate(
        f"best {best:.4f}",
        (at, best),
        xytext=(0, 9 if name == "loss" else -15),
        textcoords="offset points",
        ha="right" if at > times[-1] / 2 else "left",
        fontsize=9,
        color=colour,
    )
    if name == "loss" and min(values) > 0 and max(values) > 20 * min(values):
        _logarithmic(axes)


def _shards(axes: Any, story: Story) -> None:
    _dress(axes, "shard in samples (each tick is a push)")
    end = story.stopped or story.end
    every = [size for known in story.shards.values() for _, size in known]
    for index, (worker, known) in enumerate(sorted(story.shards.items())):
        colour = COLOURS[index % len(COLOURS)]
        times = [story.seconds(at) for at, _ in known] + [story.seconds(end)]
        sizes = [size for _, size in known] + [known[-1][1]]
        axes.step(times, sizes, where="post", color=colour, linewidth=1.8, label=worker)
        _mark_pushes(axes, story, worker, times, sizes, colour)
    if every and min(every) > 0 and max(every) > 8 * min(every):
        _logarithmic(axes)
    elif every:
        axes.set_ylim(bottom=0)
    if story.shards:
        axes.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, labelcolor=INK
        )


def _mark_pushes(
    axes: Any,
    story: Story,
    worker: str,
    times: Sequence[float],
    sizes: Sequence[int],
    colour: str,
) -> None:
    """A tick on the worker's line for each push."""
    pushed = [story.seconds(at) for at in story.pushes.get(worker, [])]
    levels = [sizes[max(0, bisect.bisect_right(times, at) - 1)] for at in pushed]
    axes.plot(pushed, levels, "|", color=colour, markersize=7, alpha=0.5)


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis with numbers that people read."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _dress(axes: Any, label: str) -> None:
    axes.set_title(label, loc="left", fontsize=10, color=GREY)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
