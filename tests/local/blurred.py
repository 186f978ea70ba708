"""A small job, and whole runs of it under virtual time with real training."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import hermes
from hermes import nn
from hermes.chance import generator
from hermes.policy.presets import resolve
from hermes.simulate.driver import Driver
from hermes.simulate.faults import Faults
from hermes.simulate.local import LocalRun


def points() -> tuple[np.ndarray, np.ndarray]:
    """Three blurred classes in eight dimensions."""
    chance = generator(3, "points")
    y = np.arange(600) % 3
    x = chance.normal(size=(600, 8)) + 1.5 * np.eye(8)[y]
    return x.astype(np.float32), y.astype(np.int64)


JOB = hermes.Job(
    model=lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
    data=points,
    batch=16,
    optimizer=lambda params: nn.SGD(params, lr=0.1, momentum=0.5),
    loss=nn.CrossEntropy(),
)


def finished(
    strategy: str,
    settings: Mapping[str, Any],
    speeds: Mapping[str, float],
    faults: Faults | None = None,
    job: hermes.Job = JOB,
) -> Driver:
    """A run that has come to its end."""
    with tempfile.TemporaryDirectory() as folder:
        run = LocalRun(job, resolve(strategy, [job.settings(), settings]), 1, Path(folder))
        driver = Driver(run.setup(speeds), faults=faults)
        assert driver.run().finished
    return driver
