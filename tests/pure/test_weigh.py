"""What may be merged, and with which weight."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from hermes.errors import SettingError
from hermes.policy.ranges import shown
from hermes.policy.weigh import (
    Given,
    MergeSettings,
    check_merge,
    check_staleness,
    check_update,
    loss_weights,
    weights,
)
from hermes.values import Facts, Reason

Array = npt.NDArray[Any]

LIKE: dict[str, Array] = {"a": np.zeros((2, 3), np.float32), "n": np.zeros((), np.int64)}


@pytest.mark.parametrize(
    ("change", "code", "tensor"),
    [
        ({"z": np.zeros(1)}, "wrong-names", "z"),
        ({"a": np.zeros((3, 2), np.float32)}, "wrong-shape", "a"),
        ({"a": np.zeros((2, 3), np.float64)}, "wrong-dtype", "a"),
        ({"a": np.full((2, 3), np.nan, np.float32)}, "not-finite", "a"),
        ({"a": np.full((2, 3), -np.inf, np.float32)}, "not-finite", "a"),
        ({"n" * 999: np.zeros(1)}, "wrong-names", "n" * 57 + "..."),
    ],
)
def test_an_update_that_does_not_fit_is_named(
    change: dict[str, Array], code: str, tensor: str
) -> None:
    reason = check_update(LIKE | change, LIKE)
    assert reason is not None
    assert (reason.code, reason.facts["tensor"]) == (code, tensor)
    assert len(msgspec.msgpack.encode(reason)) < 256


def test_a_missing_tensor_is_named_and_a_fitting_update_passes() -> None:
    reason = check_update({"n": LIKE["n"]}, LIKE)
    wanted: Facts = {"missing": 1, "unexpected": 0, "tensor": "a"}
    assert reason == Reason("wrong-names", wanted)
    assert check_update({name: array + 1 for name, array in LIKE.items()}, LIKE) is None


@pytest.mark.parametrize(
    ("losses", "code"),
    [
        ((math.nan, 1.0), "loss-not-finite"),
        ((1.0, math.inf), "loss-not-finite"),
        ((0.0, 1.0), "loss-zero"),
        ((1.0, 5e-324), "loss-zero"),
        ((1.0, -0.5), "loss-negative"),
    ],
)
def test_a_loss_without_a_weight_rejects(losses: tuple[float, float], code: str) -> None:
    reason = loss_weights(*losses)
    assert isinstance(reason, Reason)
    assert reason.code == code
    assert msgspec.json.decode(msgspec.json.encode(reason), type=Reason) == reason
    assert set(reason.facts) == {"loss_global", "loss_worker"}


@pytest.mark.parametrize(
    ("staleness", "most", "code"), [(0, 0, None), (1, 0, "too-stale"), (99, None, None)]
)
def test_staleness_is_bounded_only_on_request(
    staleness: int, most: int | None, code: str | None
) -> None:
    reason = check_staleness(MergeSettings(max_staleness=most), staleness)
    assert (reason.code if reason else None) == code


OLD_AND_NEW = [Given(640, 3), Given(320, 0)]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (MergeSettings(rule="mean"), [1, 1]),
        (MergeSettings(rule="mean-by-samples"), [640, 320]),
        (MergeSettings(rule="momentum"), [640, 320]),
        (MergeSettings(rule="momentum", discount=True), [320, 320]),
        (MergeSettings(rule="mean-by-samples", discount=True), [640, 320]),
        (MergeSettings(rule="add"), [0.2, 0.2]),
        (MergeSettings(rule="add", scale=1), [1, 1]),
        (MergeSettings(rule="buffered"), [0.25, 0.5]),
        (MergeSettings(rule="buffered", rate=0.5), [0.125, 0.25]),
    ],
)
def test_what_an_update_weighs(settings: MergeSettings, found: list[float]) -> None:
    """Two updates, three versions old and fresh; five workers alive."""
    assert weights(settings, OLD_AND_NEW, 5) == found


def test_adding_where_nobody_is_alive_takes_it_whole() -> None:
    """An update may be merged after its worker is lost."""
    assert weights(MergeSettings(rule="add"), OLD_AND_NEW[:1], 0) == [1]


@pytest.mark.parametrize(("key", "value"), [("rule", "median"), ("max_staleness", -1)])
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        check_merge(msgspec.convert({key: value}, MergeSettings))
    assert caught.value.what == f"merge.{key} is {shown(value)}"
    assert check_merge(MergeSettings()) == []
