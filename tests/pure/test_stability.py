"""Is `merge.rate=auto` within the limit? Against the eigenvalues of the recursion itself."""

from __future__ import annotations

import numpy as np
import pytest

from hermes.policy.aggregate import MergeSettings
from hermes.policy.outer import outer_of
from hermes.policy.stability import FARTHEST, largest_stable, safe_rate

TABLE = {
    0: (2.00, 1.63, 1.50, 1.42, 1.36),
    1: (1.00, 0.72, 0.56, 0.42, 0.25),
    2: (0.62, 0.43, 0.31, 0.20, 0.081),
    3: (0.45, 0.31, 0.22, 0.13, 0.046),
    11: (0.14, 0.095, 0.066, 0.038, 0.011),
}
"""Lag in versions -> the limit at momentum 0, 0.3, 0.5, 0.7, 0.9 (nesterov), to the digits that
the notes of this project give."""


def radius(momentum: float, nesterov: bool, lag: int, rate: float) -> float:
    """Of the recursion's own matrix: x now, x at the `lag` versions before, and v."""
    matrix = np.zeros((lag + 2, lag + 2))
    matrix[-1, -1], matrix[-1, lag] = momentum, 1
    matrix[0, 0] = 1
    matrix[0] -= rate * (momentum if nesterov else 1) * matrix[-1]
    matrix[0, lag] -= rate if nesterov else 0
    for before in range(lag):
        matrix[before + 1, before] = 1
    return float(abs(np.linalg.eigvals(matrix)).max())


@pytest.mark.parametrize("lag", TABLE)
def test_the_limits_are_those_of_the_table(lag: int) -> None:
    for momentum, limit in zip((0, 0.3, 0.5, 0.7, 0.9), TABLE[lag], strict=True):
        assert largest_stable(momentum, True, lag) == pytest.approx(limit, rel=0.03)
    assert largest_stable(0, True, lag) == pytest.approx(2 * np.sin(np.pi / (4 * lag + 2)))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0, 0.1, 0.5, 0.9, 0.99])
def test_below_the_limit_all_modes_die_out_and_above_one_grows(
    momentum: float, nesterov: bool
) -> None:
    for lag in (0, 1, 2, 5, 11, 32, FARTHEST):
        limit = largest_stable(momentum, nesterov, lag)
        assert all(radius(momentum, nesterov, lag, part * limit) < 1 for part in (0.1, 0.5, 0.999))
        assert radius(momentum, nesterov, lag, 1.001 * limit) > 1
    beyond = largest_stable(momentum, nesterov, 2 * FARTHEST)
    assert 0 < beyond < largest_stable(momentum, nesterov, FARTHEST)
    assert radius(momentum, nesterov, 2 * FARTHEST, beyond) < 1


def test_the_step_is_half_of_the_limit_and_no_longer_than_one() -> None:
    settings = MergeSettings(rule="momentum", momentum=0.9, rate="auto", nesterov=True)
    found = [outer_of(settings, lag) for lag in (0, 1, 3)]
    rates = [outer.rate for outer in found if outer is not None]
    assert rates == pytest.approx([0.679, 0.127, 0.023], abs=6e-4)
    assert safe_rate(0.0, False, 0) == safe_rate(0.9, False, 0) == 1.0
