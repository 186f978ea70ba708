"""How much memory does a master take before anything is sent? What is tried is tried in little."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.memory import JOB
from hermes.jobfile import build
from hermes.runtime.trying import fresh_trainer, model_trials
from hermes.train.fit import check_fit

SIDE = 1500
MODEL = 4 * SIDE * SIDE
"""Bytes of one matrix: what is done tensor by tensor saves nothing here."""

TEXT = JOB.format(model=f"nn.Linear({SIDE}, {SIDE}, bias=False)", samples=32, features=8)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def models() -> float:
    """The most that was held since the last call."""
    most = tracemalloc.get_traced_memory()[1] / MODEL
    tracemalloc.reset_peak()
    return most


@pytest.mark.usefixtures("traced")
def test_a_model_is_built_and_tried_within_a_few_models() -> None:
    """NumPy's zeros are counted before they are touched: two a trainer, value and gradient."""
    job = build(TEXT, "job.py")
    models()
    trainer = fresh_trainer(job, 0)
    assert models() < 2.2
    for trial in model_trials(job, 0, trainer):
        trial.run()
    assert models() < 6.2  # two trainers, their weights as they were, and one that is compared
    x = np.ones((8, SIDE), np.float32)
    check_fit(job, trainer, (x, np.zeros(8, np.int64)))
    assert models() < 5.2  # the trainer, weights as they were, a gradient, a step
