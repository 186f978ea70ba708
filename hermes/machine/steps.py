"""Where all step together: has everybody taken its step, and does anybody want a version? Pure.

SelSync's barrier (`close.rule=flagged`): after each round a worker tells its verdict, a flag or
none, and waits for `StepClosed`. Any flag makes all of them push. So does an update that waits: it
is of someone who was away while the others met, or of an incarnation before, and its worker waits
for a version. Nobody waits for a vote of whoever is lost, waits so, or has no work; whoever was
asked to push votes no sooner than it has, and its vote, or what it owes, outlasts a loss: it may be
back in time.

The master decides by it; `hermes why` and `hermes verify` ask it again.
"""

from __future__ import annotations

from hermes.machine.state import MasterState
from hermes.messages import StepClosed
from hermes.policy.sync import steps_together
from hermes.values import Facts, Reason

FLAG, VETO = "flag", "veto"


def closed(state: MasterState) -> StepClosed | None:
    """The step that closes now; None while somebody is waited for, or none is under way."""
    if not steps_together(state.settings.close) or state.newest is None:
        return None
    if state.started is None or state.stopped is not None:
        return None
    if missing(state) or (syncing(state) and state.pending):
        return None
    votes = _votes(state)
    if not votes and not state.pending:
        return None
    flags = [name for name, verdict in votes.items() if verdict == FLAG]
    pushers = tuple(name for name, verdict in votes.items() if verdict != VETO)
    vetoed = len(votes) - len(pushers)
    facts: Facts = {"stepped": len(votes), "flags": len(flags), "vetoed": vetoed}
    facts |= {"first_flag": flags[0]} if flags else {}
    facts |= {"waiting": len(state.pending)} if state.pending else {}
    code = "flagged" if flags else "update-waits" if state.pending else "no-flag"
    sync, last = bool(flags or state.pending), state.step.step if state.step is not None else 0
    reason = Reason(code, facts)
    return StepClosed(last + 1, state.newest.version, sync, pushers if sync else (), reason)


def missing(state: MasterState) -> list[str]:
    """Who has not taken its step: alive, with work, and waiting for no version."""
    pushed = {pending.worker for pending in state.pending}
    members = (state.members[name] for name in state.alive() if name not in pushed)
    return [member.name for member in members if member.size and member.voted is None]


def owing(state: MasterState) -> list[str]:
    """Who was asked to push, is alive, and has not yet."""
    return [name for name in state.alive() if state.members[name].owes]


def syncing(state: MasterState) -> bool:
    """Whether the last step asked for a version that is not there yet."""
    step, newest = state.step, state.newest
    return step is not None and newest is not None and step.sync and step.version == newest.version


def _votes(state: MasterState) -> dict[str, str]:
    members = (state.members[name] for name in state.alive())
    return {member.name: member.voted[0] for member in members if member.voted is not None}
