"""What does a worker do next? `decide(state, now, event)` -> the state after it, and actions. Pure.

A worker acts on the ledger alone: it knocks, is admitted, fetches the blocks that it is granted,
trains, asks its gate, and pushes or stays quiet. It keeps what it sent until the ledger has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from hermes.machine.events import (
    BeatDue,
    Began,
    BlocksFetched,
    Event,
    FetchBlocks,
    Interrupted,
    KnockDue,
    LedgerSeen,
    LedgerTorn,
    LoadVersion,
    MoveTopic,
    RoundFinished,
    ScoreVersion,
    Send,
    SendBeat,
    SendHello,
    SendResent,
    StoreUpdate,
    Train,
    UpdateStored,
    VersionLoaded,
    VersionMissing,
    VersionScored,
)
from hermes.machine.hand import Hand, Step, WorkerState, check, drop, gone, leave
from hermes.machine.reading import ANSWERS, ENTRIES, on_ledger
from hermes.machine.rounds import Plan, plan, probe_of, quota_of
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.stopping import progress
from hermes.messages import Round, Scored, Update, VersionPublished
from hermes.policy import gate
from hermes.policy.sync import CONTINUE, steps_together, too_far_ahead
from hermes.values import Base, Birth

__all__ = [
    "ANSWERS",
    "ENTRIES",
    "HANDLERS",
    "Hand",
    "Step",
    "WorkerState",
    "check",
    "decide",
]


def decide(state: WorkerState, now: int, event: Event, rules: Rules = PROTOCOL_RULES) -> Step:
    """What follows from this outcome; `now` in nanoseconds of the process's own time."""
    hand = Hand(rules, state, now)
    if state.phase != "gone":
        HANDLERS[type(event)](hand, event)
        if hand.changed:  # most records of the ledger are about others
            _go_on(hand)
    return Step(hand.state, tuple(hand.actions), hand.changed)


# --- coming and going ---------------------------------------------------------------------------


def _on_began(hand: Hand, event: Began) -> None:
    hand.become(previous=event.previous, left_over=event.undecided)
    _knock(hand, event.nonce)


def _on_knock_due(hand: Hand, event: KnockDue) -> None:
    if hand.state.phase != "knocking":
        return
    if hand.state.over:
        gone(hand, "done", hand.state.over)
    else:
        _knock(hand, event.nonce)


def _knock(hand: Hand, nonce: str) -> None:
    hand.become(hellos=(*hand.state.hellos, nonce))
    hand.actions.append(SendHello(nonce, hand.state.previous))


def _on_torn(hand: Hand, event: LedgerTorn) -> None:
    # What hangs on the lost part is dropped; a new incarnation knocks.
    gone(hand, "again", f"the ledger cannot be followed any further ({event.why})")


def _on_interrupted(hand: Hand, event: Interrupted) -> None:
    leave(hand, "interrupted", event.reason)


TRY_AGAIN = 10
"""Heartbeats after which a version is tried again that could not be read."""


def _on_beat(hand: Hand, event: BeatDue) -> None:
    if hand.state.unreadable:
        missed = hand.state.missed + 1
        again = missed % TRY_AGAIN == 0
        hand.become(missed=missed, unreadable="" if again else hand.state.unreadable)
    if hand.state.phase != "knocking":
        hand.actions.append(SendBeat(event.steps, hand.state.number))


# --- training -----------------------------------------------------------------------------------


def _on_fetched(hand: Hand, event: BlocksFetched) -> None:
    if event.grant in {grant.number for grant in hand.state.grants}:
        hand.become(fetched=hand.state.fetched | {event.grant})


def _on_loaded(hand: Hand, event: VersionLoaded) -> None:
    _moved(hand)
    oldest = hand.state.oldest
    if hand.state.base is None:
        hand.become(unsent_samples=0, unsent_rounds=0, oldest=None)
    elif oldest is not None:  # what was not sent is carried over, even to a version before
        hand.become(oldest=min(oldest, event.base.version))
    hand.become(phase="idle", base=event.base)


def _on_missing(hand: Hand, event: VersionMissing) -> None:
    _moved(hand)
    hand.become(phase="idle", unreadable=event.payload, anew=True)


def _move(hand: Hand) -> None:
    """Our topic goes on in another generation: between two updates, never within one."""
    state = hand.state
    if state.generation < state.moves_to and state.phase not in ("pushing", "knocking"):
        hand.become(generation=state.moves_to)
        hand.actions.append(MoveTopic(state.moves_to))


def _go_on(hand: Hand) -> None:
    """What is due is begun, and what is missing for it sent for."""
    _begin(hand)
    _fetch(hand)


def _begin(hand: Hand) -> None:
    """Whoever is idle loads the version it is owed, then trains the next round."""
    _move(hand)
    if hand.state.phase == "gone":
        return
    if hand.state.ending and hand.state.asked is None:
        leave(hand, "done", hand.state.ending)
        return
    asked = hand.state.asked
    if asked is not None and hand.state.phase in ("idle", "waiting"):  # between two rounds
        if hand.state.admitted:
            hand.become(phase="scoring")
            hand.actions.append(ScoreVersion(asked.number, asked.version))
        return
    state = hand.state
    ready = state.admitted and state.started and not state.stopped
    if state.phase != "idle" or not ready or state.newest is None:
        return
    if state.stuck and not state.grants:
        # What it hung on has ended, and without blocks it never shows that it gets on.
        gone(hand, "again", "it was stuck, and its blocks went to others")
        return
    if ahead(state) or (state.rests and not state.grants):
        return
    rebases = CONTINUE[state.settings.continue_.rule].rebases
    newer = rebases and (state.anew or state.base != base_of(state.newest))
    if (newer or state.base is None) and state.newest.payload.id != state.unreadable:
        pending = tuple(update.payload.id for update in state.waiting_for)
        hand.become(phase="loading", moving=hand.now, anew=False, upon=_here(state))
        keeps = state.base is not None and state.unsent_rounds > 0
        hand.actions.append(LoadVersion(state.newest, pending, keeps))
        return
    if state.base is None:
        return  # the master publishes it again, or another one
    quota = quota_of(state.newest, state.name)
    todo = plan(state.settings, state.grants, state.offset, quota)
    if todo is None or not {part.grant for part in todo.segments} <= state.fetched:
        return
    oldest = state.base.version if state.oldest is None else state.oldest
    hand.become(phase="training", current=todo, round=state.round + 1, oldest=oldest)
    hand.become(upon=_here(state))
    hand.actions.append(
        Train(
            hand.state.round,
            todo.segments,
            todo.batch,
            todo.joined,
            progress(state.newest.samples, state.settings.stop.samples),
            probe_of(state.settings),
            gate.looks_at_drift(state.settings.gate),
            state.gate if gate.looks_back(state.settings.gate) else None,
            state.unsent_samples,
            gate.looks_at_gradient(state.settings.gate),
        )
    )


def _fetch(hand: Hand) -> None:
    """Blocks of the next round at once; those after it as a round begins, when nothing else is on
    the way: on a thin link they would hold up the version that is waited for."""
    state = hand.state
    if state.phase == "gone" or len(state.sought) == len(state.grants):
        return
    todo = None
    if state.phase != "training" and state.newest is not None:
        todo = plan(state.settings, state.grants, state.offset, quota_of(state.newest, state.name))
    needed = None if todo is None else {part.grant for part in todo.segments}
    for grant in state.grants:
        if grant.number not in state.sought and (needed is None or grant.number in needed):
            hand.become(sought=hand.state.sought | {grant.number})
            hand.actions.append(FetchBlocks(grant))


def _on_scored(hand: Hand, event: VersionScored) -> None:
    """The answer, then back to where we stood. It is sent though nobody may wait for it any more:
    it is progress, and whoever was stuck is back with it."""
    state, asked = hand.state, hand.state.asked
    waits = CONTINUE[state.settings.continue_.rule].waits and bool(state.waiting_for)
    hand.become(phase="waiting" if waits else "idle", number=state.number + 1, stuck=False)
    if asked is not None and asked.number == event.number:
        hand.become(asked=None)
    sums = (event.loss_sum, event.correct, event.n, event.busy)
    hand.actions.append(Send(hand.state.number, Scored(event.number, event.version, *sums)))


def _on_round(hand: Hand, event: RoundFinished) -> None:
    state = hand.state
    todo = state.current
    assert todo is not None
    if state.ending:
        _throw_away(hand)
        return
    assert state.gate is not None
    assert state.base is not None
    loss = event.loss if event.probe is None else event.probe
    samples = state.unsent_samples + event.samples
    learned = gate.Learned(event.drift, samples, event.paired, event.gradient)
    verdict = gate.decide(state.settings.gate, state.gate, loss, learned)
    together = steps_together(state.settings.close)
    waited = max(0, hand.now - state.ended - event.busy) if state.ended else 0
    report = Round(
        round=event.round,
        base=state.base.version,
        steps=event.steps,
        samples=event.samples,
        busy=event.busy,
        waited=waited,
        loss=event.loss if math.isfinite(event.loss) else None,
        probe=event.probe if event.probe is not None and math.isfinite(event.probe) else None,
        verdict=told(verdict.push, together=together),
        reason=verdict.reason,
        finished=todo.finished,
        moved=min(state.moved, waited),
        trainer=event.trainer if event.round == 1 else "",
        upon=state.upon,
    )
    hand.become(
        gate=verdict.state,
        current=None,
        ended=hand.now,
        moved=0,
        upon=(),
        unsent_samples=state.unsent_samples + event.samples,
        unsent_rounds=state.unsent_rounds + 1,
    )
    _use_up(hand, todo)
    if verdict.push == "push" and not together:
        hand.become(phase="pushing", done=report, moving=hand.now)
        hand.actions.append(StoreUpdate())
    else:
        hand.become(unnoted=hand.state.unnoted + 1)
        _report(hand, report)
        # A veto throws the round's work away: begin again from the newest version.
        base = None if verdict.push == "veto" else state.base
        if together:
            hand.become(phase="stepped", base=base)
        else:
            hand.become(phase="idle", base=base)


def told(push: str, *, together: bool) -> str:
    """What a round's report says of the gate's verdict: where all step together, a push is a wish
    that all push."""
    return "flag" if together and push == "push" else push


def _here(state: WorkerState) -> tuple[int, ...]:
    """The way so far, and the last record that was acted on."""
    return (*state.upon, state.authority.offset)


def _throw_away(hand: Hand) -> None:
    """The run has stopped: what was trained counts no more, and all that is left is to answer."""
    hand.become(phase="idle", current=None)


def ahead(state: WorkerState) -> bool:
    """Whether it waits for the slowest worker alive before its next round."""
    if not state.clocks:
        return False
    finished = state.clocks.get(state.name, 0) + len(state.waiting_for) + state.unnoted
    return too_far_ahead(state.settings.continue_, finished, min(state.clocks.values()))


def base_of(version: VersionPublished) -> Base:
    """What a model of this version is told by."""
    return Base(version.version, version.payload.digest)


def _use_up(hand: Hand, todo: Plan) -> None:
    """Grants that the round finished go; the offset stands in the first one left, unless that
    was returned meanwhile."""
    last = todo.segments[-1].grant
    drop(hand, todo.finished)
    first = hand.state.grants[0].number if hand.state.grants else None
    hand.become(offset=todo.offset if first == last else 0)


def _report(hand: Hand, report: Round) -> None:
    hand.become(number=hand.state.number + 1, stuck=False)  # the master hears that it gets on
    hand.actions.append(Send(hand.state.number, report))


def _moved(hand: Hand) -> None:
    """What was under way has arrived."""
    hand.become(moved=hand.state.moved + hand.now - hand.state.moving)


def _on_stored_again(hand: Hand, event: UpdateStored) -> None:
    """The same model, stored once more: a new update, as what it learned was rejected."""
    state = hand.state
    assert state.pushed is not None
    number = state.number + 1
    update = replace(state.pushed, birth=Birth(state.incarnation, number), payload=event.payload)
    hand.become(number=number, pushed=update, waiting_for=(update,), phase="waiting", stuck=False)
    hand.actions.append(SendResent(number, update))


def _on_stored(hand: Hand, event: UpdateStored) -> None:
    _moved(hand)
    state = hand.state
    if state.done is None and state.again:
        _on_stored_again(hand, event)
        return
    assert state.base is not None
    assert state.oldest is not None
    update = Update(
        birth=Birth(state.incarnation, state.number + 1),
        base=state.base,
        samples=state.unsent_samples,
        rounds=state.unsent_rounds,
        oldest=state.oldest,
        payload=event.payload,
        codec=state.settings.codec.up,
    )
    if state.done is not None:
        _report(hand, replace(state.done, update=update))
    else:  # all step together: its rounds were told before
        hand.become(number=state.number + 1, stuck=False)
        hand.actions.append(SendResent(hand.state.number, update))
    waiting = (*state.waiting_for, update)
    hand.become(done=None, waiting_for=waiting, pushed=update, again=False)
    if CONTINUE[state.settings.continue_.rule].waits:
        hand.become(phase="waiting")
    else:
        hand.become(phase="idle", unsent_samples=0, unsent_rounds=0, oldest=None)


HANDLERS: dict[type, Callable[[Hand, Any], None]] = {
    Began: _on_began,
    KnockDue: _on_knock_due,
    Interrupted: _on_interrupted,
    BeatDue: _on_beat,
    LedgerSeen: on_ledger,
    LedgerTorn: _on_torn,
    BlocksFetched: _on_fetched,
    VersionLoaded: _on_loaded,
    VersionMissing: _on_missing,
    RoundFinished: _on_round,
    UpdateStored: _on_stored,
    VersionScored: _on_scored,
}
"""Event -> its handler. A test asserts that every event of the worker is here."""
