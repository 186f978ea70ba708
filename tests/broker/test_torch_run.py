"""Does a job of torch train through a broker as it does alone, and as NumPy does?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
from commands import Shell, Shown, wait_for
from perceptrons import HIDDEN, STEPS, begin, without
from safetensors.numpy import load_file
from torch import nn

from hermes.broker.control import Child

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]  # torch is loaded by every process


def test_torch_and_numpy_come_to_the_same_loss(
    tmp_path: Path, shell: Shell, embedded: Child
) -> None:
    """One start, the same blocks, 50 steps; and a plain module of torch takes what was saved."""
    begin(tmp_path)

    def train(name: str) -> dict[str, Any]:
        run = f"{name}-{uuid4().hex[:8]}"
        sets = [f"stop.versions={STEPS}", "stop.samples=off"]
        typed = [part for text in sets for part in ("--set", text)]
        return shell.json(
            *("run", f"of_{name}.py", "--broker", embedded.address, "--run", run),
            *("--workers", "1", "--strategy", "bsp", *typed),
        )

    of_torch, of_numpy = train("torch"), train("numpy")
    assert of_torch["version"] == of_numpy["version"] == STEPS
    for split in ("validation", "test"):
        assert of_torch["loss"][split] == pytest.approx(of_numpy["loss"][split], abs=1e-4)
        assert of_torch["loss"][split] < 2
    one, two = (load_file(result["paths"]["model"]) for result in (of_torch, of_numpy))
    begun = load_file(tmp_path / "start.safetensors")
    for name, value in one.items():
        assert np.allclose(value, two[name], atol=1e-4)
        assert not np.array_equal(value, begun[name])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    state = {name: torch.from_numpy(value.copy()) for name, value in one.items()}
    model.load_state_dict(state, strict=True)


def test_a_bad_worker_without_torch_says_so_and_the_others_go_on(
    shown: Shown, tmp_path: Path, shell: Shell, embedded: Child
) -> None:
    """Its own message, the central log and `hermes status` name it; the run goes on without it."""
    begin(tmp_path)
    run = f"bare-{uuid4().hex[:8]}"
    at = ("--broker", embedded.address, "--run", run)
    typed = ("master", "of_torch.py", *at, "--expect", "2", "--strategy", "bsp")
    ends = ("--set", "stop.samples=off", "--set", "stop.seconds=600")
    master = shell.start(*typed, *ends)
    wait_for(master, "waiting for")
    shell.environment["PYTHONPATH"] = without("torch", tmp_path)
    bare = shell("worker", *at, "--name", "bare")
    del shell.environment["PYTHONPATH"]
    typed_worker = "hermes worker --name bare"
    shown("a worker without torch", typed_worker, bare.returncode, _plain(bare.stderr, run))
    assert bare.returncode == 2
    assert "bare: of_torch.py:2: the job file needs the module 'torch', which is not here" in (
        bare.stderr
    )
    assert "pip install 'hermes-edge[torch]'" in bare.stderr
    assert "https://download.pytorch.org/whl/cpu" in bare.stderr
    fit = shell.start("worker", *at, "--name", "fit")
    wait_for(fit, "round 3: push")
    status = shell("status", run, "--broker", embedded.address)
    shown(
        "what is told of it", f"hermes status {run}", status.returncode, _plain(status.stdout, run)
    )
    assert re.search(r"bare\b.*needs the module 'torch'", status.stdout, re.DOTALL)
    stopped = shell("stop", run)
    assert stopped.returncode == 0, stopped.stderr
    assert master.wait(60) == 0
    log = (tmp_path / "runs" / run / "central.log").read_text()
    assert re.search(r" bare +error +.*'torch', which is not here", log)
    assert "pip install 'hermes-edge[torch]'" in log


def _plain(text: str, run: str) -> str:
    return text.replace(run, "bare")
