"""When does a version close, and when does a worker go on? Pure.

Two of the five answers of a strategy. A close rule looks at the updates that wait, in the order
of their acceptance, and at the workers that are alive; it names those that the next version is
made of, or says what is missing. A continue rule says what a worker does after a round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from hermes.policy.ranges import Allowed, one_of
from hermes.values import Reason


class CloseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a version closes."""

    rule: str = "each"
    """"each": with every update; "all": when all alive workers have pushed."""


class ContinueSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a worker goes on."""

    rule: str = "on-version"
    """"on-version": after a push, once a version contains it (or it is rejected); after a quiet
    round at once, on its own model."""


class Waiting(NamedTuple):
    """An update that waits, as the rules see it."""

    worker: str
    base: int


class Close(NamedTuple):
    """Close now, over the updates at these indices of the waiting ones."""

    members: tuple[int, ...]
    reason: Reason


class Wait(NamedTuple):
    """Not yet, and why."""

    reason: Reason


def _each(waiting: Sequence[Waiting], alive: Sequence[str], version: int) -> Close | Wait:
    del alive, version
    if not waiting:
        return Wait(Reason("nothing-pushed"))
    return Close((0,), Reason("each-push", {"worker": waiting[0].worker}))


def _all(waiting: Sequence[Waiting], alive: Sequence[str], version: int) -> Close | Wait:
    # An update of an older base that was accepted counts: its worker waits for it as the others do.
    del version
    have = {update.worker for update in waiting}
    missing = [worker for worker in alive if worker not in have]
    if not have or missing:
        facts: dict[str, float | int | str | bool | None] = {
            "pushed": len(have),
            "missing": len(missing),
        }
        if missing:
            facts["first_missing"] = missing[0]
        return Wait(Reason("not-all-pushed", facts))
    members = tuple(range(len(waiting)))
    return Close(members, Reason("all-pushed", {"pushed": len(have)}))


CLOSE: dict[str, Callable[[Sequence[Waiting], Sequence[str], int], Close | Wait]] = {
    "each": _each,
    "all": _all,
}


def _on_version(pushed: bool) -> Literal["wait", "own"]:
    return "wait" if pushed else "own"


CONTINUE: dict[str, Callable[[bool], Literal["wait", "own"]]] = {"on-version": _on_version}

CLOSE_RANGES: dict[str, Allowed] = {"rule": one_of(*CLOSE)}
CONTINUE_RANGES: dict[str, Allowed] = {"rule": one_of(*CONTINUE)}
"""What each of the settings may be."""
