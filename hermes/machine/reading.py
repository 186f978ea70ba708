"""What does a worker take from the ledger? What counts, and what each entry means to it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from hermes.errors import SettingError
from hermes.machine.events import (
    Forget,
    ForgetUpdate,
    LedgerSeen,
    MoveLogs,
    SendAgain,
    SendResent,
    StoreUpdate,
)
from hermes.machine.hand import Hand, Question, drop, gone, leave
from hermes.machine.ledger import Authority, advance
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Entry,
    EvaluationAsked,
    LedgerRecord,
    MasterStarted,
    Republished,
    ResendAsked,
    Rewound,
    Rotated,
    RoundNoted,
    RunReopened,
    RunScored,
    RunStopped,
    ShardResized,
    StepClosed,
    TrainingStarted,
    UpdateRejected,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerLeft,
    WorkerLost,
    WorkerRefused,
)
from hermes.policy import gate
from hermes.policy.presets import from_tree
from hermes.policy.sync import CONTINUE, counts_rounds, steps_together
from hermes.values import Birth

UNREADABLE = "unreadable"
"""Why an update is rejected whose tensors are not there, or not what was announced."""


def on_ledger(hand: Hand, event: LedgerSeen) -> None:
    """Fold a record of the ledger, if it counts."""
    record = event.record
    if hand.state.phase == "knocking":
        _look_for_answer(hand, event)
        return
    if hand.rules.void(hand.state.authority, record):
        why = hand.rules.astray(hand.state.authority, record)
        if why:
            gone(hand, "again", f"the ledger does not continue ({why})")
        return
    _fold(hand, record)
    hand.follow(advance(hand.state.authority, record, event.offset, event.digest))


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


def _answer_reopened(hand: Hand, _entry: RunReopened, _event: LedgerSeen) -> None:
    hand.become(over="")


def _answer_refused(hand: Hand, entry: WorkerRefused, _event: LedgerSeen) -> None:
    if entry.hello in hand.state.hellos:
        facts = ", ".join(f"{key} {value}" for key, value in entry.reason.facts.items())
        gone(hand, "refused", f"{entry.reason.code} ({facts})" if facts else entry.reason.code)


def _answer_admitted(hand: Hand, entry: WorkerAdmitted, event: LedgerSeen) -> None:
    if entry.incarnation == hand.state.incarnation:
        before = Authority(chain=event.record.chain)
        after = advance(before, event.record, event.offset, event.digest)
        hand.become(phase="idle", authority=after)


ANSWERS: dict[type, Callable[[Hand, Any, LedgerSeen], None]] = {
    WorkerAdmitted: _answer_admitted,
    WorkerRefused: _answer_refused,
    RunStopped: _answer_stopped,
    RunReopened: _answer_reopened,
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
        # Whoever is only admitted anew, by another master, may be lost, and stands where it stood.
        if entry.hello and entry.worker in entry.clocks:
            hand.become(clocks={**state.clocks, entry.worker: entry.clocks[entry.worker]})
        return
    if entry.incarnation != state.incarnation:
        gone(hand, "fenced", "a newer incarnation took this worker's place")
        return
    if not _go_by(hand, entry.opened.settings):
        return
    hand.become(
        admitted=True,
        started=entry.started,
        newest=entry.version,
        gate=state.gate or gate.start(hand.state.settings.gate),
        moves_to=max(state.moves_to, entry.generation),
        clocks=entry.clocks,
        brings=bool(entry.data.shares),
    )
    _move_logs(hand, entry.logs)
    taken = entry.taken.get(state.incarnation, 0)
    _forget(hand, taken)
    if taken < state.number:
        hand.actions.append(SendAgain(taken + 1))
    _send_left_over(hand, entry)


def _go_by(hand: Hand, tree: dict[str, object]) -> bool:
    """These settings are in force; False, and we are gone, if they cannot be read."""
    try:
        hand.become(settings=from_tree(tree))
    except SettingError as error:  # no master of this version writes that
        gone(hand, "again", f"the settings cannot be read ({error.what})")
        return False
    if hand.state.phase == "stepped" and not steps_together(hand.state.settings.close):
        hand.become(phase="idle")  # nobody closes steps any more
    return True


def _send_left_over(hand: Hand, entry: WorkerAdmitted) -> None:
    """Updates that an incarnation before pushed: those that the ledger has, it has."""
    for update in hand.state.left_over:
        if not hand.rules.owed(update.birth, entry.taken):
            hand.actions.append(ForgetUpdate(update.birth))
            continue
        number = hand.state.number + 1
        hand.become(number=number, waiting_for=(*hand.state.waiting_for, update))
        if CONTINUE[hand.state.settings.continue_.rule].waits:
            hand.become(phase="waiting")
        hand.actions.append(SendResent(number, update))
    hand.become(left_over=())


def _move_logs(hand: Hand, generation: int) -> None:
    if generation > hand.state.logs:
        hand.become(logs=generation)
        hand.actions.append(MoveLogs(generation))


def _entry_rotated(hand: Hand, entry: Rotated) -> None:
    if entry.topic == f"from.{hand.state.name}":
        hand.become(moves_to=entry.generation)
    elif entry.topic == "logs":
        _move_logs(hand, entry.generation)


def _entry_republished(hand: Hand, entry: Republished) -> None:
    newest = hand.state.newest
    if newest is not None and newest.version == entry.version:
        hand.become(newest=replace(newest, payload=entry.payload))
    asked = hand.state.asked
    if asked is not None and asked.version.version == entry.version:
        moved = replace(asked.version, payload=entry.payload)
        hand.become(asked=replace(asked, version=moved))


def _entry_rewound(hand: Hand, entry: Rewound) -> None:
    """Whoever has begun on a version that was dropped finds out when it pushes; whoever has not,
    begins on the one that is left."""
    hand.become(newest=entry.version)
    base, asked = hand.state.base, hand.state.asked
    if asked is not None and asked.version.version > entry.version.version:
        hand.become(asked=None)
    if CONTINUE[hand.state.settings.continue_.rule].rebases:
        return  # it takes the newest before each round anyway
    still = hand.state.phase == "idle" or (hand.state.phase == "scoring" and not _waits(hand))
    if still and base is not None and base.version > entry.version.version:
        hand.become(base=None)


def _waits(hand: Hand) -> bool:
    """Whether it waits for a version that holds its update, or would if it did not score one."""
    rule = CONTINUE[hand.state.settings.continue_.rule]
    return rule.waits and bool(hand.state.waiting_for)


def _entry_reopened(hand: Hand, entry: RunReopened) -> None:
    if hand.state.ending:  # a round was thrown away, or is: begin anew
        gone(hand, "again", "the run goes on")
        return
    _go_by(hand, entry.settings)


def _entry_started(hand: Hand, _entry: TrainingStarted) -> None:
    hand.become(started=True)


def _entry_resized(hand: Hand, entry: ShardResized) -> None:
    """Whoever has work again takes the newest version first: its own may be long gone."""
    if entry.worker != hand.state.name or hand.state.settings.size.slowest is None:
        return
    if hand.state.rests and entry.size and hand.state.phase in ("idle", "scoring"):
        hand.become(base=None)
    hand.become(rests=not entry.size)


def _entry_granted(hand: Hand, entry: BlocksGranted) -> None:
    if entry.worker == hand.state.name:
        hand.become(grants=(*hand.state.grants, entry))


def _entry_returned(hand: Hand, entry: BlocksReturned) -> None:
    if entry.worker == hand.state.name:
        drop(hand, entry.numbers)


def _entry_step(hand: Hand, entry: StepClosed) -> None:
    """The step that it told of: where that is not in the ledger yet, it belongs to the next."""
    if hand.state.phase != "stepped" or hand.state.unnoted:
        return
    if hand.state.name in entry.pushers:
        hand.become(phase="pushing", again=False, moving=hand.now)
        hand.actions.append(StoreUpdate())
    else:
        hand.become(phase="idle")


def _entry_version(hand: Hand, entry: VersionPublished) -> None:
    hand.become(newest=entry)
    for part in entry.members:
        _tick(hand, part.worker)
        if part.worker == hand.state.name:
            _decided(hand, part.birth)


def _entry_rejected(hand: Hand, entry: UpdateRejected) -> None:
    _tick(hand, entry.worker)
    if entry.worker != hand.state.name:
        return
    if _can_send_again(hand, entry):
        hand.become(phase="pushing", again=True, waiting_for=(), moving=hand.now)
        hand.actions += [ForgetUpdate(entry.birth), StoreUpdate()]
        return
    if entry.birth.incarnation == hand.state.incarnation:
        hand.become(anew=True)
    _decided(hand, entry.birth)


def _can_send_again(hand: Hand, entry: UpdateRejected) -> bool:
    """The broker lost the update's tensors, and we have them still: not twice, or it is not the
    broker."""
    state = hand.state
    waits = state.phase == "waiting" and [one.birth for one in state.waiting_for] == [entry.birth]
    mine = state.pushed is not None and state.pushed.birth == entry.birth
    return entry.reason.code == UNREADABLE and waits and mine and not state.again


def _decided(hand: Hand, birth: Birth) -> None:
    """A version contains the update, or it is rejected: on to the newest version."""
    left = tuple(other for other in hand.state.waiting_for if other.birth != birth)
    if len(left) == len(hand.state.waiting_for):
        return
    waited = hand.state.phase == "waiting" or (hand.state.phase == "scoring" and _waits(hand))
    hand.become(waiting_for=left)
    hand.actions.append(ForgetUpdate(birth))
    if not left and waited:
        scores = hand.state.phase == "scoring"
        hand.become(phase="scoring" if scores else "idle", base=None)


def _entry_resend(hand: Hand, entry: ResendAsked) -> None:
    state = hand.state
    if (entry.worker, entry.incarnation) == (state.name, state.incarnation):
        hand.actions.append(SendAgain(entry.first))


def _entry_left(hand: Hand, entry: WorkerLeft) -> None:
    _entry_lost(hand, entry)
    if entry.worker == hand.state.name:
        gone(hand, "fenced", entry.reason)


def _entry_stopped(hand: Hand, entry: RunStopped) -> None:
    hand.become(stopped=True)
    why = f"the run has {entry.status}: {entry.reason.code}"
    if hand.state.brings:  # what this very record asks is still to be answered
        hand.become(ending=why)
    else:
        leave(hand, "done", why)


# --- what a version is worth ----------------------------------------------------------------------


def _entry_asked(hand: Hand, entry: EvaluationAsked) -> None:
    newest = hand.state.newest
    mine = hand.state.name in entry.workers and hand.state.brings
    if mine and newest is not None and newest.version == entry.version:
        hand.become(asked=Question(entry.number, newest))


def _entry_evaluated(hand: Hand, entry: VersionEvaluated) -> None:
    """Nobody waits for an answer any more."""
    asked = hand.state.asked
    if asked is not None and asked.version.version == entry.version:
        hand.become(asked=None)


def _entry_scored(hand: Hand, _entry: RunScored) -> None:
    hand.become(asked=None)


# --- how far the others are -----------------------------------------------------------------------


def _tick(hand: Hand, worker: str) -> None:
    """The outcome of one more round of this worker is known."""
    clocks = hand.state.clocks
    if worker in clocks:
        hand.become(clocks={**clocks, worker: clocks[worker] + 1})


def _entry_round(hand: Hand, entry: RoundNoted) -> None:
    if entry.verdict == "push":
        return  # until a version holds it
    _tick(hand, entry.worker)
    if entry.worker == hand.state.name:
        hand.become(unnoted=max(0, hand.state.unnoted - 1))


def _entry_lost(hand: Hand, entry: WorkerLost | WorkerLeft) -> None:
    """Nobody waits for whoever is gone."""
    left = {name: clock for name, clock in hand.state.clocks.items() if name != entry.worker}
    hand.become(clocks=left)
    if isinstance(entry, WorkerLost) and entry.worker == hand.state.name:
        hand.become(stuck=entry.reason.code == "stuck")


def _entry_back(hand: Hand, entry: WorkerBack) -> None:
    """It starts at the slowest of the others, or at none where nobody else is alive."""
    if entry.worker == hand.state.name:
        hand.become(stuck=False)
    if counts_rounds(hand.state.settings.continue_):
        others = {n: clock for n, clock in hand.state.clocks.items() if n != entry.worker}
        hand.become(clocks={**others, entry.worker: min(others.values(), default=0)})


ENTRIES: dict[type, Callable[[Hand, Any], None]] = {
    MasterStarted: _entry_master,
    WorkerAdmitted: _entry_admitted,
    TrainingStarted: _entry_started,
    BlocksGranted: _entry_granted,
    BlocksReturned: _entry_returned,
    ShardResized: _entry_resized,
    VersionPublished: _entry_version,
    StepClosed: _entry_step,
    UpdateRejected: _entry_rejected,
    RoundNoted: _entry_round,
    WorkerLost: _entry_lost,
    WorkerBack: _entry_back,
    ResendAsked: _entry_resend,
    WorkerLeft: _entry_left,
    RunStopped: _entry_stopped,
    RunReopened: _entry_reopened,
    Rotated: _entry_rotated,
    Republished: _entry_republished,
    Rewound: _entry_rewound,
    EvaluationAsked: _entry_asked,
    VersionEvaluated: _entry_evaluated,
    RunScored: _entry_scored,
}
"""What a worker takes from the ledger; the other entries do not concern it."""
