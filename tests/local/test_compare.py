"""Does a comparison say what happened? `hermes compare`, as typed, and its numbers by hand."""

from __future__ import annotations

import csv
import json
import math
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from commands import DIGITS, ROOT, Shell, wait_for
from matrices import FRAIL, GIVEN, MATRIX, Compare, outcome, typed, written
from msgspec.structs import replace

from hermes.cli.entry import run
from hermes.cli.teller import Teller
from hermes.compare.cell import Order
from hermes.compare.matrix import Until, cells_of, load_matrix
from hermes.compare.outcome import Outcome, Point
from hermes.compare.pace import Left, Pace
from hermes.compare.page import Told, claim, page
from hermes.compare.pool import Running
from hermes.compare.score import ratio, ratios, reached, rows, told
from hermes.policy.presets import Layer
from hermes.simulate.devices import World


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """The command."""
    return typed(tmp_path, capsys)


# --- runs ---------------------------------------------------------------------------------------


def test_it_is_the_same_with_one_process_and_two_and_what_is_there_is_not_run_again(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ledgers and weights are those of `hermes simulate`, too: scoring changes nothing."""
    file = written(tmp_path)
    code, one, _ = compare(file, "--processes", "1", folder="one")
    _, two, _ = compare(file, "--processes", "2", folder="two")
    assert code == 0
    assert one["complete"] is True
    same = ("strategy", "seed", "seconds_to_target", "bytes_to_target", "pushes_to_target")
    same += ("model_digest", "ledger_digest", "training_seconds", "waiting_seconds")
    assert [[c[k] for k in same] for c in one["cells"]] == [
        [c[k] for k in same] for c in two["cells"]
    ]

    plain = ["--devices", str(tmp_path / "pair.json"), "--strategy", "fedavg", "--seed", "1"]
    stop = [f"--set=stop.{key}" for key in ("seconds=3", "samples=off", "patience=off")]
    args = ["simulate", DIGITS, *plain, *stop, "--out", str(tmp_path / "sim"), "--json", "--quiet"]
    assert run(args) == 0
    simulated = json.loads(capsys.readouterr().out)
    fedavg = one["cells"][0]
    assert fedavg["ledger_digest"] == simulated["ledger_digest"]
    assert fedavg["model_digest"] == simulated["digest"]
    assert fedavg["test_accuracy_at_end"] == simulated["accuracy"]["test"]

    # Another target is looked up; another seed, and other settings of one strategy, are run.
    cells = tmp_path / "one" / "compare" / "tiny" / "cells"
    before = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    strategies = {**MATRIX["strategies"], "alone": {"strategy": "fedavg", "only": "quick"}}
    changes = {"seeds": [1, 2], "strategies": strategies, "target": {"accuracy": 1}}
    code, again, said = compare(written(tmp_path, **changes), folder="one")
    assert code == 0
    assert "4 cells, 1 is there already" in said
    after = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert before.items() <= after.items(), "nothing of another matrix of this name is lost"
    assert len(after) == 2 + 3
    code, _, said = compare(written(tmp_path), folder="one")
    assert (code, "2 cells, 2 are there already" in said) == (0, True)
    code, again, said = compare(written(tmp_path, **changes), folder="one")
    assert (code, "4 cells, 4 are there already" in said) == (0, True)
    assert again["cells"][0]["ledger_digest"] == fedavg["ledger_digest"]
    assert not list(cells.glob("*.log")), "nobody complained"

    # A target that nobody reaches.
    assert {c["seconds_to_target"] for c in again["cells"]} == {None}
    assert not any(c["reached"] for c in again["cells"])
    assert all(row["median"]["seconds"] is None for row in again["strategies"])
    assert again["strategies"][1]["ratios"]["seconds"]["by_seed"][0]["ratio"] is None
    assert again["interval_claimed"] is False
    page = Path(again["paths"]["html"]).read_text("utf-8")
    assert "No claim of significance is made" in page
    assert "nobody reached 1" in page
    table = list(csv.DictReader(Path(again["paths"]["csv"]).read_text("utf-8").splitlines()))
    assert [row["seconds_to_target"] for row in table] == [""] * 4


def test_cells_of_two_states_of_the_source_are_told_apart(compare: Compare, tmp_path: Path) -> None:
    """Kept, as the release is the same; said, as their numbers may not be of one piece."""
    file = written(tmp_path, limit={"samples": 300})
    code, one, said = compare(file)
    assert (code, one["one_code"], "another state" in said) == (0, True, False)
    (old,) = (tmp_path / "out" / "compare" / "tiny" / "cells").glob("alone--pair--1.*.json")
    old.write_text(json.dumps(json.loads(old.read_text()) | {"code": "0" * 64}))
    code, two, said = compare(file)
    assert (code, two["one_code"]) == (0, False)
    assert "of those, 1 by another state of Hermes's source" in said
    assert [cell["code"] for cell in two["cells"]] == [one["cells"][0]["code"], "0" * 12]
    assert "by 2 states of Hermes" in Path(two["paths"]["html"]).read_text("utf-8")


def test_a_strategy_has_arguments_of_its_own(compare: Compare, tmp_path: Path) -> None:
    """They are the job's, after those of the file, and a part of what a cell depends on."""
    (tmp_path / "given.py").write_text(GIVEN)

    def file(**own: list[str]) -> Path:
        strategies = {name: {"strategy": "bsp", "args": args} for name, args in own.items()}
        changes = {"strategies": strategies, "baseline": "a", "limit": {"samples": 300}}
        return written(tmp_path, job="given.py", args=["lr=0.2"], **changes)

    code, first, _ = compare(file(a=[], b=["lr=0.2"], c=["lr=0.3", "batch=16"]))
    assert code == 0
    a, b, c = (cell["model_digest"] for cell in first["cells"])
    assert a == b != c
    assert [cell["pushes"] for cell in first["cells"]] == [10, 10, 20]
    assert first["contenders"]["c"]["args"] == ["lr=0.3", "batch=16"]
    code, _, said = compare(file(a=["lr=0.3"], b=["lr=0.2"], c=["lr=0.3", "batch=16"]))
    assert (code, "3 cells, 2 are there already" in said) == (0, True)
    code, _, said = compare(file(a=[], b=["lr=quick"]))
    assert code == 2
    assert "tiny.json: strategies.b.args and args: with lr=0.2 lr=quick: " in said
    assert "'quick'" in said


def test_a_cell_may_end_once_it_holds_the_target(compare: Compare, tmp_path: Path) -> None:
    """What it took is the same; what ends it is told, and is a part of what it depends on."""
    changes: dict[str, Any] = {"strategies": {"fedavg": {"strategy": "fedavg"}}}
    whole = compare(written(tmp_path, limit={"seconds": 8}, **changes))[1]["cells"][0]
    code, short, _ = compare(written(tmp_path, limit={"seconds": 8, "target": True}, **changes))
    cell = short["cells"][0]
    assert code == 0
    assert (whole["reason"], cell["reason"]) == ("seconds", "target")
    measured = [key for key in cell if key.endswith("_to_target")]
    assert [cell[key] for key in measured] == [whole[key] for key in measured]
    assert cell["seconds_to_target"] + 3 * 0.5 <= cell["seconds"] + 0.5 < 8
    page = Path(short["paths"]["html"]).read_text("utf-8")
    assert "8 s of virtual time or until it holds the target" in page
    assert "not reached before 8 s of virtual time: infinitely long" in page


def test_a_cell_that_fails_is_told_and_the_others_go_on(compare: Compare, tmp_path: Path) -> None:
    """One whose job raises, one whose process is killed; the same command tries them again."""
    job = tmp_path / "frail.py"
    digits = Path(DIGITS).read_text("utf-8")
    job.write_text(digits + FRAIL.format(folder=str(tmp_path)))
    for name in ("raise", "kill"):
        (tmp_path / name).touch()
    file = written(tmp_path, job="frail.py", seeds=[1, 2], limit={"samples": 500})
    code, result, said = compare(file, "--processes", "1")
    assert code == 4
    assert [one["cell"] for one in result["failed"]] == ["fedavg--pair--1", "alone--pair--1"]
    raised, killed = (one["error"] for one in result["failed"])
    assert "frail.py" in raised
    assert "no luck <today>" in raised
    assert "its process has ended by signal 9" in killed
    assert "2 of 4 cells failed" in said
    assert [cell["seed"] for cell in result["cells"]] == [2, 2]
    assert result["complete"] is False
    assert "no luck &lt;today&gt;" in Path(result["paths"]["html"]).read_text("utf-8")
    code, result, said = compare(file)
    assert (code, result["failed"], result["complete"]) == (0, [], True)
    assert "2 are there already" in said


def test_ctrl_c_leaves_no_process_and_says_how_to_go_on(shell: Shell) -> None:
    """Nor half a cell."""
    file = written(shell.folder, seeds=[1, 2, 3], limit={"seconds": 600})
    going = shell.start("compare", str(file), "--processes", "2")
    wait_for(going, r"about .* left; 0 of 6 done")
    # Two, and the cell that each has forked, at its own time.
    end = time.monotonic() + 30
    while (count := sum("-m hermes.compare" in one for one in shell.left_behind())) < 4:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert count == 4
    going.send_signal(signal.SIGINT)
    _, said = going.communicate(timeout=30)
    assert going.returncode == 130
    assert f"0 of 6 cells are done. To go on: hermes compare {file}" in said
    assert shell.left_behind() == []
    assert list((shell.folder / "compare" / "tiny" / "cells").iterdir()) == []
    page = (shell.folder / "compare" / "tiny" / "compare.html").read_text("utf-8")
    assert "no cell is done" in page
    assert "nobody reached" not in page


# --- files that are refused -----------------------------------------------------------------------

ONE = {"strategy": "fedavg"}
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown key": ({"sedes": [1]}, "", "Did you mean seeds?"),
    "an unknown key within": (
        {"strategies": {"fedavg": {**ONE, "sett": {}}}},
        ": strategies.fedavg",
        "Did you mean set?",
    ),
    "an unknown strategy": (
        {"strategies": {"fedavg": {"strategy": "fedavgg"}}},
        ": strategies.fedavg.strategy",
        "Did you mean fedavg?",
    ),
    "an unknown setting": (
        {"strategies": {"fedavg": {**ONE, "set": {"round.stps": 3}}}},
        ": strategies.fedavg.set",
        "Did you mean round.steps?",
    ),
    "one in vain": (
        {"strategies": {"fedavg": {**ONE, "set": {"close.count": 3}}}},
        ": strategies.fedavg.set",
        "would never take effect",
    ),
    "resident data": ({"set": {"data.resident": True}}, ": set", "grant their data"),
    "resident data of one": (
        {"strategies": {"fedavg": {**ONE, "set": {"data.resident": True}}}},
        ": strategies.fedavg.set",
        "grant their data",
    ),
    "a job without data": ({"job": str(ROOT / "examples" / "resident.py")}, ": job", "data=None"),
    "no job": ({"job": "none.py"}, ": job", "there is no such job file"),
    "a job that is a folder": ({"job": "."}, ": job", "this is a folder"),
    "a job that is no path": ({"job": "a\0b.py"}, ": job", "embedded null byte"),
    "a common one out of range": ({"set": {"round.steps": 0}}, ": set", "round.steps is 0"),
    "a stop of its own": ({"set": {"stop.accuracy": 0.9}}, ": set", "only `limit` ends a cell"),
    "no limit": ({"limit": {}}, ": limit", "no limit is set"),
    "a target above 1": ({"target": {"accuracy": 95}}, ": target.accuracy", "it is 95"),
    "a grid too fine": ({"grid": 0.1}, ": grid", "it is 0.1"),
    "a seed twice": ({"seeds": [1, 1]}, ": seeds", "1 is there twice"),
    "no seeds": ({"seeds": []}, ": seeds", "there is none"),
    "no such baseline": ({"baseline": "bsp"}, ": baseline", "there is no strategy 'bsp'"),
    "no such devices": ({"devices": ["none.json"]}, ": devices[0]", "cannot be read"),
    "no such device": (
        {"strategies": {"fedavg": {**ONE, "only": "none"}}},
        ": strategies.fedavg.only",
        "there is no device 'none'",
    ),
    "no name": (
        {"strategies": {"../x": ONE}, "baseline": "../x"},
        ": strategies.../x",
        "is no name for one",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_before_anything_runs(
    name: str, compare: Compare, tmp_path: Path
) -> None:
    changes, key, what = BAD[name]
    file = written(tmp_path, **changes)
    code, _, said = compare(file)
    assert code == 2
    assert f"{file}{key}: " in said
    assert what in said
    assert not (tmp_path / "out").exists()


def test_what_it_names_must_be_there(compare: Compare, tmp_path: Path) -> None:
    """File, job and data set."""
    assert compare(tmp_path / "none.json")[0] == 2
    code, _, said = compare(written(tmp_path, job="none.py"))
    assert (code, "there is no such job file" in said) == (2, True)
    job = tmp_path / "far.py"
    text = Path(DIGITS).read_text("utf-8")
    job.write_text(text.replace("hermes.data.digits,", 'lambda: hermes.np.load("none.npz"),'))
    code, _, said = compare(written(tmp_path, job="far.py"))
    assert (code, f"{job}:" in said) == (2, True)
    assert not (tmp_path / "out").exists()


COMES = ROOT / "conf" / "compare"
JOB = {(): Layer("job", {}, typed=False)}


def test_the_file_that_comes_with_hermes_fits() -> None:
    """Eight strategies, each within its own settings, and three seeds."""
    cells, odd = cells_of(load_matrix(COMES / "digits.json"), JOB)
    assert odd == []
    assert len({(c.strategy, c.devices, c.seed) for c in cells}) == len(cells) == 24
    assert {cell.loaded.world.evaluate_seconds for cell in cells} == {0.5}


def test_the_file_that_the_docs_show_fits(tmp_path: Path) -> None:
    shown = (ROOT / "docs" / "compare.md").read_text("utf-8").split("```json\n")[1].split("```")[0]
    file = tmp_path / "conf" / "compare" / "shown.json"
    file.parent.mkdir(parents=True)
    file.write_text(shown)
    for name in ("examples", "conf/devices"):
        (tmp_path / name).symlink_to(ROOT / name)
    cells, odd = cells_of(load_matrix(file), JOB)
    assert odd == []
    assert len(cells) == 9


@pytest.mark.parametrize("name", ["ablation", "ablation-paper"])
def test_an_ablation_changes_one_thing_at_a_time(name: str) -> None:
    """Each is legal, and is that preset but for one setting."""
    matrix = load_matrix(COMES / f"{name}.json")
    cells, odd = cells_of(matrix, JOB)
    assert odd == []
    assert len(cells) == 3 * len(matrix.contenders)
    whole = next(cell.settings for cell in cells if cell.strategy == matrix.baseline)
    assert not matrix.contenders[matrix.baseline].set
    seen = [whole]
    for cell in cells[1 : len(matrix.contenders)]:
        assert len(matrix.contenders[cell.strategy].set) == 1, cell.strategy
        assert cell.settings not in seen, cell.strategy
        seen.append(cell.settings)


# --- numbers, by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "seconds"),
    [
        ([(0, 0.1), (2, 0.9), (3, 0.9), (4, 0.9)], 2),
        (
            [(0, 0.1), (2, 0.9), (4, 0.8), (5, 0.95), (6, 0.9), (7, 0.91)],
            5,
        ),  # 2 and 3 alone held it
        ([(0, 0.1), (2, 0.9), (5, 0.8)], 2),  # no new version at 3 and 4: they are 0.9, too
        ([(0, 0.1), (2, 0.9), (3, None), (6, 0.9), (8, 0.9)], 6),  # not finite is below
        ([(0, 0.1), (8, 0.9)], 8),  # 8, 9 and 10
        ([(0, 0.1), (9, 0.9)], None),  # two points are left
        ([(0, 0.1), (5, 0.89)], None),
        ([], None),
    ],
)
def test_the_target_is_held_at_three_points_in_a_row(
    points: list[tuple[float, float | None]], seconds: float | None
) -> None:
    got = reached(outcome(points), 0.9)
    if seconds is None:
        assert not got.ever
        assert got.seconds == got.bytes == got.samples == got.pushes == math.inf
    else:
        assert got[:4] == (seconds, seconds * 100, seconds * 10, seconds)


def test_ratios_are_paired_and_never_is_infinite() -> None:
    assert ratio(12, 4) == 3
    assert ratio(12, math.inf) == 0
    assert ratio(math.inf, 4) == math.inf
    assert ratio(math.inf, math.inf) is None
    base = dict.fromkeys(range(6), 12.0)
    own = {0: 4.0, 1: 3.0, 2: 6.0, 3: 12.0, 4: 2.0, 5: 24.0, 6: 1.0}  # 6 has no partner
    known = ratios(base, own, range(6))
    assert known.by_seed == {0: 3, 1: 4, 2: 2, 3: 1, 4: 6, 5: 0.5}
    assert known.interval == (0.5, 6)
    assert ratios(base, own, range(7)).interval is None, "the baseline failed on 6"
    assert ratios({**base, 6: 2.0}, {**own, 6: 4.0}, range(7)).interval == (0.5, 6)
    assert ratios(base, {**own, 5: math.inf}, range(6)).interval == (0, 6)
    lost = {**base, 5: math.inf}
    assert ratios(lost, {**own, 5: math.inf}, range(6)).interval is None, "neither got there"
    few = {seed: own[seed] for seed in range(5)}
    assert ratios(base, few, range(5)).interval is None, "five are few"


def test_rows_medians_and_the_front() -> None:
    """a takes longer and fewer bytes, b is quicker, c is worse than b, d never gets there."""

    def cell(name: str, at: float, size: int, seed: int) -> Outcome:
        points = (Point(at, 1, 1, 1, 1, size, 0.9, None, None),)
        return outcome([], strategy=name, seed=seed, points=points)

    cells = [cell("a", 6 + s, 10, s) for s in (0, 1)] + [cell("b", 2 + s, 40, s) for s in (0, 1)]
    cells += [cell("c", 3 + s, 50, s) for s in (0, 1)] + [cell("d", 9, 1, s) for s in (0, 1)]
    a, b, c, d = rows(cells, ["a", "b", "c", "d"], ["d"], "a", 0.9, (0, 1))
    assert [row.on_front for row in (a, b, c, d)] == [True, True, False, False]
    assert (a.median("seconds"), b.median("bytes"), d.median("seconds")) == (6.5, 40, math.inf)
    assert [row.cut_short for row in (a, b, c, d)] == [0, 0, 0, 2], "d is there, and not held"
    assert (told(a)["cut_short"], told(d)["cut_short"]) == (0, 2)
    shown = told(b)
    assert shown["ratios"]["seconds"]["by_seed"] == [
        {"seed": 0, "ratio": 3.0, "reached": True, "baseline_reached": True},
        {"seed": 1, "ratio": round(7 / 3, 6), "reached": True, "baseline_reached": True},
    ]
    assert shown["shares"] == {"training": 0.25, "transfer": 0.25, "waiting": 0.5}
    lost = told(d)["ratios"]["seconds"]["by_seed"][1]
    assert lost == {"seed": 1, "ratio": 0.0, "reached": False, "baseline_reached": True}


def test_a_floor_that_is_first_is_called_one() -> None:
    """Beside it stands who is first of those that use the cluster."""
    points = (Point(4, 1, 1, 1, 1, 9, 0.9, None, None),)
    late = (Point(6, 1, 1, 1, 1, 9, 0.9, None, None),)
    cells = [outcome([], strategy="central", seed=0, points=points)]
    cells += [outcome([], strategy="h", seed=0, points=late)]
    known = rows(cells, ["central", "h"], ["d"], "h", 0.9, (0,))
    told = Told("t", "job.py", 0.9, "h", "9 s", 1.0, (0,), known, [], 2, "now", floors=("central",))
    text = page(told).replace("\u202f", " ").replace("\xa0", " ")
    assert "central, 4.0 s of virtual time." in text
    assert "A floor, which uses no cluster: central; with one: h, 6.0 s" in text
    assert "A floor" not in page(told._replace(floors=()))
    assert "before three held it" not in text


def test_who_has_no_interval_is_named_with_the_devices() -> None:
    """Six seeds, all cells there: of the baseline, which never gets there on one file of devices,
    nothing can be divided by itself."""
    points = (Point(4, 1, 1, 1, 1, 9, 0.9, None, None),)
    seeds = tuple(range(6))
    cells = [
        outcome([], strategy=name, devices=on, seed=seed, points=there)
        for seed in seeds
        for name, on, there in (("a", "d", ()), ("h", "d", points), ("a", "e", points))
    ]
    known = rows(cells, ["a", "h"], ["d", "e"], "a", 0.9, seeds)
    told = Told("t", "job.py", 0.9, "a", "9 s", 1.0, seeds, known, [], 18, "now")
    assert "as a pair is missing, or neither got there: a on d and h on e." in claim(told)
    alone = told._replace(rows=[row for row in known if row.devices == "d"])
    assert claim(alone).endswith("neither got there: a.")


def test_who_was_there_and_did_not_hold_it_is_told_of() -> None:
    """Of ten points of the grid the last two have it."""
    cells = [outcome([(1, 0.5), (9, 0.95)], seed=0)]
    known = rows(cells, ["a"], ["d"], "a", 0.9, (0,))
    told = Told("t", "job.py", 0.9, "a", "9 s", 1.0, (0,), known, [], 1, "now")
    text = page(told)
    assert "a: 1 seed came to the target at the last points, and ended before three held it" in text


def test_more_strategies_than_colours_can_be_told_apart() -> None:
    """Six colours: filled, then rings, then squares; said where it matters."""
    points = (Point(4, 1, 1, 1, 1, 9, 0.9, None, None),)

    def shown(count: int) -> str:
        names = [f"s{number}" for number in range(count)]
        cells = [outcome([], strategy=name, seed=0, points=points) for name in names]
        known = rows(cells, names, ["d"], "s0", 0.9, (0,))
        return page(Told("t", "job.py", 0.9, "s0", "9 s", 1.0, (0,), known, [], count, "now"))

    def marks(text: str) -> set[tuple[str, ...]]:
        found = r'<(circle|rect) class="dot( ring)? (c\d)"[^>]* data-worker="s(\d+)"'
        return {(*look, name) for *look, name in re.findall(found, text)}

    known = marks(shown(18))
    assert len(known) == len({look[:3] for look in known}) == 18
    assert "rings the next 6, then squares" in shown(13)
    assert "rings the others" in shown(12)
    assert "Filled points" not in shown(6)


def test_what_is_left_is_told_from_what_is_known() -> None:
    """Half of one after 10 s; two more like it, and one that took 4 s before; on two processes."""

    pace, slow, quick = Pace(2), order("slow"), order("quick")
    assert pace.left([Running(slow, 1.0, 0.0)], [quick]) is None
    pace.note("quick", "d", 4.0)
    going = [Running(slow, 10.0, 0.5)]
    assert pace.left(going, [slow, slow, quick]) == Left((10 + 20 + 20 + 4) / 2)
    assert pace.left(going, []) == Left(10.0)
    # What comes before the first of it grows with nothing: half of it took 6 s.
    assert pace.left([Running(slow, 10.0, 0.5, setup=4.0)], []) == Left(6.0)
    # What is expected is told first, and corrected by what is seen.
    pace = Pace(1, {"slow": 40.0, "quick": 10.0})
    assert pace.left([], [slow, quick]) == Left(50.0)
    pace.note("quick", "d", 5.0)
    assert pace.left([Running(slow, 1.0, 0.0)], [quick]) == Left(19.0 + 5.0)


def test_what_ends_at_a_target_is_told_as_a_bound_until_one_has_ended() -> None:
    """A quarter of its limit after 10 s: it may take 30 more, or end now."""
    pace, open_ended = Pace(1), replace(order("slow"), until=Until("test", 0.9))
    other = replace(order("other"), until=Until("test", 0.9))
    running = [Running(open_ended, 10.0, 0.25)]
    assert pace.left(running, []) == Left(30.0, at_most=True)
    assert pace.left(running, [open_ended]) == Left(30.0 + 40.0, at_most=True)
    assert pace.left(running, [other]) == Left(30.0 + 40.0), "of the other nothing is known"
    for two in (
        [*running, Running(open_ended, 1.0, 0.1)],
        [Running(open_ended, 1.0, 0.1), *running],
    ):
        assert pace.left(two, []) == Left(30.0 + 9.0, at_most=True)
    pace.note("slow", "d", 15.0)
    assert pace.left(running, [open_ended]) == Left(5.0 + 15.0)
    longer = [Running(open_ended, 20.0, 0.25)]
    assert pace.left(longer, []) == Left(60.0, at_most=True), "it takes longer than the one before"


@pytest.mark.parametrize(
    ("part", "told"),
    [(0.5, "about 10.0 s left; 0 of 1 done"), (1.0, "nearly through; 0 of 1 done")],
)
def test_less_than_a_second_is_not_told(part: float, told: str) -> None:
    """What comes after a cell's last event, such as its last scores, is not in its share."""
    said: list[str] = []
    teller = Teller([order("slow")], [], Pace(1), "test", said.append)
    teller.look([Running(order("slow"), 10.0, part)])
    assert said == [told]


def test_a_limit_tells_nothing_of_what_is_expected() -> None:
    """Of `hermes reproduce`: what cells take is known, about, and they end at a target."""
    early, later = (replace(order(name), until=Until("test", 0.9)) for name in ("early", "later"))
    pace = Pace(1, {"early": 24.0, "later": 140.0})
    assert pace.left([Running(early, 5.0, 0.04)], [later]) == Left(19.0 + 140.0)
    pace.note("early", "d", 48.0)
    assert pace.left([], [later]) == Left(280.0)


def order(strategy: str) -> Order:
    words = dict.fromkeys(("world_file", "world_digest", "job_file", "job_name", "job_text"), "")
    return Order(
        strategy=strategy,
        devices="d",
        seed=0,
        settings={},
        world=World(devices=(), links={}),
        args=(),
        device=None,
        path=strategy,
        **words,
    )
