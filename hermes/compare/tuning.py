"""Which settings are best for each strategy? Trials as cells of a matrix, on seeds of their own,
the choice among them, and the file that comes of it. Pure.

The choice looks at the *validation* set: the test set is not looked at before the settings stand.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hermes.compare.form import refused
from hermes.compare.matrix import Contender, Matrix
from hermes.compare.outcome import Outcome
from hermes.compare.score import VALIDATION, accuracy_at_end, cut_short, plain, reached
from hermes.compare.space import Point, Search, points


class Trial(NamedTuple):
    """One point of a strategy's space."""

    strategy: str
    number: int
    """From 1, in the order in which they were drawn."""
    point: Point

    @property
    def name(self) -> str:
        """Among the trials of all strategies."""
        return f"{self.strategy}.{self.number}"


class Tried(NamedTuple):
    """What came of it."""

    trial: Trial
    seconds: dict[int, float]
    """Virtual, to the target on validation, by seed; infinite where it was never reached."""
    accuracy: dict[int, float | None]
    """On validation at the end, by seed."""
    cut_short: bool
    """Whether it came to the target with some seed, and ended before it was held."""

    @property
    def rank(self) -> tuple[float, float, int]:
        """Less is better: median time; where that is the same (or never) the accuracy at the end;
        then who was drawn first."""
        finals = [-math.inf if value is None else value for value in self.accuracy.values()]
        return (
            statistics.median(self.seconds.values()),
            -statistics.median(finals),
            self.trial.number,
        )


def trials_of(matrix: Matrix) -> list[Trial]:
    """All that is tried. Raises `SettingError` where the file has no search that can be one."""
    search = search_of(matrix)
    if len(matrix.worlds) > 1:
        raise refused(
            matrix.file,
            "devices",
            "a search is for one file of devices: what suits one does not suit another",
            "Write one file for each.",
        )
    drawn = points(search, matrix.spaces)
    return [
        Trial(name, number, point)
        for name, found in drawn.items()
        for number, point in enumerate(found, 1)
    ]


def search_of(matrix: Matrix) -> Search:
    """The file's search. Raises `SettingError` where there is none."""
    if matrix.search is None:
        raise refused(
            matrix.file,
            "search",
            "there is none",
            'Such as "search": {"trials": 8, "seeds": [1], "spaces": {"NAME": '
            '{"set": {"round.steps": [8, 16, 32]}, "args": {"lr": [0.05, 0.1]}}}}',
        )
    return matrix.search


def target_of(matrix: Matrix) -> float:
    """The accuracy on validation, the time to which is what settings are chosen by."""
    own = search_of(matrix).accuracy
    return matrix.target if own is None else own


def matrix_of(matrix: Matrix, trials: Sequence[Trial]) -> Matrix:
    """The trials as strategies, on the search's seeds. What is wrong with one is told of its
    space."""
    contenders: dict[str, Contender] = {}
    for trial in trials:
        contenders[trial.name] = with_point(matrix.contenders[trial.strategy], trial.point)
    return matrix._replace(
        seeds=search_of(matrix).seeds,
        contenders=contenders,
        baseline=trials[0].name,
        on=VALIDATION,
        search=None,
        places={trial.name: f"search.spaces.{trial.strategy}" for trial in trials},
    )


def with_point(contender: Contender, point: Point) -> Contender:
    """With these settings in the place of its own, and these arguments after its own."""
    return msgspec.structs.replace(
        contender, set={**contender.set, **point.set}, args=contender.args + point.args
    )


def tried(trials: Sequence[Trial], outcomes: Sequence[Outcome], target: float) -> list[Tried]:
    """What came of all of them."""
    known = {(o.strategy, o.seed): o for o in outcomes}
    found = []
    for trial in trials:
        own = {seed: o for (name, seed), o in sorted(known.items()) if name == trial.name}
        seconds = {seed: reached(o, target, VALIDATION).seconds for seed, o in own.items()}
        ends = {seed: accuracy_at_end(o) for seed, o in own.items()}
        short = any(cut_short(o, target, VALIDATION) for o in own.values())
        found.append(Tried(trial, seconds, ends, short))
    return found


def best_of(found: Sequence[Tried]) -> dict[str, Tried]:
    """The best of each strategy."""
    best: dict[str, Tried] = {}
    for one in found:
        known = best.get(one.trial.strategy)
        if known is None or one.rank < known.rank:
            best[one.trial.strategy] = one
    return best


# --- the file that comes of it --------------------------------------------------------------------


def tuned_file(matrix: Matrix, found: Sequence[Tried], release: str, place: Path) -> dict[str, Any]:
    """A file to compare, with the best settings, for a file at `place`; as JSON has it."""
    best, search, folder = best_of(found), search_of(matrix), place.parent
    strategies = {
        name: with_point(one, best[name].trial.point) if name in best else one
        for name, one in matrix.contenders.items()
    }
    limit = {k: v for k, v in msgspec.to_builtins(matrix.limit).items() if v}
    return {
        "job": os.path.relpath(matrix.job, folder),
        "args": list(matrix.args),
        "target": {"accuracy": matrix.target},
        "devices": [os.path.relpath(one.file, folder) for one in matrix.worlds.values()],
        "seeds": list(matrix.seeds),
        "limit": limit,
        "grid": matrix.grid,
        "baseline": matrix.baseline,
        "set": matrix.common,
        "strategies": {name: _contender(one) for name, one in strategies.items()},
        "tuned": {
            "file": os.path.relpath(matrix.file, folder),
            "digest": matrix.digest,
            "hermes": release,
            "trials": search.trials,
            "seeds": list(search.seeds),
            "accuracy": target_of(matrix),
            "strategies": {
                name: {
                    "space": matrix.spaces[name].size,
                    "at_edge": list(best[name].trial.point.edges),
                    "tried": [
                        _told(one, best[name]) for one in found if one.trial.strategy == name
                    ],
                }
                for name in best
            },
        },
    }


def _contender(one: Contender) -> dict[str, Any]:
    """Without what it does not say."""
    return {key: value for key, value in msgspec.to_builtins(one).items() if value}


def _told(one: Tried, best: Tried) -> dict[str, Any]:
    return {
        "trial": one.trial.number,
        "chosen": one is best,
        "set": one.trial.point.set,
        "args": list(one.trial.point.args),
        "seconds": {str(seed): plain(value) for seed, value in one.seconds.items()},
        "validation_accuracy_at_end": {str(s): value for s, value in one.accuracy.items()},
    }
