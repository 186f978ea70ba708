"""Halves are scaled by a product where that is the same, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from hermes.halves import FARTHEST, Scaled, grow, shrink

EVERY = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
"""Each half there is: zeros, denormal numbers, what is not finite."""

EDGES = (0, 1, 15, 103, 104, 125, 126, 127, 128, 149, 150, 1022, 1023, 1024, 1074, FARTHEST)


@pytest.mark.parametrize("exponent", [*EDGES, *(-edge for edge in EDGES)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_half_grows_to_what_ldexp_says(dtype: type, exponent: int) -> None:
    found = grow(Scaled(EVERY, exponent), np.dtype(dtype))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        wanted = np.ldexp(EVERY.astype(dtype), exponent)
    assert found.dtype == wanted.dtype
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("dtype", "power"),
    [
        *((np.float32, power) for power in (-140, -120, -20, 0, 20, 100, 127)),
        *((np.float64, power) for power in (-1060, -140, 0, 140, 1023)),
    ],
)
def test_what_shrinks_is_rounded_as_ldexp_has_it(dtype: type, power: int) -> None:
    chance = np.random.default_rng(power % 7)
    near = np.ldexp(chance.uniform(-1, 1, 500), chance.integers(-45, 1, 500))
    with np.errstate(over="ignore", under="ignore"):
        array = np.ldexp(np.append(near, 1.5), power).astype(dtype)
    found = shrink(array)
    wanted = np.ldexp(array, -found.exponent).astype(np.float16)
    assert found.halves.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("power", [-120, -20, 0, 20, 100])
def test_what_is_not_finite_does_not_set_the_scale(power: int) -> None:
    sound = np.array([1.5, -1.75, 2.0**-9], np.float32) * np.float32(2.0**power)
    odd = np.array([np.inf, -np.inf, np.nan], np.float32)
    wanted, found = shrink(sound), shrink(np.concatenate([odd, sound]))
    assert found.exponent == wanted.exponent
    assert found.halves[3:].tobytes() == wanted.halves.tobytes()
    assert found.halves[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(found.halves[2])
    assert shrink(odd).exponent == 0
