"""Does each example train, as a user runs it, and does a run move what its check has told?"""

from __future__ import annotations

import json

import pytest
from commands import DIGITS, ROOT, Shell

pytestmark = pytest.mark.broker

TORCH = ("master", "mnist", "cifar10", "resnet18")
SHAPES = ("regression", "text", "two_losses", "dataset", "imbalance", "augment")
"""Models and data of other shapes."""


@pytest.mark.timeout(200)  # a deep net and two workers on a busy machine
@pytest.mark.parametrize("name", [*TORCH, *SHAPES])
def test_an_example_trains_in_its_smoke_form(name: str, shell: Shell) -> None:
    path = str(ROOT / "examples" / f"{name}.py")
    done = shell("run", path, "--workers", "2", "--json", "--", "--smoke", timeout=180)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "finished"
    assert result["version"] >= 1
    assert result["updates"]["pushed"] >= 1
    assert shell.left_behind() == []


def test_a_run_moves_what_the_check_has_told(shell: Shell) -> None:
    """Data, versions and updates to a per cent; storage within what control and framing add."""
    told = json.loads(shell("check", DIGITS, "--json").stdout)["topics"]
    result = shell.json("run", DIGITS, "--set", "stop.samples=40000")
    sent = {kind: both["sent"] for kind, both in result["bytes"].items()}
    versions = result["version"] + 1
    assert sent["data"] == pytest.approx(told["data"], rel=0.01)
    assert sent["model"] == pytest.approx(versions * told["version"], rel=0.01)
    # One a worker may have been stored, and not been named yet, when the run stopped.
    stored = sent["update"] / told["update"]
    assert stored == pytest.approx(round(stored), rel=0.01)
    assert 0 <= round(stored) - result["updates"]["pushed"] <= 4
    tensors = sent["data"] + sent["model"] + sent["update"]
    rounds = sum(worker["rounds"] for worker in result["workers"].values())
    assert result["storage"]["used"] == pytest.approx(tensors + 1000 * rounds, rel=0.15)
