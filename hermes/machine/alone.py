"""Who trains, where the quickest worker does so alone? As the state shows it. Pure.

Whoever does not has a shard of 0 samples, and the reason for it stands in the ledger. The master
decides by this; `hermes why` and `hermes verify` ask it again.
"""

from __future__ import annotations

from hermes.machine.pools import largest
from hermes.machine.state import MasterState, Member
from hermes.policy import allocate, fastest
from hermes.policy.fastest import Runner
from hermes.values import Facts, Reason

NOT_QUICKEST = "not-quickest"
"""Why a worker has no work, and why what it had done is rejected."""


def chosen(state: MasterState) -> Runner | None:
    """The worker that trains; None while they are on trial.

    None takes the place of one whose update waits to be merged: a merge may be under way, and a
    master that begins again after it could not know.
    """
    alive = {name: state.members[name] for name in state.alive()}
    for pending in state.pending:
        if pending.worker in alive and alive[pending.worker].size:
            return _runner(alive[pending.worker])
    return fastest.quickest([_runner(member) for member in alive.values()])


def _runner(member: Member) -> Runner:
    timings = tuple(allocate.Timing(steps, busy) for steps, busy in member.timings)
    times = allocate.WorkerTimes(member.name, timings, member.size, member.batch)
    return Runner(member.name, allocate.samples_per_second(times), member.size > 0)


def sized(state: MasterState, worker: str) -> allocate.Answer:
    """All the work, or none, or as before."""
    assert state.data is not None
    member, one = state.members[worker], chosen(state)
    if one is None:
        return allocate.Keep(Reason("on-trial", {"alive": len(state.alive())}))
    if one.worker != worker:
        reason = refusal(state, worker)
        assert reason is not None
        rests = not member.size
        return allocate.Keep(reason) if rests else allocate.Sizing(0, member.batch, reason)
    facts: Facts = {"speed": one.speed, "alive": len(state.alive())}
    reason = Reason("quickest", facts)
    if member.size:
        return allocate.Keep(reason)
    size = min(state.data.first_size, largest(state.data, member.pool, member.own))
    return allocate.Sizing(size, member.batch, reason)


def refusal(state: MasterState, worker: str) -> Reason | None:
    """Why this worker does not train; None if it does, or all are on trial."""
    one = chosen(state)
    if one is None or one.worker == worker:
        return None
    mine = _runner(state.members[worker]).speed
    return Reason(NOT_QUICKEST, {"quickest": one.worker, "its": one.speed, "speed": mine})
