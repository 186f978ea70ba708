"""How much does one fetch bring? What is needed; more only while reading goes straight on; and no
more than the link carries in half a second."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hermes.perform.store import stretches
from hermes.transport.flight import SPAN, TELLING, LinkPace, ReadAhead
from hermes.transport.settings import BATCH, FRAMING

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


def over(link: LinkPace, rate: float, fetches: int, record: int = BATCH) -> list[int]:
    """The windows of fetches from a link of this rate: each is filled, as far as records go."""
    windows = []
    for _ in range(fetches):
        windows.append(link.window)
        count = max(1, link.window // record)
        link.told(link.window, count * record, count, count * record / rate)
    return windows


def test_a_fast_link_soon_carries_the_most_and_a_thin_one_one_record() -> None:
    link = LinkPace(MOST)
    windows = over(link, 1e9, 8)
    assert windows[0] == 2 * (BATCH + FRAMING)
    assert all(two <= 2 * one + 2 * FRAMING for one, two in itertools.pairwise(windows))
    assert windows[-1] > MOST - BATCH - FRAMING
    assert over(link, 4e6, 5)[-1] <= SPAN * 4e6
    assert over(link, 1e5, 5)[-1] <= SPAN * 1e5 < BATCH


def test_silence_makes_the_window_small_and_answers_large_again() -> None:
    link = LinkPace(MOST)
    over(link, 1e9, 8)
    link.silent(SPAN / 2)
    assert link.window > MOST - BATCH - FRAMING
    link.silent(10 * SPAN)
    assert link.window <= MOST // 10
    link.told(link.window, BATCH, 1, 10 * SPAN)
    assert link.window <= BATCH // 10
    assert over(link, 1e9, 8)[-1] > MOST - BATCH - FRAMING


def test_small_answers_say_nothing_about_the_link() -> None:
    link = LinkPace(MOST)
    before = over(link, 1e9, 8)[-1]
    link.told(100_000, TELLING - 1, 3, 5.0)
    assert link.window == before


@given(st.integers(TELLING, 1 << 20), st.integers(1, MOST))
def test_no_record_is_cut(record: int, size: int) -> None:
    """A window holds whole records, or less than one."""
    link = LinkPace(MOST)
    link.told(1, 4 * record, 4, 0.01)
    way = record + FRAMING
    assert link.whole(size) == (size // way * way or size)


@given(st.sets(st.integers(0, 60)))
def test_stretches_hold_every_offset_once_and_no_gap(offsets: set[int]) -> None:
    found = list(stretches(offsets))
    assert [offset for stretch in found for offset in stretch] == sorted(offsets)
    assert all(one.stop < two.start for one, two in itertools.pairwise(found))
