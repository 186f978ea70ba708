"""How long a step may the master take, with momentum and with updates that come late? Pure.

Linearised, with local training that maps w to w - (w - w*) (the direction it has solved; where it
has solved less, longer steps are stable), and with every update `lag` versions old:

    v <- momentum * v + x[t - lag]
    x <- x - rate * v                   or, with nesterov, x - rate * (x[t - lag] + momentum * v)

Both without v, as a polynomial in the shift z whose roots are the modes of x:

    z^(lag+2) - (1 + momentum) z^(lag+1) + momentum z^lag + rate * z                      = 0
    z^(lag+2) - (1 + momentum) z^(lag+1) + momentum z^lag + rate * ((1 + momentum) z - momentum) = 0

The step is stable while all roots lie within the unit circle. That is asked of the coefficients
alone (Schur and Cohn; Jury's table): no eigenvalues, and so the same answer on every platform.
"""

from __future__ import annotations

import functools

LARGEST = 4.0
"""No step as long as this is stable: without lag the limit is below 2 * (1 + momentum)."""

HALVINGS = 48
"""Of the interval that holds the limit."""

FARTHEST = 64
"""Lag up to which the limit is computed; beyond it falls as 1 / lag, or more slowly."""

SAFE = 0.5
"""Of the largest stable step: at the limit itself a mode swings for ever."""


def safe_rate(momentum: float, nesterov: bool, lag: int) -> float:
    """The step that `merge.rate=auto` takes: at most 1, and half of the largest stable one."""
    return min(1.0, SAFE * largest_stable(momentum, nesterov, lag))


@functools.cache
def largest_stable(momentum: float, nesterov: bool, lag: int) -> float:
    """The rate from which on the recursion grows; 0 <= momentum < 1, lag >= 0 versions.

    Beyond `FARTHEST` it is a lower bound.
    """
    if lag > FARTHEST:
        return largest_stable(momentum, nesterov, FARTHEST) * FARTHEST / lag
    low, high = 0.0, LARGEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if within_circle(polynomial(momentum, nesterov, lag, middle)):
            low = middle
        else:
            high = middle
    return high


def polynomial(momentum: float, nesterov: bool, lag: int, rate: float) -> list[float]:
    """Its coefficients, that of the highest power first."""
    found = [0.0] * (lag + 3)
    found[0], found[1], found[2] = 1.0, -(1 + momentum), momentum
    found[-2] += rate * (1 + momentum) if nesterov else rate
    found[-1] -= rate * momentum if nesterov else 0.0
    return found


def within_circle(polynomial: list[float]) -> bool:
    """Whether all roots of a polynomial (that of the highest power is 1, and first) lie within the
    unit circle: it is taken down by one degree at a time, and the product of its roots is asked."""
    rest = polynomial
    while len(rest) > 1:
        last = rest[-1]
        if not -1 < last < 1:
            return False
        scale = 1 - last * last
        rest = [
            (one - last * other) / scale for one, other in zip(rest[:-1], rest[:0:-1], strict=True)
        ]
    return True
