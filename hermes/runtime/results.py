"""What does a run leave? `result.json`, the models, and where they lie."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any

import msgspec

from hermes.codec import encode_tensors
from hermes.coded import plain
from hermes.machine.state import MasterState, Member
from hermes.perform.desk import finite
from hermes.perform.store import Store
from hermes.report.scores import is_measured, metric_of
from hermes.runtime.evaluator import Best
from hermes.runtime.folder import RunFolder
from hermes.runtime.lineage import origin
from hermes.transport.counting import by_kind, summed
from hermes.values import SECOND


def save_models(folder: RunFolder, state: MasterState, store: Store, best: Best) -> Best:
    """Write `model.safetensors` (the last version) and `best.safetensors` (best on validation), as
    what the model's tensors are, whatever travelled; returns which that is."""
    assert state.newest is not None
    last = plain(store.get(state.newest.payload))
    folder.write(folder.model, last)
    final = state.scores.get("validation_loss")
    if best.model is None or (final is not None and final < best.loss):
        folder.write(folder.best, last)
        loss, accuracy = final, state.scores.get("validation_accuracy")
        return Best(state.newest.version, math.nan if loss is None else loss, accuracy)
    folder.write(folder.best, encode_tensors(best.model))
    return best


def build_result(
    folder: RunFolder,
    state: MasterState,
    now: int,
    traffic: Mapping[str, tuple[int, ...]],
    best: Best,
    storage: dict[str, Any],
    quarantined: dict[str, int],
) -> dict[str, Any]:
    """The result, written to `result.json` and returned; keys are only ever added."""
    assert state.stopped is not None
    newest, scores = state.newest, state.scores
    result: dict[str, Any] = {
        "run": folder.run,
        "strategy": state.settings.strategy,
        "seed": state.opened.seed if state.opened else None,
        "forked": origin(state),
        "status": state.status,
        "reason": state.stopped.code,
        "reason_facts": state.stopped.facts,
        "digest": newest.payload.digest if newest else None,
        "version": newest.version if newest else None,
        "seconds": round((now - (now if state.started is None else state.started)) / SECOND, 3),
        "samples": newest.samples if newest else 0,
        "trained": sum(member.trained for member in state.members.values()),
        "accuracy": {
            "validation": scores.get("validation_accuracy"),
            "test": scores.get("test_accuracy"),
        },
        "loss": {"validation": scores.get("validation_loss"), "test": scores.get("test_loss")},
        "metric": metric_of(state.data)
        if is_measured(scores.get("validation_loss"), scores.get("validation_accuracy"))
        else None,
        "best": {
            "version": best.version if best.version >= 0 else None,
            "loss": finite(best.loss),
            "accuracy": best.accuracy,
        },
        "bytes": summed(traffic.values()),
        "traffic": {process: by_kind(flat) for process, flat in sorted(traffic.items())},
        "storage": storage,
        "quarantined": sum(quarantined.values()),
        "quarantined_by_reason": quarantined,
        "workers": {name: _worker(m, state) for name, m in sorted(state.members.items())},
        "updates": _updates(state),
        "reallocations": state.resizes,
        "python": platform.python_version(),
        "paths": {},
    }
    folder.write(folder.result, b"{}")  # so that `paths` names it, too
    result["paths"] = folder.paths()
    rewrite(folder, result)
    return result


def rewrite(folder: RunFolder, result: dict[str, Any]) -> None:
    """Write `result.json`."""
    folder.write(folder.result, msgspec.json.format(msgspec.json.encode(result), indent=2))


def _worker(member: Member, state: MasterState) -> dict[str, Any]:
    return {
        "rounds": member.rounds,
        "pushes": member.pushes,
        "quiet": member.quiet,
        "vetoed": member.vetoed,
        "applied": member.applied,
        "rejected": member.rejected,
        "undecided": sum(pending.worker == member.name for pending in state.pending),
        "samples": member.samples,
        "trained": member.trained,
        "busy_seconds": round(member.busy / SECOND, 3),
        "waiting_seconds": round(member.waited / SECOND, 3),
        "final_shard": member.size,
        "status": member.status,
    }


def _updates(state: MasterState) -> dict[str, int]:
    members = state.members.values()
    return {
        "pushed": sum(member.pushes for member in members),
        "applied": sum(member.applied for member in members),
        "rejected": sum(member.rejected for member in members),
        "undecided": len(state.pending),
    }
