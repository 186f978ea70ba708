"""What is a version worth, where the data lie with the workers? Who is asked, and what comes of it.
Pure.

The question, the answers and what they come to are entries of the ledger: a master that begins
again asks nobody twice. Sums are added in the order of the ledger, in float64, so that whoever
reads it comes to the same scores. A worker answers between two rounds. Whoever is lost is not
waited for, nor anybody for ever: an evaluation names those whose samples it is over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hermes.machine.draft import Draft
from hermes.machine.events import Evaluate, EvaluationFinished, ScoreLast, SetAside
from hermes.machine.repair import NOTHING_LEFT
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState
from hermes.messages import (
    EvaluationAsked,
    RunScored,
    RunStopped,
    Scored,
    ScoreNoted,
    VersionEvaluated,
)
from hermes.policy.own import cut
from hermes.values import SECOND, Facts, Position, Reason

MASTER = ""
"""Among those asked: the master's own validation set. It is no worker's name."""

COSTS = 10
"""Times what the last evaluation took the slowest, for which answers are waited for at least; and
..."""
ROUNDS = 3
"""... times the last round of the slowest, who may be in the midst of one, and its last answer,
which may have come too late. Never longer than `workers.longest`."""


def brought(state: MasterState) -> bool:
    """Whether workers bring their data."""
    return state.data is not None and bool(state.data.shares)


def central(state: MasterState) -> bool:
    """Whether the master has a validation set of its own beside theirs."""
    return state.data is not None and state.data.samples["validation"] > 0


def awaited(state: MasterState) -> list[str]:
    """Those asked who may still answer."""
    asked = state.asked
    if asked is None:
        return []
    answered = {score.worker for score in asked.scores}
    return [
        name
        for name in asked.workers
        if name not in answered and (name == MASTER or state.members[name].status == "alive")
    ]


def deadline(state: MasterState, soft: Soft) -> int | None:
    """The run time up to which answers are waited for; a master that was away waits anew."""
    asked = state.asked
    if asked is None:
        return None
    rounds = [state.members[name].timings[-1:] for name in awaited(state) if name != MASTER]
    busy = max((last[0][1] for last in rounds if last), default=0)
    took = max((soft.took.get(name, 0) for name in awaited(state)), default=0)
    settings, cost = state.settings.workers, state.evaluations.last_cost
    wait = max(int(settings.lost * SECOND), COSTS * cost, ROUNDS * busy, ROUNDS * took)
    return max(asked.at, soft.awake) + min(wait, int(settings.longest * SECOND))


# --- the duties of a master -----------------------------------------------------------------------


def settle(draft: Draft) -> None:
    """Who was asked has answered, or is not waited for any longer: put the sums together."""
    due = deadline(draft.state, draft.soft)
    if due is not None and (not awaited(draft.state) or draft.now >= due):
        draft.add(merged(draft.state))


def next_look(draft: Draft) -> list[int]:
    """Run times at which somebody may no longer be waited for, though nothing happened; a silence
    of all of them is no sleep of our own."""
    due = deadline(draft.state, draft.soft)
    if due is None:
        return []
    beat = draft.now + int(draft.state.settings.workers.lost * SECOND) // 4
    return [max(draft.now + 1, min(due, beat))]


def asks(state: MasterState) -> bool:
    """Whether the next point of the grid is one at which a version is scored."""
    if not brought(state):
        return True
    return state.asked is None and state.started is not None and bool(state.alive())


def look(draft: Draft, due: int) -> None:
    """At a point of the grid (run time `due`, for the next one) everybody alive is asked about the
    newest version; at the end of the run, once more, and for the last time."""
    state = draft.state
    assert state.newest is not None
    if state.stopped is None:
        newer = state.newest.version > state.evaluations.last_version
        if newer and asks(state) and draft.soft.secured and draft.now >= due:
            _ask(draft)
    elif _stops_now(draft) and state.stopped.code != NOTHING_LEFT:
        _ask_last(draft)
    if MASTER in awaited(draft.state) and not draft.soft.evaluating:
        assert draft.state.asked is not None
        draft.remember(evaluating=True)
        draft.actions.append(Evaluate(draft.state.versions[draft.state.asked.version]))


def _stops_now(draft: Draft) -> bool:
    return any(isinstance(entry, RunStopped) for entry in draft.entries)


def _ask(draft: Draft) -> None:
    state = draft.state
    assert state.newest is not None
    everybody = (*([MASTER] if central(state) else []), *state.alive())
    if everybody:
        draft.add(EvaluationAsked(state.newest.version, state.questions + 1, everybody))


def _ask_last(draft: Draft) -> None:
    """In the very record that stops the run: whoever reads it knows whether it may leave."""
    state = draft.state
    assert state.newest is not None
    last = state.newest.version
    if state.asked is not None and state.asked.version != last:
        draft.add(_none(state))  # of a version that is not the last; nobody is waited for
    if draft.state.asked is None and state.evaluations.last_version != last:
        _ask(draft)


def finish(draft: Draft) -> None:
    """After the stop: the scores of the last version, as far as they are known."""
    state = draft.state
    assert state.newest is not None
    if state.asked is not None:
        return
    if state.data is not None and state.data.samples["test"] > 0:
        if not draft.soft.finishing and draft.soft.secured:
            draft.remember(finishing=True)
            draft.actions.append(ScoreLast(state.newest))
        return
    draft.add(last_scores(state, None, None))


def last_scores(
    state: MasterState, test_loss: float | None, test_accuracy: float | None
) -> RunScored:
    """Of the last version; its scores on validation are those that its evaluation came to."""
    assert state.newest is not None
    known, last = state.evaluations, state.newest.version
    seen = known.last_version == last
    loss, accuracy = (known.last_loss, known.last_accuracy) if seen else (None, None)
    return RunScored(last, loss, accuracy, test_loss, test_accuracy)


# --- answers --------------------------------------------------------------------------------------


def on_scored(draft: Draft, worker: str, body: Scored, at: Position) -> None:
    """A worker's answer; one that cannot be true is kept apart, and no other is waited for."""
    state = draft.state
    asked = state.asked
    draft.remember(took={**draft.soft.took, worker: body.busy})
    if asked is None or asked.number != body.number or worker not in awaited(state):
        return  # it comes too late, or again
    false = false_claim(state, worker, body)
    if false is not None:
        draft.actions.append(SetAside(at, false, worker))
        draft.note = f"What {worker} says of version {asked.version} cannot be, and is set aside"
    busy = min(body.busy, draft.now - asked.at)  # whatever it claims: the grid follows from it
    if false is not None or not body.n:
        draft.add(ScoreNoted(worker, asked.number, asked.version, None, None, 0, busy))
        return
    sums = (body.loss_sum, body.correct, body.n, busy)
    draft.add(ScoreNoted(worker, asked.number, asked.version, *sums))


def false_claim(state: MasterState, worker: str, body: Scored) -> Reason | None:
    """Which claim of an answer cannot be; None if all can."""
    asked, data, own = state.asked, state.data, state.members[worker].own
    assert asked is not None
    assert data is not None
    assert own is not None
    has = cut(own.samples, data.shares).validation
    counted = data.metric == "accuracy"
    right = 0 <= body.correct <= body.n if body.correct is not None else not counted
    claims = {
        "version": body.version == asked.version,
        "n": body.n in (0, has),
        "loss_sum": body.loss_sum is None or math.isfinite(body.loss_sum),
        "correct": not body.n or (right if counted else _fits(body.correct, data.metric)),
    }
    wrong = [claim for claim, holds in claims.items() if not holds]
    if not wrong:
        return None
    facts: Facts = {"claim": wrong[0], "n": body.n, "has": has}
    return Reason("false-score", facts)


def _fits(total: float | None, metric: str) -> bool:
    """Whether this can be the sum of a metric of the job's own; "": there is none."""
    if not metric:
        return total is None
    return total is None or math.isfinite(total)


def on_own(draft: Draft, event: EvaluationFinished) -> None:
    """The master's own validation set is scored; 0 samples: the version could not be read."""
    asked = draft.state.asked
    if asked is None or asked.version != event.version or MASTER not in awaited(draft.state):
        return
    sums = (event.loss_sum, event.correct, event.n, event.cost)
    draft.add(ScoreNoted(MASTER, asked.number, asked.version, *sums))


# --- sums -----------------------------------------------------------------------------------------


def merged(state: MasterState) -> VersionEvaluated:
    """What the answers come to: means over all samples of all who answered."""
    asked = state.asked
    assert asked is not None
    counted = [score for score in asked.scores if score.n]
    n = sum(score.n for score in counted)
    if not n:
        return _none(state)
    loss = mean([score.loss_sum for score in counted], n)
    accuracy = mean([score.correct for score in counted], n)
    cost = max(score.busy for score in counted)
    who = tuple(score.worker for score in counted)
    return VersionEvaluated(asked.version, loss, accuracy, asked.at, cost, n, who)


def _none(state: MasterState) -> VersionEvaluated:
    """Nobody has answered."""
    assert state.asked is not None
    return VersionEvaluated(state.asked.version, None, None, state.asked.at, 0)


def mean(sums: Sequence[float | None], n: int) -> float | None:
    """The sums added in their order, over `n` samples; None where one is not known."""
    total = 0.0
    for one in sums:
        if one is None:
            return None
        total += one
    found = total / n
    return found if math.isfinite(found) else None
