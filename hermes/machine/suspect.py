"""Which messages should not have come, though they can be read? Pure.

Much comes twice in this protocol and is no offence: what a log delivers again, what a worker sends
again since it was asked to or since its link broke, a whole topic that is read from its start. All
of that bears numbers that were taken before. What is told apart here bears new ones.
"""

from __future__ import annotations

from hermes.machine.apply import UNUSABLE
from hermes.machine.draft import Draft
from hermes.machine.events import EnvelopeReceived, SetAside
from hermes.machine.state import Member
from hermes.messages import Update, UpdateRejected
from hermes.values import Birth, Facts, Position, Reason

POISON = frozenset(
    {
        *UNUSABLE,
        *("wrong-names", "wrong-shape", "wrong-dtype", "wrong-codec"),
        *("malformed", "unreadable", "unknown-base", "from-the-future"),
    }
)
"""Why an update was rejected that should not have come: its evidence is kept."""

SHOWN = 40
"""Letters of a name that a peer has given."""


def refuse(draft: Draft, worker: str, update: Update, reason: Reason) -> None:
    """This update will never be merged; what is no honest lateness is kept apart."""
    draft.add(UpdateRejected(worker, update.birth, reason))
    if reason.code in POISON:
        place = update.payload
        at = Position(place.topic, place.generation, place.last)
        _set_aside(draft, at, reason, worker, update)


def repeated(draft: Draft) -> None:
    """A message came again, as it may: it is counted, no more."""
    draft.remember(repeats=draft.soft.repeats + 1)


def foreign(draft: Draft, event: EnvelopeReceived, member: Member | None) -> None:
    """A message of none that may speak for this worker. What an incarnation before sent while it
    was in force is no offence, nor is a beat of one that has not yet seen that it is replaced."""
    sender, number = event.envelope.sender, event.envelope.number
    before = member.taken.get(sender) if member is not None else None
    if before is not None and number <= before:
        repeated(draft)
        return
    facts: Facts = {"sender": sender[:SHOWN], "number": number}
    if member is not None:
        facts["in_force"] = member.incarnation[:SHOWN]
    code = "unknown-sender" if before is None else "fenced-sender"
    _set_aside(draft, event.position, Reason(code, facts), event.worker)


def false_birth(draft: Draft, worker: str, update: Update, at: Position, *, resent: bool) -> bool:
    """Whether this update is none of its worker's own, or was taken before; then it is kept apart.
    The message that it comes in is a new one: one sent again is told by its number."""
    member, birth = draft.state.members[worker], update.birth
    if not draft.rules.unborn(member, birth):
        code = "repeated-birth"
    elif not _own(member, birth, resent=resent):
        code = "false-birth"
    else:
        return False
    facts: Facts = {"incarnation": birth.incarnation[:SHOWN], "number": birth.number}
    _set_aside(draft, at, Reason(code, facts), worker, update)
    return True


def _own(member: Member, birth: Birth, *, resent: bool) -> bool:
    """True if an update was born where it says: in this very message or, where it is sent again,
    in an incarnation of this worker before."""
    if birth == Birth(member.incarnation, member.taken.get(member.incarnation, 0) + 1):
        return True
    before = birth.incarnation in member.taken and birth.incarnation != member.incarnation
    return resent and before


def _set_aside(
    draft: Draft, at: Position, reason: Reason, worker: str, update: Update | None = None
) -> None:
    draft.actions.append(SetAside(at, reason, worker, update))
