"""How does a curve look in letters? Dots of braille, two by four to a letter. Pure."""

from __future__ import annotations

from collections.abc import Sequence

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""By column and row of a letter: the bit of that dot."""

BLANK = 0x2800


def braille(
    points: Sequence[tuple[float, float]], width: int, height: int, low: float, high: float
) -> list[str]:
    """`height` lines of `width` letters: the points (x growing, y) joined by lines; the y axis
    goes from `low` to `high`, the x axis from the first point to the last."""
    letters = [[0] * width for _ in range(height)]
    if points:
        _join(letters, _levels(points, 2 * width, 4 * height, low, high))
    return ["".join(chr(BLANK + letter) if letter else " " for letter in line) for line in letters]


def _levels(
    points: Sequence[tuple[float, float]], columns: int, rows: int, low: float, high: float
) -> list[int]:
    """For each column of dots the row (0 is the lowest), by interpolation."""
    first, last = points[0][0], points[-1][0]
    step = (last - first) / (columns - 1) if columns > 1 else 0.0
    spread = (high - low) or 1.0
    levels, place = [], 0
    for column in range(columns):
        x = first + column * step
        while place + 2 < len(points) and points[place + 1][0] < x:
            place += 1
        (x0, y0), (x1, y1) = points[place], points[min(place + 1, len(points) - 1)]
        share = (x - x0) / (x1 - x0) if x1 > x0 else 0.0
        y = y0 + min(1.0, max(0.0, share)) * (y1 - y0)
        level = round((y - low) / spread * (rows - 1))
        levels.append(min(rows - 1, max(0, level)))
    return levels


def _join(letters: list[list[int]], levels: Sequence[int]) -> None:
    """Dots at the levels, and between the level of a column and the one before it."""
    rows = 4 * len(letters)
    before = levels[0]
    for column, level in enumerate(levels):
        start, end = (before + 1, level) if level > before else (level, before - 1)
        for dot in range(min(start, level), max(end, level) + 1):
            row = rows - 1 - dot
            letters[row // 4][column // 2] |= DOTS[column % 2][row % 4]
        before = level
