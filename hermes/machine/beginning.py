"""What comes before training? The data, version 0, and those who are expected. Pure."""

from __future__ import annotations

from hermes.machine.admission import admission
from hermes.machine.draft import Draft
from hermes.machine.events import FollowLobby, StoreFirst, UploadData
from hermes.machine.stopping import nobody_can
from hermes.messages import RunStopped, TrainingStarted


def prepare(draft: Draft) -> None:
    """Before anybody is admitted, the data and version 0 lie in the log."""
    state, soft = draft.state, draft.soft
    if state.stopped is not None:
        return
    if state.data is None and not soft.uploading:
        draft.remember(uploading=True)
        draft.actions.append(UploadData())
    elif state.data is not None and state.newest is None and not soft.storing_first:
        draft.remember(storing_first=True)
        draft.actions.append(StoreFirst(state.settings.codec.down))
    if state.newest is not None and not soft.lobby:
        draft.remember(lobby=True)
        draft.actions.append(FollowLobby(draft.rules.resume(state, "lobby")))


def start(draft: Draft) -> None:
    """Training starts once as many as are expected have come."""
    state = draft.state
    if state.started is None and state.newest is not None and state.stopped is None:
        assert state.opened is not None
        alive = len(state.alive())
        came = alive + sum(member.unable for member in state.members.values())
        if alive and came >= state.opened.expect:
            draft.add(TrainingStarted(alive))
            draft.note = draft.note or f"Training starts with {alive} workers"


def readmit(draft: Draft) -> None:
    """A master of a new term admits anew those that an older one admitted (protocol 6)."""
    state = draft.state
    if state.newest is None:
        return
    term, readmit = state.authority.term, draft.rules.readmit
    older = [name for name, member in state.members.items() if readmit(member, term)]
    for name in sorted(older):
        member = state.members[name]
        who = (name, member.incarnation, "", member.software, member.own)
        draft.add(admission(draft.state, *who))


def give_up(draft: Draft) -> None:
    """Where all who were expected came, and none of them can train, the run stops."""
    if draft.state.stopped is None and (reason := nobody_can(draft.state)) is not None:
        draft.add(RunStopped("failed", reason))
        draft.note = f"Stopping: {reason.code}"
