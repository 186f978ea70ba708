"""What is due, whatever just happened? The master's standing duties. Pure.

Each looks at the state as it will be and adds what is missing; so a restarted master needs no
memory of what it was about to do: it looks, and sees.
"""

from __future__ import annotations

import operator

from hermes.machine import alone, closing, keeping, missing, repair, suspect
from hermes.machine.admission import admission
from hermes.machine.draft import Draft
from hermes.machine.events import (
    Evaluate,
    Finish,
    FollowLobby,
    Merge,
    Part,
    Score,
    ScoreLast,
    StoreFirst,
    UploadData,
)
from hermes.machine.pools import NONE, first_size, largest
from hermes.machine.rounds import quota_of
from hermes.machine.state import MasterState, Member, Pending
from hermes.machine.stopping import diverged, nobody_can, stopping_rule
from hermes.machine.walk import next_grant
from hermes.messages import (
    DataPublished,
    RunStopped,
    ShardResized,
    TrainingStarted,
    UpdateRejected,
)
from hermes.policy import aggregate, allocate, norm
from hermes.policy.norm import Limit
from hermes.policy.sync import Close
from hermes.values import SECOND, Reason

GRID = SECOND // 2
"""Least run time between two evaluations (design, part 9) ..."""
GRID_COST = 10
"""... and at least this many times what the last one cost."""

GRANTS_AHEAD = 2
"""The one being trained, and one ahead (protocol 9a)."""


def perform(draft: Draft) -> None:
    """Add all that is due, in a fixed order."""
    if draft.state.opened is None:
        return
    _prepare(draft)
    before = _scene(draft.state)
    if not _settled(draft):
        _start(draft)
        _readmit(draft)
    _stop(draft)
    repair.duties(draft)
    _expire(draft)
    _choose(draft)
    _close(draft)
    if not _settled(draft):
        _grant(draft)
        if _same(before, _scene(draft.state)):
            draft.remember(settled=before)
    _evaluate(draft)
    keeping.duties(draft)
    _finish(draft)
    missing.rest(draft)


def _scene(state: MasterState) -> tuple[object, ...]:
    """What `_start`, `_readmit` and `_grant` look at: most events are heartbeats, and change none
    of it."""
    of = state.authority.term, state.settings, state.opened, state.started, state.stopped
    return (state.members, state.newest, *of)


def _settled(draft: Draft) -> bool:
    return _same(draft.soft.settled, _scene(draft.state))


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """The very same objects; to compare members by value would take longer than to look."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def wake(draft: Draft) -> int | None:
    """The run time at which something may be due though nothing happened."""
    state, soft = draft.state, draft.soft
    if state.stopped is not None:
        return None
    times = missing.next_look(draft)
    newest = None if soft.evaluating else state.newest
    if newest is not None and newest.version > state.evaluations.last_version:
        times.append(next_evaluation(state))
    if state.started is not None and _free(draft):
        times += closing.grace_over(state)
    if state.started is not None and state.settings.stop.seconds is not None:
        times.append(state.started + int(state.settings.stop.seconds * SECOND))
    return max(min(times), draft.now + 1) if times else None


def _prepare(draft: Draft) -> None:
    """Before anybody is admitted, the data and version 0 lie in the log."""
    state, soft = draft.state, draft.soft
    if state.stopped is not None:
        return
    if state.data is None and not soft.uploading:
        draft.remember(uploading=True)
        draft.actions.append(UploadData())
    elif state.data is not None and state.newest is None and not soft.storing_first:
        draft.remember(storing_first=True)
        draft.actions.append(StoreFirst(state.settings.codec.down))
    if state.newest is not None and not soft.lobby:
        draft.remember(lobby=True)
        draft.actions.append(FollowLobby(draft.rules.resume(state, "lobby")))


def _start(draft: Draft) -> None:
    """Training starts once as many as are expected have come."""
    state = draft.state
    if state.started is None and state.newest is not None and state.stopped is None:
        assert state.opened is not None
        alive = len(state.alive())
        came = alive + sum(member.unable for member in state.members.values())
        if alive and came >= state.opened.expect:
            draft.add(TrainingStarted(alive))
            draft.note = draft.note or f"Training starts with {alive} workers"


def _readmit(draft: Draft) -> None:
    """A master of a new term admits anew those that an older one admitted (protocol 6)."""
    if draft.state.newest is None:
        return
    for name, member in sorted(draft.state.members.items()):
        if draft.rules.readmit(member, draft.state.authority.term):
            draft.add(admission(draft.state, name, member.incarnation, "", member.software))


def _stop(draft: Draft) -> None:
    """The run stops where a stopping rule holds, nobody can train, or nothing usable comes."""
    if draft.state.stopped is None and (reason := nobody_can(draft.state)) is not None:
        draft.add(RunStopped("failed", reason))
        draft.note = f"Stopping: {reason.code}"
    if draft.state.stopped is None and draft.state.started is not None:
        reason = stopping_rule(draft.state, draft.now)
        if reason is not None:
            draft.add(RunStopped("finished", reason))
            draft.note = f"Finished: {reason.code}"
        elif (reason := diverged(draft.state)) is not None:
            draft.add(RunStopped("failed", reason))
            draft.note = f"Stopping: {reason.code}: {reason.facts['rounds']} rounds in a row"


# --- versions -----------------------------------------------------------------------------------


def _expire(draft: Draft) -> None:
    """What became too stale while it waited is rejected."""
    state = draft.state
    if state.newest is None or state.stopped is not None:
        return
    merging = {part.update.birth for part in draft.soft.merge.parts} if draft.soft.merge else set()
    for pending in state.pending:
        staleness = state.newest.version - pending.update.oldest
        refusal = aggregate.check_staleness(state.settings.merge, staleness)
        if refusal is not None and pending.update.birth not in merging:
            draft.add(UpdateRejected(pending.worker, pending.update.birth, refusal))


def _choose(draft: Draft) -> None:
    """Where the quickest trains alone, the others have no work, and theirs is not merged."""
    state = draft.state
    if not allocate.one_alone(state.settings.size) or state.started is None or state.stopped:
        return
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


def _close(draft: Draft) -> None:
    """Where the close rule says so, what waits is merged: one version at a time."""
    state = draft.state
    if state.newest is None or state.stopped is not None or state.started is None:
        return
    if not _free(draft):
        return
    answer = closing.answer(state, draft.now)
    if isinstance(answer, Close):
        members = [state.pending[i] for i in answer.members]
        if state.settings.merge.rule == "interpolate":
            _interpolate(draft, members[0], answer.reason)
        else:
            _merge(draft, members, closing.weights(state, members), 0.0, answer.reason)


def _free(draft: Draft) -> bool:
    """Whether a version may be made now, if there is something to make it of."""
    under_way = draft.soft.merge is not None or draft.soft.scoring
    return draft.rules.may_merge(under_way) and repair.sound(draft)


def limit_in_force(state: MasterState) -> Limit | None:
    """What the norm of an update may be now; None where norms are not looked at."""
    assert state.newest is not None
    return norm.limit(state.settings.merge.max_norm, state.norms, state.newest.payload.length)


def _interpolate(draft: Draft, pending: Pending, reason: Reason) -> None:
    """The paper's merge waits for the losses of both models on the validation set."""
    state, scored = draft.state, draft.soft.scored
    assert state.newest is not None
    birth = pending.update.birth
    if scored is None or scored.birth != birth or scored.version != state.newest.version:
        draft.remember(scoring=True, scored=None)
        limit = limit_in_force(state)
        base = state.versions[pending.update.base.version].payload
        draft.actions.append(Score(state.newest, pending.worker, pending.update, limit, base))
        return
    weights = aggregate.loss_weights(scored.loss_global, scored.loss_worker)
    if isinstance(weights, Reason):
        draft.remember(scored=None)
        if not usable(scored.loss_global):
            # No update would ever be merged again: the run is over, for good or for bad.
            status = "finished" if weights.code == "loss-zero" else "failed"
            draft.add(RunStopped(status, Reason(f"global-{weights.code}", weights.facts)))
            return
        suspect.refuse(draft, pending.worker, pending.update, weights)
        _close(draft)
        return
    facts = {"loss_global": scored.loss_global, "loss_worker": scored.loss_worker}
    why = Reason(reason.code, {**reason.facts, **facts})
    _merge(draft, [pending], [weights[1]], weights[0], why)


def usable(loss: float) -> bool:
    """Whether a model of this loss can be weighed at all."""
    return not isinstance(aggregate.loss_weights(loss, 1.0), Reason)


def _merge(
    draft: Draft, members: list[Pending], weights: list[float], keep: float, reason: Reason
) -> None:
    state = draft.state
    assert state.newest is not None
    parts = tuple(
        Part(p.worker, p.update, weight, state.versions[p.update.base.version].payload)
        for p, weight in zip(members, weights, strict=True)
    )
    rule = state.settings.merge.rule
    outer = closing.outer(state, members)
    allowed, number = limit_in_force(state), state.newest.version + 1
    codec = state.settings.codec.down
    merge = Merge(number, state.newest, rule, keep, parts, outer, allowed, codec)
    draft.remember(merge=merge, merge_reason=reason)
    draft.actions.append(merge)


# --- blocks -------------------------------------------------------------------------------------


def _grant(draft: Draft) -> None:
    """Everybody alive holds the blocks that it trains, and the next ones."""
    state = draft.state
    if state.started is None or state.stopped is not None:
        return
    for name in state.alive():
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


def resize(draft: Draft, worker: str) -> None:
    """The size of this worker's next grants, after a round of it."""
    member, answer = draft.state.members[worker], sized(draft.state, worker)
    if not isinstance(answer, allocate.Sizing):
        return
    if (answer.size, answer.batch) != (member.size, member.batch):
        draft.add(ShardResized(worker, answer.size, answer.batch, answer.reason))
        draft.note = f"{worker} is re-sized from {member.size} to {answer.size} samples"


def sized(state: MasterState, worker: str) -> allocate.Answer:
    """What the size rule answers about this worker, after a round of it."""
    assert state.data is not None
    if allocate.one_alone(state.settings.size):
        return alone.sized(state, worker)
    data, alive = state.data, [state.members[name] for name in state.alive()]
    return allocate.resize(
        state.settings.size,
        _times(data, state.members[worker]),
        [_times(data, other) for other in alive if other.name != worker and other.timings],
        allocate.Work(
            batch=data.batch,
            epochs=state.settings.round.epochs,
            largest=data.samples["train"],
            total=sum(first_size(data, one.pool) for one in alive),
        ),
    )


def _times(data: DataPublished, member: Member) -> allocate.WorkerTimes:
    timings = tuple(allocate.Timing(steps, busy) for steps, busy in member.timings)
    pool = None if member.pool == NONE else largest(data, member.pool)
    return allocate.WorkerTimes(member.name, timings, member.size, member.batch, pool)


# --- evaluation and the end ---------------------------------------------------------------------


def next_evaluation(state: MasterState) -> int:
    """Run time of the next point of the evaluation grid; known from the ledger alone."""
    known = state.evaluations
    if not known.count:
        return 0
    return known.last_started + max(GRID, GRID_COST * known.last_cost)


def _evaluate(draft: Draft) -> None:
    """At each point of the evaluation grid the newest version is scored."""
    state = draft.state
    if state.newest is None or draft.soft.evaluating or state.stopped is not None:
        return
    if not draft.soft.secured:
        return
    if state.newest.version > state.evaluations.last_version and (
        draft.now >= next_evaluation(state)
    ):
        draft.remember(evaluating=True)
        draft.actions.append(Evaluate(state.newest))


def _finish(draft: Draft) -> None:
    """After the stop: the last version's scores, then the results."""
    state, soft = draft.state, draft.soft
    if state.stopped is None:
        return
    if state.newest is not None and not state.scored and state.stopped.code != repair.NOTHING_LEFT:
        if not soft.finishing and soft.secured:
            draft.remember(finishing=True)
            draft.actions.append(ScoreLast(state.newest))
    elif not soft.finished:
        draft.remember(finished=True)
        draft.actions.append(Finish())
