"""How much work has each worker, and does that change? Pure. `allocate` and `alone` are the rules;
`hermes why` and `hermes verify` ask `sized` again."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hermes.machine import alone
from hermes.machine.draft import Draft
from hermes.machine.pools import NONE, first_size, largest
from hermes.machine.state import MasterState, Member
from hermes.messages import DataPublished, ShardResized, UpdateRejected
from hermes.policy import allocate
from hermes.policy.resting import TOO_SLOW, TRIED, TRIED_AGAIN, resting
from hermes.values import Reason


def choose(draft: Draft) -> None:
    """Who has no work, or some again, though no round of it has just ended."""
    state = draft.state
    if state.started is None or state.stopped:
        return
    if allocate.one_alone(state.settings.size):
        _all_but_one(draft)
    if state.settings.size.slowest is not None:
        _back_again(draft)


def _back_again(draft: Draft) -> None:
    """Those who rest, and no longer need to."""
    state = draft.state
    idle = [name for name in state.alive() if not state.members[name].size]
    if not idle:
        return
    assert state.data is not None
    times = {name: _times(state.data, state.members[name]) for name in state.alive()}
    rest = _resting(state.settings.size, times)
    for name in idle:
        if name not in rest:
            resize(draft, name)


def _all_but_one(draft: Draft) -> None:
    """Where the quickest trains alone the others have no work, and theirs is not merged."""
    state = draft.state
    for name in state.alive():
        resize(draft, name)
        refusal = alone.refusal(draft.state, name)
        if refusal is None:
            continue
        returned = draft.rules.release(draft.state.members[name], refusal.code)
        if returned is not None:
            draft.add(returned)
        for pending in state.pending:
            if pending.worker == name:
                draft.add(UpdateRejected(name, pending.update.birth, refusal))


def resize(draft: Draft, worker: str) -> None:
    """The size of this worker's next grants. Whoever has none lets go of those it holds."""
    member, answer = draft.state.members[worker], sized(draft.state, worker)
    if not isinstance(answer, allocate.Sizing):
        return
    if (answer.size, answer.batch) != (member.size, member.batch):
        draft.add(ShardResized(worker, answer.size, answer.batch, answer.reason))
        # Not in the place of what matters more, such as that it is back.
        said = f"{worker} is re-sized from {member.size} to {answer.size} samples"
        draft.note = draft.note or said
    if not answer.size and answer.reason.code == TOO_SLOW:
        returned = draft.rules.release(draft.state.members[worker], TOO_SLOW)
        if returned is not None:
            draft.add(returned)


def sized(state: MasterState, worker: str) -> allocate.Answer:
    """What the size rule answers about this worker now."""
    assert state.data is not None
    if allocate.one_alone(state.settings.size):
        return alone.sized(state, worker)
    data, member, rule = state.data, state.members[worker], state.settings.size
    alive = [state.members[name] for name in state.alive()]
    if not allocate.compares(rule):
        alive = [member]
    times = {other.name: _times(data, other) for other in alive}
    rest = _resting(rule, times)
    if worker in rest:
        reason = rest[worker]
        return allocate.Sizing(0, member.batch, reason) if member.size else allocate.Keep(reason)
    if not member.size and not member.timings:
        size = first_size(data, member.pool, member.own)
        return allocate.Sizing(size, member.batch, Reason(TRIED_AGAIN, {"size": size}))
    return allocate.resize(
        rule,
        _times(data, member),
        [other for name, other in times.items() if name != worker and name not in rest],
        _work(state, data, [other for other in alive if other.name not in rest]),
    )


def _resting(
    rule: allocate.SizeSettings, times: dict[str, allocate.WorkerTimes]
) -> dict[str, Reason]:
    """Who is too slow to have work, of those that the rule shares it out among."""
    if rule.slowest is None or not allocate.shares_out(rule):
        return {}
    speeds = {
        name: allocate.samples_per_second(one) if len(one.timings) >= TRIED else None
        for name, one in times.items()
    }
    return resting(rule.slowest, speeds, {name: one.size > 0 for name, one in times.items()})


def _work(state: MasterState, data: DataPublished, alive: Sequence[Member]) -> allocate.Work:
    """What the rules share out, where they do."""
    size, train, total = state.settings.size, data.samples["train"], 0
    if data.shares or allocate.shares_out(size):
        most = [largest(data, one.pool, one.own) for one in alive]
        firsts = [first_size(data, one.pool, one.own) for one in alive]
        train = sum(most) if data.shares else train
        total = allocate.total(size, firsts, most, train)
    return allocate.Work(data.batch, state.settings.round.epochs, train, total)


def _times(data: DataPublished, member: Member) -> allocate.WorkerTimes:
    bounded = member.pool != NONE or member.own is not None
    pool = largest(data, member.pool, member.own) if bounded else None
    return _paced(member.name, member.timings, member.size, member.batch, pool)


@functools.lru_cache(1 << 12)
def _paced(
    name: str, rounds: tuple[tuple[int, int], ...], size: int, batch: int, pool: int | None
) -> allocate.WorkerTimes:
    """A worker's last rounds, as the rules see them: all are asked about after each one's round."""
    timings = tuple(allocate.Timing(steps, busy) for steps, busy in rounds)
    return allocate.WorkerTimes(name, timings, size, batch, pool)
