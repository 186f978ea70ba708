"""May an update be merged, and with which weight? Pure.

Numbers of the ledger decide, and the tensors' form: names, shapes, types, and that all is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hermes.errors import SettingError
from hermes.policy import norm
from hermes.policy.aggregate import Array, check_form, flattened, short, tiles
from hermes.policy.ranges import (
    AUTO,
    SWITCH,
    Allowed,
    auto_or,
    check_section,
    number,
    one_of,
    whole,
)
from hermes.values import Reason, Tensors

LEAST_LOSS = 1e-100
"""A loss below this is taken for zero: its weight, 1/loss, would drown or overflow the rest."""

RULES = ("interpolate", "mean", "mean-by-samples", "momentum", "add", "buffered")

SUMS = ("add", "buffered")
"""Those that add what updates changed, each by its weight, and divide by nothing."""

# --- settings -----------------------------------------------------------------------------------


class MergeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set merge.X` sets."""

    rule: str = "interpolate"
    """`interpolate` (by 1/loss, arXiv 2410.20495), `mean` (all alike), `mean-by-samples`,
    `momentum` (of the master, over the mean by samples: FedAvgM, arXiv 1909.06335), `add` (what
    each update changed, by `scale`: asynchronous SGD), or `buffered` (the mean of what they
    changed, each by 1 / sqrt(1 + staleness): FedBuff, arXiv 2106.06639)."""
    max_staleness: int | None = None
    """Versions published since the oldest step in an update was computed; an update beyond it is
    rejected ("too-stale"). At least 0; off (None): any is taken, as in the paper."""
    momentum: float = 0.9
    """`momentum`: how much of the master's momentum stays at each version; 0: none."""
    rate: float | str = 1.0
    """`momentum`, `buffered`: the master's learning rate. `auto` (`momentum` alone): half of the
    largest step that is stable at this momentum and at the version's staleness, at most 1."""
    nesterov: bool = False
    """`momentum`: look one step ahead, as DiLoCo does (arXiv 2311.08105)."""
    discount: bool = False
    """`momentum`: weigh by samples / sqrt(1 + staleness), not by samples alone."""
    scale: float | str = AUTO
    """`add`: how much of what an update changed is added. `auto`: 1 / workers alive; 1 is the
    sources' rule."""
    max_norm: float | str | None = "auto"
    """How far an update's model may lie from its base (`interpolate`: from the version in force),
    in the L2 norm of what is learned; one beyond it is rejected ("absurd-norm"). `auto`: 100 times
    the median of the last 32 norms merged, once 8 are known; off: norms are not looked at."""


RANGES: dict[str, Allowed] = {
    "rule": one_of(*RULES),
    "max_staleness": whole(0, off=True),
    "momentum": number(least=0, below=1),
    "rate": auto_or(number(above=0)),
    "nesterov": SWITCH,
    "discount": SWITCH,
    "scale": auto_or(number(above=0)),
    "max_norm": norm.SETTING,
}
"""What each of `MergeSettings` may be."""


def check_merge(settings: MergeSettings) -> list[str]:
    """Warnings (none yet); raises `SettingError` for a value out of range."""
    check_section("merge", settings, RANGES)
    if settings.rate == AUTO and settings.rule == "buffered":
        raise SettingError(
            "merge.rate is auto, and merge.rule=buffered has no momentum whose limit it could keep",
            remedy="Take a number, such as merge.rate=1, or merge.rule=momentum.",
        )
    return []


# --- may it be merged, and with which weight? ---------------------------------------------------


def check_staleness(settings: MergeSettings, staleness: int) -> Reason | None:
    """Why an update this stale is rejected, or None."""
    most = settings.max_staleness
    if most is None or staleness <= most:
        return None
    return Reason("too-stale", {"staleness": staleness, "max_staleness": most})


class Given(NamedTuple):
    """What an update's weight is made of, where no loss is."""

    samples: int
    staleness: int
    """Versions since its oldest step was computed, at the version that is replaced."""


def weights(settings: MergeSettings, updates: Sequence[Given], alive: int) -> list[float]:
    """The weights of these updates, which make a version, where so many workers are alive; all
    positive, and recorded with the version."""
    rule, rate = settings.rule, settings.rate
    if rule == "mean":
        return [1.0] * len(updates)
    if rule == "add":
        scale = settings.scale
        return [1 / max(1, alive) if isinstance(scale, str) else float(scale)] * len(updates)
    if rule == "buffered":
        assert not isinstance(rate, str)
        return [rate * _discount(update.staleness) / len(updates) for update in updates]
    fades = rule == "momentum" and settings.discount
    return [u.samples * _discount(u.staleness) if fades else float(u.samples) for u in updates]


def _discount(staleness: int) -> float:
    return 1 / math.sqrt(1 + staleness)


def loss_weights(loss_global: float, loss_worker: float) -> tuple[float, float] | Reason:
    """(1/L_global, 1/L_worker), or why there is no such weight."""
    facts: dict[str, Any] = {"loss_global": loss_global, "loss_worker": loss_worker}
    losses = (loss_global, loss_worker)
    if not all(math.isfinite(loss) for loss in losses):
        # As text: JSON has no word for nan.
        return Reason(
            "loss-not-finite",
            {name: loss if math.isfinite(loss) else str(loss) for name, loss in facts.items()},
        )
    if min(losses) < 0:
        return Reason("loss-negative", facts)
    if min(losses) < LEAST_LOSS:
        return Reason("loss-zero", facts)
    return 1 / loss_global, 1 / loss_worker


def check_update(tensors: Tensors, like: Tensors) -> Reason | None:
    """Why these tensors cannot be merged into a model like `like`, or None.

    Codes: "wrong-names", "wrong-shape", "wrong-dtype", "not-finite".
    """
    wrong = check_form(tensors, like)
    if wrong is not None:
        return wrong
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not _finite(array):
            return Reason("not-finite", {"tensor": short(name)})
    return None


def _finite(array: Array) -> bool:
    flat = flattened(array)
    return all(bool(np.isfinite(flat[tile]).all()) for tile in tiles(flat.size))
