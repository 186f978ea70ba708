"""Which columns of a table fit into a width? The least important go first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

GAP = 2
"""Blanks between two columns; one, where that lets more of them stand, on a line of `CROWDED`
letters or more."""
CROWDED = 100


class Column(NamedTuple):
    """One column, with its cells as text; `styles` has one for each cell, or none."""

    name: str
    cells: Sequence[str]
    rank: int
    """The highest goes first where room is short; 0 stays."""
    left: bool = False
    """Words stand left, numbers right."""
    least: int | None = None
    """Letters that its cells may be cut to; None: they are never cut."""
    styles: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Of its name and cells."""
        return max(cell_len(self.name), *map(cell_len, self.cells), 0)

    @property
    def need(self) -> int:
        """The width that it must have."""
        if self.least is None:
            return self.width
        return max(cell_len(self.name), min(self.width, self.least))


def fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], int]:
    """Those that fit beside each other, in their order, and the blanks between them."""
    wide, close = _kept(columns, width, GAP), _kept(columns, width, 1)
    if width >= CROWDED and len(close) > len(wide):
        return close, 1
    return wide, GAP


def _kept(columns: Sequence[Column], width: int, gap: int) -> list[Column]:
    kept = list(columns)
    while len(kept) > 1 and _spread(kept, gap) > width:
        last = max(kept, key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    return kept


def _spread(columns: Sequence[Column], gap: int) -> int:
    return sum(column.need + gap for column in columns) - gap


def table(columns: Sequence[Column], width: int) -> list[Text]:
    """A head and one line a row, no line wider than `width`; without trailing blanks."""
    kept, gap = fitting(columns, width)
    spare = width - _spread(kept, gap)
    widths = []
    for column in kept:
        more = min(max(spare, 0), column.width - column.need)
        spare -= more
        widths.append(column.need + more)
    rows = max((len(column.cells) for column in kept), default=0)
    lines = [_line([(c.name, "bold") for c in kept], kept, widths, gap)]
    for row in range(rows):
        cells = [(c.cells[row], c.styles[row] if c.styles else "") for c in kept]
        lines.append(_line(cells, kept, widths, gap))
    for line in lines:
        line.truncate(width)
    return lines


def _line(
    cells: Sequence[tuple[str, str]], columns: list[Column], widths: list[int], gap: int
) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for index, ((text, style), column, width) in enumerate(
        zip(cells, columns, widths, strict=True)
    ):
        cut = text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
        blanks = " " * (width - cell_len(cut))
        line.append(" " * gap if index else "")
        line.append(cut + blanks if column.left else blanks + cut, style or None)
    line.rstrip()
    return line
