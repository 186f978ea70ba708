"""Who is owed blocks? Pure. `walk` says which come next."""

from __future__ import annotations

from hermes.machine import settled
from hermes.machine.draft import Draft
from hermes.machine.rounds import quota_of
from hermes.machine.state import Member
from hermes.machine.walk import next_grant

GRANTS_AHEAD = 2
"""The one being trained, and one ahead (protocol 9a)."""


def grant(draft: Draft) -> None:
    """Everybody alive holds the blocks that it trains, and the next ones."""
    state = draft.state
    if state.started is None or state.stopped is not None:
        return
    for name in settled.owed_blocks(draft):
        while _wants_blocks(draft, draft.state.members[name]):
            draft.add(next_grant(draft.state, name, *draft.rules.free(draft.state, name)))


def _wants_blocks(draft: Draft, member: Member) -> bool:
    if not member.size:
        return False
    if len(member.grants) < GRANTS_AHEAD:
        return True
    steps = draft.state.settings.round.steps
    if steps is None:
        return False
    steps *= quota_of(draft.state.newest, member.name)
    return not draft.rules.holds_round(member, steps)
