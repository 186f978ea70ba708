"""What is due, whatever just happened, and in which order? The master's standing duties. Pure.

Each looks at the state as it will be and adds what is missing; so a restarted master needs no
memory of what it was about to do: it looks, and sees. Those that depend on nothing that changes by
itself are not asked again where nothing has changed (`settled`).
"""

from __future__ import annotations

from msgspec.structs import replace

from hermes.machine import (
    beginning,
    ending,
    granting,
    grid,
    keeping,
    merging,
    missing,
    repair,
    scoring,
    settled,
    sizing,
)
from hermes.machine.draft import Draft
from hermes.machine.settled import Scene, Settled
from hermes.machine.soft import Soft
from hermes.values import SECOND


def perform(draft: Draft) -> None:
    """Add all that is due, in a fixed order."""
    if draft.state.opened is None:
        return
    beginning.prepare(draft)
    scoring.settle(draft)
    before = settled.scene(draft)
    if not settled.holds(draft):
        beginning.start(draft)
        beginning.readmit(draft)
        beginning.give_up(draft)
    ending.stop(draft)
    repair.duties(draft)
    if not settled.holds(draft):
        merging.expire(draft)
        sizing.choose(draft)
        merging.step(draft)
    merging.close(draft)
    if not settled.holds(draft):
        granting.grant(draft)
    grid.evaluate(draft)
    keeping.duties(draft)
    ending.finish(draft)
    draft.soft = _looked_at(draft, before)
    missing.rest(draft)


def _looked_at(draft: Draft, before: Scene) -> Soft:
    """What was found is remembered, where nothing came of it."""
    if settled.holds(draft) or not settled.same(before, settled.scene(draft)):
        return draft.soft
    idle, over = missing.idle(draft), merging.grace_over(draft)
    return replace(draft.soft, settled=Settled(before, idle, over))


def wake(draft: Draft) -> int | None:
    """The run time at which something may be due though nothing happened."""
    state, soft = draft.state, draft.soft
    answers = scoring.next_look(draft)
    if state.stopped is not None:
        return min(answers, default=None)
    times = [*missing.next_look(draft), *answers]
    newest = None if soft.evaluating or not scoring.asks(state) else state.newest
    if newest is not None and newest.version > state.evaluations.last_version:
        times.append(grid.next_evaluation(state))
    times += soft.settled.over if settled.holds(draft) else merging.grace_over(draft)
    if state.started is not None and state.settings.stop.seconds is not None:
        times.append(state.started + int(state.settings.stop.seconds * SECOND))
    return max(min(times), draft.now + 1) if times else None
