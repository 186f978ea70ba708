"""Who is missing: silent for too long, or alive and getting nowhere? Pure.

Both deadlines are learned from the worker's own pace, and both are soft state: a restarted master
begins with the floor of a silence and the ceiling of a standstill.

A silence is judged by the gaps between a worker's signs of life. Before there are any it is the
floor, `workers.lost`: a heartbeat is promised every second, so that one who says nothing from the
start is not worth ten minutes of everybody's time. A standstill is judged by the worker's own
rounds, the waiting in them included. As long as they are too few it is the ceiling,
`workers.longest`: the heartbeats say that it lives, and what holds it up may be its framework's
first start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec.structs import replace

from hermes.machine import scoring, settled
from hermes.machine.apply import slowest_closed
from hermes.machine.draft import Draft
from hermes.machine.events import ReadToEnd
from hermes.machine.rules import Rules, silent, stuck_at
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState, Member
from hermes.messages import Heartbeat, Moved, WorkerBack, WorkerBody, WorkerLost
from hermes.policy.pace import Pace, limit
from hermes.policy.presets import WorkersSettings
from hermes.policy.sync import CONTINUE, too_far_ahead
from hermes.values import SECOND, Facts, Reason

UNSEEN = Pace()


# --- signs of life ------------------------------------------------------------------------------


def steps_in(body: WorkerBody) -> int | None:
    """The steps that a message tells of; None where it is progress in itself."""
    if isinstance(body, Heartbeat):
        return body.steps
    return -1 if isinstance(body, Moved) else None


def heard(draft: Draft, worker: str, steps: int | None = None) -> None:
    """A sign of life: a heartbeat that tells of `steps`, or (None) anything else, which is
    progress in itself. Whoever was lost is back with it."""
    member, soft, now = draft.state.members.get(worker), draft.soft, draft.now
    gets_on = steps is None or steps > _steps(soft, member, worker)
    gap = now - soft.heard.get(worker, now)
    changes: dict[str, object] = {"heard": {**soft.heard, worker: now}}
    if gap > draft.state.settings.workers.heartbeat * SECOND / 2:
        # What comes sooner is of the same breath: chunks, or what a thin link held back.
        known = soft.gaps.get(worker, UNSEEN).after(gap / SECOND)
        changes["gaps"] = {**soft.gaps, worker: known}
    if gets_on:
        changes["progress"] = {**soft.progress, worker: now}
    if steps is not None:
        changes["steps"] = {**soft.steps, worker: max(steps, soft.steps.get(worker, 0))}
    draft.remember(**changes)
    if worker in soft.reading and (gets_on or not _stands_still(draft, worker)):
        draft.remember(reading=draft.soft.reading - {worker})
    back = member is not None and draft.rules.comes_back(member, gets_on)
    if back and draft.state.stopped is None:
        _back(draft, worker, gap)


def _steps(soft: Soft, member: Member | None, worker: str) -> int:
    """The most steps that this worker is known to have taken."""
    before = stuck_at(member) if member is not None else None
    return soft.steps.get(worker, -1 if before is None else before)


def _back(draft: Draft, worker: str, gap: int) -> None:
    """Its pace is learned anew, and the gap that ended is the first of it: or a link on which
    signs come every 20 s would be lost at the floor again and again."""
    seconds = gap / SECOND
    known = UNSEEN.after(seconds) if seconds <= draft.state.settings.workers.longest else UNSEEN
    draft.remember(
        gaps={**draft.soft.gaps, worker: known},
        progress={**draft.soft.progress, worker: draft.now},
    )
    draft.add(WorkerBack(worker))
    draft.note = f"{worker} is back"


def admitted(soft: Soft, worker: str, now: int) -> Soft:
    """What is known of this worker's pace as a new incarnation comes: nothing."""
    return replace(
        soft,
        heard={**soft.heard, worker: now},
        progress={**soft.progress, worker: now},
        gaps={name: known for name, known in soft.gaps.items() if name != worker},
        rounds={name: known for name, known in soft.rounds.items() if name != worker},
        steps={name: known for name, known in soft.steps.items() if name != worker},
    )


def finished_round(draft: Draft, worker: str, lasted_for: int) -> None:
    """A whole round took so long (ns), the waiting before it included."""
    known = draft.soft.rounds.get(worker, UNSEEN).after(lasted_for / SECOND)
    draft.remember(rounds={**draft.soft.rounds, worker: known})


def anew(soft: Soft, workers: Iterable[str], now: int) -> Soft:
    """Every deadline starts anew at `now`: whoever was late was late by our own absence. What a
    worker's pace is was learned before it, and holds; the gap that we slept through is no part
    of it."""
    since = dict.fromkeys(workers, now)
    return replace(soft, heard=since, progress=since, reading=frozenset(), awake=now)


def rest(draft: Draft) -> None:
    """Whoever has nothing to do, or waits for a version, is not late with its next step."""
    names = draft.soft.settled.idle if settled.holds(draft) else idle(draft)
    if names:
        draft.remember(progress={**draft.soft.progress, **dict.fromkeys(names, draft.now)})


def idle(draft: Draft) -> tuple[str, ...]:
    """Who owes no progress, of those alive."""
    state, owes = draft.state, draft.rules.owes_progress
    waiting = waiters(state)
    alive = [(name, m) for name, m in state.members.items() if m.status == "alive"]
    return tuple([name for name, member in alive if not owes(member, name in waiting)])


# --- deadlines ----------------------------------------------------------------------------------


def silence_limit(settings: WorkersSettings, known: Pace) -> float:
    """Seconds that a worker of this pace may be silent."""
    return limit(known.median, known.spread, settings.lost, settings.longest)


def standstill_limit(settings: WorkersSettings, known: Pace) -> float:
    """Seconds that a worker whose rounds have this pace may live without progress."""
    if not known.known:
        return settings.longest
    return limit(known.median, known.spread, settings.lost, settings.longest)


def _stands_still(draft: Draft, worker: str) -> bool:
    return standing_still(draft.rules, draft.state, draft.soft, worker)


def standing_still(rules: Rules, state: MasterState, soft: Soft, worker: str) -> bool:
    """Whether its heartbeats went on for too long without anything else."""
    member = state.members.get(worker)
    if member is None or member.status != "alive":
        return False
    last = soft.heard.get(worker, 0)
    allowed = standstill_limit(state.settings.workers, soft.rounds.get(worker, UNSEEN))
    if not rules.stuck(soft.progress.get(worker, last), last, allowed):
        return False
    return rules.owes_progress(member, waits(state, worker))


def waits(state: MasterState, worker: str) -> bool:
    """Whether it waits for a version, for the slowest of all, or for the end of a step."""
    return worker in waiters(state)


def waiters(state: MasterState) -> set[str]:
    """All who do; and whoever is asked what a version is worth, which no heartbeat tells of."""
    return _waiters(state).union(scoring.awaited(state))


def _waiters(state: MasterState) -> set[str]:
    rule, pushed = state.settings.continue_, [one.worker for one in state.pending]
    if CONTINUE[rule.rule].waits:
        return {*pushed, *[n for n, m in state.members.items() if m.voted is not None]}
    if rule.slack is None:
        return set()
    slowest, pending = slowest_closed(state), Counter(pushed)
    clocks = {name: member.closed + pending[name] for name, member in state.members.items()}
    return {name for name, clock in clocks.items() if too_far_ahead(rule, clock, slowest)}


def next_look(draft: Draft) -> list[int]:
    """Run times at which somebody may be missing, though nothing happened."""
    state, soft, now = draft.state, draft.soft, draft.now
    settings, alive = state.settings.workers, state.alive()
    names = [name for name in alive if name not in soft.reading] if soft.reading else alive
    if not names:
        return []
    # Or the silence of all of them would look like a sleep of our own.
    awake = now + int(settings.lost * SECOND) // 4
    soonest = int(min(settings.lost, settings.longest) * SECOND)  # no limit is shorter
    if soft.since + soonest >= awake:
        return [awake]
    times, since = [awake], now
    for name in names:
        last = soft.heard.get(name, now)
        got_on = soft.progress.get(name, last)
        since = min(since, last, got_on)
        if last - got_on >= soonest and standing_still(draft.rules, state, soft, name):
            times.append(now)
        allowed = silence_limit(settings, soft.gaps.get(name, UNSEEN))
        times.append(last + int(allowed * SECOND) + 1)
    if names is alive:
        draft.remember(since=since)
    return times


# --- missing ------------------------------------------------------------------------------------


def look(draft: Draft) -> None:
    """Whoever is missing: first read its topic to the end."""
    if draft.state.stopped is not None:
        return
    for name in draft.state.alive():
        if name in draft.soft.reading or why_missing(draft, name) is None:
            continue
        if draft.rules.lost_for_good(True, False):
            declare_lost(draft, name, read_to_end=False)
        else:
            draft.remember(reading=draft.soft.reading | {name})
            draft.actions.append(ReadToEnd(name))


def declare_lost(draft: Draft, worker: str, *, read_to_end: bool) -> None:
    """The worker is lost, if it is still missing; what it held goes back."""
    member, reason = draft.state.members[worker], why_missing(draft, worker)
    missing = member.status == "alive" and reason is not None
    if reason is None or not draft.rules.lost_for_good(missing, read_to_end):
        return
    returned = draft.rules.release(member, "lost" if reason.code == "silent" else reason.code)
    if returned is not None:
        draft.add(returned)
    draft.add(WorkerLost(worker, reason))
    draft.note = f"{worker} is lost: {_said(reason)}"


def _said(reason: Reason) -> str:
    if reason.code == "silent":
        return f"silent for {reason.facts['silent']:g} s"
    return f"stuck: it is alive, and has not got on for {reason.facts['seconds']:g} s"


def why_missing(draft: Draft, worker: str) -> Reason | None:
    """Silent, or standing still, and by which numbers; None for a worker that is neither."""
    soft, settings = draft.soft, draft.state.settings.workers
    last = soft.heard.get(worker, draft.now)
    known = soft.gaps.get(worker, UNSEEN)
    allowed = silence_limit(settings, known)
    if silent(last, draft.now, allowed):
        return Reason("silent", {**_facts("silent", draft.now - last, allowed), **_of(known)})
    if not _stands_still(draft, worker):
        return None
    known = soft.rounds.get(worker, UNSEEN)
    stood = last - soft.progress.get(worker, last)
    facts = _facts("seconds", stood, standstill_limit(settings, known))
    learned = _of(known) if known.known else {}
    return Reason("stuck", {**facts, "steps": soft.steps.get(worker, 0), **learned})


def _facts(name: str, lasted_for: int, allowed: float) -> Facts:
    return {name: round(lasted_for / SECOND, 3), "limit": allowed}


def _of(known: Pace) -> Facts:
    return {"median": known.median, "spread": known.spread} if known.values else {}
