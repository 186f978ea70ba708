"""How is it shown whom a broker of this machine has refused?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hermes.broker.refusals import Refusal

MOST = 8
"""Kinds of refusals that are shown; the others are counted."""


def at(broker: str | None) -> list[Refusal]:
    """Whom the broker at HOST:PORT refused, if it was started on this machine; the latest first."""
    from hermes.broker import control
    from hermes.broker.refusals import refusals

    found = control.running_at(broker) if broker is not None else None
    return refusals(Path(found.log)) if found is not None else []


def of_run(refused: Sequence[Refusal], run: str, since: float | None = None) -> list[Refusal]:
    """Without what came before a run, and what was about another one."""
    ours = f"hermes.{run}."
    return [
        one
        for one in refused
        if (since is None or one.last >= since) and ("hermes." not in one.what or ours in one.what)
    ]


def lines(refused: Sequence[Refusal], now: float | None = None) -> list[str]:
    """A line for each, the latest first."""
    now = time.time() if now is None else now
    told = [f"  refused: {line(one, now)}" for one in refused[:MOST]]
    rest = sum(one.times for one in refused[MOST:])
    if rest:
        told.append(f"  refused: {rest} times more, in other ways (--json has all)")
    return told


def line(one: Refusal, now: float) -> str:
    """Who, what, why, when, how often."""
    who = f"{one.user} at {one.host}" if one.user else one.host
    times = "once" if one.times == 1 else f"{one.times} times"
    return f"{who}: {one.what}: {one.why} ({times}, last {_ago(now - one.last)} ago)"


def as_json(refused: Sequence[Refusal]) -> list[dict[str, Any]]:
    """The same for programs; times in seconds since the epoch."""
    return [one._asdict() for one in refused]


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
