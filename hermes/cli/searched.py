"""What comes of a search: the file with the best settings, and what a person is told."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes.cli.compared import write

if TYPE_CHECKING:
    from hermes.cli.cells import Work
    from hermes.compare.matrix import Matrix
    from hermes.compare.tuning import Trial, Tried


def conclude(matrix: Matrix, trials: Sequence[Trial], work: Work, folder: Path) -> dict[str, Any]:
    """Write the file, where every trial is there; what was found."""
    from importlib.metadata import version

    from hermes.compare.tuning import best_of, search_of, target_of, tried, tuned_file

    found = tried(trials, work.outcomes, target_of(matrix))
    complete = len(work.outcomes) == len(work.cells)
    place = folder / f"{matrix.name[:34]}-tuned.json"
    if complete:
        tree = tuned_file(matrix, found, version("hermes-edge"), place)
        write(place.parent, place.name, json.dumps(tree, indent=2, allow_nan=False) + "\n")
    best = best_of([one for one in found if one.seconds])
    return {
        "name": matrix.name,
        "file": {"file": matrix.file, "digest": matrix.digest},
        "target": {"validation_accuracy": target_of(matrix)},
        "trials": search_of(matrix).trials,
        "seeds": list(search_of(matrix).seeds),
        "complete": complete,
        "untuned": [name for name in matrix.contenders if name not in matrix.spaces],
        "strategies": {
            name: _told(one, [t for t in found if t.trial.strategy == name], matrix)
            for name, one in best.items()
        },
        "failed": [{"cell": cell, "error": error} for cell, error in work.failed],
        "paths": {"tuned": str(place) if complete else None},
    }


def _told(best: Tried, found: Sequence[Tried], matrix: Matrix) -> dict[str, Any]:
    from hermes.compare.score import plain

    finals = [value for value in best.accuracy.values() if value is not None]
    return {
        "space": matrix.spaces[best.trial.strategy].size,
        "tried": len([one for one in found if one.seconds]),
        "trial": best.trial.number,
        "set": best.trial.point.set,
        "args": list(best.trial.point.args),
        "cut_short": sum(one.cut_short for one in found),
        "at_edge": list(best.trial.point.edges),
        "seconds": plain(statistics.median(best.seconds.values())),
        "validation_accuracy_at_end": statistics.median(finals) if finals else None,
    }


def show(result: dict[str, Any]) -> None:
    """Say what was found."""
    from hermes.compare.page import short_of
    from hermes.report import words
    from hermes.report.tables import output, plain_table

    console = output()
    shown = plain_table("strategy", "tried", "best", "time", "accuracy at end")
    for name, one in result["strategies"].items():
        whole = ", all" if one["tried"] == one["space"] else ""
        chosen = [f"{key}={json.dumps(value)}" for key, value in one["set"].items()] + one["args"]
        seconds = math.inf if one["seconds"] is None else one["seconds"]
        shown.add_row(
            name,
            f"{one['tried']} of {words.count(one['space'])}{whole}",
            " ".join(chosen),
            "never" if math.isinf(seconds) else words.duration(seconds),
            words.score(one["validation_accuracy_at_end"]),
        )
    target = result["target"]["validation_accuracy"]
    console.print(f"to {target:g} on validation, medians of the tuning seeds", style="bold")
    console.print(shown, soft_wrap=True)
    for name, one in result["strategies"].items():
        if one["cut_short"]:
            console.print(short_of(name, one["cut_short"], "trial"), soft_wrap=True)
        if one["at_edge"]:
            edges = words.listed(one["at_edge"])
            console.print(f"{name}: at the edge of what was tried: {edges}.", soft_wrap=True)
    if result["untuned"]:
        console.print(f"No space, and so not tuned: {words.listed(result['untuned'])}.")
    if result["paths"]["tuned"]:
        console.print(f"To compare them: hermes compare {result['paths']['tuned']}", soft_wrap=True)
