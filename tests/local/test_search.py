"""Are settings chosen fairly, and does what was chosen stand? `hermes compare --search`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import Shown
from matrices import FRAIL, GIVEN, Compare, outcome, typed, written

from hermes.compare.outcome import Outcome, Point
from hermes.compare.space import Search, Space, points
from hermes.compare.tuning import Trial, best_of, tried

SEARCH: dict[str, Any] = {
    "trials": 3,
    "seeds": [7],
    "spaces": {
        "fedavg": {"set": {"round.steps": [1, 4, 16]}, "args": {"lr": [0.05, 0.1, 0.5]}},
        "fast": {"args": {"batch": [16, 32]}},
    },
}
FILE: dict[str, Any] = {
    "job": "given.py",
    "args": ["lr=0.2"],
    "target": {"accuracy": 0.8},
    "strategies": {
        "fedavg": {"strategy": "fedavg", "set": {"merge.max_staleness": 1}},
        "fast": {"strategy": "bsp", "only": "fastest"},
        "bsp": {"strategy": "bsp"},
    },
    "baseline": "bsp",
    "limit": {"samples": 4000},
}


def searched(folder: Path, **changes: Any) -> Path:
    """A file with a search, but for these changes of it."""
    (folder / "given.py").write_text(GIVEN)
    return written(folder, **{**FILE, "search": {**SEARCH, **changes}})


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """The command."""
    return typed(tmp_path, capsys)


# --- what is drawn --------------------------------------------------------------------------------


def test_every_strategy_has_the_same_number_of_trials_and_none_twice() -> None:
    """What is drawn for one depends on nothing but its name, its space and the seed."""
    wide = Space(set={"round.steps": (1, 2, 4, 8)}, args={"lr": (0.1, 0.2, 0.3), "--b": ("x",)})
    search = Search(trials=5, seeds=(1,), spaces={})
    drawn = points(search, {"a": wide, "b": wide, "small": Space(set={"x": (1, 2)})})
    assert [len(found) for found in drawn.values()] == [5, 5, 2]
    for found in drawn.values():
        assert len({(json.dumps(p.set), p.args) for p in found}) == len(found)
    assert drawn["a"] != drawn["b"]
    assert points(search, {"b": wide}) == {"b": drawn["b"]}
    more = points(Search(trials=12, seeds=(1,), spaces={}), {"b": wide})["b"]
    assert more[:5] == drawn["b"], "more trials begin with the same"
    assert len({(json.dumps(p.set), p.args) for p in more}) == wide.size
    first = more[0]
    assert set(first.set) == {"round.steps"}
    assert first.args[0].startswith("lr=0.")
    assert first.args[1] == "--b=x"
    at_edge = first.set["round.steps"] in (1, 8)
    assert ("set.round.steps" in first.edges) == at_edge
    assert "args.--b" not in first.edges


def test_the_best_is_the_quickest_on_validation_then_the_most_accurate() -> None:
    """Never is last; the test set is not looked at."""

    def cell(name: str, seed: int, at: float, accuracy: float) -> Outcome:
        found = Point(at, 1, 1, 1, 1, 1, 1 - accuracy, None, accuracy)
        return outcome([], strategy=name, seed=seed, points=(found,))

    point = points(Search(trials=1, seeds=(1,), spaces={}), {"a": Space(set={"x": (1,)})})["a"][0]
    trials = [Trial(name, n, point) for name in "ab" for n in (1, 2, 3)]
    cells = [cell("a.1", s, 5, 0.9) for s in (1, 2)]
    cells += [cell("a.2", 1, 3, 0.9), cell("a.2", 2, 4, 0.9)]
    cells += [cell("a.3", 1, 1, 0.9), cell("a.3", 2, 1, 0.7)]  # one of two never: infinite
    cells += [cell("b.1", 1, 1, 0.3), cell("b.2", 1, 1, 0.5), cell("b.3", 1, 1, 0.5)]
    found = tried(trials, cells, 0.8)
    assert found[2].seconds == {1: 1.0, 2: math.inf}
    assert {name: one.trial.number for name, one in best_of(found).items()} == {"a": 2, "b": 2}
    assert not any(one.cut_short for one in found)
    late = [*cells[:-1], cell("b.3", 1, 9, 0.8)]
    assert [one.cut_short for one in tried(trials, late, 0.8)] == [*[False] * 5, True]


# --- a search, whole ------------------------------------------------------------------------------


def test_what_was_chosen_is_compared_on_other_seeds(compare: Compare, tmp_path: Path) -> None:
    """The file that a search writes is one to compare; a search that is there is not run again. As
    long as a trial is missing there is none."""
    file = searched(tmp_path)
    (tmp_path / "given.py").write_text(GIVEN + FRAIL.format(folder=str(tmp_path)))
    (tmp_path / "raise").touch()
    code, result, said = compare(file, "--search")
    assert (code, result["complete"], result["paths"]["tuned"]) == (4, False, None)
    assert "1 of 5 cells failed; the same command tries again" in said
    assert not list(tmp_path.rglob("*-tuned.json"))

    code, result, said = compare(file, "--search")
    assert (code, "5 cells, 4 are there already" in said) == (0, True)
    assert "on validation at the end" in said
    fedavg, fast = (result["strategies"][name] for name in ("fedavg", "fast"))
    # Three of nine, and a space of two whole.
    assert (fedavg["tried"], fedavg["space"], fast["tried"], fast["space"]) == (3, 9, 2, 2)
    assert result["untuned"] == ["bsp"]

    tuned = Path(result["paths"]["tuned"])
    tree = json.loads(tuned.read_text())
    assert tree["strategies"]["fedavg"] == {
        "strategy": "fedavg",
        "set": {"merge.max_staleness": 1, **fedavg["set"]},
        "args": fedavg["args"],
    }
    assert tree["strategies"]["fast"] == {**FILE["strategies"]["fast"], "args": fast["args"]}
    assert tree["strategies"]["bsp"] == FILE["strategies"]["bsp"]
    assert tree["tuned"]["digest"] == result["file"]["digest"]
    assert (tuned.parent / tree["tuned"]["file"]).resolve() == Path(result["file"]["file"])
    known = tree["tuned"]["strategies"]["fedavg"]["tried"]
    assert [one["chosen"] for one in known].count(True) == 1
    times = [math.inf if one["seconds"]["7"] is None else one["seconds"]["7"] for one in known]
    chosen = next(one for one in known if one["chosen"])
    assert chosen["seconds"]["7"] == min(times) == fedavg["seconds"]

    code, reported, _ = compare(tuned)
    assert code == 0
    assert reported["tuned"]["seeds"] == [7]
    assert [cell["seed"] for cell in reported["cells"]] == [1, 1, 1]
    page = Path(reported["paths"]["html"]).read_text("utf-8")
    assert "on seeds that are not reported (7)" in page
    written = json.loads(file.read_text())  # the same trials, chosen by another target
    file.write_text(json.dumps({**written, "search": {**written["search"], "accuracy": 0.2}}))
    code, result, said = compare(file, "--search")
    assert (code, "5 cells, 5 are there already" in said) == (0, True)
    assert result["target"] == {"validation_accuracy": 0.2}
    assert json.loads(tuned.read_text())["tuned"]["accuracy"] == 0.2
    assert result["strategies"]["fedavg"]["seconds"] < fedavg["seconds"]

    tuned.write_text(json.dumps({**tree, "seeds": [3, 7]}))
    code, _, said = compare(tuned)
    assert code == 2
    assert f"{tuned}: tuned.seeds: 7 is among `seeds`, too" in said


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a seed that is reported": ({"seeds": [7, 1]}, "search.seeds", "1 is among `seeds`, too"),
    "more than the target": ({"accuracy": 0.99}, "search.accuracy", "it is 0.99"),
    "no trials": ({"trials": 0}, "search.trials", "it is 0"),
    "no such strategy": (
        {"spaces": {"fedavgg": {"args": {"lr": [1]}}}},
        "search.spaces.fedavgg",
        "there is no strategy 'fedavgg'",
    ),
    "nothing to try": ({"spaces": {"bsp": {}}}, "search.spaces.bsp", "nothing to try"),
    "a value twice": (
        {"spaces": {"bsp": {"args": {"lr": [1, 1]}}}},
        "search.spaces.bsp.args.lr",
        "1 is there twice",
    ),
    "no list": (
        {"spaces": {"bsp": {"args": {"lr": 1}}}},
        "search.spaces.bsp.args",
        "Expected `array`",
    ),
    "a setting that is none": (
        {"spaces": {"bsp": {"set": {"round.stps": [1, 2]}}}},
        "search.spaces.bsp.set",
        "Did you mean round.steps?",
    ),
    "two that cannot be": (
        {"spaces": {"bsp": {"set": {"size.rule": ["speed"]}}}},
        "search.spaces.bsp.set",
        "size.rule=speed",
    ),
    "an argument that the job does not take": (
        {"spaces": {"bsp": {"args": {"lr": ["quick"]}}}},
        "search.spaces.bsp.args",
        "with lr=0.2 lr=quick",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_searches_are_refused_before_anything_runs(
    name: str, compare: Compare, tmp_path: Path, shown: Shown
) -> None:
    changes, key, what = BAD[name]
    file = searched(tmp_path, **changes)
    code, _, said = compare(file, "--search")
    assert code == 2
    assert f"{file}: {key}" in said
    assert what in said
    shown(f"A search: {name}", "hermes compare tiny.json --search", code, said)
    assert not (tmp_path / "out").exists()


def test_a_file_without_a_search_says_what_one_looks_like(
    compare: Compare,
    tmp_path: Path,
) -> None:
    code, _, said = compare(written(tmp_path), "--search")
    assert (code, 'search: there is none\n  Such as "search": {"trials": 8' in said) == (2, True)
