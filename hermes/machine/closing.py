"""What is the next version made of, and with which weights? As the state shows it. Pure.

The master decides by it; `hermes why` and `hermes verify` ask it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hermes.machine import steps
from hermes.machine.apply import slowest_closed
from hermes.machine.state import MasterState, Member, Pending
from hermes.policy import allocate, sync, weigh, zipline
from hermes.policy.outer import keeps_momentum, outer_of
from hermes.policy.stability import shares_of
from hermes.policy.sync import Close, Scene, Wait, Waiting
from hermes.policy.weigh import Given
from hermes.policy.zipline import Runner
from hermes.values import SECOND, Outer, Reason, Superstep

CHANCES = 2
"""Updates of a worker that may be rejected in a version before the others go on without it."""


def answer(state: MasterState, now: int | None) -> Close | Wait:
    """What the close rule says to the updates that wait, at run time `now`; None: at some time to
    come, where nothing else happens before."""
    if sync.steps_together(state.settings.close) and not steps.syncing(state):
        return Wait(Reason("no-sync"))
    return sync.closes(state.settings.close, scene(state)._replace(now=now))


def scene(state: MasterState) -> Scene:
    """What a close rule looks at."""
    assert state.newest is not None
    together = sync.steps_together(state.settings.close)
    alive = steps.owing(state) if together else awaited(state)
    updates = [Waiting(p.worker, p.taken) for p in state.pending]
    if state.settings.close.rule != "quorum":
        return Scene(updates, alive)
    members = [state.members[name] for name in alive]
    rounds = [seconds for member in members for seconds in _last_round(member)]
    return Scene(updates, alive, _quiet(members, state.newest.version), rounds)


def _quiet(members: Sequence[Member], version: int) -> dict[str, int]:
    found = {member.name: member.quiet_at for member in members}
    return {name: at[1] for name, at in found.items() if at is not None and at[0] == version}


def _last_round(member: Member) -> list[float]:
    return [busy / SECOND for _, busy in member.timings[-1:]]


def awaited(state: MasterState) -> list[str]:
    """The workers that a version may wait for: those alive, but for whoever had only updates to
    offer that were rejected (one is forgiven: who was behind trains again, from this version), and
    whoever has none to offer and waits for the slowest itself (they would wait for each other), and
    whoever has no work."""
    assert state.newest is not None
    version, members, rule = state.newest.version, state.members, state.settings.continue_
    pushed, slowest = {pending.worker for pending in state.pending}, slowest_closed(state)

    def spent(name: str) -> bool:
        at, times = members[name].refusals
        return at == version and times >= CHANCES

    def held(name: str) -> bool:
        far = sync.too_far_ahead(rule, members[name].closed, slowest)
        return far and name not in pushed

    names = [name for name in state.working() if not spent(name)]
    return names if rule.slack is None else [name for name in names if not held(name)]


def grace_over(state: MasterState) -> list[int]:
    """The run time at which a quorum need no longer wait for the others; none where there is no
    quorum yet, or none is asked for."""
    close = state.settings.close
    if close.rule != "quorum" or state.newest is None:
        return []
    found = scene(state)
    since = sync.since(close, found)
    return [] if since is None else [since + math.ceil(sync.grace(close, found) * SECOND)]


def weights(state: MasterState, members: Sequence[Pending]) -> list[float]:
    """The weights of the updates that the next version is made of, where no loss makes them."""
    given = [Given(pending.update.samples, _staleness(state, pending)) for pending in members]
    return weigh.weights(state.settings.merge, given, len(state.alive()))


def outer(state: MasterState, members: Sequence[Pending]) -> Outer | None:
    """The step that the master's momentum takes with these updates; None where it keeps none."""
    if not keeps_momentum(state.settings.merge):
        return None
    lags = [_staleness(state, pending) for pending in members]
    shares = shares_of(list(zip(lags, weights(state, members), strict=True)))
    return outer_of(state.settings.merge, shares)


def superstep(state: MasterState) -> Superstep | None:
    """What everybody alive trains on the version that is about to be published; None where no rule
    sets quotas."""
    size, unit = state.settings.size, state.settings.round.steps
    if not allocate.sets_quotas(size) or unit is None:
        return None
    members = [state.members[name] for name in state.alive()]
    return zipline.superstep([_runner(member, unit) for member in members], size.lookahead)


def _runner(member: Member, unit: int) -> Runner:
    steps, busy = member.timings[-1] if member.timings else (0, 0)
    if not steps or not busy:
        return Runner(member.name, None)
    return Runner(member.name, busy * unit / steps / SECOND, member.moved / SECOND)


def _staleness(state: MasterState, pending: Pending) -> int:
    assert state.newest is not None
    return max(0, state.newest.version - pending.update.oldest)  # it may be about to be refused
