"""What is saved of a run whose master cannot go on? The last version that it holds, and a result.

The broker is not asked any more: the model lies in memory, the records in the run's own folder.
"""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from hermes.codec import decode_tensors, digest_of, encode_tensors
from hermes.coded import published
from hermes.errors import BrokerRefused, HermesError, NoSuchTopic, PeerError, RunFailed
from hermes.machine.state import MasterState
from hermes.messages import VersionPublished
from hermes.perform.desk import Desk, Judge, finite
from hermes.perform.store import Store
from hermes.runtime.evaluator import Best
from hermes.runtime.folder import RunFolder
from hermes.values import Reason, Tensors


def best_before(
    state: MasterState, digests: Mapping[int, str], store: Store, folder: RunFolder
) -> Best:
    """The best version that a master before this one has seen, with its tensors: from the log, or
    from the run's folder, where the digest tells that it is the one; else the best begins anew."""
    best = state.evaluations.best
    if best is None:
        return Best()
    known = state.versions.get(best.version)
    found: bytes | bytearray | None = None
    with contextlib.suppress(PeerError, BrokerRefused, NoSuchTopic, OSError):
        if known is not None and store.reaches(known.payload):
            found = store.get(known.payload)
        else:
            data = published(folder.best.read_bytes(), state.settings.codec.down)
            found = data if digest_of(data) == digests.get(best.version) else None
    if found is None:
        return Best()
    return Best(best.version, best.loss, best.accuracy, decode_tensors(found))


class Saved(NamedTuple):
    """What came of it."""

    state: MasterState
    """As the result shows it: stopped, and scored where that could be done."""
    text: str
    """What was saved, and where."""
    best: Best


def salvage(
    folder: RunFolder,
    state: MasterState,
    desk: Desk | None,
    judge: Judge | None,
    best: Best,
    end: tuple[str, Reason],
) -> Saved:
    """Write the last acknowledged version, and the best; `end` is the run's status and its reason.
    Raises `RunFailed` where no disk has room."""
    status, reason = end
    if state.stopped is None:
        state = replace(state, stopped=reason, status=status)
    if state.newest is None:
        return Saved(state, "No version of the model had been published.", best)
    version = state.newest.version
    last = desk.model(state.newest.payload.digest) if desk is not None else None
    if last is None and best.version == version:
        last = best.model
    if last is None and best.model is None:
        return Saved(state, f"Version {version} is not in memory: nothing is saved.", best)
    if best.model is None:
        best = Best(version, math.nan, None, last)
    assert best.model is not None
    place = _written(folder, best.model if last is None else last, best.model)
    if last is not None and judge is not None and not state.scored:
        state = _scored(state, judge, last)
    saved = best.version if last is None else version
    return Saved(state, f"Version {saved}, the last one that it holds, is saved: {place}", best)


def _written(folder: RunFolder, last: Tensors, best: Tensors) -> Path:
    """Write both models, and return where the first lies: with the run's other files or, where
    their disk is full, with temporary ones."""
    model = encode_tensors(last)
    try:
        folder.write(folder.model, model)
        with contextlib.suppress(RunFailed):  # the last version is what counts
            folder.write(folder.best, model if best is last else encode_tensors(best))
        return folder.model
    except RunFailed:
        spare = Path(tempfile.gettempdir()) / f"hermes-{folder.run}-{folder.model.name}"
        folder.write(spare, model)
        return spare


def _scored(state: MasterState, judge: Judge, model: Tensors) -> MasterState:
    """The state with the scores of its last version, of the splits that lie on this disk."""
    scores: dict[str, float | None] = {}
    for split in ("validation", "test"):
        if not judge.has(split):
            continue
        with contextlib.suppress(HermesError):
            found = judge.scores(model, split)
            scores[f"{split}_loss"] = finite(found.loss)
            scores[f"{split}_accuracy"] = finite(found.accuracy)
    return replace(state, scores=scores)


def reason_code(error: HermesError) -> str:
    """The code in `result.json` of a run that ended with this error: "broker-unreachable", ..."""
    words = re.findall("[A-Z][a-z]*", type(error).__name__)
    return "-".join(words).lower()


Kind = TypeVar("Kind", bound=HermesError)


def with_advice(error: Kind, text: str) -> Kind:
    """The same error, with this line below its remedy."""
    remedy = "\n  ".join(line for line in (error.remedy, text) if line)
    told = type(error)(error.what, where=error.where, remedy=remedy)
    told.__cause__ = error
    return told


def untold(state: MasterState, view: MasterState) -> str:
    """What the master had decided and could not tell the broker."""
    parts = ["that the run has stopped"]
    newer: VersionPublished | None = view.newest
    if newer is not None and (state.newest is None or newer.version > state.newest.version):
        parts.append(f"version {newer.version}")
    return " and ".join(parts)
