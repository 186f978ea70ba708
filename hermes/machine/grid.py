"""When is the newest version scored on the validation set? The evaluation grid. Pure."""

from __future__ import annotations

from hermes.machine import scoring
from hermes.machine.draft import Draft
from hermes.machine.events import Evaluate
from hermes.machine.state import MasterState
from hermes.values import SECOND

GRID = SECOND // 2
"""Least run time between two evaluations (design, part 9) ..."""
GRID_COST = 10
"""... and at least this many times what the last one cost."""


def next_evaluation(state: MasterState) -> int:
    """Run time of the next point of the evaluation grid; known from the ledger alone."""
    known = state.evaluations
    if not known.count:
        return 0
    return known.last_started + max(GRID, GRID_COST * known.last_cost)


def evaluate(draft: Draft) -> None:
    """At each point of the evaluation grid the newest version is scored."""
    state = draft.state
    if state.newest is not None and scoring.brought(state):
        scoring.look(draft, next_evaluation(state))
        return
    if state.newest is None or draft.soft.evaluating or state.stopped is not None:
        return
    if not draft.soft.secured:
        return
    if state.newest.version > state.evaluations.last_version and (
        draft.now >= next_evaluation(state)
    ):
        draft.remember(evaluating=True)
        draft.actions.append(Evaluate(state.newest))
