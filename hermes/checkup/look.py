"""What are a model and its data like? Facts for people, measured where they must be."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hermes.checkup.facts import (
    ArrayFacts,
    ClassFacts,
    DataFacts,
    LearningFacts,
    ModelFacts,
    TimeFacts,
)
from hermes.data.blocks import Array
from hermes.data.prepare import Prepared
from hermes.job import Job
from hermes.machine.grid import GRID, GRID_COST
from hermes.machine.rounds import probe_of
from hermes.policy.presets import Settings
from hermes.runtime.measure import step_seconds
from hermes.runtime.storage import round_steps
from hermes.train import Batch, Trainer
from hermes.values import SECOND, Tensors

SOME = 1000
"""Samples that are looked at for the spread of x."""

STEPS = 20
"""On one batch, to see whether the loss falls; fewer where they take long."""
SECONDS = 2.0
"""Of such steps, and of one measuring, about."""


def model_facts(trainer: Trainer) -> ModelFacts:
    """Framework, device and sizes."""
    weights, buffers = trainer.weights(), trainer.buffers()
    parameters = sum(array.size for name, array in weights.items() if name not in buffers)
    return ModelFacts(
        framework=trainer.framework,
        device=trainer.device,
        parameters=parameters,
        trainable=parameters,
        buffers=sum(weights[name].size for name in buffers),
        tensors=len(weights),
        bytes=sum(array.nbytes for array in weights.values()),
    )


def moved_only(model: ModelFacts, trainer: Trainer, unmoved: tuple[str, ...]) -> ModelFacts:
    """With the parameters that some step has changed as the trainable ones."""
    weights = trainer.weights()
    return replace(model, trainable=model.parameters - sum(weights[n].size for n in unmoved))


def data_facts(prepared: Prepared) -> DataFacts:
    """Splits, types, classes; reads all labels, and some samples."""
    x, y = prepared.first(SOME)
    return DataFacts(
        samples=prepared.samples,
        x=_array_facts(x),
        y=_array_facts(y),
        classes=_classes(prepared),
        bytes=sum(prepared.samples.values()) * prepared.bytes_each,
        block=prepared.block,
        blocks=sum(prepared.blocks.values()),
        shard=prepared.first_size,
    )


def _array_facts(array: Array) -> ArrayFacts:
    wide = array.astype(np.float64)
    return ArrayFacts(
        dtype=str(array.dtype),
        shape=array.shape[1:],
        least=float(wide.min()),
        most=float(wide.max()),
        mean=float(wide.mean()),
        std=float(wide.std()),
    )


def _classes(prepared: Prepared) -> ClassFacts | None:
    labels: list[npt.NDArray[np.int64]] = []
    for samples, indices in prepared.parts.values():
        if samples.y.ndim != 1 or samples.y.dtype.kind not in "iu":
            return None
        labels.append(samples.y[indices].astype(np.int64))
    known, counts = np.unique(np.concatenate(labels), return_counts=True)
    rarest, commonest = int(counts.argmin()), int(counts.argmax())
    return ClassFacts(
        count=len(known),
        fewest=int(counts[rarest]),
        rarest=int(known[rarest]),
        most=int(counts[commonest]),
        commonest=int(known[commonest]),
    )


def learning_facts(
    job: Job, trainer: Trainer, batch: Batch, classes: ClassFacts | None
) -> LearningFacts:
    """Train `trainer` on one batch for a few steps: the loss should fall. (As it trains: running
    means need many steps before an evaluation says much.)"""
    before = trainer.weights()
    losses: list[float] = []
    end = time.monotonic() + SECONDS
    while len(losses) <= STEPS and (len(losses) < 4 or time.monotonic() < end):
        losses.append(trainer.step(*batch, 1.0))
    plain = job.step is None and _is_cross_entropy(job.loss)
    chance = math.log(classes.count) if classes and plain else None
    unmoved = _unmoved(before, trainer.weights(), trainer.buffers())
    return LearningFacts(losses[0], chance, losses[-1], len(losses) - 1, unmoved)


def _unmoved(before: Tensors, after: Tensors, buffers: frozenset[str]) -> tuple[str, ...]:
    return tuple(
        name
        for name in before
        if name not in buffers and np.array_equal(before[name], after[name], equal_nan=True)
    )


def _is_cross_entropy(loss: object) -> bool:
    name = getattr(loss, "__name__", type(loss).__name__).lower().replace("_", "")
    return "crossentropy" in name or name.startswith("nll")


def time_facts(
    job: Job, settings: Settings, prepared: Prepared, trainer: Trainer, threads: int
) -> TimeFacts:
    """Seconds of a step, of a round, of an evaluation; all of it alone on this machine."""
    step = step_seconds(job, prepared.first(job.batch), 1.0)
    steps = round_steps(settings, prepared.first_size, job.batch)
    probe = _evaluation(trainer, prepared, "probe") if probe_of(settings) else 0.0
    evaluation = _evaluation(trainer, prepared, "validation")
    return TimeFacts(
        step=step,
        threads=threads,
        steps=steps,
        probe=probe,
        round=steps * step + probe,
        evaluation=evaluation,
        grid=max(GRID / SECOND, GRID_COST * evaluation),
    )


def _evaluation(trainer: Trainer, prepared: Prepared, split: str) -> float:
    """Seconds of scoring a split, block by block as a run does; of a large one, a part is
    measured, and the rest like it."""
    samples, indices = prepared.parts[split]
    done, spent = 0, 0.0
    while done < len(indices) and (spent < SECONDS / 3 or done == 0):
        chosen = indices[done : done + prepared.block]
        batch = samples.x[chosen], samples.y[chosen]
        if done == 0:
            trainer.evaluate([batch])  # the first time is no measure: libraries are set up
        started = time.perf_counter()
        trainer.evaluate([batch])
        spent += time.perf_counter() - started
        done += len(chosen)
    return spent * len(indices) / done
