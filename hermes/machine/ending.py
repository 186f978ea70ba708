"""Does the run end, and what is left to do then? Pure."""

from __future__ import annotations

from hermes.machine import repair
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
