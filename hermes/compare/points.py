"""Which points of the grid are scored on the test set? All of them; or, where a cell ends at a
target, as many as it takes to know the first of three in a row that hold it, and no more.

Three numbers in a row hold one that is two above a multiple of three: versions that stand at such
points are scored, and where one holds the target its neighbours are. To score all of them would
take a large test set longer than the training does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from hermes.compare.matrix import Until
from hermes.compare.outcome import Point
from hermes.compare.score import IN_A_ROW, TEST
from hermes.perform.sums import finite
from hermes.train.protocol import Scores

Score = Callable[[], Scores]
"""Scores a point's version, however often it is called."""


class Points:
    """The points of one cell, in order."""

    def __init__(self, grid: float, until: Until | None) -> None:
        self._grid, self._until = grid, until
        self._points: list[Point] = []
        self._open: dict[int, Score] = {}
        """Of the points that were not scored, by index; those that nobody will ask for are gone."""

    def add(self, point: Point, score: Score) -> None:
        """The next one."""
        self._points.append(point)
        self._open[len(self._points) - 1] = score
        if self._until is None:
            self._score(len(self._points) - 1)
        elif self._until.on != TEST:  # it is not looked at before the settings stand
            self._open.clear()

    def known(self, seconds: float) -> list[Point]:
        """All of them, scored as far as needed to know what held until then (since the run began),
        three points of the grid at least."""
        last = int(seconds / self._grid + 1e-9)
        for index in sorted(self._open):
            first, end = self._stands(index, last)
            if end <= first:
                continue  # nobody knows yet how long it stands
            if any(number % IN_A_ROW == IN_A_ROW - 1 for number in range(first, end)):
                self._score(index)
        self._spread(last)
        self._forget(last)
        return self._points

    def _stands(self, index: int, last: int) -> tuple[int, int]:
        """The numbers of the grid's points at which its version is the newest: first and end."""
        follows = index + 1 < len(self._points)
        end = self._number(index + 1) if follows else last + 1
        return self._number(index), end

    def _number(self, index: int) -> int:
        return round(self._points[index].seconds / self._grid)

    def _spread(self, last: int) -> None:
        """Score what stands within a run of three around a point that holds the target."""
        near = IN_A_ROW - 1
        good = [index for index, point in enumerate(self._points) if self._holds(point)]
        spans = [self._stands(index, last) for index in good]
        for index in sorted(self._open):
            first, end = self._stands(index, last)
            end = max(end, first + 1)  # it may have been replaced at once
            if any(first < stop + near and begin - near < end for begin, stop in spans):
                self._score(index)

    def _holds(self, point: Point) -> bool:
        value: Any = getattr(point, TEST)
        return self._until is not None and value is not None and value >= self._until.accuracy

    def _forget(self, last: int) -> None:
        """Let go of models too far back to be asked for."""
        for index in list(self._open):
            _, end = self._stands(index, last)
            if index + 1 < len(self._points) and end + 2 * IN_A_ROW < last:
                del self._open[index]

    def _score(self, index: int) -> None:
        score = self._open.pop(index, None)
        if score is None:
            return
        found = score()
        self._points[index] = msgspec.structs.replace(
            self._points[index], test_accuracy=finite(found.accuracy), test_loss=finite(found.loss)
        )
