"""What do the pictures of a run show? Each chart as a value, for whoever draws it. Pure.

A chart says what it answers, in one sentence, and carries its numbers as a table. Nothing here
knows of pixels, colours or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from hermes.report.charts.scales import Axis
from hermes.report.thin import Stretch

TABLE = 1000
"""Rows of a chart's table, at most; of more, every so-manieth."""


class Table(NamedTuple):
    """Numbers as texts; all but the first `left` columns are numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    note: str = ""


class Series(NamedTuple):
    """One line."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    look: int
    """Number of its colour and dash; the same for one worker in all charts."""
    step: bool = False
    worker: bool = False
    scattered: bool = False
    """Its points are drawn alone, without a line."""


class Spot(NamedTuple):
    """A point that is pointed out."""

    x: float
    y: float
    text: str
    kind: str
    """"best" or "test"."""


class Head(NamedTuple):
    """What every chart has."""

    key: str
    """Unique; also the name of its file."""
    title: str
    says: str
    """What it answers, in a sentence."""
    table: Table
    remark: str = ""
    """How it is to be read."""


class Lines(NamedTuple):
    """Curves."""

    head: Head
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    spots: tuple[Spot, ...] = ()


class Mark(NamedTuple):
    """Something that happened at a time (seconds)."""

    x: float
    kind: str
    text: str


class Lane(NamedTuple):
    """What one worker did; times in seconds."""

    name: str
    stretches: tuple[Stretch, ...]
    marks: tuple[Mark, ...]
    away: tuple[tuple[float, float], ...]


class Lanes(NamedTuple):
    """One lane a worker. Stretches are in nanoseconds of run time, `origin` is where x is 0."""

    head: Head
    x: Axis
    origin: int
    lanes: tuple[Lane, ...]


class Bar(NamedTuple):
    """One bar; the parts in the order of the chart's kinds."""

    name: str
    parts: tuple[float, ...]
    text: str
    """What stands at its end."""


class Bars(NamedTuple):
    """Bars of parts that add up."""

    head: Head
    x: Axis
    kinds: tuple[str, ...]
    bars: tuple[Bar, ...]


Chart: TypeAlias = Lines | Lanes | Bars


def table(
    columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, left: int = 1, note: str = ""
) -> Table:
    """A table of at most `TABLE` rows; its note says what was left out. The last row is kept."""
    if len(rows) <= TABLE:
        return Table(columns, tuple(rows), left, note)
    step = -(-len(rows) // TABLE)
    kept = rows[::-step][::-1]
    said = f"Every {step}th of {len(rows)} rows."
    return Table(columns, tuple(kept), left, f"{note} {said}".strip())
