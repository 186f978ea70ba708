"""What comes of a comparison: its files, and what a person is told at the end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hermes.cli.cells import Work
    from hermes.compare.matrix import Contender
    from hermes.compare.page import Told
    from hermes.compare.space import Tuned

FLOORS = ("central", "fastest-alone")
"""Strategies that use one machine."""


def told(work: Work) -> Told:
    """What a person is told."""
    from hermes.compare.page import Told
    from hermes.compare.score import rows
    from hermes.report import words
    from hermes.runtime.logs import utc_now

    matrix, limit = work.matrix, work.matrix.limit
    limits = [words.counted(limit.samples, "sample")] if limit.samples else []
    limits += [f"{limit.seconds:g} s of virtual time"] if limit.seconds else []
    names = (list(matrix.contenders), list(matrix.worlds))
    worlds = iter(matrix.worlds.values())
    return Told(
        matrix.name,
        _shown(matrix.job),
        matrix.target,
        matrix.baseline,
        " or ".join(limits),
        next(worlds).world.evaluate_seconds,
        matrix.seeds,
        rows(work.outcomes, *names, matrix.baseline, matrix.target, matrix.seeds),
        work.failed,
        len(work.cells),
        utc_now(),
        "" if matrix.tuned is None else _chosen(matrix.tuned),
        floors=tuple(name for name, one in matrix.contenders.items() if _is_floor(one)),
        codes=len({one.code for one in work.outcomes}),
        stops=limit.target,
    )


def _shown(job: Path) -> str:
    """From here on; or its name alone, where it does not lie below."""
    return job.name if job.is_absolute() or ".." in job.parts else str(job)


def _is_floor(one: Contender) -> bool:
    return one.only is not None or one.strategy in FLOORS


def _chosen(tuned: Tuned) -> str:
    """How the settings were."""
    from hermes.report import words

    names, seeds = words.listed(list(tuned.strategies), 99), ", ".join(map(str, tuned.seeds))
    return (
        f"of {names}: the best of {words.counted(tuned.trials, 'trial')} each (or of all, where "
        f"there were fewer) on validation, on seeds that are not reported ({seeds}); the others "
        "as the file has them"
    )


def conclude(work: Work, known: Told | None = None) -> dict[str, Any]:
    """Write compare.json, compare.csv and compare.html; the first of them. `known`: what the page
    tells, if not `told(work)`."""
    from hermes.compare.page import page

    known = known or told(work)
    paths = {kind: str(work.folder / f"compare.{kind}") for kind in ("json", "csv", "html")}
    result = _result(work, known) | {"paths": paths}
    write(work.folder, "compare.json", json.dumps(result, indent=2, allow_nan=False))
    write(work.folder, "compare.csv", _csv(_table(work)))
    write(work.folder, "compare.html", page(known))
    return result


def _result(work: Work, known: Told) -> dict[str, Any]:
    from importlib.metadata import version

    from msgspec import to_builtins

    from hermes.compare.page import claim
    from hermes.compare.score import told

    worlds, tuned = work.matrix.worlds.items(), work.matrix.tuned
    return {
        "name": work.matrix.name,
        "file": {"file": work.matrix.file, "digest": work.matrix.digest},
        "job": work.source.name,
        "args": list(work.matrix.args),
        "tuned": None if tuned is None else to_builtins(tuned),
        "contenders": {name: to_builtins(one) for name, one in work.matrix.contenders.items()},
        "devices": {name: {"file": w.file, "digest": w.digest} for name, w in worlds},
        "hermes": version("hermes-edge"),
        "target": {"test_accuracy": known.target},
        "grid": known.grid,
        "limit": {
            "samples": work.matrix.limit.samples,
            "seconds": work.matrix.limit.seconds,
            "target": work.matrix.limit.target,
        },
        "baseline": known.baseline,
        "seeds": list(known.seeds),
        "interval_claimed": any(row.ratios["seconds"].interval for row in known.rows),
        "claim": claim(known),
        "one_code": known.codes <= 1,
        "complete": len(work.outcomes) == len(work.cells),
        "written": known.written,
        "strategies": [told(row) for row in known.rows],
        "cells": list(_table(work)),
        "failed": [{"cell": cell, "error": error} for cell, error in work.failed],
    }


def _table(work: Work) -> Iterable[dict[str, Any]]:
    """One row a cell, in the order of the matrix."""
    from hermes.compare.score import MEASURES, plain, reached

    known = {(o.strategy, o.devices, o.seed): o for o in work.outcomes}
    for cell in work.cells:
        outcome = known.get((cell.strategy, cell.devices, cell.seed))
        if outcome is None:
            continue
        got = reached(outcome, work.matrix.target)
        yield {
            "strategy": cell.strategy,
            "devices": cell.devices,
            "seed": cell.seed,
            "reached": got.ever,
            **{f"{m}_to_target": plain(getattr(got, m)) for m in MEASURES},
            "status": outcome.status,
            "reason": outcome.reason,
            "test_accuracy_at_end": outcome.test_accuracy,
            "seconds": outcome.seconds,
            "samples": outcome.samples,
            "trained": outcome.trained,
            "pushes": outcome.pushes,
            "version": outcome.version,
            "training_seconds": round(outcome.spent.training, 3),
            "transfer_seconds": round(outcome.spent.transfer, 3),
            "waiting_seconds": round(outcome.spent.waiting, 3),
            "code": outcome.code[:12],
            "model_digest": outcome.model_digest,
            "ledger_digest": outcome.ledger_digest,
            "real_seconds": outcome.real_seconds,
        }


def write(folder: Path, name: str, text: str) -> None:
    """A file of the comparison's folder, at once or not at all. Raises `RunFailed`."""
    from hermes.errors import RunFailed
    from hermes.runtime.at_once import write_at_once

    try:
        write_at_once(folder / name, text.encode("utf-8", "replace"))
    except OSError as error:
        raise RunFailed(
            f"this file cannot be written: {error.strerror or error}",
            where=str(folder / name),
            remedy="Make room there, or choose another place with --out DIR.",
        ) from None


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    """What is infinite is empty."""
    known, text = list(rows), io.StringIO()
    writer = csv.DictWriter(text, list(known[0]) if known else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(known)
    return text.getvalue()


def show(told: Told, result: dict[str, Any]) -> None:
    """Say what came of it."""
    from hermes.compare.page import claim, cut_short, table
    from hermes.report.tables import output, plain_table

    console = output()
    for devices in dict.fromkeys(row.devices for row in told.rows):
        known = table([row for row in told.rows if row.devices == devices])
        shown = plain_table(*known.columns)
        for row in known.rows:
            shown.add_row(*row)
        console.print(f"{devices}, to {told.target:g} on test", style="bold")
        console.print(shown, soft_wrap=True)
    console.print(f"Ratios: {told.baseline}'s number / a strategy's own, paired by seed.")
    console.print(claim(told))
    for text in cut_short(told):
        console.print(text, soft_wrap=True)
    console.print(result["paths"]["html"], soft_wrap=True)
