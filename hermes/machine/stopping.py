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
    facts: dict[str, tuple[bool, Facts]] = {
        "accuracy": (
            stop.accuracy is not None and accuracy is not None and accuracy >= stop.accuracy,
            {"accuracy": accuracy, "limit": stop.accuracy},
        ),
        "loss": (
            stop.loss is not None and loss is not None and loss <= stop.loss,
            {"loss": loss, "limit": stop.loss},
        ),
        "patience": (
            stop.patience is not None and since >= stop.patience,
            {"evaluations": since, "limit": stop.patience},
        ),
        "samples": (
            stop.samples is not None and state.newest.samples >= stop.samples,
            {"samples": state.newest.samples, "limit": stop.samples},
        ),
        "versions": (
            stop.versions is not None and state.newest.version >= stop.versions,
            {"version": state.newest.version, "limit": stop.versions},
        ),
        "seconds": (
            stop.seconds is not None and seconds >= stop.seconds,
            {"seconds": round(seconds, 3), "limit": stop.seconds},
        ),
    }
    for code, (holds, why) in facts.items():
        if holds:
            return Reason(code, why)
    return None


def progress(state_samples: int, limit: int | None) -> float:
    """Samples merged so far over the samples the job will use, 0 .. 1; 0 where it sets none."""
    return min(1.0, state_samples / limit) if limit else 0.0
