"""What may be missing, and how is it had again? After a restart or an outage. Pure.

A broker may have lost what it had acknowledged, and a new master holds no tensors. So before
anything is made of a version its bytes are looked at (`SecureVersions`), and what the master itself
holds beside it (momentum) is formed again (`RestoreState`). Protocol 7.
"""

from __future__ import annotations

from hermes.machine.draft import Draft
from hermes.machine.events import (
    Part,
    Recipe,
    RestoreState,
    SaveState,
    SecureVersions,
    StateRestored,
    StateStored,
    VersionsSecured,
)
from hermes.machine.state import MasterState
from hermes.messages import (
    Republished,
    Rewound,
    RunStopped,
    StateReset,
    StateSaved,
    UpdateRejected,
    VersionPublished,
)
from hermes.policy import retention
from hermes.policy.outer import keeps_momentum
from hermes.policy.weigh import MergeSettings
from hermes.values import Facts, Reason

NOTHING_LEFT = "no-version-readable"
"""Why a run has stopped that has no version left to score."""


def stateful(merge: MergeSettings) -> bool:
    """Whether the master holds tensors that the published bytes do not decode to."""
    return keeps_momentum(merge)


def sound(draft: Draft) -> bool:
    """Whether something may be made of the newest version now."""
    soft, newest = draft.soft, draft.state.newest
    if newest is None or not soft.secured:
        return False
    return not stateful(draft.state.settings.merge) or soft.state_of == newest.version


def duties(draft: Draft) -> None:
    """Look at what may be missing; have it again; save what a restart would have to form."""
    state, soft = draft.state, draft.soft
    if state.newest is None or (state.stopped is not None and state.scored):
        return
    if not soft.secured:
        if not soft.securing:
            draft.remember(securing=True)
            draft.actions.append(_secure(state))
        return
    if stateful(state.settings.merge) and state.stopped is None:
        _have_state(draft, state.newest)


def recipes(state: MasterState, after: int) -> tuple[Recipe, ...]:
    """How the versions after this one are made, as far as it is known, in order."""
    found: list[Recipe] = []
    for number in sorted(state.recipes):
        recipe = _recipe(state, number) if number > after else None
        if recipe is not None:
            found.append(recipe)
    return tuple(found)


def _recipe(state: MasterState, number: int) -> Recipe | None:
    version, pending = state.versions[number], state.recipes[number]
    bases = [state.versions.get(p.update.base.version) for p in pending]
    parts = tuple(
        Part(p.worker, p.update, member.weight, base.payload)
        for p, member, base in zip(pending, version.members, bases, strict=True)
        if base is not None
    )
    return Recipe(version, parts) if parts and len(parts) == len(pending) else None


# --- versions -----------------------------------------------------------------------------------


def _secure(state: MasterState) -> SecureVersions:
    """The newest version, those before it without a gap, and how each was made."""
    assert state.newest is not None
    back: list[VersionPublished] = []
    number = state.newest.version
    while number in state.versions:
        back.append(state.versions[number])
        number -= 1
    return SecureVersions(tuple(back), recipes(state, number + 1), state.snapshots)


def on_secured(draft: Draft, event: VersionsSecured) -> None:
    """Say what was made again, and what could not be."""
    state = draft.state
    assert state.newest is not None
    # A merge that was under way may have come to a version that was not looked at.
    looked_at = event.asked == state.newest.version
    draft.remember(securing=False, secured=looked_at)
    for number, payload in event.republished:
        if number in state.versions:
            draft.add(Republished(number, payload))
            draft.note = f"Version {number} was lost by the broker: it is published again"
    if looked_at and event.last < state.newest.version:
        _rewind(draft, event)


def _rewind(draft: Draft, event: VersionsSecured) -> None:
    state, last = draft.state, event.last
    assert state.newest is not None
    facts: Facts = {"version": state.newest.version, "to": last, "why": event.why[:300]}
    if last not in state.versions:
        if state.stopped is None:
            draft.add(RunStopped("failed", Reason(NOTHING_LEFT, facts)))
        return
    for pending in state.pending:
        if pending.update.base.version > last:
            why = Reason("base-lost", {"base": pending.update.base.version})
            draft.add(UpdateRejected(pending.worker, pending.update.birth, why))
    dropped = tuple(range(last + 1, state.newest.version + 1))
    lost = tuple(part for number in dropped for part in state.versions[number].members)
    draft.add(Rewound(state.versions[last], dropped, lost, Reason("lost", facts)))
    draft.remember(state_of=-1, merge=None, scored=None)
    draft.note = (
        f"Versions {dropped[0]} .. {dropped[-1]} were lost by the broker and cannot be made again "
        f"({event.why}): the run goes on from version {last}"
    )


# --- what the master itself holds ---------------------------------------------------------------


def _have_state(draft: Draft, newest: VersionPublished) -> None:
    state, soft = draft.state, draft.soft
    if soft.merge is not None or soft.restoring:
        return
    if soft.state_of != newest.version:
        # Before the second snapshot it is version 0 that the first one falls back on.
        first = state.snapshots[-1].version if len(state.snapshots) > 1 else -1
        draft.remember(restoring=True)
        kept = tuple(state.versions[number] for number in sorted(state.versions))
        draft.actions.append(RestoreState(newest, state.snapshots, recipes(state, first), kept))
        return
    apart = retention.stretch(state.settings.retention)
    if not soft.saving and newest.version - _saved(state) >= apart:
        draft.remember(saving=True)
        draft.actions.append(SaveState(newest))


def _saved(state: MasterState) -> int:
    """The version of the newest snapshot, or at which there was nothing to save."""
    if state.snapshots:
        return state.snapshots[0].version
    return state.forked.version if state.forked is not None else 0


def on_stored(draft: Draft, event: StateStored) -> None:
    """A snapshot counts once it is in the ledger."""
    draft.remember(saving=False)
    if event.version in draft.state.versions and event.version > _saved(draft.state):
        draft.add(StateSaved(event.version, event.payload))


def on_restored(draft: Draft, event: StateRestored) -> None:
    """What the master holds is as it was, or begins anew, which is said."""
    newest = draft.state.newest
    draft.remember(restoring=False)
    if newest is None or event.version != newest.version:
        return
    draft.remember(state_of=event.version)
    if event.lost and draft.state.stopped is None:
        draft.add(StateReset(event.version, Reason("state-lost", {"why": event.lost[:300]})))
        # Nobody may later find what came before the reset, and go on from that.
        draft.remember(saving=True)
        draft.actions.append(SaveState(newest))
        draft.note = (
            f"The momentum at version {event.version} is lost ({event.lost}): it begins anew"
        )
