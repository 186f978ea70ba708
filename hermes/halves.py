"""How does a float tensor become 16 bits an element, with a power of two as its scale? Pure.

x is about half * 2**exponent, where the exponent is as small as the largest finite |x| allows. A
half has 11 significant bits, so that x is kept to 2**-11 of itself (rounded to the nearest; at
random: 2**-10), and below 2**-29 of the largest |x| to 2**-40 (2**-39) of that. What is finite
stays finite, a power of two in that range and zero are kept exactly, and so is what is not finite.

Rounding does nothing to what was rounded before, and the bytes depend on the rounded values alone:
whoever has those can make the bytes again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]
Floats: TypeAlias = npt.NDArray[np.floating]
Half: TypeAlias = npt.NDArray[np.float16]
Chance: TypeAlias = Callable[[int], npt.NDArray[np.uint64]]
"""The next so many words of a stream of random bits."""

BITS = 11
"""Significant bits of a half."""
TOP = 16
"""Halves lie below 2**TOP."""
NORMAL = 2.0**-14
"""From here on they have all their bits; below they are multiples of `STEP`."""
STEP = 2.0**-24

_SIZE, _INFINITE = np.uint16(0x7FFF), np.uint16(0x7C00)
"""The bits of a half without its sign, and where what is not finite begins."""

TILE = 1 << 16
"""Elements that are rounded at a time."""

FARTHEST = 1200
"""No exponent is farther from 0: floats of 64 bits reach from 2**-1074 to 2**1024."""


class Scaled(NamedTuple):
    """A tensor as halves: x = halves * 2**exponent."""

    halves: Half
    exponent: int


class _Form(NamedTuple):
    """How a float lies in its bits."""

    word: np.dtype[np.unsignedinteger]
    draw: str
    """What is drawn for each element, as a part of 64 random bits."""
    spare: int
    """Bits of its significand that a half lacks."""


_FORMS = {
    4: _Form(np.dtype(np.uint32), "<u2", 24 - BITS),
    8: _Form(np.dtype(np.uint64), "<u8", 53 - BITS),
}


def shrink(array: Array, chance: Chance | None = None) -> Scaled:
    """Floats of 32 or 64 bits, in any shape, as halves: rounded to the nearest or, with `chance`,
    up or down at random, so that the mean of many roundings is x
    (denormal numbers of 32 bits apart: parts of 2^-13 of a step of theirs are dropped)."""
    flat: Any = np.ascontiguousarray(array).reshape(-1)
    first = _exponent(_largest(flat), rounded=False)
    rounded = np.empty(flat.size, np.float16)
    for tile in _tiles(flat.size):
        scaled = _times(flat[tile], -first)
        rounded[tile] = scaled if chance is None else _either(scaled, chance)
    _keep_finite(rounded, first, np.finfo(flat.dtype).maxexp)
    # What was largest may have become smaller than what the next power of two is for.
    last = first + _exponent(_largest_half(rounded), rounded=True)
    if last != first:
        rounded = np.ldexp(rounded, first - last)
    return Scaled(rounded.reshape(array.shape), last)


def grow(scaled: Scaled, dtype: np.dtype[np.generic]) -> Floats:
    """The values again, as floats of this type; beyond its range: infinite, or rounded."""
    halves = np.ascontiguousarray(scaled.halves).reshape(-1)
    found = np.empty(halves.size, dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for tile in _tiles(halves.size):
            wide = halves[tile].astype(dtype)
            found[tile] = _times(wide, scaled.exponent)
    return found.reshape(scaled.halves.shape)


def _times(array: Any, exponent: int) -> Any:
    """array * 2**exponent, rounded once: a product where the power is a float of this type, which
    is quicker than `ldexp`."""
    kind = np.finfo(array.dtype)
    if kind.minexp <= exponent < kind.maxexp:
        return array * array.dtype.type(2.0**exponent)
    return np.ldexp(array, exponent)


def _keep_finite(rounded: Half, exponent: int, most: int) -> None:
    """Nothing is rounded up to 2**most, which its type does not hold."""
    edge = 2.0 ** (TOP - 1)
    if exponent + TOP - 1 == most:
        rounded[rounded == edge] = edge * (1 - 2.0**-BITS)
        rounded[rounded == -edge] = -edge * (1 - 2.0**-BITS)


def _exponent(largest: float, *, rounded: bool) -> int:
    """Of a tensor whose largest value this is; 0 where there is none."""
    if not largest:
        return 0
    part, exponent = math.frexp(largest)
    over = not rounded and part > 1 - 2.0**-BITS  # it may be rounded up to the next power of two
    return exponent + over - TOP


def _largest(flat: Floats) -> float:
    """Of the finite absolute values."""
    found = 0.0
    for tile in _tiles(flat.size):
        size = np.abs(flat[tile])
        most = float(np.max(size))
        if not math.isfinite(most):
            most = float(np.max(size, where=np.isfinite(size), initial=0))
        found = max(found, most)
    return found


def _largest_half(flat: Half) -> float:
    """As `_largest`: without their signs, halves are in the order of their bits."""
    size = flat.view(np.uint16) & _SIZE
    most = np.max(size, initial=0)
    if most >= _INFINITE:
        most = np.max(size, where=size < _INFINITE, initial=0)
    return float(most.view(np.float16))


def _either(scaled: Floats, chance: Chance) -> Floats:
    """The half below or the half above, in magnitude: above with the chance that makes the mean
    right."""
    form = _FORMS[scaled.dtype.itemsize]
    mask = form.word.type((1 << form.spare) - 1)
    drawn = _drawn(chance, scaled.size, form).astype(form.word) & mask
    with np.errstate(over="ignore"):  # of what is not finite, which is put back
        bits = (scaled.view(form.word) + drawn) & ~mask
    found: Floats = bits.view(scaled.dtype)
    size = np.abs(scaled)
    small = size < NORMAL
    if small.any():
        part = drawn[small].astype(np.float64) / (1 << form.spare)
        steps = np.floor(size[small].astype(np.float64) / STEP + part)
        found[small] = np.copysign(steps * STEP, scaled[small])
    odd = ~np.isfinite(scaled)
    found[odd] = scaled[odd]
    return found


def _drawn(chance: Chance, size: int, form: _Form) -> npt.NDArray[np.unsignedinteger]:
    each = 8 // np.dtype(form.draw).itemsize
    raw = np.asarray(chance(-(-size // each)), "<u8")
    return raw.view(form.draw)[:size]


def _tiles(size: int) -> list[slice]:
    return [slice(start, min(start + TILE, size)) for start in range(0, size, TILE)]
