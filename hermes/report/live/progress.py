"""How far is a run from its end? The stopping rule that is nearest, and the others. Pure."""

from __future__ import annotations

from typing import NamedTuple

from hermes.machine.state import MasterState
from hermes.report import words


class Progress(NamedTuple):
    """How far one stopping rule is."""

    rule: str
    share: float
    """0 .. 1."""
    text: str
    """`51 200 of 200 000 samples`."""


def progress(state: MasterState, seconds: float) -> Progress | None:
    """Of `stop.samples`, where that is set; else of the rule that is nearest to its end, among
    those that only ever come nearer. `seconds` of training so far."""
    stop, newest = state.settings.stop, state.newest
    samples, version = (newest.samples, newest.version) if newest else (0, 0)
    if stop.samples is not None:
        text = f"{words.count(samples)} of {words.counted(stop.samples, 'sample')}"
        return Progress("samples", min(1.0, samples / stop.samples), text)
    found = []
    if stop.versions is not None:
        text = f"{words.count(version)} of {words.counted(stop.versions, 'version')}"
        found.append(Progress("versions", min(1.0, version / stop.versions), text))
    if stop.seconds is not None:
        share = min(1.0, seconds / stop.seconds)
        text = f"{words.duration(seconds)} of {words.duration(stop.seconds)}"
        found.append(Progress("seconds", share, text))
    return max(found, key=lambda one: one.share, default=None)


def others(state: MasterState, near: Progress | None) -> list[str]:
    """The other rules that would stop the run, each with how far it is."""
    stop, known = state.settings.stop, state.evaluations
    shown = near.rule if near is not None else ""
    found = []
    if stop.accuracy is not None:
        found.append(f"accuracy {stop.accuracy:g}")
    if stop.loss is not None:
        found.append(f"loss {stop.loss:g}")
    if stop.patience is not None:
        since = known.best.since if known.best else 0
        found.append(f"patience {since} of {stop.patience}")
    if stop.versions is not None and shown != "versions":
        found.append(words.counted(stop.versions, "version"))
    if stop.seconds is not None and shown != "seconds":
        found.append(words.duration(stop.seconds))
    return found
