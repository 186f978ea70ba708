"""How long does a step of this job take here, when nothing else runs?"""

from __future__ import annotations

import time

from hermes.chance import generator
from hermes.job import Job
from hermes.train import Batch, make_trainer

STEPS = 200
"""Steps measured, at most, and ..."""
SECONDS = 0.5
"""... for so long, at most."""


EMULATED = 0.002
"""Seconds of an emulated step at speed 1, at least: below that the scheduler's own noise drowns
what a speed is to show."""


def emulated_step(measured: float) -> float:
    """How long a step of this measured time is made to last on a device of speed 1, in seconds."""
    return max(measured, EMULATED)


def step_seconds(job: Job, batch: Batch, seconds: float = SECONDS) -> float:
    """The median time of a step on this batch, in seconds; measured for `seconds` at most, but
    for three steps at least. Trains a throw-away model."""
    trainer = make_trainer(job, generator(0, "measure"))
    end = time.monotonic() + seconds
    times: list[float] = []
    while len(times) < STEPS and (len(times) < 3 or time.monotonic() < end):
        started = time.perf_counter()
        trainer.step(*batch, 1.0)
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]
