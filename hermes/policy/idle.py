"""Which settings that somebody asked for can never take effect? Pure.

Only what was asked for is looked at: a strategy may well set a pace for rounds of both kinds. What
was typed for this run is an error; what a job says is a warning, since a job is written once and
run under any strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from hermes.errors import SettingError

if TYPE_CHECKING:
    from hermes.policy.presets import Settings

GRID = 0.5
"""Seconds between two points of the evaluation grid, at least."""


class Idle(NamedTuple):
    """A setting without effect: when, why, and what to do about it."""

    key: str
    holds: Callable[[Settings], bool]
    why: str
    remedy: str


_ZSCORE = "gate.rule is not zscore, the one rule that looks at it"
_INNOVATION = "gate.rule is not innovation, the one rule that looks at it"
_GRADIENT = "gate.rule is not gradient, the one rule that looks at it"
_GATE = "Leave it out, or take gate.rule=zscore."
_IQR = "size.rule is not iqr, the one rule that looks at it"
_SPEED = "size.rule is not speed, the one rule that looks at it"
_QUOTA = "size.rule is not quota, the one rule that looks at it"
_MOMENTUM = "merge.rule is not momentum, the one rule that looks at it"
_RATE = "merge.rule is neither momentum nor buffered, the rules that look at it"
_ADD = "merge.rule is not add, the one rule that looks at it"
_COUNT = "close.rule is not count, the one rule that looks at it"
_QUORUM = "close.rule is not quorum, the one rule that looks at it"

NEVER: tuple[Idle, ...] = (
    *(
        Idle(f"gate.{name}", lambda s: s.gate.rule != "zscore", _ZSCORE, _GATE)
        for name in ("alpha", "beta", "lambda", "window", "reset_on_push", "probe")
    ),
    *(
        Idle(f"gate.{name}", lambda s: s.gate.rule != "innovation", _INNOVATION, "Leave it out.")
        for name in ("rate", "gain", "warm", "shortest", "longest", "veto")
    ),
    *(
        Idle(f"gate.{name}", lambda s: s.gate.rule != "gradient", _GRADIENT, "Leave it out.")
        for name in ("delta", "smoothing")
    ),
    *(
        Idle(f"size.{name}", lambda s: s.size.rule != "iqr", _IQR, "Leave it out.")
        for name in ("fence", "near")
    ),
    *(
        Idle(f"merge.{name}", lambda s: s.merge.rule != "momentum", _MOMENTUM, "Leave it out.")
        for name in ("momentum", "nesterov", "discount")
    ),
    Idle(
        "merge.rate",
        lambda s: s.merge.rule not in ("momentum", "buffered"),
        _RATE,
        "Leave it out.",
    ),
    Idle("merge.scale", lambda s: s.merge.rule != "add", _ADD, "Leave it out."),
    Idle("close.count", lambda s: s.close.rule != "count", _COUNT, "Leave it out."),
    *(
        Idle(f"close.{name}", lambda s: s.close.rule != "quorum", _QUORUM, "Leave it out.")
        for name in ("share", "grace")
    ),
    Idle(
        "close.grace",
        lambda s: s.close.share == 1,
        "close.share=1 waits for every worker alive, and then no longer",
        "Leave it out, or take close.share=0.8.",
    ),
    Idle(
        "merge.discount",
        lambda s: s.merge.discount and s.merge.max_staleness == 0,
        "merge.max_staleness=0 takes no update that is stale",
        "Leave it out, or add --set merge.max_staleness=off.",
    ),
    Idle(
        "merge.nesterov",
        lambda s: s.merge.nesterov and s.merge.momentum == 0,
        "merge.momentum=0 leaves nothing to look ahead by",
        "Leave it out, or take merge.momentum=0.9.",
    ),
    Idle("size.lookahead", lambda s: s.size.rule != "quota", _QUOTA, "Leave it out."),
    *(
        Idle(
            f"data.{name}",
            lambda s, rule=rule: s.data.partition != rule,  # type: ignore[misc]
            f"data.partition is not {rule}, the one rule that looks at it",
            f"Leave it out, or take data.partition={rule}.",
        )
        for name, rule in (("dirichlet", "dirichlet"), ("classes", "by-class"))
    ),
    Idle(
        "data.pools",
        lambda s: s.data.partition == "iid",
        "data.partition=iid makes no pools",
        "Leave it out, or take data.partition=dirichlet.",
    ),
    *(
        Idle(f"size.{name}", lambda s: s.size.rule != "speed", _SPEED, "Leave it out.")
        for name in ("mean", "slowest", "deadband")
    ),
    Idle(
        "round.epochs",
        lambda s: s.round.steps is not None,
        "round.steps is set, and then a round is that many steps",
        "Leave it out, or add --set round.steps=off.",
    ),
    Idle(
        "merge.max_staleness",
        lambda s: s.merge.max_staleness is not None and s.workers.max == 1,
        "workers.max=1 leaves nobody who could publish a version meanwhile",
        "Leave it out.",
    ),
)
"""What is an error where it was typed."""


def _patience_seconds(s: Settings) -> bool:
    patience, seconds = s.stop.patience, s.stop.seconds
    return patience is not None and seconds is not None and patience * GRID > seconds


def _patience_versions(s: Settings) -> bool:
    patience, versions = s.stop.patience, s.stop.versions
    return patience is not None and versions is not None and patience > versions


def _stale(s: Settings) -> bool:
    most, versions = s.merge.max_staleness, s.stop.versions
    return most is not None and versions is not None and most >= versions


ODD: tuple[Idle, ...] = (
    Idle(
        "stop.patience",
        _patience_seconds,
        f"stop.seconds ends the run first: there is a point of the grid every {GRID:g} s at most",
        "",
    ),
    Idle("stop.patience", _patience_versions, "stop.versions ends the run first", ""),
    Idle("merge.max_staleness", _stale, "stop.versions ends the run before", ""),
    Idle("gate.lambda", lambda s: s.gate.beta == 0, "gate.beta=0: the threshold never gives", ""),
    Idle(
        "gate.reset_on_push",
        lambda s: s.gate.beta == 0,
        "gate.beta=0: the threshold never gives",
        "",
    ),
)
"""What is a warning, whoever asked for it."""


def refuse_idle(settings: Settings, typed: Mapping[str, str]) -> None:
    """Raise `SettingError` for the first key that was typed in vain; `typed`: key -> where."""
    for idle in NEVER:
        if idle.key in typed and idle.holds(settings):
            raise SettingError(
                f"{idle.key} would never take effect: {idle.why}",
                where=typed[idle.key],
                remedy=idle.remedy,
            )


def odd(settings: Settings, asked: Mapping[str, str]) -> list[str]:
    """Warnings about keys that were asked for in vain; `asked`: key -> where."""
    found = [idle for idle in (*NEVER, *ODD) if idle.key in asked and idle.holds(settings)]
    return [f"{asked[i.key]}: {i.key} will not take effect: {i.why}" for i in found]
