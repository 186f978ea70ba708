"""How do models become one? Means, sums and interpolation, the same bits everywhere. Pure.

The arithmetic (protocol, rule 11): float64; only `+ - * /`, elementwise, one NumPy operation
each, in the order the models are given; in tiles, which changes no bit and keeps memory small; one
rounding at the end, to the tensor's own dtype. No dot, sum, exp or BLAS.

- A single model is *copied*: every bit survives, negative zero, subnormals and NaN among them.
  With two or more, an element is -0.0 only where every model has -0.0 there.
- Integer and boolean tensors take the maximum (counters: "batches seen").
- Buffers (BatchNorm's running values) are the weighted mean of the contributors' *values*, never
  of differences; `samples` weighs them where the parameters are weighed otherwise.
- What is not finite stays so; nothing warns. `weigh.check_update` finds it, before or after.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.errors import Defect
from hermes.values import Reason, Tensors

Array: TypeAlias = npt.NDArray[Any]
Doubles: TypeAlias = npt.NDArray[np.float64]
Model: TypeAlias = dict[str, Array]

TILE = 1 << 16
"""Elements worked on at a time: two scratch tiles of float64 are 1 MiB, which a cache holds."""

# --- do they fit together? ----------------------------------------------------------------------


def check_form(tensors: Tensors, like: Tensors) -> Reason | None:
    """Why these tensors' names, shapes or dtypes are not those of `like`, or None.

    Codes: "wrong-names", "wrong-shape", "wrong-dtype".
    """
    if tensors.keys() != like.keys():
        missing, unexpected = like.keys() - tensors.keys(), tensors.keys() - like.keys()
        return Reason(
            "wrong-names",
            {
                "missing": len(missing),
                "unexpected": len(unexpected),
                "tensor": short(min(missing or unexpected)),
            },
        )
    for name, array in tensors.items():
        found, wanted = array, like[name]
        if found.shape != wanted.shape:
            return _differ("wrong-shape", name, found.shape, wanted.shape)
        if found.dtype != wanted.dtype:
            return _differ("wrong-dtype", name, found.dtype, wanted.dtype)
    return None


# --- means --------------------------------------------------------------------------------------


class Mean:
    """sum(weight * model) / sum(weight), one model at a time.

    Memory: the sums (float64) and nothing of the models added; while there is but one, its copy.
    """

    def __init__(self, buffers: Collection[str] = ()) -> None:
        self._buffers = frozenset(buffers)
        self._clear()

    def _clear(self) -> None:
        self._first: tuple[Model, _Weights] | None = None
        self._sums: dict[str, _Sum] = {}
        self._form: Model = {}
        self._total = _Weights(0.0, 0.0)

    def add(self, model: Tensors, weight: float, samples: float | None = None) -> None:
        """Weights are positive; `samples` weighs the buffers (None: as the rest)."""
        weights = _weights(weight, samples)
        if not self._form:
            self._form = _form(model)
            self._first = ({name: np.array(array) for name, array in model.items()}, weights)
        else:
            _insist(model, self._form)
            if self._first is not None:
                first, its_weights = self._first
                self._first = None
                self._add(first, its_weights)
            self._add(model, weights)
        self._total = self._total.plus(weights)

    def finish(self) -> Model:
        """The mean. The accumulator is empty afterwards."""
        if not self._form:
            raise Defect("a mean of no models")
        if self._first is not None:
            mean = self._first[0]
        else:
            mean = {
                name: total.over(self._total.of(name, self._buffers), self._form[name])
                for name, total in self._sums.items()
            }
        self._clear()
        return mean

    def _add(self, model: Tensors, weights: _Weights) -> None:
        for name, array in model.items():
            total = self._sums.setdefault(name, _Sum())
            total.add(array, weights.of(name, self._buffers))


class MeanOfDeltas:
    """current - scale * sum(weight * (base - local)) / sum(weight), one update at a time.

    Buffers and integers are means (maxima) of the local values. Memory: the sums (float64).
    """

    def __init__(self, buffers: Collection[str] = ()) -> None:
        self._buffers = frozenset(buffers)
        self._values = Mean(buffers)
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, _Sum] = {}
        self._form: Model = {}
        self._total = 0.0

    def add(
        self, base: Tensors, local: Tensors, weight: float, samples: float | None = None
    ) -> None:
        """Weights are positive; `samples` weighs the buffers (None: as the rest)."""
        if not self._form:
            self._form = _form(local)
        _insist(local, self._form)
        _insist(base, self._form)
        kept = {name: array for name, array in local.items() if self._by_value(name)}
        if kept:
            self._values.add(kept, weight, samples)
        weights = _weights(weight, samples)
        for name, array in local.items():
            if name not in kept:
                self._sums.setdefault(name, _Sum()).add_difference(
                    base[name], array, weights.weight
                )
        self._total += weights.weight

    def finish(self, current: Tensors, scale: float = 1.0) -> Model:
        """The new model. The accumulator is empty afterwards."""
        values, means = self.means(current)
        return {
            name: values[name] if name in values else _off(array, means[name], float(scale))
            for name, array in current.items()
        }

    def means(self, current: Tensors) -> tuple[Model, dict[str, Doubles]]:
        """The mean values of what is taken by value, and of all else the mean differences, flat:
        nothing shares their memory. The accumulator is empty afterwards."""
        if not self._form:
            raise Defect("a mean of no updates")
        _insist(current, self._form)
        values = self._values.finish() if any(map(self._by_value, self._form)) else {}
        means = {name: total.mean(self._divisor()) for name, total in self._sums.items()}
        self._clear()
        return values, means

    def _divisor(self) -> float:
        return self._total

    def _by_value(self, name: str) -> bool:
        return name in self._buffers or self._form[name].dtype.kind != "f"


class SumOfDeltas(MeanOfDeltas):
    """current - sum(weight * (base - local)): as `MeanOfDeltas`, divided by nothing.

    Buffers and integers are means (maxima) of the local values here, too.
    """

    def _divisor(self) -> float:
        return 1.0


def mean_of_models(
    models: Sequence[tuple[Tensors, float]],
    buffers: Collection[str] = (),
    samples: Sequence[float] | None = None,
) -> Model:
    """sum(weight * model) / sum(weight); a single model is copied bit for bit.

    The same bits as from a `Mean`, tile by tile: beside the models, only the mean is in memory.
    """
    if not models:
        raise Defect("a mean of no models")
    form = _form(models[0][0])
    for model, _ in models:
        _insist(model, form)
    merged: Model = {}
    for name, like in form.items():
        out = np.empty(like.size, like.dtype)
        flat = [(flattened(model[name]), weight) for model, weight in models]
        for tile in tiles(like.size):
            mean = Mean(buffers)
            for index, (array, weight) in enumerate(flat):
                part = {name: array[tile]}
                mean.add(part, weight, None if samples is None else samples[index])
            out[tile] = mean.finish()[name]
        merged[name] = out.reshape(like.shape)
    return merged


def mean_of_deltas(
    current: Tensors,
    updates: Sequence[tuple[Tensors, Tensors, float]],
    buffers: Collection[str] = (),
    scale: float = 1.0,
    samples: Sequence[float] | None = None,
) -> Model:
    """current - scale * sum(weight * (base - local)) / sum(weight), for (base, local, weight).

    Where every base *is* `current` and scale is 1, take `mean_of_models` of the local models
    instead: equal but for rounding, and exact for one.
    """
    mean = MeanOfDeltas(buffers)
    for index, (base, local, weight) in enumerate(updates):
        mean.add(base, local, weight, None if samples is None else samples[index])
    return mean.finish(current, scale)


def interpolate(
    current: Tensors,
    local: Tensors,
    weight_current: float,
    weight_local: float,
    buffers: Collection[str] = (),
) -> Model:
    """(weight_current * current + weight_local * local) / (weight_current + weight_local).

    Buffers are interpolated by the same weights: here the current model contributes, too.
    """
    return mean_of_models([(current, weight_current), (local, weight_local)], buffers)


# --- the arithmetic -----------------------------------------------------------------------------


class _Weights(NamedTuple):
    weight: float
    samples: float

    def of(self, name: str, buffers: frozenset[str]) -> float:
        return self.samples if name in buffers else self.weight

    def plus(self, other: _Weights) -> _Weights:
        return _Weights(self.weight + other.weight, self.samples + other.samples)


class _Sum:
    """One tensor's weighted sum, flat; of integers the maximum."""

    def __init__(self) -> None:
        self._sum: Array | None = None

    def add(self, array: Array, weight: float) -> None:
        if array.dtype.kind == "f":
            self._add((array,), weight)
        elif self._sum is None:
            self._sum = flattened(array).copy()
        else:
            np.maximum(self._sum, flattened(array), out=self._sum)

    def add_difference(self, base: Array, local: Array, weight: float) -> None:
        self._add((base, local), weight)

    def over(self, total: float, like: Array) -> Array:
        """sum / total, in the dtype and shape of `like`."""
        sums = self._taken()
        if like.dtype.kind != "f":
            return sums.reshape(like.shape)
        out = np.empty(sums.size, like.dtype)
        scratch = np.empty(min(TILE, sums.size), np.float64)
        for tile in tiles(sums.size):
            part = scratch[: tile.stop - tile.start]
            with np.errstate(over="ignore", invalid="ignore"):
                np.divide(sums[tile], total, out=part)
                out[tile] = part
        return out.reshape(like.shape)

    def mean(self, total: float) -> Doubles:
        """sum / total, flat, in the memory of the sum."""
        sums: Doubles = self._taken()
        with np.errstate(over="ignore", invalid="ignore"):
            np.divide(sums, total, out=sums)
        return sums

    def _add(self, terms: tuple[Array, ...], weight: float) -> None:
        """Add weight * terms[0], or weight * (terms[0] - terms[1])."""
        flat = [flattened(term) for term in terms]
        size = flat[0].size
        fresh = self._sum is None
        sums: Doubles = np.empty(size, np.float64) if self._sum is None else self._sum
        product = np.empty(min(TILE, size), np.float64)
        second = np.empty_like(product)
        for tile in tiles(size):
            length = tile.stop - tile.start
            part = product[:length]
            part[:] = flat[0][tile]
            with np.errstate(over="ignore", invalid="ignore"):
                if len(flat) == 2:
                    second[:length] = flat[1][tile]
                    np.subtract(part, second[:length], out=part)
                np.multiply(part, weight, out=part)
                if fresh:  # not 0.0 + part: that would turn -0.0 into 0.0
                    sums[tile] = part
                else:
                    np.add(sums[tile], part, out=sums[tile])
        self._sum = sums

    def _taken(self) -> Array:
        if self._sum is None:
            raise Defect("a sum of nothing")
        return self._sum


def _off(current: Array, mean: Doubles, scale: float) -> Array:
    """current - scale * mean."""
    values = flattened(current)
    out = np.empty(mean.size, current.dtype)
    step = np.empty(min(TILE, mean.size), np.float64)
    start = np.empty_like(step)
    for tile in tiles(mean.size):
        length = tile.stop - tile.start
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(mean[tile], scale, out=step[:length])
            start[:length] = values[tile]
            np.subtract(start[:length], step[:length], out=step[:length])
            out[tile] = step[:length]
    return out.reshape(current.shape)


def tiles(size: int) -> Iterator[slice]:
    """The parts that so many elements are worked on in."""
    for first in range(0, size, TILE):
        yield slice(first, min(first + TILE, size))


def flattened(array: Array) -> Array:
    """All elements in a row, without a copy where they lie so."""
    return np.ascontiguousarray(array).reshape(-1)


def _form(model: Tensors) -> Model:
    """Shapes and dtypes of a model, in arrays without data."""
    for name, array in model.items():
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise Defect(f"tensor {name!r}: no arithmetic for {array.dtype}")
    return {
        name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
        for name, array in model.items()
    }


def _insist(model: Tensors, form: Mapping[str, Array]) -> None:
    wrong = check_form(model, form)
    if wrong is not None:
        raise Defect(f"models that do not fit together: {wrong.code} {wrong.facts}")


def _weights(weight: float, samples: float | None) -> _Weights:
    weights = _Weights(float(weight), float(weight if samples is None else samples))
    if not all(math.isfinite(value) and value > 0 for value in weights):
        raise Defect(f"weights must be positive and finite: {weight!r}, {samples!r}")
    return weights


def _differ(code: str, name: str, found: object, wanted: object) -> Reason:
    facts = {"tensor": short(name), "found": short(str(found)), "wanted": short(str(wanted))}
    return Reason(code, dict(facts))


def short(text: str) -> str:
    """Names come from a peer; reasons are small."""
    return text if len(text) <= 60 else text[:57] + "..."
