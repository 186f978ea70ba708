"""How does the mean of the updates become a step, where the master keeps momentum? Pure.

With d = sum(weight * (base - local)) / sum(weight), the mean pseudo-gradient, and the master's
momentum v (float64, one for each learned float parameter; none before the first version):

    v <- momentum * v + d
    w <- w - rate * v                   or, with nesterov, w - rate * (d + momentum * v)

FedAvgM (Hsu, Qi, Brown 2019, arXiv 1909.06335); with nesterov, DiLoCo's outer step (arXiv
2311.08105). The arithmetic is that of `aggregate`: one NumPy operation each, in tiles, rounded
once, to the tensor's own dtype; v is never rounded. What is taken by value there (buffers,
integers) is so here, and has no momentum. A momentum of 0 leaves out what it would multiply: the
step is then, bit for bit, that of `aggregate.MeanOfDeltas`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from hermes.errors import Defect
from hermes.policy import aggregate
from hermes.policy.aggregate import Array, Doubles, MeanOfDeltas, Model, flattened, tiles
from hermes.policy.stability import Shares, safe_rate
from hermes.policy.weigh import MergeSettings
from hermes.values import Outer, Tensors


def keeps_momentum(settings: MergeSettings) -> bool:
    """Whether the master holds what no version does."""
    return settings.rule == "momentum"


def outer_of(settings: MergeSettings, shares: Shares) -> Outer | None:
    """The step of a version of which such shares are so many versions old; None where the rule
    keeps no momentum."""
    if not keeps_momentum(settings):
        return None
    momentum, rate = float(settings.momentum), settings.rate
    if isinstance(rate, str):
        rate = safe_rate(momentum, settings.nesterov, shares)
    return Outer(momentum, float(rate), settings.nesterov)


class Stepped(NamedTuple):
    """A new model, and the momentum that goes with it."""

    model: Model
    moments: Model
    """v by parameter, float64, in its shape."""


class Momentum:
    """The step, one update at a time.

    Memory: the sums (float64), which become the new momentum; the old one stays as it is.
    """

    def __init__(self, outer: Outer, buffers: Collection[str] = ()) -> None:
        self._outer, self._deltas = outer, MeanOfDeltas(buffers)

    def add(
        self, base: Tensors, local: Tensors, weight: float, samples: float | None = None
    ) -> None:
        """Weights are positive; `samples` weighs the buffers (None: as the rest)."""
        self._deltas.add(base, local, weight, samples)

    def finish(self, current: Tensors, moments: Tensors) -> Stepped:
        """The model that follows `current`; `moments` is empty where there are none yet. The
        accumulator is empty afterwards. Raises `Defect` for moments of another model."""
        values, means = self._deltas.means(current)
        _must_fit(moments, {name: current[name] for name in means})
        model = {
            name: values[name]
            if name in values
            else _step(array, means[name], moments.get(name), self._outer)
            for name, array in current.items()
        }
        return Stepped(model, {name: v.reshape(current[name].shape) for name, v in means.items()})


def _step(current: Array, mean: Doubles, before: Array | None, outer: Outer) -> Array:
    """The parameter after the step; `mean` becomes the new momentum, in its place."""
    values, old = flattened(current), None if before is None else flattened(before)
    out = np.empty(mean.size, current.dtype)
    step = np.empty(min(aggregate.TILE, mean.size), np.float64)
    start = np.empty_like(step)
    for tile in tiles(mean.size):
        length = tile.stop - tile.start
        d, part, own = mean[tile], step[:length], start[:length]
        with np.errstate(over="ignore", invalid="ignore"):
            v = _turned(d, None if old is None else old[tile], part, own, outer)
            np.multiply(v, outer.rate, out=part)
            own[:] = values[tile]
            np.subtract(own, part, out=part)
            out[tile] = part
    return out.reshape(current.shape)


def _turned(
    d: Doubles, old: Array | None, first: Doubles, second: Doubles, outer: Outer
) -> Doubles:
    """What the rate is applied to, in `d` or in scratch; `d` becomes the new momentum."""
    if not outer.momentum:
        return d
    if outer.nesterov:
        second[:] = d
    if old is not None:
        np.multiply(old, outer.momentum, out=first)
        np.add(first, d, out=d)
    if not outer.nesterov:
        return d
    np.multiply(d, outer.momentum, out=first)
    np.add(second, first, out=first)
    return first


def _must_fit(moments: Tensors, learned: Tensors) -> None:
    if not moments:
        return
    found = {name: (array.shape, array.dtype) for name, array in moments.items()}
    wanted = {name: (array.shape, np.dtype(np.float64)) for name, array in learned.items()}
    if found != wanted:
        raise Defect("the master's momentum is not that of this model")
