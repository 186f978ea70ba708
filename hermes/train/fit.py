"""Do a model and its data fit together? One step and one evaluation tell."""

from __future__ import annotations

import math
import warnings

from hermes.blame import place_of
from hermes.chance import generator
from hermes.errors import JobError
from hermes.job import Job
from hermes.train.protocol import Batch, Trainer


def check_schedule(job: Job) -> None:
    """Raise `JobError` where the schedule gives no factor at the beginning, middle or end."""
    for progress in (0.0, 0.5, 1.0):
        job.factor(progress)


def refuse_step(job: Job, model: str, remedy: str) -> None:
    """Raise `JobError` where the job has a step of its own, and its model, such as "a model of
    hermes.nn", has no use for one."""
    if job.step is not None:
        raise JobError(
            f"Job.step is set, and {model} is trained without it",
            where=place_of(job.step) or job.place,
            remedy=remedy,
        )


def check_round_end(trainer: Trainer, batch: Batch) -> None:
    """Raise `JobError` for what goes wrong as a round ends and the next begins: the callbacks'
    part. The trainer's weights are then as they were."""
    before = trainer.weights()
    try:
        for number in range(2):
            trainer.begin_round(generator(0, f"trial-{number}"))
            trainer.step(*batch, 1.0)
    finally:
        trainer.load(before)
        trainer.reset_optimizer()


def check_fit(job: Job, trainer: Trainer, batch: Batch) -> float:
    """Train one step on `batch` and evaluate it; the loss. The trainer is then as it was.

    Raises `JobError` where shapes do not fit (names both), labels are out of range, the loss is
    not finite, or the schedule, loss or metric raises.
    """
    check_schedule(job)
    before = trainer.weights()
    try:
        with warnings.catch_warnings():
            # Outputs (n, 1) beside labels (n,): torch warns, and goes on with all pairs of them.
            warnings.filterwarnings("error", message="Using a target size")
            loss = trainer.step(*batch, 1.0)
            trainer.evaluate([batch])
    finally:
        trainer.load(before)
        trainer.reset_optimizer()
    if not math.isfinite(loss):
        raise JobError(
            f"the loss of the first step is {loss}",
            where=place_of(job.model),
            remedy="Scale x to about 0 .. 1, and look for a log or a division by zero in the "
            "model and the loss.",
        )
    return loss
