"""What are the settings of a run, and what does a strategy's name stand for? Pure.

A strategy is five answers (gate, close, continue, merge, size) and the length of a round. Each
setting is declared beside the code that it governs; here they are composed, once.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hermes.errors import SettingError
from hermes.policy import aggregate, allocate, gate, sync
from hermes.policy.aggregate import MergeSettings
from hermes.policy.allocate import SizeSettings
from hermes.policy.gate import GateSettings
from hermes.policy.sync import CloseSettings, ContinueSettings


class RoundSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a worker trains between two gate decisions."""

    epochs: int = 5
    """Passes over a grant; one grant is one round. Counts only where `steps` is off."""
    steps: int | None = None
    """Optimiser steps of a round; batches then run on across grants, each grant passed once."""


class StopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the run is finished: the first rule that holds. "off" switches one off."""

    accuracy: float | None = None
    """On validation, 0 .. 1: this or above."""
    loss: float | None = None
    """On validation: this or below."""
    patience: int | None = None
    """Points of the evaluation grid without a new best validation loss."""
    samples: int | None = None
    """Sample passes merged into the last version."""
    versions: int | None = None
    """Number of the last version."""
    seconds: float | None = None
    """Run time since training started."""


class WorkersSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many workers, and when one counts as lost."""

    max: int = 64
    """Names that may ever take part in one run."""
    heartbeat: float = 1.0
    """Seconds between two signs of life."""
    lost: float = 10.0
    """Seconds of silence after which a worker is lost."""


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker keeps on its disk."""

    max: int = 2048
    """MiB of blocks."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a run."""

    strategy: str = "hermes-paper"
    gate: GateSettings = GateSettings()
    close: CloseSettings = CloseSettings()
    continue_: ContinueSettings = msgspec.field(default=ContinueSettings(), name="continue")
    merge: MergeSettings = MergeSettings()
    size: SizeSettings = SizeSettings()
    round: RoundSettings = RoundSettings()
    stop: StopSettings = StopSettings()
    workers: WorkersSettings = WorkersSettings()
    cache: CacheSettings = CacheSettings()


PRESETS: dict[str, dict[str, Any]] = {
    "hermes-paper": {
        "gate.rule": "zscore",
        "close.rule": "each",
        "continue.rule": "on-version",
        "merge.rule": "interpolate",
        "size.rule": "iqr",
        "round.epochs": 5,
    },
    "bsp": {
        "gate.rule": "open",
        "close.rule": "all",
        "continue.rule": "on-version",
        "merge.rule": "mean",
        "merge.max_staleness": 0,
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 1,
    },
    "fedavg": {
        "gate.rule": "open",
        "close.rule": "all",
        "continue.rule": "on-version",
        "merge.rule": "mean-by-samples",
        "merge.max_staleness": 0,
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 16,
    },
}
"""A strategy's name -> the settings that it stands for; a user's own settings win."""

DEFAULT_STRATEGY = "hermes-paper"


@functools.cache
def known_keys() -> tuple[str, ...]:
    """Every setting's dotted key, in order."""
    return tuple(sorted(_flatten(msgspec.to_builtins(Settings()))))


def resolve(strategy: str, layers: list[Mapping[str, Any]]) -> Settings:
    """The settings in force: defaults, then the strategy, then each layer of dotted keys.

    Raises `SettingError` naming the key, what was found and what is allowed.
    """
    if strategy not in PRESETS:
        raise SettingError(
            f"unknown strategy {strategy!r}",
            remedy=f"It is one of: {', '.join(PRESETS)}." + _suggest(strategy, list(PRESETS)),
        )
    tree: dict[str, Any] = {"strategy": strategy}
    for layer in [PRESETS[strategy], *layers]:
        for key, value in layer.items():
            _place(tree, key, value)
    settings = from_tree(tree)
    check(settings)
    return settings


def parse_assignment(text: str) -> tuple[str, Any]:
    """`"gate.alpha=-1.6"` -> `("gate.alpha", -1.6)`; "off" is None."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingError(
            f"--set {text!r} is not KEY=VALUE", remedy="For example: --set gate.alpha=-1.6"
        )
    value = value.strip()
    if value == "off":
        return key.strip(), None
    try:
        return key.strip(), msgspec.json.decode(value.encode())
    except (msgspec.DecodeError, ValueError):
        return key.strip(), value


def from_tree(tree: Mapping[str, Any]) -> Settings:
    """Settings from a nested mapping. Raises `SettingError`."""
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        key = path.strip("`.") or "settings"
        raise SettingError(f"{key}: {text}", remedy="See docs/settings.md.") from None


def to_tree(settings: Settings) -> dict[str, Any]:
    """The nested mapping that `from_tree` reads."""
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    return tree


def check(settings: Settings) -> list[str]:
    """Warnings about settings that are odd; raises `SettingError` for those that cannot work."""
    sync.check_rule("close", settings.close.rule, dict(sync.CLOSE))
    sync.check_rule("continue", settings.continue_.rule, dict(sync.CONTINUE))
    _positive("round.epochs", settings.round.epochs, 1)
    _positive("round.steps", settings.round.steps, 1)
    _positive("workers.max", settings.workers.max, 1)
    _positive("workers.heartbeat", settings.workers.heartbeat, 0.01)
    _positive("cache.max", settings.cache.max, 1)
    for key in ("patience", "samples", "versions"):
        _positive(f"stop.{key}", getattr(settings.stop, key), 1)
    _positive("stop.seconds", settings.stop.seconds, 0.001)
    _check_accuracy(settings.stop.accuracy)
    if settings.workers.lost <= 2 * settings.workers.heartbeat:
        raise SettingError(
            f"workers.lost is {settings.workers.lost:g} s, workers.heartbeat "
            f"{settings.workers.heartbeat:g} s",
            remedy="A worker must miss at least two heartbeats before it is lost: "
            "raise workers.lost.",
        )
    if settings.gate.rule != "open" and settings.close.rule == "all":
        raise SettingError(
            "close.rule=all waits for a push of every worker, and a gate lets workers be quiet",
            remedy="Take gate.rule=open or close.rule=each.",
        )
    if settings.round.steps is not None and settings.size.rule == "iqr":
        raise SettingError(
            "size.rule=iqr re-sizes the rounds, and round.steps fixes their length",
            remedy="Take size.rule=fixed, or round.steps=off.",
        )
    warnings = gate.check_gate(settings.gate)
    warnings += aggregate.check_merge(settings.merge)
    warnings += allocate.check_size(settings.size)
    return warnings


def _check_accuracy(value: float | None) -> None:
    if value is not None and not 0 < value <= 1:
        raise SettingError(
            f"stop.accuracy is {value:g}", remedy="It is a share: above 0, at most 1, or off."
        )


def _positive(key: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:
        raise SettingError(f"{key} is {value:g}", remedy=f"It is at least {least:g}, or off.")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        keys += _flatten(value, f"{name}.") if isinstance(value, dict) else [name]
    return keys


def _suggest(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _place(tree: dict[str, Any], key: str, value: Any) -> None:
    keys = known_keys()
    if key not in keys or key == "strategy":
        raise SettingError(
            f"unknown setting {key!r}" if key != "strategy" else "strategy is set by --strategy",
            remedy=(_suggest(key, keys).strip() or "See docs/settings.md for all of them."),
        )
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value
