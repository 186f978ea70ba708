"""What must a framework be able to do, to be trained by Hermes? The `Trainer`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.errors import JobError
from hermes.values import Tensors

Array: TypeAlias = npt.NDArray[Any]

Batch: TypeAlias = tuple[Array, Array]
"""Samples x of shape (n, ...) and their labels y of shape (n, ...)."""


class Scores(NamedTuple):
    """What an evaluation found: means over all samples, in float64."""

    loss: float
    """Not finite where the model has diverged."""
    accuracy: float | None
    """0 .. 1 (or what the job's own metric gives); None where the job has no metric."""
    samples: int
    loss_sum: float = math.nan
    """Before it was divided: what is put together with other samples' ..."""
    metric_sum: float | None = None
    """... and the metric's."""


class Trainer(Protocol):
    """One model and its optimizer on one device. It knows nothing of policy, nothing of Kafka.
    Belongs to one thread at a time.

    A loss that is not finite is an outcome, not an error. `JobError`: data, model, loss or
    metric do not fit each other.
    """

    framework: str
    """Its name and release, such as "numpy 2.4.6"."""
    device: str
    """Where it computes: "cpu", "cuda:0", "mps"."""

    def weights(self) -> dict[str, npt.NDArray[np.generic]]:
        """Copies of parameters and buffers, by their `state_dict()` names, sorted."""

    def load(self, weights: Tensors) -> None:
        """Take these weights; all or nothing. The optimizer's own state stays as it is.

        Raises `JobError` where names, shapes or types are not those of `weights()`.
        """

    def buffers(self) -> frozenset[str]:
        """Names in `weights()` that are not learned (running means and the like)."""

    def architecture(self) -> str:
        """The model without its weights, as text from which `hermes export --format keras` builds
        it; "" for a framework that has no such text."""

    def begin_round(self, generator: np.random.Generator) -> None:
        """Draw this round's own chance (Dropout and the like) from `generator`."""

    def use_threads(self, count: int) -> None:
        """Compute with so many threads of the CPU, where that can be said once all is loaded."""

    def step(self, x: Array, y: Array, factor: float) -> float:
        """One optimizer step on this batch, at `factor` times the learning rate; the batch's mean
        loss before it."""

    def watch_gradient(self) -> None:
        """From the next step on, `gradient` will be asked for."""

    def gradient(self) -> float:
        """L2 norm, over the parameters, of the gradient of the last step, as the optimizer was
        given it (clipped, where the job clips). Not finite where that is not; 0 where that step
        was skipped."""

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        """Loss and metric over all samples of `batches`, of any sizes; changes nothing."""

    def losses(self, x: Array, y: Array, block: int) -> list[float]:
        """Mean loss of each `block` samples in a row, by the job's own loss: as `evaluate`, but
        not put together. The number of samples is a multiple of `block`. Changes nothing."""

    def reset_optimizer(self) -> None:
        """Begin with a fresh optimizer: its momentum and the like are forgotten."""


def check_weights(weights: Tensors, like: Tensors) -> None:
    """Raise `JobError` naming the first tensor of `weights` that does not fit `like`."""
    for name in sorted(weights.keys() ^ like.keys()):
        side = "lack" if name in like else "have"
        raise _misfit(f"the weights {side} {name!r}, the model {_other(side)}")
    for name, wanted in like.items():
        found = weights[name]
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise _misfit(
                f"{name!r} is {found.dtype} {found.shape} in the weights, and "
                f"{wanted.dtype} {wanted.shape} in the model"
            )


def _other(side: str) -> str:
    return "has it" if side == "lack" else "does not"


def _misfit(what: str) -> JobError:
    return JobError(what, remedy="These weights are of another model: load those of this job.")
