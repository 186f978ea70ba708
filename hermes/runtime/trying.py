"""Is a job fit to be trained? What a master tries before anything is sent, and what a worker does
with what it was sent; `hermes check` does the same, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from hermes.blame import place_of
from hermes.chance import generator
from hermes.data.own import OwnData
from hermes.data.prepare import Prepared, prepare
from hermes.data.resident import prepare_central
from hermes.errors import JobError, SettingError
from hermes.job import Job
from hermes.jobfile import build
from hermes.messages import JobSource
from hermes.policy.aggregate import tiles
from hermes.policy.allocate import first_size
from hermes.policy.partition import partition_of
from hermes.policy.presets import Settings
from hermes.train import Batch, Trainer, make_trainer, starting_weights
from hermes.train.fit import check_fit
from hermes.values import Tensors


class Trial(NamedTuple):
    """One thing that is tried; `run` raises `JobError`."""

    name: str
    run: Callable[[], object]


def prepared_data(job: Job, settings: Settings, seed: int, expect: int, workdir: Path) -> Prepared:
    """The job's data as a run of `expect` workers needs it; what has to lie on disk meanwhile has
    no name there, under `workdir`. Raises `JobError`."""
    if job.data is None:
        return prepare_central(job, settings, workdir)
    if settings.data.resident:
        raise SettingError(
            "this job gives data itself, for the master to send",
            where="data.resident=true",
            remedy="Give it data=None: each worker then brings its own. (hermes simulate divides "
            "what data() gives among its devices.)",
        )
    if job.validation is not None:
        raise JobError(
            "Job.validation is set, and so is Job.data",
            where=job.place,
            remedy="Leave validation out: a part of the data is the validation set (split). It is "
            "for data=None, where workers bring their data.",
        )
    prepared = prepare(
        job.data,
        job.split,
        seed,
        lambda train: first_size(settings.size, train, expect),
        workdir,
        partition_of(settings.data, expect, job.batch),
    )
    metric = "custom" if callable(job.metric) else job.metric or ""
    return prepared if metric == "accuracy" else replace(prepared, metric=metric)


def fresh_trainer(job: Job, seed: int) -> Trainer:
    """The job's model and optimizer, drawn from the run's seed. Raises `JobError`."""
    return make_trainer(job, generator(seed, "init"))


def job_of(source: JobSource, device: str | None) -> Job:
    """The job from the text that travels; `device`: None for the job's own. Raises `JobError`."""
    return build(source.text, source.name, source.args, source.backend).on(device)


def rebuilt(source: JobSource, seed: int, device: str | None) -> tuple[Job, Trainer]:
    """That job and its trainer, as a worker has them. Raises `JobError`."""
    job = job_of(source, device)
    return job, fresh_trainer(job, seed)


def model_trials(job: Job, seed: int, trainer: Trainer) -> Iterator[Trial]:
    """What is tried of the model alone; `trainer` ends with the run's first weights."""
    yield Trial("starting weights", partial(starting_weights, job, trainer))
    yield Trial("the same model again", partial(_same_again, job, seed, trainer))


def fit_trials(job: Job, prepared: Prepared, trainer: Trainer) -> Iterator[Trial]:
    """What is tried of model and data together; the trainer is then as it was. Where all data stay
    with the workers, they try it."""
    batch = a_batch(prepared, job)
    if batch is None:
        return
    yield Trial("one step and an evaluation", partial(check_fit, job, trainer, batch))
    for extreme in prepared.extremes():
        yield Trial("smallest and largest label", partial(trainer.evaluate, [extreme]))


def doubts(trainer: Trainer, batch: Batch | None, *, thorough: bool = False) -> list[str]:
    """What of the model will be regretted, though it can be trained: in words, for people.
    `thorough`: at the price of a model more in memory."""
    if not trainer.framework.startswith("keras"):
        return []
    from hermes.train.keras_trainer import KerasTrainer

    assert isinstance(trainer, KerasTrainer)
    return trainer.doubts(batch, thorough=thorough)


def a_batch(prepared: Prepared, job: Job) -> Batch | None:
    """A first batch, to try the model on; None where all data stay with the workers."""
    split = next((name for name in ("train", "validation", "test") if name in prepared.parts), None)
    return None if split is None else prepared.first(job.batch, split)


def own_trials(job: Job, own: OwnData, trainer: Trainer) -> Iterator[Trial]:
    """The same, with the data that a worker has brought."""
    fits = partial(check_fit, job, trainer, own.first(job.batch))
    yield Trial("one step and an evaluation", fits)
    for extreme in own.extremes():
        yield Trial("smallest and largest label", partial(trainer.evaluate, [extreme]))


Shapes: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensors by name: type and shape."""


def shapes_of(weights: Tensors) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names, types and shapes of a model's tensors."""
    return {name: (str(array.dtype), array.shape) for name, array in weights.items()}


def difference(first: Shapes, second: Shapes) -> str:
    """The first tensor in which two models differ, in words; "" where they do not."""
    for name in sorted(first.keys() | second.keys()):
        if name not in second:
            return f"{name!r} is missing"
        if name not in first:
            return f"{name!r} is new"
        if first[name] != second[name]:
            (one, one_shape), (two, two_shape) = first[name], second[name]
            return f"{name!r} was {one} {tuple(one_shape)} and is {two} {tuple(two_shape)}"
    return ""


def _differs(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether a bit does; in tiles, since a model is large."""
    first, second = (np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (one, other))
    return any(bool((first[tile] != second[tile]).any()) for tile in tiles(first.size))


def _change(weights: Tensors) -> None:
    """Each number of these."""
    for tensor in weights.values():
        np.add(tensor, np.ones((), tensor.dtype), out=tensor)


def _same_again(job: Job, seed: int, trainer: Trainer) -> None:
    """Master and workers each call `model()`: each time they must get a model of its own, with
    tensors of the same shapes."""
    before = trainer.weights()
    other = fresh_trainer(job, seed)
    again = other.weights()
    found = difference(shapes_of(before), shapes_of(again))
    if not found:
        # A model that is one with the first changes with it.
        _change(again)
        other.load(again)
        del again  # models are large
        if any(_differs(tensor, before[name]) for name, tensor in trainer.weights().items()):
            trainer.load(before)
            raise JobError(
                "model() gives the same model each time it is called, not one of its own",
                where=place_of(job.model),
                remedy="Let it build the model: what was built at the top of the file would be "
                "shared by all who train and score it.",
            )
    if found:
        raise JobError(
            f"model() gives another model each time it is called: at the second call {found}",
            where=place_of(job.model),
            remedy="Master and workers each call it: let it build the same layers every time, "
            "without chance and without what an earlier call has left.",
        )
