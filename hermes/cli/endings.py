"""What is a person told of a run that ended short? Why, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hermes.errors import RunFailed


class Ending(NamedTuple):
    """Words for a reason; `{...}` stand for its facts."""

    what: str
    remedy: str


LOWER = "Lower the learning rate (a tenth of it), and scale x to about 0 .. 1"

ENDINGS: dict[str, Ending] = {
    "diverged": Ending(
        "the training diverges: {rounds} rounds in a row gave a loss or weights that are not "
        "finite (NaN or infinite), or weights further away than merge.max_norm allows",
        LOWER + ".",
    ),
    "global-loss-not-finite": Ending(
        "the training diverges: the loss of the global model is {loss_global}",
        LOWER + ".",
    ),
    "global-loss-negative": Ending(
        "the loss of the global model is {loss_global}, and merging by 1/loss needs one above 0",
        "Take a loss that is never negative, or another strategy: --strategy fedavg",
    ),
    "no-worker-can-train": Ending(
        "no worker can train this job; {worker} says: {why}",
        "Mend that on the workers' machines (central.log has each worker's remedy), then start the "
        "run again.",
    ),
    "no-worker-left": Ending(
        "the processes of all its workers have ended",
        "central.log has their last words.",
    ),
    "worker-died-before-the-start": Ending(
        "a worker that was expected has died before the training started",
        "central.log has its last words.",
    ),
}


def short(result: Mapping[str, Any]) -> RunFailed:
    """The message of a run that failed, from its result."""
    facts = dict(result["reason_facts"])
    known = ENDINGS.get(result["reason"])
    what = known.what.format_map(_Known(facts)) if known else f"it ended short: {result['reason']}"
    paths = result["paths"]
    best, version = paths.get("best"), result["best"]["version"]
    saved = f"\n  Its best model, version {version}, is in {best}" if best and version else ""
    log = paths.get("central_log") or paths.get("folder")
    remedy = f"{known.remedy if known else ''}{saved}\n  See {log}".lstrip()
    return RunFailed(what, where=f"run {result['run']}", remedy=remedy)


class _Known(dict[str, Any]):
    """Facts, with a mark where one is missing: a message is never lost for want of a number."""

    def __missing__(self, key: str) -> str:
        return "?"
