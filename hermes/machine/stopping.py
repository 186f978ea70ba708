"""When is the run finished? The first stopping rule that holds. Pure."""

from __future__ import annotations

from hermes.machine.state import MasterState
from hermes.values import SECOND, Facts, Reason


def stopping_rule(state: MasterState, now: int) -> Reason | None:
    """The rule that holds, with its facts; None if none does."""
    stop, known = state.settings.stop, state.evaluations
    assert state.newest is not None
    assert state.started is not None
    loss, accuracy = known.last_loss, known.last_accuracy
    since = known.best.since if known.best else 0
    seconds = (now - state.started) / SECOND
    if stop.accuracy is not None and accuracy is not None and accuracy >= stop.accuracy:
        return Reason("accuracy", {"accuracy": accuracy, "limit": stop.accuracy})
    if stop.loss is not None and loss is not None and loss <= stop.loss:
        return Reason("loss", {"loss": loss, "limit": stop.loss})
    reached: tuple[tuple[str, str, float, float | None], ...] = (
        ("patience", "evaluations", since, stop.patience),
        ("samples", "samples", state.newest.samples, stop.samples),
        ("versions", "version", state.newest.version, stop.versions),
        ("seconds", "seconds", seconds, stop.seconds),
    )
    for code, name, value, most in reached:
        if most is not None and value >= most:
            told = round(value, 3) if code == "seconds" else value
            return Reason(code, {name: told, "limit": most})
    return None


TRIES = 5
"""Rounds of each worker alive that has work whose numbers are of no use, until the run counts as
diverged."""


def diverged(state: MasterState) -> Reason | None:
    """Whether all that comes is NaN, infinite or absurdly far away, round after round, and from
    everybody: no version will ever be made of it."""
    if state.unusable < TRIES:
        return None
    working = state.working()
    if state.unusable < TRIES * max(1, len(working)):
        return None
    if not all(state.members[name].unusable for name in working):
        return None  # one who floods the others with NaN does not end their run
    assert state.newest is not None
    return Reason("diverged", {"rounds": state.unusable, "version": state.newest.version})


def nobody_can(state: MasterState) -> Reason | None:
    """Whether all who were expected came, tried the job and left: nobody is waited for.

    A worker that was lost, or left for another reason, may come back.
    """
    unable = [member for _, member in sorted(state.members.items()) if member.unable]
    if not unable or len(unable) < len(state.members) or state.opened is None:
        return None
    if state.started is None and len(unable) < state.opened.expect:
        return None
    facts: Facts = {"workers": len(unable), "worker": unable[0].name, "why": unable[0].last.code}
    return Reason("no-worker-can-train", facts)


def progress(state_samples: int, limit: int | None) -> float:
    """Samples merged so far over the samples the job will use, 0 .. 1; 0 where it sets none."""
    return min(1.0, state_samples / limit) if limit else 0.0
