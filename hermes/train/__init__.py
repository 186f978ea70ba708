"""Which framework trains this job?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hermes import codec, nn
from hermes.errors import DecodeError, JobError
from hermes.job import Job, call_user, place_of
from hermes.train.numpy_trainer import NumpyTrainer
from hermes.train.protocol import Batch, Scores, Trainer

__all__ = ["Batch", "Scores", "Trainer", "make_trainer", "starting_weights"]

LATER = ("torch", "keras")
"""Frameworks that come as extras, told by a model's type alone: nothing is imported to see it."""


def make_trainer(job: Job, generator: np.random.Generator) -> Trainer:
    """The trainer of this job's model, initialised from `generator`.

    Raises `JobError` where `model()` or `optimizer(params)` raises or gives what we cannot train.
    """
    model = call_user("model()", job.model)
    if isinstance(model, nn.Module):
        return NumpyTrainer(job, model, generator)
    for kind in type(model).__mro__:
        framework = kind.__module__.partition(".")[0]
        if framework in LATER:
            raise JobError(
                f"the model is one of {framework}, which this release of Hermes cannot train yet",
                where=place_of(job.model),
                remedy=f"It will come with pip install 'hermes-edge[{framework}]'; until then "
                "build the model of hermes.nn.",
            )
    given = "None" if model is None else f"a {type(model).__name__}"
    raise JobError(
        f"model() returned {given}",
        where=place_of(job.model),
        remedy="It returns a model, such as hermes.nn.Sequential(...)"
        + ("; was `return` forgotten?" if model is None else "."),
    )


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
