"""When does a version close, and when does a worker go on? Pure.

Two of the five answers of a strategy. A close rule looks at the updates that wait, in the order
of their acceptance, and at the workers that are alive; it names those that the next version is
made of, or says what is missing. A continue rule says what a worker does after a round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from hermes.policy.ranges import Allowed, number, one_of, whole
from hermes.values import SECOND, Facts, Reason


class CloseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a version closes."""

    rule: str = "each"
    """"each": with every update; "all": when all alive workers have pushed; "count": over the first
    `count` updates; "quorum": when `share` of the workers alive have pushed, and a grace is over
    (or all have); "flagged": all take each step together, and push if any of them wants to."""
    count: int = 10
    """"count": updates in a version; where fewer workers are alive, as many updates as those.
    FedBuff's K (arXiv 2106.06639)."""
    share: float = 0.8
    """"quorum": of the workers alive, rounded up."""
    grace: float = 0.1
    """"quorum": for how long it waits for the others then, in median rounds of those alive."""


class ContinueSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a worker goes on."""

    rule: str = "on-version"
    """"on-version": after a push, once a version contains it (or it is rejected); after a quiet
    round at once, on its own model. "at-once": always, on the newest version, less what it pushed
    that is in none, and what it has not sent. "bounded": so, while it is not too far ahead."""
    slack: int | None = 3
    """"bounded": rounds that a worker may be ahead of the slowest one alive (0: none; off: any, and
    it is "at-once"). SSP's s (Ho et al., NIPS 2013)."""


class Waiting(NamedTuple):
    """An update that waits, as the rules see it."""

    worker: str
    taken: int = 0
    """Run time (ns) at which it was accepted."""


class Scene(NamedTuple):
    """What a close rule looks at."""

    waiting: Sequence[Waiting]
    """In the order of their acceptance."""
    alive: Sequence[str]
    """The workers that a version may wait for."""
    quiet: Mapping[str, int] = {}
    """Those whose last round brought no update, and the run time (ns) since which that is so of
    the version in force: they are heard, too."""
    rounds: Sequence[float] = ()
    """Busy seconds of the last round of each of the alive that has finished one."""
    now: int | None = None
    """Run time (ns); None: late enough for any grace to be over."""


class Close(NamedTuple):
    """Close now, over the updates at these indices of the waiting ones."""

    members: tuple[int, ...]
    reason: Reason


class Wait(NamedTuple):
    """Not yet, and why."""

    reason: Reason


def _each(_settings: CloseSettings, scene: Scene) -> Close | Wait:
    if not scene.waiting:
        return Wait(Reason("nothing-pushed"))
    return Close((0,), Reason("each-push", {"worker": scene.waiting[0].worker}))


def _all(_settings: CloseSettings, scene: Scene) -> Close | Wait:
    # An update of an older base that was accepted counts: its worker waits for it as the others do.
    have = {update.worker for update in scene.waiting}
    missing = [worker for worker in scene.alive if worker not in have]
    if not have or missing:
        facts: Facts = {"pushed": len(have), "missing": len(missing)}
        if missing:
            facts["first_missing"] = missing[0]
        return Wait(Reason("not-all-pushed", facts))
    return Close(_every(scene), Reason("all-pushed", {"pushed": len(have)}))


def _count(settings: CloseSettings, scene: Scene) -> Close | Wait:
    pushed, need = len(scene.waiting), max(1, min(settings.count, len(scene.alive)))
    facts: Facts = {"pushed": pushed, "count": settings.count, "alive": len(scene.alive)}
    if pushed < need:
        return Wait(Reason("too-few-pushed", facts))
    return Close(_every(scene)[: settings.count], Reason("count-pushed", facts))


def _quorum(settings: CloseSettings, scene: Scene) -> Close | Wait:
    heard, began = _heard(scene), since(settings, scene)
    pushed = {update.worker for update in scene.waiting}.intersection(scene.alive)
    facts: Facts = {
        "quorum": quorum(settings, len(scene.alive)),
        "pushed": len(pushed),
        "quiet": len(heard) - len(pushed),
        "alive": len(scene.alive),
        "grace": grace(settings, scene),
    }
    if began is None:
        return Wait(Reason("no-quorum", facts))
    waited = math.inf if scene.now is None else (scene.now - began) / SECOND
    reason = Reason("quorum", {**facts, "waited": waited})
    return Close(_every(scene), reason) if may_close(reason) else Wait(Reason("grace", facts))


def _flagged(_settings: CloseSettings, scene: Scene) -> Close | Wait:
    # Of the alive there are those who were asked to push and have not yet (`machine.steps`).
    if scene.alive or not scene.waiting:
        facts: Facts = {"pushed": len(scene.waiting), "missing": len(scene.alive)}
        return Wait(Reason("not-all-pushed", facts))
    return Close(_every(scene), Reason("synced", {"pushed": len(scene.waiting)}))


def steps_together(settings: CloseSettings) -> bool:
    """Whether everybody waits after each round until all alive have finished it: what a gate calls
    worth a push is then a flag, upon which all push."""
    return settings.rule == "flagged"


def quorum(settings: CloseSettings, alive: int) -> int:
    """How many of so many workers must be heard; at least one."""
    # 0.7 * 10 is 7.000000000000001.
    return max(1, math.ceil(settings.share * alive - 1e-9))


def since(settings: CloseSettings, scene: Scene) -> int | None:
    """The run time (ns) from which on the grace is counted: the quorum is heard, and there is an
    update to make a version of. None as long as that is not so."""
    need = min(quorum(settings, len(scene.alive)), len(scene.alive))
    heard = sorted(_heard(scene).values())
    if not scene.waiting or len(heard) < need:
        return None
    return max([scene.waiting[0].taken, *heard[:need]])


def grace(settings: CloseSettings, scene: Scene) -> float:
    """Seconds that a version waits for the others once the quorum is there."""
    return settings.grace * statistics.median(scene.rounds) if scene.rounds else 0.0


def may_close(reason: Reason) -> bool:
    """Whether a quorum's facts allow it to close: nobody is missing, or the grace is over."""
    numbers = [reason.facts.get(name) for name in ("pushed", "quiet", "alive", "waited", "grace")]
    pushed, quiet, alive, waited, allowed = (
        float(n) if isinstance(n, int | float) else math.nan for n in numbers
    )
    return pushed + quiet >= alive or waited >= allowed


def _heard(scene: Scene) -> dict[str, int]:
    """The workers alive that are heard, and the run time (ns) at which each was first."""
    pushed = {update.worker: update.taken for update in reversed(scene.waiting)}
    known = {**scene.quiet, **pushed}
    return {worker: known[worker] for worker in scene.alive if worker in known}


def _every(scene: Scene) -> tuple[int, ...]:
    return tuple(range(len(scene.waiting)))


CLOSE: dict[str, Callable[[CloseSettings, Scene], Close | Wait]] = {
    "each": _each,
    "all": _all,
    "count": _count,
    "quorum": _quorum,
    "flagged": _flagged,
}


def closes(settings: CloseSettings, scene: Scene) -> Close | Wait:
    """What the rule in force says."""
    return CLOSE[settings.rule](settings, scene)


class Continuing(NamedTuple):
    """What a worker does between two rounds."""

    waits: bool
    """After a push, for the version that holds it."""
    rebases: bool
    """It takes every newer version, and carries over what is not in it."""


CONTINUE: dict[str, Continuing] = {
    "on-version": Continuing(waits=True, rebases=False),
    "at-once": Continuing(waits=False, rebases=True),
    "bounded": Continuing(waits=False, rebases=True),
}


def counts_rounds(settings: ContinueSettings) -> bool:
    """Whether it matters how far the workers are."""
    return settings.rule == "bounded" and settings.slack is not None


def may_fall_behind(settings: ContinueSettings) -> bool:
    """Whether a worker trains on while what it pushed is undecided."""
    return CONTINUE[settings.rule].rebases and not (
        settings.rule == "bounded" and settings.slack == 0
    )


def too_far_ahead(settings: ContinueSettings, finished: int, slowest: int) -> bool:
    """Whether a worker of so many finished rounds waits for the slowest one alive, of which so many
    are in versions, or known to be worth none."""
    if settings.rule != "bounded" or settings.slack is None:
        return False
    return finished - slowest > settings.slack


CLOSE_RANGES: dict[str, Allowed] = {
    "rule": one_of(*CLOSE),
    "count": whole(1),
    "share": number(above=0, most=1),
    "grace": number(least=0),
}
CONTINUE_RANGES: dict[str, Allowed] = {"rule": one_of(*CONTINUE), "slack": whole(0, off=True)}
"""What each of the settings may be."""
