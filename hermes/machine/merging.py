"""Is a version made now, and of what? Pure. `closing` says what the rules answer."""

from __future__ import annotations

from hermes.machine import closing, repair, settled, steps, suspect
from hermes.machine.draft import Draft
from hermes.machine.events import Merge, Part, Score
from hermes.machine.state import MasterState, Pending
from hermes.messages import RunStopped, UpdateRejected
from hermes.policy import norm, weigh
from hermes.policy.norm import Limit
from hermes.policy.sync import Close
from hermes.values import Reason


def expire(draft: Draft) -> None:
    """What became too stale while it waited is rejected."""
    state = draft.state
    if state.newest is None or state.stopped is not None:
        return
    merging = {part.update.birth for part in draft.soft.merge.parts} if draft.soft.merge else set()
    for pending in state.pending:
        staleness = state.newest.version - pending.update.oldest
        refusal = weigh.check_staleness(state.settings.merge, staleness)
        if refusal is not None and pending.update.birth not in merging:
            draft.add(UpdateRejected(pending.worker, pending.update.birth, refusal))


def step(draft: Draft) -> None:
    """Where all step together, and everybody alive has taken its step, they go on."""
    closed = steps.closed(draft.state)
    if closed is not None:
        draft.add(closed)


def close(draft: Draft) -> None:
    """Where the close rule says so, what waits is merged: one version at a time."""
    state = draft.state
    if state.newest is None or state.stopped is not None or state.started is None:
        return
    if settled.nothing_to_close(draft) or not free(draft):
        return
    answer = closing.answer(state, draft.now)
    if isinstance(answer, Close):
        members = [state.pending[i] for i in answer.members]
        if state.settings.merge.rule == "interpolate":
            _interpolate(draft, members[0], answer.reason)
        else:
            _merge(draft, members, closing.weights(state, members), 0.0, answer.reason)


def free(draft: Draft) -> bool:
    """Whether a version may be made now, if there is something to make it of."""
    under_way = draft.soft.merge is not None or draft.soft.scoring
    return draft.rules.may_merge(under_way) and repair.sound(draft)


def grace_over(draft: Draft) -> tuple[int, ...]:
    """The run time from which on a version may be made though some have not pushed."""
    if draft.state.started is None or not free(draft):
        return ()
    return tuple(closing.grace_over(draft.state))


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
    weights = weigh.loss_weights(scored.loss_global, scored.loss_worker)
    if isinstance(weights, Reason):
        draft.remember(scored=None)
        if not usable(scored.loss_global):
            # No update would ever be merged again: the run is over, for good or for bad.
            status = "finished" if weights.code == "loss-zero" else "failed"
            draft.add(RunStopped(status, Reason(f"global-{weights.code}", weights.facts)))
            return
        suspect.refuse(draft, pending.worker, pending.update, weights)
        close(draft)
        return
    facts = {"loss_global": scored.loss_global, "loss_worker": scored.loss_worker}
    why = Reason(reason.code, {**reason.facts, **facts})
    _merge(draft, [pending], [weights[1]], weights[0], why)


def usable(loss: float) -> bool:
    """Whether a model of this loss can be weighed at all."""
    return not isinstance(weigh.loss_weights(loss, 1.0), Reason)


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
