"""Does `hermes check` say what is wrong with a job of torch, as a worker would meet it?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from commands import ROOT, Shell, Shown

from hermes.cli.entry import run

JOB = """\
import hermes, numpy as np, torch
from torch import nn
{more}
def model():
    return {model}

def data():
    return {data}

job = hermes.Job(model=model, data=data, loss=nn.CrossEntropyLoss(),
                 optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
                 stop=hermes.Stop(samples=4000))
"""
NET = "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))"


def job(more: str = "", model: str = NET, data: str = "hermes.data.digits()") -> str:
    return JOB.format(more=more, model=model, data=data)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HERMES_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


MISTAKES: dict[str, tuple[str, list[str], list[str]]] = {
    "forward fails on the data": (
        job(model="nn.Sequential(nn.Flatten(), nn.Linear(32, 10))"),
        [],
        ["error: job.py:4: ", "mat1 and mat2 shapes cannot be multiplied", "x float32 (32, 8, 8)"],
    ),
    "forward gets bytes": (
        job(data="((hermes.data.digits()[0] * 255).astype('uint8'), hermes.data.digits()[1])"),
        [],
        ["error: job.py:4: ", "x is uint8, and the model computes with floats", "x.float() / 255"],
    ),
    "labels are out of range": (
        job(model="nn.Sequential(nn.Flatten(), nn.Linear(64, 7))"),
        [],
        ["error: job.py:4: ", "labels from 0 to 9; the model's 7 outputs"],
    ),
    "the model has no parameters": (
        job(model="nn.Flatten()"),
        [],
        ["error: job.py:4: the model has nothing to learn", "nn.Linear"],
    ),
    "the device is not there": (
        job(),
        ["--device", "cuda:7"],
        ["the device is cuda:7, and this machine has cpu", "Take --device auto"],
    ),
    "the device is none": (job(), ["--device", "gpu"], ["there is no device 'gpu'"]),
    "the factory gives other shapes at each call": (
        job(more="WIDTHS = iter(range(10, 99))", model=NET.replace("10", "next(WIDTHS)")),
        [],
        ["model() gives another model each time it is called: at the second call '1.bias' was"],
    ),
    "the model needs what data() has left": (
        job(
            more="FOUND = []",
            model=NET.replace("10", "FOUND[0]"),
            data="FOUND.append(10) or hermes.data.digits()",
        ),
        [],
        [
            "error: job.py:5: model() uses 'FOUND', which line 8 sets as data() is called",
            "constant",
        ],
    ),
}


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_is_told_with_its_line(
    title: str, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    text, args, expected = MISTAKES[title]
    Path("job.py").write_text(text)
    code = run(["check", "job.py", *args])
    said = capsys.readouterr().err
    shown(title, f"hermes check {' '.join(['job.py', *args])}", code, said)
    assert code == 2
    assert said.count("error: ") == 1, said
    for part in expected:
        assert part in said, said


def test_torch_is_missing(shell: Shell, shown: Shown) -> None:
    """As where it is not installed: the first that is found under its name says so."""
    (shell.folder / "none").mkdir()
    (shell.folder / "none" / "torch.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
    )
    (shell.folder / "job.py").write_text(job())
    shell.environment["PYTHONPATH"] = os.pathsep.join((str(shell.folder / "none"), str(ROOT)))
    done = shell("check", "job.py")
    shown("torch is not installed", "hermes check job.py", done.returncode, done.stderr)
    assert done.returncode == 2
    assert (
        "error: job.py:1: the job file needs the module 'torch', which is not here" in done.stderr
    )
    assert "pip install" in done.stderr


def test_frozen_layers_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    frozen = (
        "nn.Sequential(nn.Flatten(), nn.Linear(64, 32).requires_grad_(False), nn.Linear(32, 10))"
    )
    Path("job.py").write_text(job(model=frozen))
    assert run(["check", "job.py", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert (model["parameters"], model["trainable"]) == (330, 330)
    assert model["buffers"] == 64 * 32 + 32
    assert model["device"] == "cpu"
