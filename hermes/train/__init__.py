"""Which framework trains this job?"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from hermes import codec, nn
from hermes.blame import call_user, place_of
from hermes.errors import DecodeError, JobError
from hermes.job import Job
from hermes.train.numpy_trainer import NumpyTrainer
from hermes.train.protocol import Batch, Scores, Trainer

__all__ = ["Batch", "Scores", "Trainer", "make_trainer", "starting_weights"]

FRAMEWORKS = frozenset(["keras", "torch"])
"""Told by a model's type alone: nothing is imported to see it."""


def make_trainer(job: Job, generator: np.random.Generator) -> Trainer:
    """The trainer of this job's model, initialised from `generator`.

    Raises `JobError` where `model()` or `optimizer(params)` raises or gives what we cannot train.
    """
    model = _model_of(job, generator)
    framework = _framework_of(model)
    if framework == "keras":
        from hermes.train.keras_trainer import KerasTrainer

        return KerasTrainer(job, model)
    if isinstance(model, nn.Module) or framework == "torch":
        _check_parts(job)
    if isinstance(model, nn.Module):
        return NumpyTrainer(job, model, generator)
    if framework == "torch":
        from hermes.train.torch_trainer import TorchTrainer

        return TorchTrainer(job, model)
    given = "None" if model is None else f"a {type(model).__name__}"
    raise JobError(
        f"model() returned {given}",
        where=place_of(job.model),
        remedy="It returns a model of torch, of hermes.nn, or a compiled one of Keras"
        + ("; was `return` forgotten?" if model is None else "."),
    )


def _check_parts(job: Job) -> None:
    """Raise `JobError` where the job lacks what a compiled model of Keras alone has itself, or has
    what only such a model can use."""
    examples = {
        "optimizer": "lambda params: torch.optim.SGD(params, lr=0.1)",
        "loss": "torch.nn.CrossEntropyLoss()",
    }
    for name, example in examples.items():
        if getattr(job, name) is None:
            raise JobError(
                f"the job gives no {name}",
                where=job.place,
                remedy=f"For example {name}={example}; for a model of hermes.nn, from there. Only "
                "a compiled model of Keras brings its own.",
            )
    if job.callbacks is not None:
        raise JobError(
            "Job.callbacks is set, and the model is not one of Keras",
            where=job.place,
            remedy="Leave it out: schedule, clip and step are there for such things.",
        )
    if isinstance(job.metric, str) and job.metric != "accuracy":
        raise JobError(
            f"Job.metric is {job.metric!r}",
            where=job.place,
            remedy='It is "accuracy", None, or a function of (outputs, labels). Only a compiled '
            "model of Keras has metrics by other names.",
        )


def _model_of(job: Job, generator: np.random.Generator) -> Any:
    """What `model()` gives. torch and Keras draw a model's weights while it is built, so that they
    must be seeded before; a factory that is the first to import one of them is called again."""
    if not isinstance(job.model, type) and _framework_of(job.model):
        raise JobError(
            f"Job.model is a model, a {type(job.model).__name__}, not a function that builds one",
            where=job.place,
            remedy="Give the function itself: model=model, not model=model(). Master and workers "
            "each call it.",
        )
    if not sys.modules.keys() & FRAMEWORKS:
        model = call_user("model()", job.model)
        if not _framework_of(model):
            return model
    with ExitStack() as seeded:
        if "torch" in sys.modules:
            from hermes.train import torch_chance

            seeded.enter_context(torch_chance.drawn(generator))
        if "keras" in sys.modules:
            from hermes.train import keras_chance

            seeded.enter_context(keras_chance.drawn(generator))
        return call_user("model()", job.model)


def _framework_of(model: object) -> str:
    """The framework that a model's type comes from; "" for any other."""
    for kind in type(model).__mro__:
        framework = kind.__module__.partition(".")[0]
        if framework in FRAMEWORKS:
            return framework
    return ""


def starting_weights(job: Job, trainer: Trainer) -> None:
    """Load the job's `init` file into the trainer, if it names one (on the master, version 0)."""
    if job.init is None:
        return
    where = str(job.init)
    try:
        trainer.load(codec.decode_tensors(Path(job.init).read_bytes()))
    except OSError as error:
        raise JobError(
            f"Job.init cannot be read: {error.strerror}", where=where, remedy="Check the path."
        ) from None
    except DecodeError:
        raise JobError(
            "Job.init is not a .safetensors file",
            where=where,
            remedy="Save the weights with safetensors; pickled files are never opened.",
        ) from None
    except JobError as error:
        raise JobError(f"Job.init: {error.what}", where=where, remedy=error.remedy) from None
