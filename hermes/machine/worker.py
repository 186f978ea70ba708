"""What does a worker do next? `decide(state, now, event)` -> the state after it, and actions. Pure.

A worker acts on the ledger alone: it knocks, is admitted, fetches the blocks that it is granted,
trains, asks its gate, and pushes or stays quiet. It keeps what it sent until the ledger has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from hermes.errors import Defect, SettingError
from hermes.machine.events import (
    Action,
    BeatDue,
    Began,
    BlocksFetched,
    DropGrant,
    Event,
    FetchBlocks,
    Forget,
    ForgetUpdate,
    Interrupted,
    KnockDue,
    Leave,
    LedgerSeen,
    LoadVersion,
    RoundFinished,
    Send,
    SendAgain,
    SendBeat,
    SendHello,
    SendResent,
    StoreUpdate,
    Train,
    UpdateStored,
    VersionLoaded,
)
from hermes.machine.ledger import Authority, advance
from hermes.machine.rounds import Plan, plan, probe_of
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.stopping import progress
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Bye,
    Entry,
    LedgerRecord,
    MasterStarted,
    ResendAsked,
    Round,
    RunStopped,
    TrainingStarted,
    Update,
    UpdateRejected,
    VersionPublished,
    WorkerAdmitted,
    WorkerLeft,
    WorkerRefused,
)
from hermes.policy import gate
from hermes.policy.gate import GateState
from hermes.policy.presets import Settings, from_tree
from hermes.policy.sync import CONTINUE
from hermes.values import Base, Birth


class WorkerState(msgspec.Struct, frozen=True):
    """What a worker knows. `phase` says what it is doing:

    knocking -> idle -> loading -> idle -> training -> pushing -> waiting -> idle; at last, gone.
    """

    name: str
    incarnation: str
    phase: str = "knocking"
    hellos: tuple[str, ...] = ()
    """Nonces of the hellos sent."""
    over: str = ""
    """While knocking: that the run has stopped, as a record says that may or may not count."""
    previous: str = ""
    left_over: tuple[Update, ...] = ()
    """Undecided updates of incarnations before, to be sent once admitted."""
    authority: Authority = Authority()
    admitted: bool = False
    settings: Settings = Settings()
    newest: VersionPublished | None = None
    started: bool = False
    stopped: bool = False
    base: Base | None = None
    """The version that the local model started from; None: a new one is to be loaded."""
    grants: tuple[BlocksGranted, ...] = ()
    fetched: frozenset[int] = frozenset()
    offset: int = 0
    """Samples of the first grant that are used up."""
    current: Plan | None = None
    """The round being trained."""
    done: Round | None = None
    """The round that is being pushed."""
    gate: GateState | None = None
    round: int = 0
    number: int = 0
    """Of the last message sent."""
    taken: int = 0
    """Number of the last message that the ledger has taken."""
    unsent_samples: int = 0
    unsent_rounds: int = 0
    waiting_for: tuple[Birth, ...] = ()
    """Pushed, and neither merged nor rejected."""
    ended: int = 0
    """Run time of the end of the last round."""
    moving: int = 0
    """Run time at which tensors began to be stored or loaded; 0: none are under way."""
    moved: int = 0
    """Nanoseconds of that since the end of the last round."""


class Step(msgspec.Struct, frozen=True):
    """The state after an event, and what is to be done."""

    state: WorkerState
    actions: tuple[Action, ...] = ()


class Hand:
    """A step in the making."""

    def __init__(self, rules: Rules, state: WorkerState, now: int) -> None:
        self.rules, self.state, self.now = rules, state, now
        self.actions: list[Action] = []

    def become(self, **changes: Any) -> None:
        """Change the state."""
        self.state = replace(self.state, **changes)


def decide(state: WorkerState, now: int, event: Event, rules: Rules = PROTOCOL_RULES) -> Step:
    """What follows from this outcome; `now` in nanoseconds of the process's own time."""
    hand = Hand(rules, state, now)
    if state.phase != "gone":
        HANDLERS[type(event)](hand, event)
        _go_on(hand)
    return Step(hand.state, tuple(hand.actions))


def check(state: WorkerState) -> None:
    """Raise `Defect` if anything that must always hold does not."""
    if state.phase == "waiting" and not state.waiting_for:
        raise Defect("waits for nothing", where=state.name)
    if state.phase == "training" and state.current is None:
        raise Defect("trains nothing", where=state.name)
    if state.taken > state.number:
        raise Defect(
            f"the ledger took number {state.taken}, only {state.number} were sent",
            where=state.name,
        )
    if not state.fetched <= {grant.number for grant in state.grants}:
        raise Defect("keeps blocks that it does not hold", where=state.name)


# --- coming and going ---------------------------------------------------------------------------


def _on_began(hand: Hand, event: Began) -> None:
    hand.become(previous=event.previous, left_over=event.undecided)
    _knock(hand, event.nonce)


def _on_knock_due(hand: Hand, event: KnockDue) -> None:
    if hand.state.phase != "knocking":
        return
    if hand.state.over:
        _gone(hand, "done", hand.state.over)
    else:
        _knock(hand, event.nonce)


def _knock(hand: Hand, nonce: str) -> None:
    hand.become(hellos=(*hand.state.hellos, nonce))
    hand.actions.append(SendHello(nonce, hand.state.previous))


def _on_interrupted(hand: Hand, event: Interrupted) -> None:
    _leave(hand, "interrupted", event.reason)


def _leave(hand: Hand, code: str, reason: str) -> None:
    if hand.state.admitted:
        hand.become(number=hand.state.number + 1)
        hand.actions.append(Send(hand.state.number, Bye(reason)))
    hand.actions.append(Leave(code, reason))
    hand.become(phase="gone")


def _gone(hand: Hand, code: str, reason: str) -> None:
    hand.actions.append(Leave(code, reason))
    hand.become(phase="gone")


def _on_beat(hand: Hand, event: BeatDue) -> None:
    if hand.state.phase != "knocking":
        hand.actions.append(SendBeat(event.steps, hand.state.number))


# --- the ledger ---------------------------------------------------------------------------------


def _on_ledger(hand: Hand, event: LedgerSeen) -> None:
    record = event.record
    if hand.state.phase == "knocking":
        _look_for_answer(hand, event)
        return
    if hand.rules.void(hand.state.authority, record):
        why = hand.rules.astray(hand.state.authority, record)
        if why:
            _gone(hand, "again", f"the ledger does not continue ({why})")
        return
    _fold(hand, record)
    authority = advance(hand.state.authority, record, event.offset, event.digest)
    hand.become(authority=authority)


def _look_for_answer(hand: Hand, event: LedgerSeen) -> None:
    entries = event.record.entries
    for index, entry in enumerate(entries):
        answer = ANSWERS.get(type(entry))
        if answer is not None:
            answer(hand, entry, event)
        if hand.state.phase != "knocking":
            # What the record says before that concerns an incarnation before this one.
            _fold_entries(hand, entries[index:])
            return


def _answer_stopped(hand: Hand, entry: RunStopped, _event: LedgerSeen) -> None:
    # Whoever knows no history cannot tell whether the record counts: if the run goes on, its
    # master answers the hello before the next one is due.
    hand.become(over=f"the run has {entry.status}: {entry.reason.code}")


def _answer_refused(hand: Hand, entry: WorkerRefused, _event: LedgerSeen) -> None:
    if entry.hello in hand.state.hellos:
        facts = ", ".join(f"{key} {value}" for key, value in entry.reason.facts.items())
        _gone(hand, "refused", f"{entry.reason.code} ({facts})" if facts else entry.reason.code)


def _answer_admitted(hand: Hand, entry: WorkerAdmitted, event: LedgerSeen) -> None:
    if entry.incarnation == hand.state.incarnation:
        before = Authority(chain=event.record.chain)
        after = advance(before, event.record, event.offset, event.digest)
        hand.become(phase="idle", authority=after)


ANSWERS: dict[type, Callable[[Hand, Any, LedgerSeen], None]] = {
    WorkerAdmitted: _answer_admitted,
    WorkerRefused: _answer_refused,
    RunStopped: _answer_stopped,
}
"""What a knocking worker looks for in the ledger."""


def _fold(hand: Hand, record: LedgerRecord) -> None:
    mine = f"from.{hand.state.name}"
    for consumed in record.consumed:
        if consumed.position.topic == mine and consumed.incarnation == hand.state.incarnation:
            _forget(hand, consumed.number)
    _fold_entries(hand, record.entries)


def _fold_entries(hand: Hand, entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        handler = ENTRIES.get(type(entry))
        if handler is not None and hand.state.phase != "gone":
            handler(hand, entry)


def _forget(hand: Hand, number: int) -> None:
    hand.become(taken=max(hand.state.taken, number))
    hand.actions.append(Forget(hand.state.taken))


def _entry_master(hand: Hand, _entry: MasterStarted) -> None:
    hand.become(admitted=False)


def _entry_admitted(hand: Hand, entry: WorkerAdmitted) -> None:
    state = hand.state
    if entry.worker != state.name:
        return
    if entry.incarnation != state.incarnation:
        _gone(hand, "fenced", "a newer incarnation took this worker's place")
        return
    try:
        settings = from_tree(entry.opened.settings)
    except SettingError as error:  # no master of this version writes that
        _gone(hand, "again", f"the admission cannot be read ({error.what})")
        return
    hand.become(
        admitted=True,
        settings=settings,
        started=entry.started,
        newest=entry.version,
        gate=state.gate or gate.start(settings.gate),
    )
    taken = entry.taken.get(state.incarnation, 0)
    _forget(hand, taken)
    if taken < state.number:
        hand.actions.append(SendAgain(taken + 1))
    _send_left_over(hand, entry)


def _send_left_over(hand: Hand, entry: WorkerAdmitted) -> None:
    """Updates that an incarnation before pushed: those that the ledger has, it has."""
    for update in hand.state.left_over:
        if not hand.rules.owed(update.birth, entry.taken):
            hand.actions.append(ForgetUpdate(update.birth))
            continue
        number = hand.state.number + 1
        waiting = (*hand.state.waiting_for, update.birth)
        hand.become(number=number, waiting_for=waiting, phase="waiting")
        hand.actions.append(SendResent(number, update))
    hand.become(left_over=())


def _entry_started(hand: Hand, _entry: TrainingStarted) -> None:
    hand.become(started=True)


def _entry_granted(hand: Hand, entry: BlocksGranted) -> None:
    if entry.worker == hand.state.name:
        hand.become(grants=(*hand.state.grants, entry))
        hand.actions.append(FetchBlocks(entry))


def _entry_returned(hand: Hand, entry: BlocksReturned) -> None:
    if entry.worker == hand.state.name:
        _drop(hand, entry.numbers)


def _drop(hand: Hand, numbers: tuple[int, ...]) -> None:
    state = hand.state
    if state.grants and state.grants[0].number in numbers:
        hand.become(offset=0)
    held = [grant.number for grant in state.grants]
    hand.become(
        grants=tuple(grant for grant in state.grants if grant.number not in numbers),
        fetched=state.fetched - set(numbers),
    )
    hand.actions += [DropGrant(number) for number in numbers if number in held]


def _entry_version(hand: Hand, entry: VersionPublished) -> None:
    hand.become(newest=entry)
    for part in entry.members:
        if part.worker == hand.state.name:
            _decided(hand, part.birth)


def _entry_rejected(hand: Hand, entry: UpdateRejected) -> None:
    if entry.worker == hand.state.name:
        _decided(hand, entry.birth)


def _decided(hand: Hand, birth: Birth) -> None:
    """A version contains the update, or it is rejected: on to the newest version."""
    if birth not in hand.state.waiting_for:
        return
    left = tuple(other for other in hand.state.waiting_for if other != birth)
    hand.become(waiting_for=left)
    hand.actions.append(ForgetUpdate(birth))
    if not left and hand.state.phase == "waiting":
        hand.become(phase="idle", base=None)


def _entry_resend(hand: Hand, entry: ResendAsked) -> None:
    state = hand.state
    if (entry.worker, entry.incarnation) == (state.name, state.incarnation):
        hand.actions.append(SendAgain(entry.first))


def _entry_left(hand: Hand, entry: WorkerLeft) -> None:
    if entry.worker == hand.state.name:
        _gone(hand, "fenced", entry.reason)


def _entry_stopped(hand: Hand, entry: RunStopped) -> None:
    hand.become(stopped=True)
    _leave(hand, "done", f"the run has {entry.status}: {entry.reason.code}")


ENTRIES: dict[type, Callable[[Hand, Any], None]] = {
    MasterStarted: _entry_master,
    WorkerAdmitted: _entry_admitted,
    TrainingStarted: _entry_started,
    BlocksGranted: _entry_granted,
    BlocksReturned: _entry_returned,
    VersionPublished: _entry_version,
    UpdateRejected: _entry_rejected,
    ResendAsked: _entry_resend,
    WorkerLeft: _entry_left,
    RunStopped: _entry_stopped,
}
"""What a worker takes from the ledger; the other entries do not concern it."""


# --- training -----------------------------------------------------------------------------------


def _on_fetched(hand: Hand, event: BlocksFetched) -> None:
    if event.grant in {grant.number for grant in hand.state.grants}:
        hand.become(fetched=hand.state.fetched | {event.grant})


def _on_loaded(hand: Hand, event: VersionLoaded) -> None:
    _moved(hand)
    hand.become(phase="idle", base=event.base, unsent_samples=0, unsent_rounds=0)


def _go_on(hand: Hand) -> None:
    """Whoever is idle loads the version it is owed, then trains the next round."""
    state = hand.state
    ready = state.admitted and state.started and not state.stopped
    if state.phase != "idle" or not ready or state.newest is None:
        return
    if state.base is None:
        hand.become(phase="loading", moving=hand.now)
        hand.actions.append(LoadVersion(state.newest))
        return
    todo = plan(state.settings, state.grants, state.offset)
    if todo is None or not {part.grant for part in todo.segments} <= state.fetched:
        return
    hand.become(phase="training", current=todo, round=state.round + 1)
    hand.actions.append(
        Train(
            hand.state.round,
            todo.segments,
            todo.batch,
            todo.joined,
            progress(state.newest.samples, state.settings.stop.samples),
            probe_of(state.settings),
        )
    )


def _on_round(hand: Hand, event: RoundFinished) -> None:
    state = hand.state
    todo = state.current
    assert todo is not None
    assert state.gate is not None
    assert state.base is not None
    loss = event.loss if event.probe is None else event.probe
    verdict = gate.decide(state.settings.gate, state.gate, loss)
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
        verdict=verdict.push,
        reason=verdict.reason,
        finished=todo.finished,
        moved=min(state.moved, waited),
    )
    hand.become(
        gate=verdict.state,
        current=None,
        ended=hand.now,
        moved=0,
        unsent_samples=state.unsent_samples + event.samples,
        unsent_rounds=state.unsent_rounds + 1,
    )
    _use_up(hand, todo)
    if verdict.push == "push":
        hand.become(phase="pushing", done=report, moving=hand.now)
        hand.actions.append(StoreUpdate())
    else:
        _report(hand, report)
        # A veto throws the round's work away: begin again from the newest version.
        hand.become(phase="idle", base=None if verdict.push == "veto" else state.base)


def _use_up(hand: Hand, todo: Plan) -> None:
    """Grants that the round finished go; the offset stands in the first one left, unless that
    was returned meanwhile."""
    last = todo.segments[-1].grant
    _drop(hand, todo.finished)
    first = hand.state.grants[0].number if hand.state.grants else None
    hand.become(offset=todo.offset if first == last else 0)


def _report(hand: Hand, report: Round) -> None:
    hand.become(number=hand.state.number + 1)
    hand.actions.append(Send(hand.state.number, report))


def _moved(hand: Hand) -> None:
    """What was under way has arrived."""
    hand.become(moved=hand.state.moved + hand.now - hand.state.moving)


def _on_stored(hand: Hand, event: UpdateStored) -> None:
    _moved(hand)
    state = hand.state
    assert state.done is not None
    assert state.base is not None
    birth = Birth(state.incarnation, state.number + 1)
    update = Update(
        birth=birth,
        base=state.base,
        samples=state.unsent_samples,
        rounds=state.unsent_rounds,
        oldest=state.base.version,
        payload=event.payload,
    )
    _report(hand, replace(state.done, update=update))
    hand.become(done=None, waiting_for=(*state.waiting_for, birth))
    goes_on = CONTINUE[state.settings.continue_.rule](True)
    hand.become(phase="waiting" if goes_on == "wait" else "idle")


HANDLERS: dict[type, Callable[[Hand, Any], None]] = {
    Began: _on_began,
    KnockDue: _on_knock_due,
    Interrupted: _on_interrupted,
    BeatDue: _on_beat,
    LedgerSeen: _on_ledger,
    BlocksFetched: _on_fetched,
    VersionLoaded: _on_loaded,
    RoundFinished: _on_round,
    UpdateStored: _on_stored,
}
"""Event -> its handler. A test asserts that every event of the worker is here."""
