"""Which framework trains this job?"""

from __future__ import annotations

import sys
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

FRAMEWORKS = ("keras", "torch")
"""Told by a model's type alone: nothing is imported to see it."""


def make_trainer(job: Job, generator: np.random.Generator) -> Trainer:
    """The trainer of this job's model, initialised from `generator`.

    Raises `JobError` where `model()` or `optimizer(params)` raises or gives what we cannot train.
    """
    model = _model_of(job, generator)
    if isinstance(model, nn.Module):
        return NumpyTrainer(job, model, generator)
    framework = _framework_of(model)
    if framework == "torch":
        from hermes.train.torch_trainer import TorchTrainer

        return TorchTrainer(job, model)
    if framework:
        raise JobError(
            f"the model is one of {framework}, which this release of Hermes cannot train yet",
            where=place_of(job.model),
            remedy=f"It will come with pip install 'hermes-edge[{framework}]'; until then "
            "build the model of torch or of hermes.nn.",
        )
    given = "None" if model is None else f"a {type(model).__name__}"
    raise JobError(
        f"model() returned {given}",
        where=place_of(job.model),
        remedy="It returns a model, such as torch.nn.Sequential(...) or hermes.nn.Sequential(...)"
        + ("; was `return` forgotten?" if model is None else "."),
    )


def _model_of(job: Job, generator: np.random.Generator) -> Any:
    """What `model()` gives; torch draws a model's weights while it is built, so that it must be
    seeded before. A factory that is the first to import torch is called again."""
    if "torch" not in sys.modules:
        model = call_user("model()", job.model)
        if _framework_of(model) != "torch":
            return model
    from hermes.train.torch_chance import drawn

    with drawn(generator):
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
