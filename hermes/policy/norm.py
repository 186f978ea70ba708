"""Is a model absurdly far from where it started? The norm of an update, and what it may be. Pure.

The norm is the distance (L2, float64, over what is learned: no buffers, no integers) between an
update's model and the version that the merge holds it against: its base, or for interpolation the
version in force, which it pulls the model away from. A norm comes of a reduction, so it is
recorded with the version that holds the update and never recomputed to decide (protocol 11): the
limit is made of recorded norms alone, and a restarted master has the same one.

Why a hundred medians: honest norms differ by what was trained (a round of one step beside one of
fifty, a schedule's first and last tenth), and by a factor of 2 to 20 in practice; what is broken
(a wrong scale, a flipped exponent bit, an attack) is off by thousands and more. Why a median: half
of the last updates would have to lie to move it. Why not sooner than eight: of three norms the
middle one says little, and the first steps of a run are its largest. Until then only what no
training does is refused: `START` for each byte of model, in the mean square.

Who is right where *all* workers are absurd, again and again? They are: a schedule has raised the
learning rate, or the run goes on under other settings. A limit that rejected them for ever would
end the run; one worker, or some, never get there beside an honest one.

A norm of zero (a learning rate that warms up from zero) says nothing and is not kept.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from hermes.policy.ranges import Allowed, number
from hermes.values import Facts, Reason, Tensors

AUTO = "auto"

ABSURD = "absurd-norm"
"""Code of the rejection."""

SETTING = Allowed(
    "auto, a number above 0, or off",
    lambda value: value is None or value == AUTO or number(above=0).fits(value),
)
"""What `merge.max_norm` may be."""

TIMES = 100.0
"""Medians that a norm may have."""

KEPT = 32
"""Norms of applied updates that the median is taken over ..."""

NEEDED = 8
"""... once there are so many."""

INSISTED = 2
"""Absurd updates in a row of every worker alive, after which the norms are learned anew."""

START = 1e6
"""Before that: root mean square over the bytes of the model; two million for each number of
float32. A model of a million numbers may still be moved by 2e9."""

TILE = 1 << 16
"""Elements worked on at a time."""


class Limit(msgspec.Struct, frozen=True):
    """What a norm may be, and what that was made of."""

    most: float
    median: float | None = None
    """Of the last `known` norms, where the limit was made of them."""
    known: int = 0


def limit(setting: float | str | None, norms: Sequence[float], length: int) -> Limit | None:
    """The limit in force; None where norms are not looked at (`setting` is off).

    `norms`: those of the last applied updates, `length`: bytes of the version in force.
    """
    if setting is None:
        return None
    if not isinstance(setting, str):
        return Limit(float(setting))
    if len(norms) < NEEDED:
        return Limit(START * math.sqrt(length), None, len(norms))
    middle = statistics.median(norms)
    return Limit(TIMES * middle, middle, len(norms))


def judge(norm: float, allowed: Limit) -> Reason | None:
    """Why an update of this norm is rejected, or None."""
    if norm <= allowed.most:
        return None
    # As text where it is not finite: JSON has no word for it.
    shown: float | str = norm if math.isfinite(norm) else str(norm)
    facts: Facts = {"norm": shown, "limit": allowed.most, "known": allowed.known}
    if allowed.median is not None:
        facts["median"] = allowed.median
    return Reason(ABSURD, facts)


def remembered(norms: Sequence[float], more: Sequence[float]) -> tuple[float, ...]:
    """The norms that later limits are made of, after these."""
    usable = [norm for norm in more if norm > 0 and math.isfinite(norm)]
    return (*norms, *usable)[-KEPT:]


def distance(local: Tensors, base: Tensors, buffers: Collection[str] = ()) -> float:
    """The L2 norm of local - base over the floating tensors that are not `buffers`.

    One pass, in tiles: no copy of a model. Infinite where float64 cannot hold it, or a number is
    not finite.
    """
    total, room = 0.0, np.empty(TILE, np.float64)
    for name, array in local.items():
        if array.dtype.kind == "f" and name not in buffers:
            total += _squares(array, base[name], room)
    return math.sqrt(total) if math.isfinite(total) else math.inf


def _squares(
    local: npt.NDArray[np.generic], base: npt.NDArray[np.generic], room: npt.NDArray[np.float64]
) -> float:
    ones, others = (np.ascontiguousarray(array).reshape(-1) for array in (local, base))
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, ones.size, TILE):
            part = room[: min(TILE, ones.size - first)]
            tile = slice(first, first + part.size)
            # Cast first: a difference of float32 numbers may not be one.
            np.subtract(ones[tile], others[tile], out=part, dtype=np.float64)
            np.multiply(part, part, out=part)  # not `dot`: BLAS is slow where cores are busy
            total += float(part.sum())
    return total
