"""What does the master decide? `decide(state, now, event)` returns entries and actions. Pure.

An event's handler says what the outcome means; then the standing duties look at the state as it
will be and add what is due: grants, sizes, closing a version, stopping. Only `apply` changes the
state, once the record that holds the entries is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from hermes.machine import closing, duties, keeping, missing, repair, scoring, sizing, suspect
from hermes.machine.admission import admission
from hermes.machine.draft import Draft
from hermes.machine.events import (
    Action,
    BrokerBack,
    ChunkSeen,
    DataStored,
    EnvelopeReceived,
    EvaluationFinished,
    Event,
    FinalScored,
    FollowWorker,
    GenerationAdded,
    HelloReceived,
    LogsRead,
    MergeFailed,
    Opened,
    StateRestored,
    StateStored,
    StopAsked,
    StopReceived,
    TailMissing,
    Ticked,
    TopicRead,
    UpdateScored,
    VersionsSecured,
    VersionStored,
)
from hermes.machine.pools import NONE
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState, Member
from hermes.machine.suspect import SHOWN
from hermes.messages import (
    Bye,
    Consumed,
    Contribution,
    Entry,
    Heartbeat,
    Moved,
    ResendAsked,
    Resent,
    Round,
    RoundNoted,
    RunScored,
    RunStopped,
    Scored,
    StateSaved,
    TailLost,
    Update,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerLeft,
    WorkerRefused,
)
from hermes.policy.weigh import check_staleness
from hermes.values import SECOND, Facts, Position, Reason

REPLACED = "a newer incarnation took its place"
"""Why a worker has left whose name another process of its own has."""

REFUSED = 255
"""Refused incarnations that are remembered, beside the latest."""


class Decision(msgspec.Struct, frozen=True):
    """What follows from one event."""

    state: MasterState
    """As it will be once the entries are applied; until then only a draft."""
    entries: tuple[Entry, ...] = ()
    consumed: tuple[Consumed, ...] = ()
    actions: tuple[Action, ...] = ()
    """To be performed once the entries are acknowledged and applied."""
    soft: Soft = Soft()
    wake: int | None = None
    """Run time at which `Ticked` is wanted at the latest."""
    note: str = ""
    """A line for the central log."""


def decide(
    state: MasterState, soft: Soft, now: int, event: Event, rules: Rules = PROTOCOL_RULES
) -> Decision:
    """What follows from this outcome at run time `now` (nanoseconds).

    The state is taken to be in time: `state.time` <= `now`.
    """
    rested = _rested(rules, state, soft, now)
    draft = Draft(rules, replace(state, time=now), rested, now)
    if rested is not soft and state.alive() and soft.now:  # else it has only just begun
        away = (now - soft.now) / SECOND
        draft.note = (
            f"The master stood still, or was busy, for {away:.1f} s: every deadline starts anew"
        )
    HANDLERS[type(event)](draft, event)
    duties.perform(draft)
    wake = duties.wake(draft)
    return Decision(
        state=draft.state,
        entries=tuple(draft.entries),
        consumed=tuple(draft.consumed),
        actions=tuple(draft.actions),
        soft=replace(draft.soft, now=now),
        wake=wake,
        note=draft.note,
    )


def _rested(rules: Rules, state: MasterState, soft: Soft, now: int) -> Soft:
    """Where the master itself slept, every deadline starts anew (protocol 6)."""
    if not rules.slept(soft.now, now, state.settings.workers.lost):
        return soft
    return missing.anew(soft, state.members, now)


# --- what is stored, scored, evaluated ----------------------------------------------------------


def _on_opened(draft: Draft, event: Opened) -> None:
    if draft.state.opened is None:
        if event.forked is not None:
            draft.add(event.forked)
            parent, version = event.forked.parent, event.forked.version
            draft.note = f"The run is forked from {parent}: it begins at its version {version}"
        draft.add(event.run)
        if event.data is not None:
            draft.add(event.data)
    if event.change is not None:
        draft.add(event.change)
    draft.soft = missing.anew(draft.soft, draft.state.members, draft.now)
    draft.remember(trims=event.trims)
    keeping.again(draft)
    for name, member in sorted(draft.state.members.items()):
        if member.status != "left":
            place = draft.rules.resume(draft.state, f"from.{name}")
            draft.actions.append(FollowWorker(name, place))


def _on_data(draft: Draft, event: DataStored) -> None:
    draft.remember(uploading=False)
    if draft.state.data is None:
        draft.add(event.data)


def _on_version_stored(draft: Draft, event: VersionStored) -> None:
    merge = draft.soft.merge
    draft.remember(storing_first=False)
    if merge is not None and merge.version == event.version:
        draft.remember(merge=None, scored=None, state_of=event.version)
        if draft.soft.doubted:
            draft.remember(doubted=False, secured=False)
    if not draft.rules.running(draft.state):
        return
    if draft.state.newest is None:
        first = first_version(draft.state, event)
        draft.add(first)
        if event.state is not None:
            draft.add(StateSaved(first.version, event.state))
        draft.remember(secured=not draft.soft.doubted, doubted=False)
        draft.note = "Master has been successfully initialized!"
    elif merge is not None and merge.version == event.version:
        assert draft.state.newest is not None
        norms = event.norms or (0.0,) * len(merge.parts)
        members = tuple(
            Contribution(p.worker, p.update.birth, p.weight, p.update.samples, length)
            for p, length in zip(merge.parts, norms, strict=True)
        )
        samples = draft.state.newest.samples + sum(part.samples for part in members)
        reason = draft.soft.merge_reason
        draft.add(
            VersionPublished(
                event.version,
                event.payload,
                members,
                merge.rule,
                merge.keep,
                samples,
                reason,
                merge.outer,
                closing.superstep(draft.state),
                merge.codec,
            )
        )


def first_version(state: MasterState, event: VersionStored) -> VersionPublished:
    """Version 0, or the one that a fork begins with."""
    forked, codec = state.forked, state.settings.codec.down
    if forked is None:
        first = Reason("first")
        return VersionPublished(0, event.payload, (), "init", 0.0, 0, first, codec=codec)
    why = Reason("forked", {"parent": forked.parent, "version": forked.version})
    number, samples = forked.version, forked.samples
    return VersionPublished(number, event.payload, (), "init", 0.0, samples, why, codec=codec)


def _on_merge_failed(draft: Draft, event: MergeFailed) -> None:
    draft.remember(merge=None, scored=None, scoring=False)
    for pending in draft.state.pending:
        if pending.update.birth == event.birth:
            suspect.refuse(draft, pending.worker, pending.update, event.reason)


def _on_update_scored(draft: Draft, event: UpdateScored) -> None:
    draft.remember(scored=event, scoring=False)


def _on_evaluated(draft: Draft, event: EvaluationFinished) -> None:
    draft.remember(evaluating=False)
    if scoring.brought(draft.state):
        scoring.on_own(draft, event)
        return
    if event.version not in draft.state.versions:
        newest = draft.state.newest
        if newest is None or event.version > newest.version:
            return  # the run went back beyond it meanwhile
    draft.add(
        VersionEvaluated(event.version, event.loss, event.accuracy, event.started, event.cost)
    )


def _on_final(draft: Draft, event: FinalScored) -> None:
    if scoring.brought(draft.state):
        draft.add(scoring.last_scores(draft.state, event.test_loss, event.test_accuracy))
        return
    draft.add(RunScored(*msgspec.structs.astuple(event)))


# --- who comes and goes -------------------------------------------------------------------------


def _on_hello(draft: Draft, event: HelloReceived) -> None:
    draft.take(event.position)
    knock = event.hello
    refusal = draft.rules.hello(draft.state, knock)
    known = refusal is not None and refusal.code == "known"
    if known or knock.incarnation in draft.soft.refused:
        return  # one that was refused has left: its second knock would admit a ghost
    if refusal is not None or not draft.rules.running(draft.state):
        reason = refusal or Reason("run-stopped")
        draft.add(WorkerRefused(knock.worker, knock.nonce, reason))
        draft.remember(refused=(*draft.soft.refused[-REFUSED:], knock.incarnation))
        draft.note = f"{knock.worker} is refused: {reason.code}"
        return
    old = draft.state.members.get(knock.worker)
    if old is not None and old.status == "alive":
        _dismiss(draft, old, REPLACED)
    who = (knock.worker, knock.incarnation, knock.nonce, knock.software, knock.own)
    told = admission(draft.state, *who)
    draft.add(told)
    draft.soft = missing.admitted(draft.soft, knock.worker, draft.now)
    place = draft.rules.resume(draft.state, f"from.{knock.worker}")
    draft.actions.append(FollowWorker(knock.worker, place))
    draft.note = f"{knock.worker} is admitted"
    if told.pool != NONE:
        draft.note += f", and trains on pool {told.pool}"


def _dismiss(draft: Draft, member: Member, why: str, *, unable: bool = False) -> None:
    returned = draft.rules.release(member, why)
    if returned is not None:
        draft.add(returned)
    draft.add(WorkerLeft(member.name, why, unable))


def _on_chunk(draft: Draft, event: ChunkSeen) -> None:
    draft.remember(storing=draft.soft.storing | {event.worker})
    missing.heard(draft, event.worker)


def _on_topic_read(draft: Draft, event: TopicRead) -> None:
    if event.worker not in draft.soft.reading:
        return
    draft.remember(reading=draft.soft.reading - {event.worker})
    missing.declare_lost(draft, event.worker, read_to_end=True)


def _on_tick(draft: Draft, _event: Ticked) -> None:
    missing.look(draft)


def _on_stop_received(draft: Draft, event: StopReceived) -> None:
    draft.take(event.position)
    _stop(draft, "stopped", Reason("requested", {"by": event.request.reason}))


def _on_broker_back(draft: Draft, _event: BrokerBack) -> None:
    # What it acknowledged may be gone. What it stored may be, too: it is asked again.
    draft.remember(secured=False, doubted=draft.soft.merge is not None or draft.soft.storing_first)


def _on_tail_missing(draft: Draft, event: TailMissing) -> None:
    written_again = event.topic == "ledger"
    if written_again and draft.state.stopped is None:
        draft.add(TailLost(event.topic, event.reason))
        draft.note = "The broker had lost the end of the ledger: it was written again"
    elif event.topic in draft.state.consumed and draft.state.stopped is None:
        draft.add(TailLost(event.topic, event.reason))
        draft.note = f"The broker has lost the end of {event.topic}: it is read from its start"


def _on_stop_asked(draft: Draft, event: StopAsked) -> None:
    _stop(draft, event.status, event.reason)


def _stop(draft: Draft, status: str, reason: Reason) -> None:
    if draft.state.stopped is None:
        draft.add(RunStopped(status, reason))
        draft.note = f"Stopping: {reason.code}"


# --- what workers say ---------------------------------------------------------------------------


def _on_envelope(draft: Draft, event: EnvelopeReceived) -> None:
    member = draft.state.members.get(event.worker)
    envelope = event.envelope
    if member is None or not draft.rules.speaks_for(member, envelope.sender):
        if not isinstance(envelope.body, Moved):
            _pass(draft, event)
        suspect.foreign(draft, event, member)
        return
    body = envelope.body
    missing.heard(draft, event.worker, missing.steps_in(body))
    if not draft.rules.running(draft.state):
        _after_stop(draft, event, member)
        return
    taken = member.taken.get(envelope.sender, 0)
    if isinstance(body, Heartbeat):
        _pass(draft, event)
        if draft.rules.overdue(taken, body.last):
            _ask_again(draft, member, taken + 1)
        return
    if isinstance(body, Moved):
        return  # never consumed: whoever reads on behind it would wait where nothing comes
    answer = draft.rules.order(taken, envelope.number)
    if answer == "gap":
        _pass(draft, event)
        _ask_again(draft, member, taken + 1)
    elif answer == "repeat":
        _pass(draft, event)
        suspect.repeated(draft)
    else:
        draft.remember(storing=draft.soft.storing - {event.worker})
        BODIES[type(envelope.body)](draft, event.worker, envelope.body, event.position)
        draft.take(event.position, envelope.sender, envelope.number)


def _pass(draft: Draft, event: EnvelopeReceived) -> None:
    """Nothing is taken here. While an update is being stored its chunks lie before this place: they
    are needed, and are read again after a restart, so that the place stays before them."""
    if event.worker not in draft.soft.storing and not _behind(draft, event):
        draft.take(event.position)


def _after_stop(draft: Draft, event: EnvelopeReceived, member: Member) -> None:
    """Who leaves has left, and who was asked has answered. Nothing else is taken, nor its number:
    if the run is opened again, an update that came too late is still owed."""
    body = event.envelope.body
    if isinstance(body, Scored):  # an answer is known by its question: its place need not be
        scoring.on_scored(draft, event.worker, body, event.position)
    if isinstance(body, Bye) and member.status != "left":
        _on_bye(draft, event.worker, body, event.position)
        if not _behind(draft, event):
            draft.take(event.position)


def _behind(draft: Draft, event: EnvelopeReceived) -> bool:
    """Whether it lies before what was read there: a broker has lost the topic's end after the run
    had stopped, and nobody wrote that into the ledger."""
    read_to = draft.state.consumed.get(event.position.topic)
    stopped = draft.state.stopped is not None
    return stopped and read_to is not None and event.position <= read_to


def _ask_again(draft: Draft, member: Member, first: int) -> None:
    if not draft.rules.asks(first, draft.soft.asked.get(member.name, (0, 0)), draft.now):
        return
    draft.remember(asked={**draft.soft.asked, member.name: (first, draft.now)})
    draft.add(ResendAsked(member.name, member.incarnation, first))


def _on_round(draft: Draft, worker: str, body: Round, at: Position) -> None:
    draft.add(
        RoundNoted(
            worker,
            body.round,
            body.base,
            body.steps,
            body.samples,
            body.busy,
            body.waited,
            body.loss,
            body.verdict,
            body.reason,
            body.finished,
            body.moved,
            body.trainer,
            body.upon,
        )
    )
    if body.update is not None:
        _on_update(draft, worker, body.update, at, resent=False)
    missing.finished_round(draft, worker, body.busy + body.waited)
    sizing.resize(draft, worker)


def _on_resent(draft: Draft, worker: str, body: Resent, at: Position) -> None:
    _on_update(draft, worker, body.update, at, resent=True)


def _on_update(draft: Draft, worker: str, update: Update, at: Position, *, resent: bool) -> None:
    if suspect.false_birth(draft, worker, update, at, resent=resent):
        return
    draft.add(UpdateTaken(worker, update))
    refusal = refused(draft, worker, update, at)
    if refusal is not None:
        suspect.refuse(draft, worker, update, refusal)


def refused(draft: Draft, worker: str, update: Update, at: Position) -> Reason | None:
    """Why an update whose message lies at `at` is rejected as soon as it comes, or None."""
    state = draft.state
    assert state.newest is not None
    refusal = check_staleness(state.settings.merge, state.newest.version - update.oldest)
    if not draft.rules.known_base(state, update):
        facts: Facts = {"base": update.base.version}
        code = "unknown-base"
        if update.base.version > state.newest.version:
            code, facts = "from-the-future", {**facts, "newest": state.newest.version}
        refusal = Reason(code, facts)
    if update.codec != (wanted := state.settings.codec.up):
        refusal = Reason("wrong-codec", {"codec": update.codec[:SHOWN], "wanted": wanted})
    return draft.rules.malformed(update, worker, at, state.newest) or refusal


def _on_bye(draft: Draft, worker: str, body: Bye, at: Position) -> None:
    del at
    _dismiss(draft, draft.state.members[worker], body.reason, unable=body.failed)
    draft.note = f"{worker} {'cannot train' if body.failed else 'says bye'}: {body.reason}"


BODIES: dict[type, Callable[[Draft, str, Any, Position], None]] = {
    Round: _on_round,
    Resent: _on_resent,
    Bye: _on_bye,
    Scored: scoring.on_scored,
}

HANDLERS: dict[type, Callable[[Draft, Any], None]] = {
    Opened: _on_opened,
    DataStored: _on_data,
    VersionStored: _on_version_stored,
    MergeFailed: _on_merge_failed,
    UpdateScored: _on_update_scored,
    EvaluationFinished: _on_evaluated,
    FinalScored: _on_final,
    HelloReceived: _on_hello,
    StopReceived: _on_stop_received,
    EnvelopeReceived: _on_envelope,
    ChunkSeen: _on_chunk,
    TopicRead: _on_topic_read,
    BrokerBack: _on_broker_back,
    TailMissing: _on_tail_missing,
    VersionsSecured: repair.on_secured,
    StateStored: repair.on_stored,
    StateRestored: repair.on_restored,
    GenerationAdded: keeping.on_generation,
    LogsRead: keeping.on_logs,
    StopAsked: _on_stop_asked,
    Ticked: _on_tick,
}
"""Event -> its handler. A test asserts that every event of the master is here."""
