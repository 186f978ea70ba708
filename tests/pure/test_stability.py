"""Is `merge.rate=auto` within the limit? Against the eigenvalues of the recursion itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.policy.outer import outer_of
from hermes.policy.stability import FARTHEST, FRESH, Shares, largest_stable, safe_rate, shares_of
from hermes.policy.weigh import MergeSettings

TABLE = {
    0: (2.00, 1.63, 1.50, 1.42, 1.36),
    1: (1.00, 0.72, 0.56, 0.42, 0.25),
    2: (0.62, 0.43, 0.31, 0.20, 0.081),
    3: (0.45, 0.31, 0.22, 0.13, 0.046),
    11: (0.14, 0.095, 0.066, 0.038, 0.011),
}
"""Lag in versions -> the limit at momentum 0, 0.3, 0.5, 0.7, 0.9 (nesterov), to the digits that
the notes of this project give."""


def all_at(lag: int) -> Shares:
    return (0.0,) * lag + (1.0,)


def radius(momentum: float, nesterov: bool, shares: Shares, rate: float) -> float:
    """Of the recursion's own matrix: x now, x at the versions before, and v."""
    lag = len(shares) - 1
    matrix = np.zeros((lag + 2, lag + 2))
    matrix[-1, :-1], matrix[-1, -1] = shares, momentum
    matrix[0, 0] = 1
    matrix[0] -= rate * (momentum if nesterov else 1) * matrix[-1]
    if nesterov:
        matrix[0, :-1] -= rate * np.array(shares)
    for before in range(lag):
        matrix[before + 1, before] = 1
    return float(abs(np.linalg.eigvals(matrix)).max())


@pytest.mark.parametrize("lag", TABLE)
def test_the_limits_are_those_of_the_table(lag: int) -> None:
    for momentum, limit in zip((0, 0.3, 0.5, 0.7, 0.9), TABLE[lag], strict=True):
        assert largest_stable(momentum, True, all_at(lag)) == pytest.approx(limit, rel=0.03)
    limit = 2 * np.sin(np.pi / (4 * lag + 2))
    assert largest_stable(0, True, all_at(lag)) == pytest.approx(limit)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0, 0.1, 0.5, 0.9, 0.99])
def test_below_the_limit_all_modes_die_out_and_above_one_grows(
    momentum: float, nesterov: bool
) -> None:
    def judged(shares: Shares) -> None:
        limit = largest_stable(momentum, nesterov, shares)
        assert all(
            radius(momentum, nesterov, shares, part * limit) < 1 for part in (0.1, 0.5, 0.999)
        )
        assert radius(momentum, nesterov, shares, 1.001 * limit) > 1

    for lag in (0, 1, 2, 5, 11, 32, FARTHEST):
        judged(all_at(lag))
    for shares in ((0.9, 0.1), (0.5, 0.5), (0.7, 0.0, 0.0, 0.3), (0.25, 0.25, 0.25, 0.25)):
        judged(shares)
    twice = all_at(2 * FARTHEST)
    beyond = largest_stable(momentum, nesterov, twice)
    assert 0 < beyond < largest_stable(momentum, nesterov, all_at(FARTHEST))
    assert radius(momentum, nesterov, twice, beyond) < 1


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(any),
    st.sampled_from([0.0, 0.5, 0.7, 0.9]),
)
def test_half_of_the_limit_is_stable_however_late_the_parts_are(
    parts: list[int], momentum: float
) -> None:
    shares = shares_of([(lag, float(part)) for lag, part in enumerate(parts) if part])
    assert sum(shares) == pytest.approx(1)
    rate = safe_rate(momentum, True, shares)
    assert radius(momentum, True, shares, rate) < 1
    assert rate <= safe_rate(momentum, True, all_at(0))


def test_a_few_late_updates_cost_nothing_and_bring_nothing() -> None:
    some, half, late = (0.9, 0.1), (0.5, 0.5), (0.0, 1.0)
    limits = [largest_stable(0.7, True, shares) for shares in (FRESH, some, half, late)]
    assert limits == pytest.approx([1.42, 1.77, 0.97, 0.42], abs=0.01)
    assert safe_rate(0.7, True, some) == safe_rate(0.7, True, FRESH)
    assert safe_rate(0.7, True, half) == pytest.approx(0.97 / 2, abs=0.01)
    assert shares_of([]) == FRESH


def test_the_step_is_half_of_the_limit_and_no_longer_than_one() -> None:
    settings = MergeSettings(rule="momentum", momentum=0.9, rate="auto", nesterov=True)
    found = [outer_of(settings, all_at(lag)) for lag in (0, 1, 3)]
    rates = [outer.rate for outer in found if outer is not None]
    assert rates == pytest.approx([0.679, 0.127, 0.023], abs=6e-4)
    assert safe_rate(0.0, False, FRESH) == safe_rate(0.9, False, FRESH) == 1.0
