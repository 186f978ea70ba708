"""Is a deadline learned from a worker's own pace?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.policy.pace import FEWEST, KEPT, SPREADS, Pace, limit, pace

FLOOR, CEILING = 10.0, 600.0
durations = st.floats(0.001, 5000.0)


def allowed(known: Pace) -> float:
    return limit(known.median, known.spread, FLOOR, CEILING)


def test_the_limit_is_the_median_and_six_spreads() -> None:
    """By hand: the median is 30, the deviations are 0, 2, 4, 8, 10, their median 4."""
    known = pace([20.0, 26.0, 30.0, 32.0, 38.0])
    assert known.median == 30.0
    assert known.spread == round(1.4826 * 4, 3)
    assert allowed(known) == round(30 + 6 * 5.93, 3)


@given(st.lists(durations, max_size=KEPT), st.permutations(range(KEPT)))
def test_it_lies_between_floor_and_ceiling_in_any_order(
    values: list[float], order: list[int]
) -> None:
    mixed = [values[index] for index in order if index < len(values)]
    assert FLOOR <= allowed(pace(values)) <= CEILING
    assert allowed(pace(values)) == allowed(pace(mixed))


@given(st.lists(durations, min_size=1, max_size=KEPT), durations)
def test_what_always_takes_so_long_is_in_time(values: list[float], least: float) -> None:
    """However steady it is: a pace of 20.0 s does not make a deadline of 20.0 s."""
    slow = [least + value / 1000 for value in values]
    assert allowed(pace(slow)) >= min(CEILING, 1.7 * least)


@given(
    st.lists(st.floats(0.5, 1.5), min_size=2 * FEWEST, max_size=KEPT - 2),
    st.lists(durations, max_size=2),
)
def test_an_outage_or_two_teach_no_patience(usual: list[float], outages: list[float]) -> None:
    """Of a worker that is heard every second the floor stays the limit."""
    assert allowed(pace([*usual, *outages])) == FLOOR


@given(st.lists(durations, max_size=FEWEST - 1))
def test_of_few_the_largest_counts_twice(values: list[float]) -> None:
    known = pace(values)
    assert not known.known
    expected = min(max(2 * max(values, default=0.0), FLOOR), CEILING)
    assert allowed(known) == pytest.approx(expected, abs=0.001 * (SPREADS + 1))


@given(st.lists(durations, min_size=1, max_size=100))
def test_it_is_bounded_and_looks_back_on_the_last(values: list[float]) -> None:
    """What is recorded (median and spread, to a millisecond) is all that the limit is made of."""
    known = Pace()
    for value in values:
        known = known.after(value)
    assert known == pace(values[-KEPT:])
    assert (known.median, known.spread) == (round(known.median, 3), round(known.spread, 3))
