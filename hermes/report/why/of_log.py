"""What became of the run's own log? Repairs, retention, forks and reopening, told and recomputed.
Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hermes.machine import scoring
from hermes.machine.keeping import extents
from hermes.machine.state import MasterState
from hermes.messages import (
    Entry,
    EvaluationAsked,
    Forked,
    Republished,
    Rewound,
    Rotated,
    RunReopened,
    ScoreNoted,
    StateReset,
    StateSaved,
    TailLost,
    Trimmed,
)
from hermes.report.why.decided import Decision
from hermes.report.why.phrases import Say, Setting, Told, fact, when
from hermes.report.why.recompute import FROM_OUTSIDE, OWN_WORD, Check, compare, unsettled
from hermes.report.words import count, counted
from hermes.values import Position, Reason

LOST = "what a broker has lost is seen by whoever looks for it, and recorded"
STORED = "where something was stored is recorded"


class Note(NamedTuple):
    """How an entry is told."""

    kind: str
    details: Callable[[MasterState, Any], dict[str, Any]]
    check: Callable[[MasterState, Any], Check]


def _reopened(state: MasterState, entry: RunReopened) -> dict[str, Any]:
    had = state.stopped.code if state.stopped is not None else None
    return {"had_stopped": had, "changes": dict(entry.reason.facts), "expect": entry.expect}


def _rewound(_state: MasterState, entry: Rewound) -> dict[str, Any]:
    lost = [f"{part.worker}: {part.birth.number}" for part in entry.lost]
    return {"to": entry.version.version, "dropped": list(entry.dropped), "lost": lost}


def _rewound_check(state: MasterState, entry: Rewound) -> Check:
    """It drops all versions above the one it goes back to, and names all that they held."""
    assert state.newest is not None
    dropped = tuple(range(entry.version.version + 1, state.newest.version + 1))
    held = [part.birth for number in dropped for part in state.versions[number].members]
    recorded = {"dropped": str(entry.dropped), "lost": str([p.birth for p in entry.lost])}
    return compare(recorded, {"dropped": str(dropped), "lost": str(held)})


def _republished(state: MasterState, entry: Republished) -> Check:
    known = state.versions[entry.version].payload.digest
    return compare({"digest": entry.payload.digest}, {"digest": known})


def _trimmed(state: MasterState, entry: Trimmed) -> Check:
    """Nothing that is needed lies before the place."""
    found = extents(state, None).get(entry.topic)
    if found is None:
        return unsettled("how far the central log was read is not recorded")
    place = Position(entry.topic, entry.generation, entry.before)
    return compare({"not needed": True}, {"not needed": place <= found.floor})


def _rotated(state: MasterState, entry: Rotated) -> Check:
    following = state.generations.get(entry.topic, 0) + 1
    return compare({"generation": entry.generation}, {"generation": following})


def _place(_state: MasterState, entry: Any) -> dict[str, Any]:
    before = getattr(entry, "before", None)
    return {"topic": entry.topic, "generation": entry.generation, "before": before}


def _version(_state: MasterState, entry: Any) -> dict[str, Any]:
    return {"of_version": entry.version}


def _forked(_state: MasterState, entry: Forked) -> dict[str, Any]:
    changes = {key: str(value) for key, value in entry.changes.items()}
    return {"parent": entry.parent, "of_version": entry.version, "changes": changes}


def _asked(_state: MasterState, entry: EvaluationAsked) -> dict[str, Any]:
    return {"of_version": entry.version, "workers": [_who(name) for name in entry.workers]}


def _asked_check(state: MasterState, entry: EvaluationAsked) -> Check:
    """The newest version, and everybody alive, who owes no other answer."""
    assert state.newest is not None
    workers = (*([scoring.MASTER] if scoring.central(state) else []), *state.alive())
    recorded = {"version": entry.version, "workers": str(entry.workers), "free": True}
    free = state.asked is None
    return compare(
        recorded, {"version": state.newest.version, "workers": str(workers), "free": free}
    )


def _answer(_state: MasterState, entry: ScoreNoted) -> dict[str, Any]:
    sums = {"loss_sum": entry.loss_sum, "correct": entry.correct, "n": entry.n}
    return {"of_version": entry.version, "who": _who(entry.worker), **sums}


def _who(name: str) -> str:
    return "the master's own set" if name == scoring.MASTER else name


NOTES: dict[type, Note] = {
    RunReopened: Note("reopened", _reopened, lambda _s, _e: unsettled(FROM_OUTSIDE)),
    Forked: Note("forked", _forked, lambda _s, _e: unsettled(FROM_OUTSIDE)),
    StateSaved: Note("saved", _version, lambda _s, _e: unsettled(STORED)),
    StateReset: Note("reset", _version, lambda _s, _e: unsettled(LOST)),
    Republished: Note("republished", _version, _republished),
    Rewound: Note("rewound", _rewound, _rewound_check),
    TailLost: Note("tail", lambda _s, e: {"topic": e.topic}, lambda _s, _e: unsettled(LOST)),
    Trimmed: Note("trimmed", _place, _trimmed),
    Rotated: Note("rotated", _place, _rotated),
    EvaluationAsked: Note("asked", _asked, _asked_check),
    ScoreNoted: Note("answered", _answer, lambda _s, _e: unsettled(OWN_WORD)),
}
"""Entry -> how it is told."""


def reason_of(entry: Entry, kind: str) -> Reason:
    """Its own reason, where it has one."""
    found = getattr(entry, "reason", None)
    return found if isinstance(found, Reason) else Reason(kind)


# --- in words -------------------------------------------------------------------------------------


def _say_reopened(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    had = details["had_stopped"]
    begin = f"It had stopped ({had}), and goes on" if had else "It goes on"
    settings = ", ".join(f"{key}={fact(value)}" for key, value in details["changes"].items())
    body = f"{begin}{f' with {settings}' if settings else ', with the settings it had'}."
    return Told("reopened", f"run reopened, {when(decision, setting)}", body)


def _say_forked(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    changes = ", ".join(f"{key}={value}" for key, value in details["changes"].items())
    body = f"It began where {details['parent']} stood at version {details['of_version']}"
    return Told(
        "forked",
        f"forked, {when(decision, setting)}",
        f"{body}{f', with {changes}' if changes else ', with nothing changed'}.",
    )


def _say_saved(decision: Decision, setting: Setting) -> Told:
    body = "What the master holds beside the model is stored, so that a restart has it again."
    return Told("saved", f"momentum saved, {when(decision, setting)}", body)


def _say_reset(decision: Decision, setting: Setting) -> Told:
    why = decision.reason.facts.get("why", "")
    body = f"What the master held beside the model could not be had again ({why}): it begins anew."
    return Told("reset", f"momentum lost, {when(decision, setting)}", body)


def _say_republished(decision: Decision, setting: Setting) -> Told:
    number = decision.details["of_version"]
    body = f"The broker had lost version {number}: the very same bytes were stored again."
    return Told("republished", f"version {number} republished, {when(decision, setting)}", body)


def _say_rewound(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    body = (
        f"The broker had lost versions {details['dropped'][0]} .. {details['dropped'][-1]}, and "
        f"they could not be made again ({decision.reason.facts.get('why', '')}). "
        f"{counted(len(details['lost']), 'update')} went with them."
    )
    return Told("rewound", f"back to version {details['to']}, {when(decision, setting)}", body)


def _say_tail(decision: Decision, setting: Setting) -> Told:
    topic, facts = decision.details["topic"], decision.reason.facts
    if topic == "ledger":
        records = facts.get("records", 0)
        body = f"The broker had lost its last records: {records} were written again."
    else:
        body = (
            f"It had been read to offset {facts.get('read_to')}, and ended at {facts.get('end')}: "
            "it was read from its start, and the messages' numbers decided."
        )
    return Told("tail lost", f"the end of {topic} was lost, {when(decision, setting)}", body)


def _say_trimmed(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    before, generation = details["before"], details["generation"]
    where = f"before offset {count(before)}" if before else f"before generation {generation}"
    body = f"Nobody needed what lies {where} of it any more (retention.keep)."
    return Told("trimmed", f"{details['topic']} trimmed, {when(decision, setting)}", body)


def _say_rotated(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    body = f"It goes on in generation {details['generation']}; the one before goes once it is read."
    return Told("rotated", f"{details['topic']} rotated, {when(decision, setting)}", body)


def _say_asked(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    title = f"asked what version {details['of_version']} is worth, {when(decision, setting)}"
    body = f"The data lie with the workers: {', '.join(details['workers'])}."
    return Told("asked", title, body)


def _say_answered(decision: Decision, setting: Setting) -> Told:
    details, n = decision.details, decision.details["n"]
    title = f"{details['who']} on version {details['of_version']}, {when(decision, setting)}"
    if not n:
        return Told("answered", title, "No answer that counts: it could not be read, or cannot be.")
    right = "" if details["correct"] is None else f", metric {fact(details['correct'])}"
    body = f"Over {counted(n, 'sample')}: sum of losses {fact(details['loss_sum'])}{right}."
    return Told("answered", title, body)


SAY: dict[str, Say] = {
    "asked": _say_asked,
    "answered": _say_answered,
    "reopened": _say_reopened,
    "forked": _say_forked,
    "saved": _say_saved,
    "reset": _say_reset,
    "republished": _say_republished,
    "rewound": _say_rewound,
    "tail": _say_tail,
    "trimmed": _say_trimmed,
    "rotated": _say_rotated,
}
"""Kind -> its sentences."""
