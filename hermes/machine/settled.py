"""Has anything changed that the standing duties look at? Pure.

Most events are heartbeats, and change none of it: who was owed nothing then is owed nothing now. So
what was looked at is remembered, with what was found; as long as it is the very same, it is not
looked at again. The very same objects: to compare members by value would take longer than to look.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import msgspec

from hermes.values import SECOND

if TYPE_CHECKING:
    from hermes.machine.draft import Draft

EARLY = SECOND // 1_000_000
"""So much before the moment that was computed it is looked at again: seconds are floats."""


class Settled(msgspec.Struct, frozen=True):
    """What was looked at when nothing was due, and what was found."""

    scene: tuple[object, ...] = ()
    idle: tuple[str, ...] = ()
    """Workers that owe no progress."""
    over: tuple[int, ...] = ()
    """The run time at which a version need not wait any longer for who has not pushed."""


def scene(draft: Draft) -> tuple[object, ...]:
    """All that starting, admitting, refusing, closing and granting depend on, but for the time."""
    state, soft = draft.state, draft.soft
    run = state.settings, state.opened, state.started, state.stopped, state.authority.term
    making = soft.merge, soft.scoring, soft.scored, soft.secured, soft.state_of
    told = state.step, state.asked
    return (state.members, state.pending, state.newest, *told, *run, *making)


def holds(draft: Draft) -> bool:
    """Whether nothing has changed since nothing was due."""
    return same(draft.soft.settled.scene, scene(draft))


def same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """The very same objects."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def nothing_to_close(draft: Draft) -> bool:
    """Whether the close rule would still say what it said: only a grace ends by itself."""
    late = any(draft.now + EARLY >= at for at in draft.soft.settled.over)
    return not late and holds(draft)
