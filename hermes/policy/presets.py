"""What are the settings of a run, and what does a strategy's name stand for? Pure.

A strategy is five answers (gate, close, continue, merge, size) and the length of a round. Each
setting is declared beside the code that it governs; here they are composed, once.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hermes.errors import SettingError
from hermes.policy import allocate, codecs, gate, partition, retention, storage, sync, weigh
from hermes.policy.allocate import SizeSettings
from hermes.policy.codecs import CodecSettings
from hermes.policy.gate import GateSettings
from hermes.policy.idle import odd, refuse_idle
from hermes.policy.partition import DataSettings
from hermes.policy.ranges import (
    LONGEST,
    Allowed,
    check_section,
    check_value,
    number,
    one_of,
    settled,
    shown,
    whole,
)
from hermes.policy.retention import RetentionSettings
from hermes.policy.storage import StorageSettings
from hermes.policy.sync import CloseSettings, ContinueSettings
from hermes.policy.weigh import MergeSettings


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
    """Seconds of silence, or of life without progress, after which a worker may be lost: the
    least; its own pace may allow more."""
    longest: float = 600.0
    """The most seconds that a worker's own pace may allow it."""


class OptimizerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of a worker's own optimiser. Its state (momentum and the like) never travels."""

    on_rebase: str = "keep"
    """When the worker takes a version: `keep` its state, or `reset` it, as if training began."""


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker keeps on its disk."""

    max: int = 2048
    """MiB of blocks."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a run."""

    strategy: str = "hermes-paper"
    """A preset's name; where nobody names one it is `DEFAULT_STRATEGY`. The values below are what
    a preset leaves unsaid."""
    gate: GateSettings = GateSettings()
    close: CloseSettings = CloseSettings()
    continue_: ContinueSettings = msgspec.field(default=ContinueSettings(), name="continue")
    merge: MergeSettings = MergeSettings()
    size: SizeSettings = SizeSettings()
    round: RoundSettings = RoundSettings()
    codec: CodecSettings = CodecSettings()
    data: DataSettings = DataSettings()
    stop: StopSettings = StopSettings()
    workers: WorkersSettings = WorkersSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    cache: CacheSettings = CacheSettings()
    storage: StorageSettings = StorageSettings()
    retention: RetentionSettings = RetentionSettings()


PRESETS: dict[str, dict[str, Any]] = {
    "hermes": {
        "gate.rule": "innovation",
        "gate.veto": 3.0,
        "gate.rate": 1.0,
        "close.rule": "quorum",
        "continue.rule": "on-version",
        "merge.rule": "momentum",
        "merge.momentum": 0.7,
        "merge.rate": "auto",
        "merge.nesterov": True,
        "merge.discount": True,
        "size.rule": "speed",
        "size.first": 250,
        "size.mean": 1000,
        "round.epochs": 5,
    },
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
    "fedavgm": {
        "gate.rule": "open",
        "close.rule": "all",
        "continue.rule": "on-version",
        "merge.rule": "momentum",
        "merge.max_staleness": 0,
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 16,
    },
    "asp": {
        "gate.rule": "open",
        "close.rule": "each",
        "continue.rule": "at-once",
        "merge.rule": "add",
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 1,
    },
    "ssp": {
        "gate.rule": "open",
        "close.rule": "each",
        "continue.rule": "bounded",
        "continue.slack": 3,
        "merge.rule": "add",
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 1,
    },
    "ebsp": {
        "gate.rule": "open",
        "close.rule": "all",
        "continue.rule": "on-version",
        "merge.rule": "mean",
        "merge.max_staleness": 0,
        "size.rule": "quota",
        "size.lookahead": 15,
        "round.epochs": 1,
        "round.steps": 1,
    },
    "selsync": {
        "gate.rule": "gradient",
        "gate.delta": 0.3,
        "close.rule": "flagged",
        "continue.rule": "on-version",
        "merge.rule": "mean",
        "merge.max_staleness": 1,
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 1,
    },
    "fedbuff": {
        "gate.rule": "open",
        "close.rule": "count",
        "close.count": 10,
        "continue.rule": "at-once",
        "merge.rule": "buffered",
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 16,
    },
    "fastest-alone": {
        "gate.rule": "open",
        "close.rule": "all",
        "continue.rule": "on-version",
        "merge.rule": "mean",
        "merge.max_staleness": 0,
        "size.rule": "fastest",
        "round.epochs": 1,
        "round.steps": 512,
    },
    "central": {
        "gate.rule": "open",
        "close.rule": "all",
        "continue.rule": "on-version",
        "merge.rule": "mean",
        "size.rule": "fixed",
        "round.epochs": 1,
        "round.steps": 64,
        "workers.max": 1,
    },
}
"""A strategy's name -> the settings that it stands for; a user's own settings win."""

DEFAULT_STRATEGY = "hermes"
"""Of a run whose user names none."""


SECTIONS: dict[str, dict[str, Allowed]] = {
    "gate": gate.RANGES,
    "close": sync.CLOSE_RANGES,
    "continue": sync.CONTINUE_RANGES,
    "merge": weigh.RANGES,
    "size": allocate.RANGES,
    "round": {"epochs": whole(1), "steps": whole(1, off=True)},
    "codec": codecs.RANGES,
    "data": partition.RANGES,
    "stop": {
        "accuracy": number(above=0, most=1, off=True),
        "loss": number(off=True),
        "patience": whole(1, off=True),
        "samples": whole(1, off=True),
        "versions": whole(1, off=True),
        "seconds": number(least=0.001, most=LONGEST, off=True),
    },
    "workers": {
        "max": whole(1),
        "heartbeat": number(least=0.01, most=LONGEST),
        "lost": number(above=0, most=LONGEST),
        "longest": number(above=0, most=LONGEST),
    },
    "optimizer": {"on_rebase": one_of("keep", "reset")},
    "cache": {"max": whole(1)},
    "storage": storage.RANGES,
    "retention": retention.RANGES,
}
"""What each setting may be."""


class Layer(NamedTuple):
    """Settings that somebody asked for, by dotted key, and where: "--set", "job.py:9"."""

    where: str
    values: Mapping[str, Any]
    typed: bool = True
    """For this very run; what is in vain there is an error."""


@functools.cache
def known_keys() -> tuple[str, ...]:
    """Every setting's dotted key, in order."""
    return tuple(sorted(_flatten(msgspec.to_builtins(Settings()))))


def resolve(strategy: str, layers: Sequence[Layer | Mapping[str, Any]]) -> Settings:
    """The settings in force: defaults, then the strategy, then each layer of dotted keys.

    Raises `SettingError` naming the key, what was found, where it was set and what is allowed.
    """
    if strategy not in PRESETS:
        raise SettingError(
            f"unknown strategy {strategy!r}",
            where="--strategy",
            remedy=f"It is one of: {', '.join(PRESETS)}." + _suggest(strategy, list(PRESETS)),
        )
    tree: dict[str, Any] = {"strategy": strategy}
    for layer in [PRESETS[strategy], *layers]:
        where, values = (layer.where, layer.values) if isinstance(layer, Layer) else ("", layer)
        for key, value in values.items():
            _place(tree, key, value, where)
    settings = _checked(tree, _asked(_layers(layers)))
    refuse_idle(settings, _asked([one for one in _layers(layers) if one.typed]))
    return settings


def one(key: str, value: Any, where: str = "") -> dict[str, Any]:
    """This one setting, in its own type, by its key. Raises `SettingError` if there is no such
    setting, or it may not have this value; what it is beside others is not looked at."""
    tree: dict[str, Any] = {}
    _place(tree, key, value, where)
    section, last = key.split(".")
    return {key: tree[section][last]}


def resettled(settings: Settings, asked: Mapping[str, Any], where: str) -> Settings:
    """These settings with those asked for in their place. Raises `SettingError`."""
    tree = to_tree(settings)
    for key, value in asked.items():
        _place(tree, key, value, where)
    return _checked(tree, dict.fromkeys(asked, where))


def _checked(tree: Mapping[str, Any], asked: Mapping[str, str]) -> Settings:
    """The settings, if they can work; an error says where (`asked`) what it is about was set."""
    settings = from_tree(tree)
    try:
        check(settings)
    except SettingError as error:
        found = [where for key, where in asked.items() if key in error.what]
        where = error.where or (found[-1] if found else "")
        raise SettingError(error.what, where=where, remedy=error.remedy) from None
    return settings


def warnings(settings: Settings, layers: Sequence[Layer]) -> list[str]:
    """What is odd about these settings, and about what these layers asked for."""
    return check(settings) + odd(settings, _asked(layers))


def _layers(layers: Sequence[Layer | Mapping[str, Any]]) -> list[Layer]:
    return [layer for layer in layers if isinstance(layer, Layer)]


def _asked(layers: Sequence[Layer]) -> dict[str, str]:
    """Key -> where it was set last; what was switched off is not asked for."""
    found = {key: (layer.where, value) for layer in layers for key, value in layer.values.items()}
    return {key: where for key, (where, value) in found.items() if value is not None}


def assignments(texts: Sequence[str], where: str) -> Layer:
    """`["gate.alpha=-1.6", ...]` as a layer. Raises `SettingError`, also for a key set twice."""
    values: dict[str, Any] = {}
    for text in texts:
        key, value = parse_assignment(text, where)
        if key in values:
            raise SettingError(
                f"{key} is set twice: {shown(values[key])} and {shown(value)}",
                where=where,
                remedy="Set it once.",
            )
        values[key] = value
    return Layer(where, values)


def parse_assignment(text: str, where: str = "--set") -> tuple[str, Any]:
    """`"gate.alpha=-1.6"` -> `("gate.alpha", -1.6)`; "off" is None."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingError(
            f"{text!r} is not KEY=VALUE", where=where, remedy="For example: --set gate.alpha=-1.6"
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


# msgspec learns a type at its first use; a second thread that comes meanwhile finds it half
# learned, and the process dies of that (0.22: a null pointer). A worker that is admitted reads its
# settings in two threads at the same moment, so that all of them are learned here.
from_tree(to_tree(Settings()))


def check(settings: Settings) -> list[str]:
    """Warnings about settings that are odd; raises `SettingError` for those that cannot work."""
    for section, ranges in SECTIONS.items():
        check_section(section, getattr(settings, section.replace("continue", "continue_")), ranges)
    storage.check_storage(settings.storage)
    _check_workers(settings)
    _check_together(settings)
    warnings = gate.check_gate(settings.gate) + _odd_together(settings)
    warnings += weigh.check_merge(settings.merge)
    warnings += allocate.check_size(settings.size)
    return warnings


def _check_workers(settings: Settings) -> None:
    if settings.workers.lost <= 2 * settings.workers.heartbeat:
        raise SettingError(
            f"workers.lost is {settings.workers.lost:g} s, workers.heartbeat "
            f"{settings.workers.heartbeat:g} s",
            remedy="A worker must miss at least two heartbeats before it is lost: "
            "raise workers.lost.",
        )
    if settings.workers.longest < settings.workers.lost:
        raise SettingError(
            f"workers.longest is {settings.workers.longest:g} s, workers.lost "
            f"{settings.workers.lost:g} s",
            remedy="The most that a worker's own pace may allow is no less than the least: raise "
            "workers.longest, or lower workers.lost.",
        )


def _check_together(settings: Settings) -> None:
    """Raise `SettingError` for answers of which one cannot work beside another."""
    if settings.gate.rule != "open" and settings.close.rule == "all":
        raise SettingError(
            "close.rule=all waits for a push of every worker, and a gate lets workers be quiet",
            remedy="Take gate.rule=open or close.rule=each.",
        )
    _check_flags(settings)
    _check_quota(settings)
    if settings.round.steps is not None and settings.size.rule in ("iqr", "speed"):
        raise SettingError(
            f"size.rule={settings.size.rule} re-sizes the rounds, and round.steps="
            f"{settings.round.steps} fixes their length",
            remedy="Take size.rule=fixed, or round.steps=off.",
        )
    if settings.size.slowest is not None and settings.continue_.rule != "on-version":
        raise SettingError(
            f"size.slowest={settings.size.slowest:g} leaves workers out, and continue.rule="
            f"{settings.continue_.rule} has all keep up with the versions, or with each other",
            remedy="Take continue.rule=on-version, or size.slowest=off.",
        )
    if settings.merge.rule == "interpolate" and settings.close.rule != "each":
        raise SettingError(
            f"close.rule={settings.close.rule} closes over several updates, and merge.rule="
            "interpolate merges one at a time",
            remedy="Take close.rule=each, or another merge.rule.",
        )
    if settings.merge.rule == "interpolate" and sync.CONTINUE[settings.continue_.rule].rebases:
        raise SettingError(
            f"continue.rule={settings.continue_.rule} sends what is unsent alone, and merge.rule="
            "interpolate weighs the model that a worker has by its loss",
            remedy="Take continue.rule=on-version, or another merge.rule.",
        )


def _check_flags(settings: Settings) -> None:
    """Raise `SettingError` where all step together, and something else does not."""
    if not sync.steps_together(settings.close):
        return
    if settings.gate.rule not in ("gradient", "open"):
        raise SettingError(
            f"gate.rule={settings.gate.rule} goes by what this worker pushed itself, and with "
            "close.rule=flagged it pushes when another one flags",
            remedy="Take gate.rule=gradient, or another close.rule.",
        )
    if settings.continue_.rule != "on-version":
        raise SettingError(
            f"continue.rule={settings.continue_.rule} lets workers train on, and close.rule="
            "flagged has them wait for each other after each round",
            remedy="Take continue.rule=on-version, or another close.rule.",
        )


def _check_quota(settings: Settings) -> None:
    """Raise `SettingError` where there is no barrier for quotas, or nothing to count them in."""
    if not allocate.sets_quotas(settings.size):
        return
    if settings.round.steps is None:
        raise SettingError(
            "size.rule=quota says how many times round.steps a worker trains, and round.steps=off",
            remedy="Take round.steps=1, or another size.rule.",
        )
    for key, value, needed in (
        ("close.rule", settings.close.rule, "all"),
        ("continue.rule", settings.continue_.rule, "on-version"),
    ):
        if value != needed:
            raise SettingError(
                f"size.rule=quota plans for the next barrier, and {key}={value} has none",
                remedy=f"Take {key}={needed}, or another size.rule.",
            )


def _odd_together(settings: Settings) -> list[str]:
    """Warnings about answers of which one works badly beside another."""
    close, found = settings.close, list[str]()
    if settings.gate.rule != "open" and close.rule == "count" and close.count > 1:
        found.append(
            f"close.count={close.count} waits for so many pushes, or for as many as workers are "
            "alive, and a gate lets workers be quiet: a version may take long"
        )
    if settings.merge.max_staleness == 0 and sync.may_fall_behind(settings.continue_):
        found.append(
            f"continue.rule={settings.continue_.rule} trains on while versions are made, and with "
            "merge.max_staleness=0 what was begun before the newest is thrown away"
        )
    if settings.merge.max_staleness == 0 and sync.steps_together(close):
        found.append(
            "close.rule=flagged asks for pushes while a newcomer still trains on the version "
            "before, and with merge.max_staleness=0 its work may be thrown away again and again"
        )
    size, data = settings.size, settings.data
    if size.slowest is not None and (data.resident or data.partition != "iid"):
        found.append(
            f"size.slowest={size.slowest:g} leaves slow workers out, and with them the data that "
            "they alone may train on"
        )
    return found


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        keys += _flatten(value, f"{name}.") if isinstance(value, dict) else [name]
    return keys


def _suggest(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.lower(), words, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _nearest(key: str) -> str:
    """What an unknown key was meant to be: by its last part, else by likeness."""
    last = key.lower().rpartition(".")[2]
    same = [known for known in known_keys() if known.rpartition(".")[2] == last]
    if same:
        return f"Did you mean {' or '.join(same)}?"
    section = [known for known in known_keys() if known.startswith(f"{key.lower().strip('.')}.")]
    if section:
        return f"It is one of: {', '.join(section)}."
    return _suggest(key, known_keys()).strip() or "See docs/settings.md for all of them."


def _place(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    if key == "strategy":
        raise SettingError("the strategy is no setting", where=where, remedy="--strategy NAME")
    if key not in known_keys():
        raise SettingError(f"unknown setting {key!r}", where=where, remedy=_nearest(key))
    section, last = key.split(".")
    allowed = SECTIONS[section].get(last)
    if allowed is not None:
        value = settled(allowed, value)
        check_value(key, value, allowed, where)
    tree.setdefault(section, {})[last] = value
