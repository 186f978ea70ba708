"""Is a run's metric called by its name, everywhere, and left out where there is none?"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

from hermes.cli.entry import run

EDGE = ROOT / "conf" / "devices" / "edge12.json"

JOB = """\
import hermes
from hermes import nn

def wrong(outputs, labels):
    return (outputs.argmax(axis=1) != labels).mean()

job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    data=hermes.data.digits,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(),
    metric=METRIC,
    stop=hermes.Stop(samples=6000),
)
"""

Told = tuple[dict[str, Any], dict[str, str]]


@pytest.fixture
def told(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Told:
    """The result of a run of a job with this metric, and what commands and its page say of it."""
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("job.py").write_text(JOB.replace("METRIC", request.param))
    texts = {}
    for name, words in {
        "simulate": ["simulate", "job.py", "--devices", str(EDGE), "--run", "one"],
        "status": ["status", "one"],
        "why": ["why", "master"],
    }.items():
        assert run(words) == 0
        printed = capsys.readouterr()
        texts[name] = printed.out + printed.err
    page = (tmp_path / "runs" / "one" / "report.html").read_text()
    texts["page"] = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    return json.loads((tmp_path / "runs" / "one" / "result.json").read_text()), texts


def said(texts: dict[str, str], word: str) -> dict[str, bool]:
    """Who says this word with a number behind it, or as a column or a curve."""
    patterns = {
        "simulate": rf"{word} 0\.\d{{4}}",
        "status": rf"{word} 0\.\d{{4}}",
        "why": rf"{word} 0\.\d{{4}}",
        "page": rf"{word.capitalize()} on validation|(test|validation) {word}<|>{word}</th>",
    }
    return {name: re.search(pattern, texts[name]) is not None for name, pattern in patterns.items()}


@pytest.mark.parametrize("told", ['"accuracy"'], indirect=True)
def test_accuracy_is_called_so(told: Told) -> None:
    result, texts = told
    assert result["metric"] == "accuracy"
    assert all(said(texts, "accuracy").values())
    assert not any(said(texts, "metric").values())


@pytest.mark.parametrize("told", ["wrong"], indirect=True)
def test_a_function_is_a_metric_of_which_nobody_knows_which_way_is_up(told: Told) -> None:
    result, texts = told
    assert result["metric"] == "metric"
    assert all(said(texts, "metric").values())
    assert not any(said(texts, "accuracy").values())
    ring = re.search(r"Metric on validation.*?Best (0\.\d{4})", texts["page"], flags=re.DOTALL)
    assert ring is not None
    assert float(ring[1]) == pytest.approx(result["best"]["accuracy"], abs=1e-4)
    assert float(ring[1]) < 0.5, "the share of wrong guesses, of the version with the least loss"


@pytest.mark.parametrize("told", ["None"], indirect=True)
def test_without_a_metric_nobody_speaks_of_one(told: Told) -> None:
    result, texts = told
    assert result["accuracy"] == {"validation": None, "test": None}
    assert result["metric"] is None
    assert re.search(r"test +loss \d", texts["simulate"])
    assert not any(said(texts, "metric").values())
    assert not any(said(texts, "accuracy").values())
    assert "accuracy -" not in "".join(texts.values())
