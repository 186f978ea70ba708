"""Is the published claim judged as it should be? `hermes reproduce`, and its verdict by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Shown
from matrices import outcome

import hermes
from hermes.cli import reproduce
from hermes.cli.entry import run
from hermes.compare.matrix import cells_of, load_matrix
from hermes.compare.outcome import Point
from hermes.compare.score import rows
from hermes.compare.verdict import findings, section, sentences, told
from hermes.policy.presets import Layer

# --- the verdict, by hand -------------------------------------------------------------------------


def cell(name: str, seed: int, at: float | None, size: int = 100, calls: int = 50) -> Any:
    """Reaches 0.9 then, with so much communication; None: never, in 100 s."""
    score = 0.5 if at is None else 0.9
    point = Point(100 if at is None else at, 1, 1, 1, 1, size, score, None, None, calls)
    return outcome([], strategy=name, seed=seed, points=(point,), seconds=200.0)


def test_a_figure_is_met_only_where_every_seed_meets_it() -> None:
    """A baseline that never arrived gives a bound; who never arrives meets nothing."""
    own = ["h", "lost"]
    cells = [cell("h", s, 10, size=40, calls=20) for s in (1, 2)]
    cells += [cell("lost", s, None) for s in (1, 2)]
    cells += [cell("slow", s, 140) for s in (1, 2)]  # 14 times
    cells += [cell("mixed", 1, 133), cell("mixed", 2, 131)]
    cells += [cell("near", s, 20, size=100, calls=200) for s in (1, 2)]  # twice
    cells += [cell("away", s, None, size=110) for s in (1, 2)]  # 200 s at least: 20 times
    known = rows(cells, ["h", "lost", "slow", "mixed", "near", "away"], ["d"], "slow", 0.9, (1, 2))
    found = {(f.own, f.baseline, f.measure.key): f for f in findings(known, own, (1, 2))}
    assert len(found) == 2 * 4 * 3

    def verdict(*key: str) -> tuple[str, str]:
        return found[key].verdict, found[key].text  # type: ignore[index]

    assert verdict("h", "slow", "seconds") == ("met", "14, 14")
    assert verdict("h", "mixed", "seconds") == ("on some seeds", "13.3, 13.1")
    assert verdict("h", "near", "seconds") == ("not met", "2, 2")
    assert verdict("h", "away", "seconds") == ("met", "at least 20, at least 20")
    assert verdict("h", "near", "bytes") == ("not met", "60.0 %, 60.0 %")
    assert verdict("h", "away", "bytes") == ("met", "at least 63.6 %, at least 63.6 %")
    assert verdict("h", "near", "calls") == ("met", "90.0 %, 90.0 %")
    assert verdict("h", "away", "calls") == ("open", "at least 60.0 %, at least 60.0 %")
    assert verdict("lost", "slow", "bytes") == ("never got there", "never, never")

    # Of three seeds the third is not there: what it would have been is not known.
    found_of_three = {(f.own, f.baseline): f for f in findings(known, own, (1, 2, 3))[:8]}
    of_three = {key: (f.verdict, f.text) for key, f in found_of_three.items()}
    assert of_three["h", "slow"] == ("open", "14, 14, -")
    assert of_three["h", "mixed"] == ("on some seeds", "13.3, 13.1, -")
    assert of_three["h", "near"] == ("open", "2, 2, -")

    none = findings(rows([], ["h", "slow"], ["d"], "slow", 0.9, (1,)), own, (1,))
    assert {(f.verdict, f.text) for f in none} == {("not run yet", "-")}
    assert len(sentences(none, own, 0.9)) == 1, "no verdict of any figure"

    said = sentences(list(found.values()), own, 0.9)
    assert said[0] == (
        "13.22 times faster to 0.9 on test, h: met against slow and away; on some seeds against "
        "mixed; not met against near."
    )
    assert said[1].endswith("lost: it never got there.")
    html = section(list(found.values()), own, 0.9)
    assert "no number of it is the paper&#x27;s" in html
    assert json.loads(json.dumps(told(list(found.values()))))[0] == {
        "strategy": "h",
        "against": "slow",
        "measure": "seconds",
        "published": 13.22,
        "verdict": "met",
        "by_seed": [{"seed": s, "value": 14.0, "at_least": False} for s in (1, 2)],
    }


# --- the command ----------------------------------------------------------------------------------


def mnist(folder: Path) -> Path:
    """A file as MNIST's: the digits of Hermes, enlarged."""
    x, y = hermes.data.digits()
    large = np.pad(np.kron(x * 255, np.ones((3, 3))).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    parts = {"x_train": large[:1500], "y_train": y[:1500], "x_test": large[1500:]}
    np.savez(folder / "mnist.npz", **parts, y_test=y[1500:])
    return folder / "mnist.npz"


def test_it_says_what_is_met_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file like MNIST's, small; first of all it says how long it takes."""
    tree = json.loads(reproduce.SHORT_FORM.read_text())
    folder = reproduce.SHORT_FORM.parent
    world = json.loads((folder / "edge12.json").read_text())
    world |= {"samples_per_second": 200, "devices": world["devices"][:2]}
    (tmp_path / "edge2.json").write_text(json.dumps(world))
    tree |= {"job": str(folder / tree["job"]), "seeds": [1], "target": {"accuracy": 0.3}}
    tree |= {"devices": ["edge2.json"], "limit": {"seconds": 90, "target": True}, "grid": 2}
    names = ("hermes", "hermes-paper", "bsp")
    tree["strategies"] = {name: tree["strategies"][name] for name in names}
    (tmp_path / "reproduce.json").write_text(json.dumps(tree))
    monkeypatch.setattr(reproduce, "SHORT_FORM", tmp_path / "reproduce.json")
    command = ["reproduce", str(mnist(tmp_path)), "--out", str(tmp_path / "out")]

    assert run([*command, "--json"]) == 0
    printed = capsys.readouterr()
    told_first = printed.err.splitlines()
    assert told_first[0] == "reproduce: 3 cells"
    assert told_first[1].startswith("about ")
    assert told_first[1].endswith("left; 0 of 3 done")
    result = json.loads(printed.out)
    assert len(result["findings"]) == 3 * 1 * 2
    by_bytes = next(f for f in result["findings"] if f["measure"] == "bytes")
    assert by_bytes["by_seed"][0]["value"] is not None
    calls = next(
        f
        for f in result["findings"]
        if (f["strategy"], f["against"], f["measure"]) == ("hermes-paper", "bsp", "calls")
    )
    assert calls["by_seed"][0]["value"] > 0.5, "a round has hundreds of steps"
    saved = json.loads((tmp_path / "out" / "compare" / "reproduce" / "reproduce.json").read_text())
    assert saved["verdict"] == result["verdict"]
    page = Path(result["paths"]["html"]).read_text("utf-8")
    assert "Which of the published figures are met?" in page
    assert "13.22 times faster" in page

    assert run(command) == 0
    printed = capsys.readouterr()
    assert "3 cells, 3 are there already" in printed.err
    assert "13.22 times faster to 0.3 on test, hermes: " in printed.out
    assert "What this cannot say:" in printed.out


def test_what_it_runs_is_what_the_paper_says_as_far_as_is_known() -> None:
    """Both probes, the published settings, 12 devices, and the example's model; three seeds."""
    matrix = load_matrix(reproduce.SHORT_FORM)
    cells, odd = cells_of(matrix, {(): Layer("job", {}, typed=False)})
    assert odd == []
    assert matrix.seeds == (1, 2, 3)
    assert set(matrix.contenders) == set(reproduce.TOOK)
    paper = {c.strategy: c.settings for c in cells if c.strategy.startswith("hermes-paper")}
    assert [s.gate.probe for s in paper.values()] == ["fixed", "fresh15"]
    for settings in paper.values():
        gate = settings.gate
        assert (gate.alpha, gate.beta, gate.lambda_, gate.window) == (-1.3, 0.1, 5, 10)
        assert (settings.round.epochs, settings.size.first) == (5, 2500)
    assert {len(cell.loaded.world.devices) for cell in cells} == {12}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (None, "the paper's setting needs MNIST, which does not come with Hermes"),
        ("none.npz", "none.npz: there is no such file"),
        ("digits.npz", "it is not MNIST as this job reads it"),
        ("text.npz", "not a readable .npz file"),
    ],
)
def test_bad_mnist_is_refused(
    file: str | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shown: Shown,
) -> None:
    x, y = hermes.data.digits()
    np.savez(tmp_path / "digits.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "text.npz").write_text("no archive")
    given = [] if file is None else [str(tmp_path / file)]
    assert run(["reproduce", *given, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "~/.keras/datasets/mnist.npz" in printed
    assert not (tmp_path / "out").exists()
    shown("No MNIST", " ".join(["hermes reproduce", *([file] if file else [])]), 2, printed)
