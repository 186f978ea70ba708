"""How much does one fetch bring? What is needed; more only while reading goes straight on."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hermes.perform.store import stretches
from hermes.transport.flight import ReadAhead

MOST = 8 << 20


def test_a_jump_brings_what_is_needed_and_no_more() -> None:
    ahead = ReadAhead(MOST)
    ahead.aim(40_000, goes_on=False)
    assert ahead.window == 40_000
    ahead.took(30_000)
    assert ahead.window == 10_000
    ahead.took(30_000)
    assert ahead.window == 1


def test_reading_straight_on_runs_ahead_and_a_jump_ends_it() -> None:
    ahead = ReadAhead(MOST)
    ahead.aim(1 << 20, goes_on=False)
    windows = []
    for _ in range(6):
        ahead.aim(1 << 20, goes_on=True)
        windows.append(ahead.window)
    assert windows == sorted(windows)
    assert windows[0] == 2 << 20
    assert windows[-1] == MOST
    ahead.aim(1 << 20, goes_on=False)
    assert ahead.window == 1 << 20


@given(st.lists(st.tuples(st.none() | st.integers(0, 1 << 30), st.booleans())))
def test_the_window_is_bounded_whatever_is_asked(wishes: list[tuple[int | None, bool]]) -> None:
    ahead = ReadAhead(MOST)
    for need, goes_on in wishes:
        ahead.aim(need, goes_on=goes_on)
        assert 1 <= ahead.window_of_one <= ahead.window <= MOST
        ahead.took(1 << 19)
        assert 1 <= ahead.window <= MOST


@given(st.sets(st.integers(0, 60)))
def test_stretches_hold_every_offset_once_and_no_gap(offsets: set[int]) -> None:
    found = list(stretches(offsets))
    assert [offset for stretch in found for offset in stretch] == sorted(offsets)
    assert all(one.stop < two.start for one, two in itertools.pairwise(found))
