"""Momentum of the master: the plain formula bit for bit, and plain averaging where it is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hermes.errors import Defect, SettingError
from hermes.policy import aggregate
from hermes.policy.aggregate import mean_of_deltas
from hermes.policy.outer import Momentum, Stepped, outer_of
from hermes.policy.presets import Layer, resolve
from hermes.policy.weigh import Given, MergeSettings, weights
from hermes.values import Outer

Array = npt.NDArray[Any]
Model = dict[str, Array]

few = settings(max_examples=20, deadline=None)
BUFFERS = {"mean"}
NONE: Model = {}


def bits(*models: dict[str, Array]) -> list[tuple[str, Any, Any, bytes]]:
    """All that two models may differ in: -0.0 is not 0.0, and nan is nan."""
    return [(name, a.shape, a.dtype, a.tobytes()) for m in models for name, a in m.items()]


def models(count: int) -> st.SearchStrategy[list[Model]]:
    """Models of one form: two parameters, a buffer, a counter; -0.0 and inf among them."""

    def one(shape: tuple[int, ...]) -> st.SearchStrategy[Model]:
        numbers = st.floats(width=32, allow_nan=False)
        return st.fixed_dictionaries(
            {
                "w": hnp.arrays(np.float32, shape, elements=numbers),
                "b": hnp.arrays(np.float16, 3, elements=st.floats(-100, 100, width=16)),
                "mean": hnp.arrays(np.float32, 2, elements=st.floats(-100, 100, width=32)),
                "seen": hnp.arrays(np.int64, (), elements=st.integers(0, 99)),
            }
        )

    shapes = hnp.array_shapes(min_dims=0, max_dims=2, max_side=4)
    return shapes.flatmap(lambda shape: st.lists(one(shape), min_size=count, max_size=count))


def step(
    outer: Outer, current: Model, moments: Model, *updates: tuple[Model, Model, float]
) -> Stepped:
    """One version, from (base, local, weight)."""
    momentum = Momentum(outer, BUFFERS)
    for base, local, weight in updates:
        momentum.add(base, local, weight)
    return momentum.finish(current, moments)


@few
@given(models(5), st.integers(1, 999), st.integers(1, 999), st.booleans())
def test_without_momentum_it_is_the_mean_of_deltas_bit_for_bit(
    found: list[Model], first: int, second: int, nesterov: bool
) -> None:
    """Whatever the momentum was before: infinities and negative zeros come out alike."""
    current, *rest = found
    updates = [(rest[0], rest[1], first), (rest[2], rest[3], second)]
    before = {"w": np.full(current["w"].shape, np.inf), "b": np.full(3, -7.0)}
    stepped = step(Outer(0.0, 1.0, nesterov), current, before, *updates)
    assert bits(stepped.model) == bits(mean_of_deltas(current, updates, BUFFERS))
    scaled = step(Outer(0.0, 0.7, nesterov), current, NONE, *updates)
    assert bits(scaled.model) == bits(mean_of_deltas(current, updates, BUFFERS, scale=0.7))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("tile", [1, 3, 64, 1 << 20])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_is_the_plain_formula_and_tiles_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, dtype: type, tile: int, nesterov: bool
) -> None:
    """Three versions in a row, of two updates each."""
    monkeypatch.setattr(aggregate, "TILE", tile)
    chance, outer = np.random.default_rng(4), Outer(0.9, 0.7, nesterov)
    weights = chance.normal(size=(5, 11)).astype(dtype)
    plain, v, moments = weights, None, NONE
    for _ in range(3):
        locals_ = [chance.normal(size=(5, 11)).astype(dtype) for _ in range(2)]
        updates = [({"w": weights}, {"w": locals_[0]}, 3.0), ({"w": weights}, {"w": locals_[1]}, 5)]
        stepped = step(outer, {"w": weights}, moments, *updates)

        wide = [plain.astype(np.float64) - local.astype(np.float64) for local in locals_]
        d = (wide[0] * 3.0 + wide[1] * 5.0) / 8.0
        v = d if v is None else v * 0.9 + d
        move = d + v * 0.9 if nesterov else v
        plain = (plain.astype(np.float64) - move * 0.7).astype(dtype)

        assert bits(stepped.moments) == bits({"w": v})
        assert bits(stepped.model) == bits({"w": plain})
        weights, moments = plain, stepped.moments


def test_a_steady_push_ends_in_steps_of_rate_over_one_less_momentum() -> None:
    """The geometric series: with 0.9 and 1, ten times what the updates say. Each moves by 1."""
    place, moments = np.zeros(1), NONE
    for _ in range(200):
        before = place
        stepped = step(
            Outer(0.9, 1.0, False), {"w": place}, moments, ({"w": place}, {"w": place + 1}, 1)
        )
        place, moments = stepped.model["w"], stepped.moments
    assert (place - before)[0] == pytest.approx(10.0, rel=1e-6)


@few
@given(models(3), st.integers(1, 99))
def test_buffers_and_counters_have_no_momentum(found: list[Model], weight: int) -> None:
    """They are the values of the contributors, whatever base and momentum were."""
    current, base, local = found
    stepped = step(Outer(0.9, 0.5, True), current, NONE, (base, local, weight), (base, local, 2))
    assert set(stepped.moments) == {"w", "b"}
    assert {v.dtype for v in stepped.moments.values()} == {np.dtype(np.float64)}
    assert np.allclose(stepped.model["mean"], local["mean"], rtol=1e-6)
    assert stepped.model["seen"] == local["seen"]


def test_the_momentum_before_stays_as_it_was() -> None:
    """A merge that is done again, after one of its updates was rejected, begins from it."""
    one, outer = {"w": np.ones(4)}, Outer(0.9, 1.0, False)
    before = step(outer, one, NONE, (one, {"w": np.zeros(4)}, 1)).moments
    kept = bits(before)
    twice = [step(outer, one, before, (one, {"w": np.full(4, 3.0)}, 1)) for _ in range(2)]
    assert bits(before) == kept != bits(twice[0].moments)
    assert bits(twice[0].model, twice[0].moments) == bits(twice[1].model, twice[1].moments)


@pytest.mark.parametrize(
    "moments",
    [{"v": np.zeros(2)}, {"w": np.zeros(3)}, {"w": np.zeros(2, np.float32)}],
    ids=["name", "shape", "dtype"],
)
def test_momentum_of_another_model_is_our_defect(moments: Model) -> None:
    one = {"w": np.ones(2)}
    with pytest.raises(Defect, match="not that of this model"):
        step(Outer(0.9, 1.0, False), one, moments, (one, one, 1))


# --- settings -------------------------------------------------------------------------------------


def test_fedavgm_is_fedavg_with_momentum() -> None:
    """And weighs by samples, as fedavg does."""
    plain, found = resolve("fedavg", []), resolve("fedavgm", [{"merge.nesterov": True}])
    assert outer_of(found.merge, (0.0,) * 7 + (1.0,)) == Outer(0.9, 1.0, True)
    assert outer_of(plain.merge, (1.0,)) is None
    assert weights(found.merge, [Given(640, 7)], 4) == [640]
    again = resolve("fedavg", [{"merge.rule": "momentum"}])
    assert (again.gate, again.close, again.round, again.size, again.merge) == (
        *(found.gate, found.close, found.round, found.size),
        MergeSettings(rule="momentum", max_staleness=0),
    )


@pytest.mark.parametrize(
    ("strategy", "layer", "words"),
    [
        ("fedavgm", {"merge.momentum": 1}, "of at least 0 and below 1"),
        ("fedavgm", {"merge.momentum": -0.1}, "of at least 0 and below 1"),
        ("fedavgm", {"merge.rate": 0}, "above 0"),
        ("fedavg", {"merge.momentum": 0.5}, "merge.rule is not momentum"),
        ("fedavg", {"merge.rate": 0.5}, "merge.rule is neither momentum nor buffered"),
        ("fedavgm", {"merge.rate": "fast"}, "auto, or a number above 0"),
        ("fedbuff", {"merge.rate": "auto"}, "merge.rule=buffered has no momentum"),
        ("fedbuff", {"merge.momentum": 0.5}, "merge.rule is not momentum"),
        ("fedavgm", {"merge.discount": True}, "takes no update that is stale"),
        ("bsp", {"merge.scale": 1}, "merge.rule is not add"),
        ("asp", {"merge.scale": 0}, "auto, or a number above 0"),
        ("bsp", {"merge.nesterov": True}, "merge.rule is not momentum"),
        ("fedavgm", {"merge.nesterov": True, "merge.momentum": 0}, "nothing to look ahead by"),
    ],
)
def test_a_setting_that_cannot_be_or_is_idle_is_refused(
    strategy: str, layer: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError) as caught:
        resolve(strategy, [Layer("--set", layer)])
    assert words in str(caught.value)
