"""Can this be trained with Keras? What a model must be like, told before Keras' own words come."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np

from hermes.blame import place_of
from hermes.errors import JobError
from hermes.job import Job
from hermes.train.fit import refuse_step
from hermes.train.keras_doubts import cross_entropy, has_own_loss
from hermes.train.protocol import Batch

TRAVELS = frozenset(["float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"])
"""Types of variables that can be merged."""

COMPILED = {
    "optimizer": "model.compile(optimizer=...)",
    "loss": "model.compile(loss=...)",
    "clip": "the optimizer's clipnorm= or clipvalue=",
    "autocast": 'keras.config.set_dtype_policy("mixed_bfloat16") at the top of model()',
}
"""What a compiled model has itself, and how it is said there."""


def check_model(job: Job, model: Any) -> None:
    """Raise `JobError` for a model that is not ready to be trained, sent and merged."""
    where = place_of(job.model) or job.place
    if not isinstance(model, keras.Model):
        raise JobError(
            f"model() returned a {type(model).__name__}",
            where=where,
            remedy="It returns a compiled keras.Model, such as keras.Sequential([...]).",
        )
    _check_job(job)
    _check_compiled(job, model, where)
    _check_weights(model, where)
    _check_pairs(model, where)


def _check_compiled(job: Job, model: Any, where: str) -> None:
    if not model.compiled or model.optimizer is None:
        raise JobError(
            "the model is not compiled",
            where=where,
            remedy="End model() with model.compile(optimizer=..., loss=..., metrics=[...]).",
        )
    if not _has_loss(model):
        raise JobError(
            "the model is compiled without a loss",
            where=where,
            remedy="model.compile(optimizer=..., loss=...).",
        )
    if model.steps_per_execution != 1:
        raise JobError(
            f"the model is compiled with steps_per_execution={model.steps_per_execution}",
            where=where,
            remedy="Leave it out: a worker decides after each step whether to go on.",
        )
    if job.schedule is not None and has_schedule(model.optimizer):
        raise JobError(
            "two schedules: Job.schedule, and the learning rate of the compiled optimizer",
            where=place_of(job.schedule) or job.place,
            remedy="Leave one. Job.schedule follows the run's progress; one of Keras counts the "
            "steps of its own worker.",
        )


def _check_weights(model: Any, where: str) -> None:
    if not model.built or not model.weights:
        raise JobError(
            "the model is not built: it does not know the shape of its samples",
            where=where,
            remedy="Begin it with keras.Input(shape=...), or call it once, "
            "model(keras.ops.zeros((1, ...))), before model() returns it.",
        )
    if not model.trainable_weights:
        raise JobError(
            "the model has nothing to learn",
            where=where,
            remedy="All its layers have trainable=False: leave that for some.",
        )
    for weight in model.weights:
        if keras.backend.standardize_dtype(weight.dtype) not in TRAVELS:
            raise JobError(
                f"{weight.path!r} is {weight.dtype}, which cannot be merged",
                where=where,
                remedy="Keep variables in float32; to compute in half precision, the dtype policy "
                '"mixed_bfloat16" or "mixed_float16".',
            )


def _check_pairs(model: Any, where: str) -> None:
    """A sample is one x and one y."""
    ins, outs = (len(getattr(model, name, None) or [None]) for name in ("inputs", "outputs"))
    if ins > 1:
        raise JobError(
            f"the model has {ins} inputs, and a sample's x is one array",
            where=where,
            remedy="Let data() put them side by side into one array, and the model take them apart "
            "again: keras.Input((7,)), then x[:, :3] and x[:, 3:].",
        )
    if outs > 1 and not has_own_loss(model):
        raise JobError(
            f"the model has {outs} outputs, and a sample's y is one array",
            where=where,
            remedy="Put them side by side, keras.layers.Concatenate(), and compile a loss that "
            "takes them apart; or override train_step and test_step in the model.",
        )


def check_labels(job: Job, model: Any, batch: Batch) -> None:
    """Raise `JobError` for one-hot labels beside a loss that wants whole numbers, or the reverse:
    Keras tells of shapes that do not fit, or trains on nonsense."""
    found, shape = cross_entropy(model), _output_shape(model, batch[0])
    if found is None or has_own_loss(model) or not shape or shape[-1] in (None, 1):
        return
    x, y = batch
    whole = (shape[:-1], (*shape[:-1], 1))
    if found.kind == "sparse" and y.shape[1:] == shape:
        what = "the labels are one-hot, and the loss, SparseCategoricalCrossentropy, wants numbers"
        remedy = "Compile with CategoricalCrossentropy, or return y.argmax(-1) from data()."
    elif found.kind == "categorical" and y.shape[1:] in whole:
        what = "the labels are numbers of classes, and the loss, CategoricalCrossentropy, wants "
        what += "one-hot ones"
        remedy = "Compile with SparseCategoricalCrossentropy, or return keras.utils.to_categorical"
        remedy += "(y) from data()."
    else:
        return
    told = f"{what}; the batch is x {x.dtype} {x.shape}, y {y.dtype} {y.shape}"
    raise JobError(told, where=place_of(job.model) or job.place, remedy=remedy)


def _output_shape(model: Any, x: Any) -> tuple[int | None, ...]:
    """That of one sample's outputs; () where it is not known."""
    with contextlib.suppress(Exception):  # a model of the job's own may raise anything
        outputs = getattr(model, "outputs", None)
        shape = outputs[0].shape if outputs else model.compute_output_shape(x.shape)
        return tuple(shape[1:])
    return ()


def _check_job(job: Job) -> None:
    for name, instead in COMPILED.items():
        if getattr(job, name) is not None:
            raise JobError(
                f"Job.{name} is set, and the model is one of Keras",
                where=place_of(getattr(job, name)) or job.place,
                remedy=f"Leave it out: a compiled model has its own. There: {instead}.",
            )
    refuse_step(
        job,
        "a model of Keras",
        "Leave it out: override train_step in the model, or put a layer such as "
        "keras.layers.RandomTranslation into it.",
    )
    if callable(job.metric):
        raise JobError(
            "Job.metric is a function, and the model is one of Keras",
            where=place_of(job.metric) or job.place,
            remedy="Compile the model with it: model.compile(..., metrics=[...]). Job.metric may "
            "name the one that is shown beside the loss.",
        )
    if job.device != "auto":
        raise JobError(
            f"the device is {job.device}, and Keras chooses its own",
            where=job.device_from,
            remedy="Leave device and --device out: Keras takes a GPU where its backend sees one "
            "(CUDA_VISIBLE_DEVICES=-1 hides it).",
        )


def _has_loss(model: Any) -> bool:
    """Or something in its place."""
    return model.loss is not None or has_own_loss(model) or bool(model.losses)


def has_schedule(optimizer: Any) -> bool:
    """Whether its rate is not a number, but changes by itself."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return isinstance(inner.get_config().get("learning_rate"), dict)


def check_scores(job: Job, scored: dict[str, Any]) -> None:
    """Raise `JobError` for a score that is not one number."""
    for name, value in scored.items():
        if np.size(value) != 1:
            raise JobError(
                f"the metric {name!r} gives {np.size(value)} numbers",
                where=place_of(job.model) or job.place,
                remedy="Compile it so that it gives one, such as average='macro', or leave it out.",
            )


def metric_of(job: Job, names: list[str]) -> str | None:
    """The compiled metric that is shown beside the loss, of these; None for none. Raises
    `JobError` where the job names one that is not there."""
    if job.metric is None:
        return None
    if job.metric in names:
        return str(job.metric)
    if job.metric == "accuracy":  # the default: under whatever name Keras has it
        return next((name for name in names if name == "acc" or name.endswith("accuracy")), None)
    there = ", ".join(names) or "none"
    raise JobError(
        f"Job.metric is {job.metric!r}, and the model is compiled with {there}",
        where=job.place,
        remedy="Name one of model.compile(metrics=[...]).",
    )
