"""Has anything changed that the standing duties look at? Pure.

Most events are heartbeats, and change none of it: who was owed nothing then is owed nothing now. So
what was looked at is remembered, with what was found; as long as it is the very same, it is not
looked at again. The very same objects: to compare members by value would take longer than to look.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from hermes.values import SECOND

if TYPE_CHECKING:
    from hermes.machine.draft import Draft
    from hermes.machine.soft import Soft
    from hermes.machine.state import MasterState

EARLY = SECOND // 1_000_000
"""So much before the moment that was computed it is looked at again: seconds are floats."""


class Scene(NamedTuple):
    """All that starting, admitting, refusing, closing and granting depend on, but for the time."""

    members: object
    pending: object
    newest: object
    step: object
    asked: object
    settings: object
    opened: object
    started: object
    stopped: object
    term: object
    merge: object
    scoring: object
    scored: object
    secured: object
    state_of: object


class Settled(msgspec.Struct, frozen=True):
    """What was looked at when nothing was due, and what was found."""

    scene: Scene | None = None
    idle: tuple[str, ...] = ()
    """Workers that owe no progress."""
    over: tuple[int, ...] = ()
    """The run time at which a version need not wait any longer for who has not pushed."""


class Looked(NamedTuple):
    """What one look has found."""

    state: MasterState
    soft: Soft
    scene: Scene
    holds: bool


def look(draft: Draft) -> Looked:
    """All duties ask, one after the other: as long as none of them has changed anything, one look
    does for all."""
    found = draft.looked
    if found is None or found.state is not draft.state or found.soft is not draft.soft:
        there = _scene(draft.state, draft.soft)
        held = same(draft.soft.settled.scene, there)
        found = draft.looked = Looked(draft.state, draft.soft, there, held)
    return found


def scene(draft: Draft) -> Scene:
    """What there is to look at now."""
    return look(draft).scene


def holds(draft: Draft) -> bool:
    """Whether nothing has changed since nothing was due."""
    return look(draft).holds


def _scene(state: MasterState, soft: Soft) -> Scene:
    told = state.pending, state.newest, state.step, state.asked
    run = state.settings, state.opened, state.started, state.stopped, state.authority.term
    making = soft.merge, soft.scoring, soft.scored, soft.secured, soft.state_of
    return Scene(state.members, *told, *run, *making)


def same(one: Scene | None, other: Scene) -> bool:
    """The very same objects."""
    return one is not None and all(map(operator.is_, one, other))


def owed_blocks(draft: Draft) -> list[str]:
    """Who may be owed blocks, of those alive, in order of name. Most events change one worker:
    whoever is as when nothing was due, in a run that is, is owed none now."""
    state, before = draft.state, draft.soft.settled.scene
    if before is None or state.newest is not before.newest or state.started is not before.started:
        return state.alive()
    if state.settings is not before.settings or state.stopped is not before.stopped:
        return state.alive()
    then: Any = before.members
    return [name for name in state.alive() if state.members[name] is not then.get(name)]


def nothing_to_close(draft: Draft) -> bool:
    """Whether the close rule would still say what it said: only a grace ends by itself."""
    late = any(draft.now + EARLY >= at for at in draft.soft.settled.over)
    return not late and holds(draft)
