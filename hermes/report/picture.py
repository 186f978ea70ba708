"""How does a run look at a glance? One picture of its curves and shards. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

from hermes.errors import RunFailed
from hermes.report.charts.course import curves, run_of, shards
from hermes.report.charts.figures import can_draw, draw_on, new_figure
from hermes.report.charts.looks import LIGHT
from hermes.report.story import Story

__all__ = ["REMEDY", "can_draw", "draw"]

REMEDY = "For the picture: pip install 'hermes-edge[plots]'"


def draw(story: Story, title: str, path: Path) -> None:
    """Write the picture as a PNG. Raises `RunFailed` if the file cannot be written."""
    run = run_of(story)
    charts = [*reversed(curves(run, "time")), *([shards(run)] if run.workers else [])]
    figure = new_figure(max(2.0, 2.7 * len(charts)))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=LIGHT["ink"])
    for index, chart in enumerate(charts):
        axes = figure.add_subplot(len(charts), 1, index + 1)
        draw_on(axes, chart)
        axes.set_title(chart.head.title, loc="left", fontsize=10, color=LIGHT["grey"])
        if index < len(charts) - 1:
            axes.set_xlabel("")
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise RunFailed(
            f"the picture cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="Make room there, or choose another place with --out DIR.",
        ) from None
