"""How long a step may the master take, with momentum and with updates that come late? Pure.

Linearised, with local training that maps w to w - (w - w*) (the direction it has solved; where it
has solved less, longer steps are stable), where a share p[k] of what is merged is k versions old:

    d <- sum(p[k] * x[t - k]),    v <- momentum * v + d
    x <- x - rate * v             or, with nesterov, x - rate * (d + momentum * v)

Both without v, as a polynomial in the shift z whose roots are the modes of x; L is the largest lag:

    z^(L+2) - (1 + momentum) z^(L+1) + momentum z^L + rate * P z = 0,    P = sum(p[k] z^(L-k))
    z^(L+2) - (1 + momentum) z^(L+1) + momentum z^L + rate * P * ((1 + momentum) z - momentum) = 0

The step is stable while all roots lie within the unit circle. That is asked of the coefficients
alone (Schur and Cohn; Jury's table): no eigenvalues, and so the same answer on every platform.

A few late updates cost nothing: with momentum 0.7 the limit is 1.42 where all are fresh, 0.97 where
half is one version old, 0.42 where all are. Where a tenth is it is even higher (1.77): at lag 0 it
is a swing from one side to the other that grows first, and what is old damps that. Nobody is
given a longer step for being late: `safe_rate` is that of fresh updates then.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

SMALLEST = 2.0**-12
"""Where the search for the limit begins; of what is stable it is all."""

STRIDE = 1.25
"""From one step that is tried to the next, until one is not stable: there may be stable ones again
beyond it."""

HALVINGS = 40
"""Of the interval that holds the limit, then."""

FARTHEST = 64
"""Lag up to which the limit is computed; beyond it falls as 1 / lag, or more slowly."""

SAFE = 0.5
"""Of the largest stable step: at the limit itself a mode swings for ever."""

Shares = tuple[float, ...]
"""By lag in versions, from 0: the share of what is merged that is so old; they sum to 1."""

FRESH: Shares = (1.0,)


def shares_of(lags: Sequence[tuple[int, float]]) -> Shares:
    """The shares of these (lag, weight), whose weights are positive; all fresh where there are
    none."""
    whole = math.fsum(weight for _, weight in lags)
    found = [0.0] * (1 + max((lag for lag, _ in lags), default=0))
    for lag, weight in lags:
        found[lag] += weight / whole
    return tuple(found) if lags else FRESH


def safe_rate(momentum: float, nesterov: bool, shares: Shares) -> float:
    """The step that `merge.rate=auto` takes: at most 1, and half of the largest stable one."""
    limit = min(largest_stable(momentum, nesterov, found) for found in (shares, FRESH))
    return min(1.0, SAFE * limit)


@functools.lru_cache(maxsize=256)
def largest_stable(momentum: float, nesterov: bool, shares: Shares) -> float:
    """The rate from which on the recursion grows; 0 <= momentum < 1.

    Where something is older than `FARTHEST` it is a lower bound.
    """
    lag = len(shares) - 1
    if lag > FARTHEST:
        near = (*shares[:FARTHEST], math.fsum(shares[FARTHEST:]))
        return largest_stable(momentum, nesterov, near) * FARTHEST / lag
    low, high = 0.0, SMALLEST
    while within_circle(polynomial(momentum, nesterov, shares, high)):
        low, high = high, high * STRIDE
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if within_circle(polynomial(momentum, nesterov, shares, middle)):
            low = middle
        else:
            high = middle
    return high


def polynomial(momentum: float, nesterov: bool, shares: Shares, rate: float) -> list[float]:
    """Its coefficients, that of the highest power first."""
    found = [0.0] * (len(shares) + 2)
    found[0], found[1], found[2] = 1.0, -(1 + momentum), momentum
    for lag, share in enumerate(shares):
        found[lag + 1] += share * rate * (1 + momentum if nesterov else 1)
        found[lag + 2] -= share * rate * momentum if nesterov else 0.0
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
