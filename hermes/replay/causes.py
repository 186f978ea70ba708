"""What has happened, that a master wrote this? The event behind an entry of the ledger. Pure.

What comes from outside is given: who knocked, what a worker said, how long an evaluation took,
who was not heard in time. Everything else the machine has to decide again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hermes.machine.events import (
    DataStored,
    EnvelopeReceived,
    EvaluationFinished,
    Event,
    FinalScored,
    HelloReceived,
    MergeFailed,
    Opened,
    StopAsked,
    TopicRead,
)
from hermes.machine.master import REPLACED
from hermes.machine.state import MasterState
from hermes.messages import (
    BlocksReturned,
    Bye,
    DataPublished,
    Entry,
    Envelope,
    Hello,
    LedgerRecord,
    Republished,
    ResendAsked,
    Resent,
    Rotated,
    Round,
    RoundNoted,
    RunOpened,
    RunReopened,
    RunScored,
    RunStopped,
    TailLost,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    WorkerAdmitted,
    WorkerBack,
    WorkerBody,
    WorkerLeft,
    WorkerLost,
    WorkerRefused,
)
from hermes.values import Position

NUDGE = TopicRead("")
"""Nothing has happened: the machine looks at what is due."""

AS_IT_IS = (WorkerRefused, WorkerLost, WorkerBack, ResendAsked, TailLost, Republished, Rotated)
"""Entries about the world outside: what is silent, lost or away cannot be asked again."""

BY_RULE = ("accuracy", "loss", "patience", "samples", "versions", "seconds", "diverged")
"""Why a run stops by a rule of its own."""

UNREADABLE = ("unreadable", "base-unreadable")
"""Why an update is rejected that the broker has lost."""


class Scene(NamedTuple):
    """Where an entry stands."""

    entries: Sequence[Entry]
    """Those of its record that are not accounted for yet, it first."""
    record: LedgerRecord
    state: MasterState
    """Before it."""
    merging: int | None
    """The version under way."""


def cause(scene: Scene) -> Event | None:
    """The event behind the first of these entries; None: it is taken as it is. `NUDGE` where
    nothing from outside stands behind it."""
    entry = scene.entries[0]
    if isinstance(entry, AS_IT_IS) or _goes_back_with_the_lost(scene):
        return None
    if isinstance(entry, RunOpened):
        return Opened(entry)
    if isinstance(entry, DataPublished):
        return DataStored(entry)
    if isinstance(entry, RoundNoted):
        return _round(scene, entry)
    if isinstance(entry, UpdateTaken):
        return _said(scene, entry.worker, Resent(entry.update), entry.update.payload.last)
    if isinstance(entry, VersionEvaluated):
        of = entry.version, entry.loss, entry.accuracy, entry.started, entry.cost
        return EvaluationFinished(*of)
    if isinstance(entry, RunScored):
        return FinalScored(*(getattr(entry, name) for name in entry.__struct_fields__))
    if isinstance(entry, RunStopped):
        return NUDGE if entry.reason.code in BY_RULE else StopAsked(entry.status, entry.reason)
    if isinstance(entry, UpdateRejected) and entry.reason.code in UNREADABLE:
        return MergeFailed(scene.merging or 0, entry.birth, entry.reason)
    return _who_comes_or_goes(scene) or NUDGE


def _goes_back_with_the_lost(scene: Scene) -> bool:
    """Blocks of a worker that the next entry counts as lost."""
    entry, rest = scene.entries[0], scene.entries[1:2]
    if not isinstance(entry, BlocksReturned) or not rest:
        return False
    return isinstance(rest[0], WorkerLost) and rest[0].worker == entry.worker


def _who_comes_or_goes(scene: Scene) -> Event | None:
    for entry in scene.entries[:3]:
        if isinstance(entry, WorkerAdmitted):
            return _hello(scene, entry) if entry.hello else None
        if isinstance(entry, WorkerLeft):
            if entry.reason == REPLACED:
                continue  # by whoever is admitted next
            return _said(scene, entry.worker, Bye(entry.reason, failed=entry.unable))
        if not isinstance(entry, BlocksReturned):
            return None
    return None


def _hello(scene: Scene, entry: WorkerAdmitted) -> HelloReceived:
    member = scene.state.members.get(entry.worker)
    software = entry.software or entry.opened.software
    previous = member.incarnation if member is not None else ""
    of = entry.opened.run, entry.worker, entry.incarnation, entry.hello, software, previous
    return HelloReceived(_position(scene, "lobby"), Hello(*of))


def _round(scene: Scene, entry: RoundNoted) -> EnvelopeReceived:
    """As the worker sent it; what it pushed stands in the next entry."""
    following = scene.entries[1] if len(scene.entries) > 1 else None
    known = {
        name: getattr(entry, name) for name in RoundNoted.__struct_fields__ if name != "worker"
    }
    pushed = isinstance(following, UpdateTaken) and following.worker == entry.worker
    if isinstance(following, UpdateTaken) and pushed and entry.verdict == "push":
        update = following.update
        body = Round(**known, probe=None, update=update)
        return _said(scene, entry.worker, body, update.payload.last)
    return _said(scene, entry.worker, Round(**known, probe=None))


def _said(scene: Scene, worker: str, body: WorkerBody, after: int = -1) -> EnvelopeReceived:
    """A message of this worker, the next one; what it names lies up to offset `after`."""
    member = scene.state.members[worker]
    at = _position(scene, f"from.{worker}")
    at = Position(at.topic, at.generation, max(at.offset, after + 1))
    number = member.taken.get(member.incarnation, 0) + 1
    envelope = Envelope(member.incarnation, number, -1, b"", body)
    return EnvelopeReceived(worker, at, envelope)


def _position(scene: Scene, topic: str) -> Position:
    """Where the record says that this topic is read to."""
    for consumed in scene.record.consumed:
        if consumed.position.topic == topic:
            return consumed.position
    return scene.state.consumed.get(topic, Position(topic, 0, 0))


def reopened(entries: Sequence[Entry]) -> RunReopened | None:
    """What a master that starts again was told, if it writes that first."""
    first = entries[0] if entries else None
    return first if isinstance(first, RunReopened) else None
