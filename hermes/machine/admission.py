"""What does a worker need to be told when it is admitted? Pure."""

from __future__ import annotations

from msgspec.structs import replace

from hermes.machine.apply import closed_at
from hermes.machine.pools import pool_for
from hermes.machine.state import MasterState
from hermes.messages import Own, Software, WorkerAdmitted
from hermes.policy.presets import to_tree
from hermes.policy.sync import counts_rounds


def admission(
    state: MasterState,
    worker: str,
    incarnation: str,
    hello: str,
    software: Software | None,
    own: Own | None = None,
) -> WorkerAdmitted:
    """All that this worker needs to take part; `own`: the data that it brings."""
    assert state.opened is not None
    assert state.data is not None
    assert state.newest is not None
    member = state.members.get(worker)
    taken = {**member.taken} if member else {}
    pool = pool_for(state, worker)
    assert pool is not None  # or it would have been refused (`rules.hello`)
    return WorkerAdmitted(
        worker,
        incarnation,
        hello,
        replace(state.opened, settings=to_tree(state.settings)),  # those in force now
        state.data,
        state.newest,
        {incarnation: 0, **taken},
        state.started is not None,
        software,
        state.generations.get(f"from.{worker}", 0),
        state.generations.get("logs", 0),
        _clocks(state, worker),
        pool,
        own,
    )


def _clocks(state: MasterState, worker: str) -> dict[str, int]:
    """How far everybody alive is, and this worker, where that is to be known."""
    if not counts_rounds(state.settings.continue_):
        return {}
    known = {name: state.members[name].closed for name in state.alive()}
    return known | {worker: closed_at(state, worker)}
