"""Does scoring fewer points find the same first of three that hold the target?"""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hermes.compare.matrix import Until
from hermes.compare.outcome import Point
from hermes.compare.points import Points
from hermes.compare.score import TEST, VALIDATION, held
from hermes.train.protocol import Scores

TARGET = 0.9
courses = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.8, 0.9, 0.95])), max_size=40)
"""Of versions: points of the grid until the next one is the newest, and accuracy on test."""


class Course:
    """Versions as they come, and how often one was scored."""

    def __init__(self, course: list[tuple[int, float]], grid: float) -> None:
        self.scored: list[int] = []
        self.points: list[tuple[Point, float]] = []
        number = 0
        for version, (stands, accuracy) in enumerate(course):
            empty = Point(number * grid, version, 0, 0, 0, 0, None, None, accuracy)
            self.points.append((empty, accuracy))
            number += stands
        self.end = number

    def score(self, index: int) -> Scores:
        self.scored.append(index)
        return Scores(1.0, self.points[index][1], 10, 10.0, None)

    def whole(self) -> list[Point]:
        replace = msgspec.structs.replace
        return [replace(p, test_accuracy=a, test_loss=1.0) for p, a in self.points]


@given(courses, st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 5))
def test_the_first_of_three_is_the_same_whenever_one_asks(
    course: list[tuple[int, float]], grid: float, every: int
) -> None:
    given_, points = Course(course, grid), Points(grid, Until(TEST, TARGET))
    added = 0
    for number in range(given_.end):
        while added < len(course) and round(given_.points[added][0].seconds / grid) <= number:
            index = added
            points.add(given_.points[index][0], lambda index=index: given_.score(index))
            added += 1
        if number % every == 0 or number == given_.end - 1:
            seconds = number * grid
            whole = given_.whole()[:added]
            assert held(points.known(seconds), grid, seconds, TARGET) == held(
                whole, grid, seconds, TARGET
            )
    assert len(given_.scored) == len(set(given_.scored))


def test_a_third_is_scored_where_none_holds_it() -> None:
    given_, points = Course([(1, 0.8)] * 300, 1.0), Points(1.0, Until(TEST, TARGET))
    for index, (point, _) in enumerate(given_.points):
        points.add(point, lambda index=index: given_.score(index))
        points.known(float(index))
    assert given_.scored == list(range(2, 300, 3))


def test_a_search_looks_at_no_test_set() -> None:
    given_, points = Course([(1, 0.95)] * 9, 1.0), Points(1.0, Until(VALIDATION, TARGET))
    for index, (point, _) in enumerate(given_.points):
        points.add(point, lambda index=index: given_.score(index))
    found = points.known(8.0)
    assert given_.scored == []
    first = held(found, 1.0, 8.0, TARGET, VALIDATION)
    assert first is not None
    assert first.seconds == 0


def test_all_are_scored_where_no_target_ends_the_cell() -> None:
    given_, points = Course([(1, 0.8)] * 9, 1.0), Points(1.0, None)
    for index, (point, _) in enumerate(given_.points):
        points.add(point, lambda index=index: given_.score(index))
    assert points.known(8.0) == given_.whole()
