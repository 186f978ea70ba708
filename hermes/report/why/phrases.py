"""Which phrases do all told decisions share? Times, numbers, and what came of recomputing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from hermes.policy.presets import Settings
from hermes.report.scores import ACCURACY
from hermes.report.why.decided import Decision
from hermes.report.why.recompute import DIFFERS, OPEN
from hermes.report.words import count, duration
from hermes.values import SECOND


class Setting(NamedTuple):
    """What sentences need beside the decision."""

    settings: Settings
    started: int | None
    """Run time (ns) at which training started."""
    metric: str = ACCURACY
    """What the run's metric is called."""


class Told(NamedTuple):
    """A decision, said."""

    verdict: str
    """A word or two: "pushed", "re-sized", "lost"."""
    title: str
    body: str


def clock(at: int, setting: Setting) -> str:
    """`12.41 s`: since training started; what was before is said so."""
    if setting.started is None or at < setting.started:
        return "before training"
    return f"{(at - setting.started) / SECOND:.2f} s"


def when(decision: Decision, setting: Setting) -> str:
    """`at version 57 (12.41 s)`."""
    place = f"at version {decision.version}" if decision.version >= 0 else "before version 0"
    return f"{place} ({clock(decision.at, setting)})"


def checked(decision: Decision) -> str:
    """`recomputed: agrees`, or what differs, or why it cannot be."""
    check = decision.check
    if check.outcome == OPEN:
        return f"not recomputable: {check.why}"
    if check.outcome != DIFFERS:
        return "recomputed: agrees"
    parts = [
        f"{name} is recorded as {fact(check.recorded.get(name))}, recomputed "
        f"{fact(check.recomputed.get(name))}"
        for name in check.differing
    ]
    return f"DIFFERS: {'; '.join(parts)}"


def fact(value: object) -> str:
    """A fact as it is, six digits."""
    if value is None:
        return "nothing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def loss(value: object) -> str:
    """A loss, four digits."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def seconds(value: object) -> str:
    """Seconds, as a person says them."""
    return duration(float(value)) if isinstance(value, int | float) else "?"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers in two decimals; in as many more as tell them apart."""
    for digits in (2, 4, 6, 9):
        texts = f"{one:.{digits}f}", f"{other:.{digits}f}"
        if texts[0] != texts[1]:
            break
    return texts


def many(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


Say: TypeAlias = Callable[[Decision, Setting], Told]
"""How a kind of decision is said."""
