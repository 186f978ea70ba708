"""The paired test: its level on noise, its scale, and its answers where there is little to see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.policy.gate import GateState, Learned, decide, wants_test
from hermes.policy.paired import BLOCKS, FEWEST, LEAST, Paired, blocks_of, paired, worse
from hermes.policy.verdict import GateSettings

losses = st.floats(0, 1e6)
pairs = st.lists(st.tuples(losses, losses), min_size=2, max_size=80)


def innovation(**changes: object) -> GateSettings:
    return GateSettings(**{"rule": "innovation", "veto": 3.0, **changes})  # type: ignore[arg-type]


def share_of_vetoes(n: int, errors: float, shift: float, *, skewed: bool = False) -> float:
    """Of 20,000 tests of n differences with this mean, in their own deviations."""
    draws = np.random.default_rng([n, skewed])
    noise = draws.exponential(size=(20_000, n)) - 1 if skewed else draws.normal(size=(20_000, n))
    base = draws.gamma(2.0, size=(20_000, n))
    tests = zip(base.tolist(), (base + noise + shift).tolist(), strict=True)
    return sum(worse(paired(*one), errors) for one in tests) / 20_000


@pytest.mark.parametrize(("n", "tail"), [(16, 0.00448), (64, 0.00193)])
def test_on_noise_it_vetoes_as_often_as_students_tail_says(n: int, tail: float) -> None:
    """The level that 3 stands for, well below one in a hundred: 3.3 deviations of chance apart."""
    assert share_of_vetoes(n, 3.0, 0.0) == pytest.approx(tail, abs=3.3 * math.sqrt(tail / 20_000))


def test_differences_with_a_long_tail_on_the_bad_side_are_vetoed_less_often() -> None:
    """A few samples that went badly wrong raise se with d."""
    assert share_of_vetoes(32, 3.0, 0.0, skewed=True) < share_of_vetoes(32, 3.0, 0.0) < 0.01


def test_what_is_worse_by_a_deviation_is_caught_and_what_is_better_never() -> None:
    assert share_of_vetoes(64, 3.0, 1.0) > 0.99
    assert share_of_vetoes(64, 3.0, -0.5) == 0


@given(pairs, st.integers(-300, 300))
def test_the_scale_of_the_losses_does_not_matter(rows: list[tuple[float, float]], by: int) -> None:
    before, after = zip(*rows, strict=True)
    found = paired(before, after)
    scaled = paired([math.ldexp(one, by) for one in before], [math.ldexp(one, by) for one in after])
    assert scaled.n == found.n == len(rows)
    if by >= 0 or min((x for row in rows for x in row if x), default=1.0) > 1e-200:
        assert scaled.d == math.ldexp(found.d, by)
        assert scaled.se == pytest.approx(math.ldexp(found.se, by), rel=1e-12)
        assert worse(scaled, 3.0) == worse(found, 3.0)


@given(pairs)
def test_swapping_the_sides_turns_the_sign(rows: list[tuple[float, float]]) -> None:
    before, after = zip(*rows, strict=True)
    one, other = paired(before, after), paired(after, before)
    assert (one.d, one.se) == (-other.d, other.se)
    assert not (worse(one, 1e-9) and worse(other, 1e-9))


@given(pairs)
def test_it_is_the_textbooks_standard_error(rows: list[tuple[float, float]]) -> None:
    before, after = zip(*rows, strict=True)
    differences = np.subtract(after, before)
    found = paired(before, after)
    close = 1e-9 * float(np.abs(differences).max()) + 1e-150  # below it squares are 0
    assert found.d == pytest.approx(float(differences.mean()), rel=1e-9, abs=close)
    wanted = float(differences.std(ddof=1)) / math.sqrt(len(rows))
    assert found.se == pytest.approx(wanted, rel=1e-6, abs=close)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("before", "after", "found", "vetoed"),
    [
        ([], [], (0.0, NAN, 0), False),
        ([1.0], [9.0], (8.0, NAN, 1), False),
        ([1.0] * (FEWEST - 1), [9.0] * (FEWEST - 1), (8.0, 0.0, FEWEST - 1), False),
        ([1.0] * 16, [9.0] * 16, (8.0, 0.0, 16), True),
        ([1.0] * 16, [1.0] * 16, (0.0, 0.0, 16), False),
        ([9.0] * 16, [1.0] * 16, (-8.0, 0.0, 16), False),
        ([1.0] * 16, [1.0] * 15 + [NAN], (INF, NAN, 16), True),
        ([1.0] * 16, [1.0] * 15 + [INF], (INF, NAN, 16), True),
        ([INF] + [1.0] * 15, [1.0] * 16, (-INF, NAN, 16), False),
        ([INF] + [1.0] * 15, [INF] + [1.0] * 15, (NAN, NAN, 16), False),
        ([-1.7e308] + [0.0] * 15, [1.7e308] + [0.0] * 15, (INF, NAN, 16), True),
    ],
)
def test_each_odd_case_has_its_answer(
    before: list[float], after: list[float], found: Paired, vetoed: bool
) -> None:
    assert paired(before, after) == pytest.approx(found, nan_ok=True)
    assert worse(paired(before, after), 3.0) == vetoed


@given(st.integers(0, 10**6), st.integers(0, 10**7))
def test_a_test_costs_a_tenth_of_what_was_trained(available: int, trained: int) -> None:
    n, size = blocks_of(available, trained)
    assert n * size <= min(available, max(LEAST, trained / 10))
    assert n < 2 * BLOCKS
    assert n >= FEWEST or available < LEAST


# --- in the gate ----------------------------------------------------------------------------------

BAD, GOOD = Paired(0.4, 0.1, 64), Paired(0.2, 0.1, 64)
STATE = GateState((), 4, 1.0)


def test_a_push_that_makes_it_worse_is_thrown_away_and_its_numbers_noted() -> None:
    verdict = decide(innovation(), STATE, 0.5, Learned(100.0, 100, BAD))
    assert (verdict.push, verdict.reason.code) == ("veto", "worse")
    noted = {name: verdict.reason.facts[name] for name in ("d", "se", "n", "limit")}
    assert noted == {"d": 0.4, "se": 0.1, "n": 64, "limit": 3.0}
    # No push: the silence goes on, and the threshold follows as where the score fired.
    pushed = decide(innovation(), STATE, 0.5, Learned(100.0, 100, GOOD))
    assert (pushed.push, pushed.reason.code) == ("push", "drifted")
    assert verdict.state == GateState((), 5, pushed.state.threshold)


def test_a_worker_whose_every_push_is_vetoed_is_heard_all_the_same() -> None:
    """Models may each be worse than their mean: no run may stand still for that."""
    state, codes = GateState((), 0, 0.0), []
    for _ in range(40):
        verdict = decide(innovation(rate=1.0, longest=10), state, 0.5, Learned(10.0, 100, BAD))
        codes.append(verdict.reason.code)
        state = verdict.state
    assert codes == (["worse"] * 9 + ["overdue"]) * 4


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(-1, 1)), max_size=40))
def test_only_a_push_is_tested_and_without_a_veto_the_test_is_not_seen(
    rounds: list[tuple[float, float]],
) -> None:
    off, on = innovation(veto=None, longest=5), innovation(longest=5)
    state = other = GateState((), 0, 0.0)
    for drift, d in rounds:
        tested = Learned(drift, 100, Paired(d, 0.1, 64))
        untested = decide(on, state, 0.5, Learned(drift, 100))
        verdict = decide(on, state, 0.5, tested)
        wanted = wants_test(on, state, 0.5, Learned(drift, 100))
        assert wanted == (untested.push == "push" and untested.reason.code != "overdue")
        assert wanted or verdict == untested
        assert (verdict.push == "veto") == (wanted and d > 0.3 * (1 + 1e-12))
        assert not wants_test(off, other, 0.5, Learned(drift, 100))
        plain = decide(off, other, 0.5, Learned(drift, 100))
        assert decide(off, other, 0.5, tested) == plain
        state, other = verdict.state, plain.state


def test_a_change_that_is_not_finite_travels_as_text() -> None:
    verdict = decide(innovation(), STATE, 0.5, Learned(100.0, 100, Paired(INF, NAN, 64)))
    assert (verdict.push, verdict.reason.facts["d"], verdict.reason.facts["se"]) == (
        "veto", "inf", "nan",
    )  # fmt: skip
