"""Merging: exact where exactness is promised, and the same bits as the plain formula elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hermes.errors import Defect
from hermes.policy import aggregate
from hermes.policy.aggregate import (
    Mean,
    MeanOfDeltas,
    SumOfDeltas,
    interpolate,
    mean_of_deltas,
    mean_of_models,
)
from hermes.policy.weigh import check_update, loss_weights
from hermes.values import Reason

Array = npt.NDArray[Any]

few = settings(max_examples=20, deadline=None)
positive = st.one_of(st.integers(1, 10_000), st.floats(1e-3, 1e3))
shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
numbers = st.floats(-1e3, 1e3, width=32)


def vectors(count: int) -> st.SearchStrategy[list[Array]]:
    """Float32 arrays of one shape."""
    return shapes.flatmap(
        lambda shape: st.lists(
            hnp.arrays(np.float32, shape, elements=numbers), min_size=count, max_size=count
        )
    )


def same(found: Array, wanted: Array) -> bool:
    """Equal in shape, dtype and every bit (so -0.0 is not 0.0, and nan is nan)."""
    return (found.shape, found.dtype, found.tobytes()) == (
        wanted.shape,
        wanted.dtype,
        wanted.tobytes(),
    )


def plain_mean(arrays: list[Array], weights: list[float]) -> Array:
    """The formula on whole arrays, as one would write it down."""
    total, weight_of_all = arrays[0].astype(np.float64) * np.float64(weights[0]), float(weights[0])
    for array, weight in zip(arrays[1:], weights[1:], strict=True):
        total = total + array.astype(np.float64) * np.float64(weight)
        weight_of_all = weight_of_all + weight  # sum() compensates from Python 3.12 on
    return np.asarray(total / weight_of_all).astype(arrays[0].dtype)


# --- one model ------------------------------------------------------------------------------------


@few
@given(
    hnp.arrays(np.uint32, shapes, elements=st.integers(0, 2**32 - 1)).map(
        lambda bits: bits.view(np.float32)
    ),
    positive,
)
def test_one_model_is_copied_bit_for_bit(array: Array, weight: float) -> None:
    """Any bits: subnormals, -0.0, infinities and nan with its payload."""
    assert same(mean_of_models([({"w": array}, weight)], ())["w"], array)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "?"])
def test_one_model_of_any_dtype_is_copied(dtype: str) -> None:
    array = np.array([[0, 1, 0], [1, 1, 0]], dtype)
    mean = mean_of_models([({"w": array}, 3)], {"w"})["w"]
    assert same(mean, array)
    assert not np.shares_memory(mean, array)


def test_what_was_added_may_change_afterwards() -> None:
    array, mean = np.ones(3, np.float32), Mean()
    mean.add({"w": array}, 1)
    array[:] = 7
    assert mean.finish()["w"].tolist() == [1, 1, 1]


# --- several --------------------------------------------------------------------------------------


@few
@given(vectors(3), st.lists(positive, min_size=3, max_size=3))
def test_the_mean_is_the_plain_formula_bit_for_bit(
    arrays: list[Array], weights: list[float]
) -> None:
    models = [({"w": array}, weight) for array, weight in zip(arrays, weights, strict=True)]
    found = mean_of_models(models, ())["w"]
    assert same(found, plain_mean(arrays, weights))
    assert np.all(found <= np.max(arrays, axis=0))
    assert np.all(found >= np.min(arrays, axis=0))


@pytest.mark.parametrize("tile", [1, 3, 64, 1000, 1 << 20])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tiles_change_no_bit(monkeypatch: pytest.MonkeyPatch, tile: int, dtype: type) -> None:
    chance = np.random.default_rng(3)
    arrays: list[Array] = [chance.normal(size=(50, 11)).astype(dtype) for _ in range(6)]
    weights = [3.0, 1 / 7, 2.5]
    monkeypatch.setattr(aggregate, "TILE", tile)
    models = [({"w": array}, weight) for array, weight in zip(arrays[:3], weights, strict=True)]
    assert same(mean_of_models(models)["w"], plain_mean(arrays[:3], weights))
    updates = [
        ({"w": base}, {"w": local}, weight)
        for base, local, weight in zip(arrays[:3], arrays[3:], weights, strict=True)
    ]
    wide = [array.astype(np.float64) for array in arrays]
    total = (wide[0] - wide[3]) * 3.0 + (wide[1] - wide[4]) * (1 / 7) + (wide[2] - wide[5]) * 2.5
    plain: Array = (wide[5] - (total / (3.0 + 1 / 7 + 2.5)) * 0.7).astype(dtype)
    assert same(mean_of_deltas({"w": arrays[5]}, updates, scale=0.7)["w"], plain)


def test_more_than_a_tile_and_a_part() -> None:
    size = 2 * aggregate.TILE + 5
    arrays = [np.arange(size, dtype=np.float32), np.ones(size, np.float32)]
    models = [({"w": arrays[0]}, 1), ({"w": arrays[1]}, 3)]
    assert same(mean_of_models(models)["w"], plain_mean(arrays, [1, 3]))
    assert check_update({"w": arrays[0]}, {"w": arrays[1]}) is None
    arrays[0][-1] = np.nan
    assert check_update({"w": arrays[0]}, {"w": arrays[1]}) is not None


def test_views_and_scalars_are_fine() -> None:
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    models = [
        ({"t": square.T, "s": np.float32(2) * np.ones(()).astype("f4")}, 1),
        ({"t": square.T[::-1], "s": np.ones((), np.float32)}, 1),
    ]
    mean = mean_of_models(models)
    assert same(mean["t"], plain_mean([square.T, square.T[::-1]], [1, 1]))
    assert mean["s"].shape == ()
    assert mean["s"] == 1.5


def test_whole_weights_are_exact() -> None:
    """2500, 1 and 7 samples of whole numbers: nothing is lost before the division."""
    arrays = [np.array([2**20 + i, -i, 3 * i], np.float64) for i in (1, 2, 3)]
    mean = mean_of_models([({"w": a}, n) for a, n in zip(arrays, (2500, 1, 7), strict=True)])["w"]
    sums = [int(a) * 2500 + int(b) + int(c) * 7 for a, b, c in zip(*arrays, strict=True)]
    assert mean.tolist() == [total / 2508 for total in sums]


def test_a_zero_is_negative_only_where_all_are() -> None:
    models = [({"w": np.array([-0.0, -0.0, 0.0], np.float32)}, 2)]
    models.append(({"w": np.array([-0.0, 0.0, -0.0], np.float32)}, 3))
    assert np.signbit(mean_of_models(models)["w"]).tolist() == [True, False, False]


def test_subnormals_are_not_flushed() -> None:
    tiny = np.float32(1e-45)
    models = [({"w": np.array([tiny])}, 1), ({"w": np.array([3 * tiny])}, 1)]
    assert mean_of_models(models)["w"][0] == 2 * tiny


@few
@given(vectors(4), st.lists(positive, min_size=4, max_size=4))
def test_models_one_at_a_time_give_the_same_bits(arrays: list[Array], weights: list[float]) -> None:
    mean = Mean()
    for array, weight in zip(arrays, weights, strict=True):
        mean.add({"w": array.copy()}, weight)
    models = [({"w": array}, weight) for array, weight in zip(arrays, weights, strict=True)]
    assert same(mean.finish()["w"], mean_of_models(models)["w"])


def test_an_accumulator_is_empty_when_it_has_finished() -> None:
    mean, deltas = Mean(), MeanOfDeltas()
    for value in (1.0, 5.0):
        mean.add({"w": np.array([value])}, 1)
        mean.add({"w": np.array([value])}, 1)
        assert mean.finish()["w"] == value
        deltas.add({"w": np.array([value])}, {"w": np.zeros(1)}, 1)
        assert deltas.finish({"w": np.zeros(1)})["w"] == -value
    with pytest.raises(Defect):
        mean.finish()
    with pytest.raises(Defect):
        deltas.finish({"w": np.zeros(1)})


# --- buffers and integers -------------------------------------------------------------------------

BUFFERS = {"norm.mean", "norm.seen"}


def batchnorm(weight: float, mean: float, seen: int) -> dict[str, Array]:
    return {
        "w": np.array([weight], np.float32),
        "norm.mean": np.array([mean], np.float32),
        "norm.seen": np.array(seen, np.int64),
    }


def test_buffers_are_weighed_by_samples_and_counters_take_the_maximum() -> None:
    models = [(batchnorm(1, 10, 7), 1), (batchnorm(3, 20, 9), 1), (batchnorm(5, 30, 8), 1)]
    mean = mean_of_models(models, BUFFERS, samples=[1, 2, 5])
    assert [float(array.item()) for array in mean.values()] == [3, 25, 9]
    assert mean["norm.seen"].shape == ()
    assert mean["norm.seen"].dtype == np.int64


def test_deltas_take_buffers_by_value() -> None:
    current, base = batchnorm(10, -100, 50), batchnorm(2, 777, 1)
    updates = [(base, batchnorm(1, 10, 7), 1), (base, batchnorm(4, 30, 60), 3)]
    merged = mean_of_deltas(current, updates, BUFFERS)
    assert merged["w"] == 10 - (1 * (2 - 1) + 3 * (2 - 4)) / 4
    assert merged["norm.mean"] == (10 + 3 * 30) / 4
    assert merged["norm.seen"] == 60
    assert list(merged) == list(current)


def test_whole_numbers_that_are_no_buffers_take_the_maximum_too() -> None:
    big = 2**62 + 1  # a float64 would lose the 1
    updates = [({"n": np.array([5])}, {"n": np.array([n])}, 1) for n in (3, big, 4)]
    assert mean_of_deltas({"n": np.array([9])}, updates)["n"] == big
    flags = [({"n": np.array([True, False])}, 1), ({"n": np.array([False, False])}, 1)]
    assert mean_of_models(flags)["n"].tolist() == [True, False]


# --- deltas ---------------------------------------------------------------------------------------


@few
@given(vectors(3), st.lists(positive, min_size=2, max_size=2))
def test_deltas_from_the_current_model_are_the_mean_of_models(
    arrays: list[Array], weights: list[float]
) -> None:
    current, locals_ = {"w": arrays[0]}, [{"w": array} for array in arrays[1:]]
    deltas = mean_of_deltas(
        current, [(current, local, n) for local, n in zip(locals_, weights, strict=True)]
    )
    models = mean_of_models(list(zip(locals_, weights, strict=True)))
    np.testing.assert_allclose(deltas["w"], models["w"], rtol=1e-6, atol=1e-9)


def test_scale_is_the_share_of_the_step_taken() -> None:
    update = ({"w": np.array([4.0])}, {"w": np.array([2.0])}, 5)
    assert mean_of_deltas({"w": np.array([10.0])}, [update], scale=0.25)["w"] == 9.5


def test_what_overflows_is_infinite_in_silence_and_found_by_the_check() -> None:
    most = np.finfo(np.float32).max
    update = ({"w": np.array([most])}, {"w": np.array([-most])}, 1)
    merged = mean_of_deltas({"w": np.array([-most])}, [update])
    assert merged["w"] == -np.inf
    assert check_update(merged, {"w": np.array([most])}) == Reason("not-finite", {"tensor": "w"})


# --- interpolation by 1/loss ----------------------------------------------------------------------


@pytest.mark.parametrize(("times", "share"), [(1, 1 / 2), (2, 1 / 3), (4, 1 / 5)])
def test_a_worker_of_that_many_times_the_loss_gets_that_share(times: int, share: float) -> None:
    weights = loss_weights(0.3, 0.3 * times)
    assert not isinstance(weights, Reason)
    merged = interpolate({"w": np.zeros(1)}, {"w": np.ones(1)}, *weights)
    assert merged["w"][0] == pytest.approx(share, rel=1e-15)


def test_interpolation_is_the_published_step_on_weighted_gradients() -> None:
    """S := (w1 S + w2 G) / (w1 + w2), w = w0 - eta S: affine in the model, so the same thing."""
    chance, eta = np.random.default_rng(5), 0.1
    initial, gradients, gradient = chance.normal(size=(3, 40))
    w1, w2 = 1 / 0.7, 1 / 0.4
    published = initial - eta * (w1 * gradients + w2 * gradient) / (w1 + w2)
    models = {"w": initial - eta * gradients}, {"w": initial - eta * gradient}
    np.testing.assert_allclose(interpolate(*models, w1, w2)["w"], published, rtol=1e-12)


@few
@given(vectors(2), positive, positive)
def test_interpolation_is_the_plain_formula_bit_for_bit(
    arrays: list[Array], a: float, b: float
) -> None:
    merged = interpolate({"w": arrays[0]}, {"w": arrays[1]}, a, b, {"w"})
    assert same(merged["w"], plain_mean(arrays, [a, b]))
    assert same(interpolate({"w": arrays[0]}, {"w": arrays[0]}, a, b)["w"], arrays[0])


# --- defects --------------------------------------------------------------------------------------

LIKE: dict[str, Array] = {"a": np.zeros((2, 3), np.float32), "n": np.zeros((), np.int64)}


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_a_weight_that_is_none_is_our_defect(weight: float) -> None:
    with pytest.raises(Defect):
        mean_of_models([(LIKE, weight)])
    with pytest.raises(Defect):
        mean_of_models([(LIKE, 1)], samples=[weight])


def test_models_that_do_not_fit_together_are_our_defect() -> None:
    with pytest.raises(Defect, match="wrong-shape"):
        mean_of_models([({"w": np.zeros(2)}, 1), ({"w": np.zeros(3)}, 1)])
    with pytest.raises(Defect, match="wrong-names"):
        mean_of_deltas({"v": np.zeros(2)}, [({"w": np.zeros(2)}, {"w": np.zeros(2)}, 1)])
    with pytest.raises(Defect, match="complex128"):
        mean_of_models([({"w": np.zeros(2, complex)}, 1)])
    with pytest.raises(Defect, match="no models"):
        mean_of_models([])


# --- sums ----------------------------------------------------------------------------------------


@few
@given(vectors(3), positive, positive)
def test_a_sum_is_the_plain_formula(found: list[Array], first: float, second: float) -> None:
    """Divided by nothing, rounded once; buffers and counters are taken by value."""
    current, one, other = ({"w": a, "mean": a, "seen": np.array(i)} for i, a in enumerate(found))
    added = SumOfDeltas({"mean"})
    added.add(current, one, first, 3)
    added.add(other, current, second, 1)
    model = added.finish(current)
    wide = [array.astype(np.float64) for array in found]
    moved = (wide[0] - wide[1]) * first + (wide[2] - wide[0]) * second
    assert model["w"].tobytes() == (wide[0] - moved).astype(np.float32).tobytes()
    assert np.allclose(model["mean"], (wide[1] * 3 + wide[0]) / 4, rtol=1e-6, atol=1e-6)
    assert model["seen"] == 1


@few
@given(vectors(4))
def test_adding_a_share_of_each_is_the_mean_of_models(found: list[Array]) -> None:
    """Of n updates that start from the version replaced, 1/n each: but for rounding."""
    current, *locals_ = ({"w": array} for array in found)
    added = SumOfDeltas()
    for local in locals_:
        added.add(current, local, 1 / 3)
    mean = mean_of_models([(local, 1.0) for local in locals_])
    assert np.allclose(added.finish(current)["w"], mean["w"], rtol=1e-6, atol=1e-6)
