"""Is it quicker to train in other processes? A few steps are timed; no result depends on it."""

from __future__ import annotations

import math
import time

from hermes.simulate.modelled import ModelledRun

ROUND = 0.005
"""Real seconds of training from which on a round is worth its way to another process: there and
back, with a version and an update of 0.4 MB, takes 1 to 2 ms."""

RUN = 20.0
"""Real seconds of training from which on a run is worth starting processes: each takes 2 to 4 s
until torch is there."""

STEPS = 4
"""That are timed; the quickest counts."""


def quicker(run: ModelledRun) -> bool:
    """Whether rounds are so long, and so many, that processes of their own pay off. The run's data
    are prepared, and its job has been tried."""
    prepared, settings, batch = run.prepared, run.settings, run.job.batch
    assert prepared is not None
    trainer = run.trainer()
    if trainer.device != "cpu":
        return False
    x, y = prepared.first(batch)
    took = math.inf
    for _ in range(STEPS):
        began = time.perf_counter()
        trainer.step(x, y, 1.0)
        took = min(took, time.perf_counter() - began)
    in_round = settings.round.steps or settings.round.epochs * -(-prepared.first_size // batch)
    in_run = settings.stop.samples / batch if settings.stop.samples else math.inf
    return took * in_round >= ROUND and took * in_run >= RUN
