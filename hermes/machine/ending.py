"""Does the run end, and what is left to do then? Pure."""

from __future__ import annotations

from hermes.machine import repair, scoring
from hermes.machine.draft import Draft
from hermes.machine.events import Finish, ScoreLast
from hermes.machine.stopping import diverged, stopping_rule
from hermes.messages import RunStopped


def stop(draft: Draft) -> None:
    """The run stops where a stopping rule holds, or nothing usable comes."""
    if draft.state.stopped is not None or draft.state.started is None:
        return
    reason = stopping_rule(draft.state, draft.now)
    if reason is not None:
        draft.add(RunStopped("finished", reason))
        draft.note = f"Finished: {reason.code}"
    elif (reason := diverged(draft.state)) is not None:
        draft.add(RunStopped("failed", reason))
        draft.note = f"Stopping: {reason.code}: {reason.facts['rounds']} rounds in a row"


def finish(draft: Draft) -> None:
    """After the stop: the last version's scores, then the results."""
    state = draft.state
    if state.stopped is None:
        return
    told = state.newest is None or state.stopped.code == repair.NOTHING_LEFT
    if not told and not state.scored:
        _score_last(draft)
    if (told or draft.state.scored) and not draft.soft.finished:
        draft.remember(finished=True)
        draft.actions.append(Finish())


def _score_last(draft: Draft) -> None:
    state, soft = draft.state, draft.soft
    if scoring.brought(state):
        scoring.finish(draft)
    # An evaluation that is under way is recorded first: nothing comes after the last scores.
    elif not soft.finishing and soft.secured and not soft.evaluating:
        assert state.newest is not None
        draft.remember(finishing=True)
        draft.actions.append(ScoreLast(state.newest))
