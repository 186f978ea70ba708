"""Which numbers does the page's script need, to show those at the pointer? Pure."""

from __future__ import annotations

import json
from typing import Any

from hermes.report.charts.chart import Chart, Lane, Lanes, Lines
from hermes.report.thin import merged
from hermes.values import SECOND

LANE = 400
"""Parts of a lane that a pointer can tell apart."""


def numbers(charts: list[Chart]) -> str:
    """JSON of all charts by key, safe within a script element."""
    found = {chart.head.key: told for chart in charts if (told := _of(chart)) is not None}
    text = json.dumps(found, separators=(",", ":"), allow_nan=False)
    # An element ends at its end tag, wherever that stands.
    return text.replace("<", "\\u003c")


def _of(chart: Chart) -> dict[str, Any] | None:
    if isinstance(chart, Lines):
        return {
            "unit": chart.y.unit,
            "series": [
                {
                    "name": one.name,
                    "step": one.step,
                    "xs": [_short(x) for x in one.xs],
                    "ys": [_short(y) for y in one.ys],
                }
                for one in chart.series
            ],
        }
    if isinstance(chart, Lanes):
        return {"lanes": [{"name": one.name, "rows": _rows(chart, one)} for one in chart.lanes]}
    return None


def _rows(chart: Lanes, lane: Lane) -> list[list[float | int]]:
    """[start, end, training, transfer, waiting (s), rounds, pushes, quiet, vetoed] of each."""
    width = int((chart.x.high - chart.x.low) * SECOND / LANE)
    found: list[list[float | int]] = []
    for s in merged(lane.stretches, width):
        times = (s.start - chart.origin, s.end - chart.origin, s.busy, s.moved, s.waited)
        found.append([*(round(t / SECOND, 4) for t in times), *s[5:9]])
    return found


def _short(value: float) -> float | int:
    """Six figures are more than a pointer can tell."""
    number = float(f"{value:.6g}")
    return int(number) if number.is_integer() else number
