"""How is a model of `hermes.nn` trained?"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from hermes import nn
from hermes.blame import blame_batch, call_user
from hermes.errors import JobError
from hermes.job import Job
from hermes.train.fit import refuse_step
from hermes.train.gathering import gathered, of_whole_blocks
from hermes.train.protocol import Array, Batch, Scores, check_weights
from hermes.train.tally import Metric, Tally, measured
from hermes.values import Tensors

SCORED = 256
"""Samples of a batch that is scored, at least: BLAS packs all weights anew for each."""


class NumpyTrainer:
    """A `Trainer` of NumPy modules: float32, on the CPU."""

    def __init__(self, job: Job, model: nn.Module, generator: np.random.Generator) -> None:
        _check(job, model)
        self.framework, self.device = f"numpy {np.__version__}", "cpu"
        self._job, self._model = job, model
        self._parameters = dict(sorted(model.named_parameters()))
        model.initialise(generator)
        self.reset_optimizer()

    def weights(self) -> dict[str, npt.NDArray[np.generic]]:
        return {name: p.value.astype(np.float32) for name, p in self._parameters.items()}

    def load(self, weights: Tensors) -> None:
        nothing = np.zeros((), np.float32)
        shapes = {n: np.broadcast_to(nothing, p.value.shape) for n, p in self._parameters.items()}
        check_weights(weights, shapes)
        for name, parameter in self._parameters.items():
            if parameter.value.dtype == np.float32 and parameter.value.flags.writeable:
                np.copyto(parameter.value, weights[name])  # in place: no second model in memory
            else:  # a layer of the user's has put another array there
                parameter.value = weights[name].copy()

    def buffers(self) -> frozenset[str]:
        return frozenset()

    def architecture(self) -> str:
        return ""

    def begin_round(self, generator: np.random.Generator) -> None:
        """Nothing here is left to chance."""

    def use_threads(self, count: int) -> None:
        """NumPy was told when it was loaded."""

    def step(self, x: Array, y: Array, factor: float) -> float:
        try:
            # A model that diverges is an outcome, told by its loss: NumPy need not warn of it.
            with np.errstate(all="ignore"):
                loss, _ = self._forward(x, y)
                self._model.backward(self._job.loss.backward())
                if self._job.clip is not None:
                    self._job.clip(self._model.parameters())
                self._optimizer.step(factor)
        except Exception as error:  # the job's own layers, loss and optimizer may raise anything
            raise blame_batch(self._job, error, (x, y)) from error
        return loss

    def watch_gradient(self) -> None:
        """It is there after each step, anyhow."""

    def gradient(self) -> float:
        with np.errstate(all="ignore"):
            squares = [
                float(np.square(p.grad, dtype=np.float64).sum()) for p in self._parameters.values()
            ]
        return math.sqrt(sum(squares))

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        tally = Tally()
        for x, y in gathered(batches, max(self._job.batch, SCORED)):
            tally.add(len(x), *self._score(x, y))
        return tally.scores()

    def losses(self, x: Array, y: Array, block: int) -> list[float]:
        found: list[float] = []
        for batch, rows in of_whole_blocks((x, y), block, max(self._job.batch, SCORED)):
            found += self._losses(batch, rows)
        return found

    def _losses(self, batch: Batch, rows: list[slice]) -> list[float]:
        """One forward pass, and the loss of the outputs of each of these rows."""
        x, y = batch
        try:
            with np.errstate(all="ignore"):
                outputs = self._model.forward(np.asarray(x, dtype=np.float32))
                return [float(self._job.loss.forward(outputs[some], y[some])) for some in rows]
        except Exception as error:  # as in `step`
            raise blame_batch(self._job, error, batch) from error

    def reset_optimizer(self) -> None:
        parameters = self._model.parameters()
        assert self._job.optimizer is not None
        self._optimizer = call_user("optimizer(params)", self._job.optimizer, parameters)
        if not callable(getattr(self._optimizer, "step", None)):
            raise JobError(
                f"optimizer(params) gave a {type(self._optimizer).__name__}",
                remedy="For a model of hermes.nn: lambda params: hermes.nn.SGD(params, lr=0.1).",
            )

    def _forward(self, x: Array, y: Array) -> tuple[float, Array]:
        outputs = self._model.forward(np.asarray(x, dtype=np.float32))
        return float(self._job.loss.forward(outputs, y)), outputs

    def _score(self, x: Array, y: Array) -> tuple[float, Metric | None]:
        """Loss and metric of one batch."""
        try:
            with np.errstate(all="ignore"):
                loss, outputs = self._forward(x, y)
                return loss, self._metric(outputs, y)
        except Exception as error:  # as in `step`
            raise blame_batch(self._job, error, (x, y)) from error

    def _metric(self, outputs: Array, y: Array) -> Metric | None:
        if self._job.metric is None:
            return None
        if callable(self._job.metric):
            return measured(self._job.metric, outputs, y)
        return float(np.mean(outputs.argmax(axis=-1) == y, dtype=np.float64))


def _check(job: Job, model: nn.Module) -> None:
    if not model.parameters():
        raise JobError("the model has nothing to learn", remedy="Give it a Linear layer.")
    if not (hasattr(job.loss, "forward") and hasattr(job.loss, "backward")):
        raise JobError(
            f"the loss is a {type(job.loss).__name__}, the model is one of hermes.nn",
            remedy="Take loss=hermes.nn.CrossEntropy(), or a class with forward(outputs, labels) "
            "and backward().",
        )
    if job.device not in ("auto", "cpu"):
        raise JobError(
            f"the device is {job.device}, and models of hermes.nn run on the CPU",
            where=job.device_from,
            remedy='Leave device and --device out, or set "cpu".',
        )
    if job.autocast is not None:
        raise JobError(
            "Job.autocast is set, and models of hermes.nn compute in float32",
            where=job.place,
            remedy="Leave it out, or build the model of torch.",
        )
    refuse_step(
        job,
        "a model of hermes.nn",
        "Let the model's own layers and loss do it, or build the model of torch.",
    )
