"""How is a compiled model of Keras 3 trained? By its own `train_on_batch` and `test_on_batch`, with
its own optimizer, loss, metrics and schedule, on TensorFlow or on torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from hermes.blame import blame_batch, place_of
from hermes.errors import HermesError, JobError
from hermes.job import Job
from hermes.train import keras_checks as checks
from hermes.train import keras_doubts
from hermes.train.gathering import gathered, of_whole_blocks
from hermes.train.keras_callbacks import Callbacks
from hermes.train.keras_chance import reseed
from hermes.train.keras_optimizer import Optimizer
from hermes.train.keras_values import numpy_of
from hermes.train.protocol import Array, Batch, Scores, check_weights
from hermes.train.tally import Tally
from hermes.values import Tensors


class KerasTrainer:
    """A `Trainer` of compiled Keras models, on the backend that Keras was loaded with."""

    def __init__(self, job: Job, model: Any) -> None:
        checks.check_model(job, model)
        backend = keras.backend.backend()
        self.framework = f"keras {keras.__version__} on {backend}"
        self.device = _device(backend, model)
        self._job, self._model, self._backend = job, model, backend
        self._by_name = dict(sorted(named(model.weights).items()))
        learned = {id(weight) for weight in model.trainable_weights}
        self._buffers = frozenset(n for n, w in self._by_name.items() if id(w) not in learned)
        self._optimizer = Optimizer(model, place_of(job.model) or job.place)
        self._labels: tuple[int, ...] | None = None
        """Shape of a sample's y, once it was seen to fit the loss."""
        self._callbacks = Callbacks(job, model)

    # --- weights --------------------------------------------------------------------------------

    def weights(self) -> dict[str, npt.NDArray[np.generic]]:
        return {name: numpy_of(weight) for name, weight in self._by_name.items()}

    def load(self, weights: Tensors) -> None:
        check_weights(weights, {name: _like(weight) for name, weight in self._by_name.items()})
        for name, weight in self._by_name.items():
            weight.assign(weights[name])

    def buffers(self) -> frozenset[str]:
        return self._buffers

    def architecture(self) -> str:
        from hermes.train.keras_file import architecture_of

        with self._optimizer.as_compiled():
            return architecture_of(self._model)

    # --- training -------------------------------------------------------------------------------

    def begin_round(self, generator: np.random.Generator) -> None:
        reseed(self._model, generator)
        self._optimizer.begin()
        self._callbacks.begin_round()

    def use_threads(self, count: int) -> None:
        if self._backend == "torch":
            import torch

            torch.set_num_threads(count)
        # TensorFlow was told when it was loaded, and cannot be told again.

    def reset_optimizer(self) -> None:
        self._optimizer.reset()

    def step(self, x: Array, y: Array, factor: float) -> float:
        if self._job.schedule is not None:
            self._optimizer.at(factor)
        self._callbacks.before_batch()
        self._optimizer.before_step()
        self._check_labels((x, y))
        with self._blamed((x, y)):
            scored = self._model.train_on_batch(x, y, return_dict=True)
        loss = self._loss_of(scored, "train_step")
        self._callbacks.after_batch(scored, len(x))
        return loss

    def watch_gradient(self) -> None:
        self._optimizer.watch()

    def gradient(self) -> float:
        return self._optimizer.gradient()

    # --- evaluation -----------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        tally = Tally()
        for x, y in gathered(batches, self._job.batch):
            scored = self._scored((x, y))
            metric = checks.metric_of(self._job, sorted(scored.keys() - {"loss"}))
            tally.add(
                len(x),
                self._loss_of(scored, "test_step"),
                None if metric is None else float(scored[metric]),
            )
        return tally.scores()

    def losses(self, x: Array, y: Array, block: int) -> list[float]:
        # Each block by itself: a loss may be more than that of the outputs (regularisers, a
        # test_step of the model's own), and `test_on_batch` gives one number.
        return [
            self._loss_of(self._scored((batch[0][some], batch[1][some])), "test_step")
            for batch, rows in of_whole_blocks((x, y), block, self._job.batch)
            for some in rows
        ]

    def _scored(self, batch: Batch) -> dict[str, Any]:
        """Loss and metrics of one batch, by their names."""
        self._check_labels(batch)
        with self._blamed(batch):
            found: dict[str, Any] = self._model.test_on_batch(*batch, return_dict=True)
        checks.check_scores(self._job, found)
        return found

    # --- helpers --------------------------------------------------------------------------------

    def doubts(self, batch: Batch | None, *, thorough: bool) -> list[str]:
        """What will be regretted, though it can be trained: in words, for people. `batch`: None
        where there is none here. `thorough`: by building the model anew, too."""
        told = [] if batch is None else list(keras_doubts.doubts(self._job, self._model, batch))
        unsaved = list(keras_doubts.unsaved(self._job, self._model))
        if thorough and not unsaved:
            from hermes.train.keras_file import unfit

            why = unfit(self.architecture())
            unsaved = [keras_doubts.UNSAVED.format(why=why)] if why else []
        return [*told, *unsaved]

    def _check_labels(self, batch: Batch) -> None:
        if self._labels != batch[1].shape[1:]:
            checks.check_labels(self._job, self._model, batch)
            self._labels = batch[1].shape[1:]

    def _loss_of(self, scored: dict[str, Any], step: str) -> float:
        loss = scored.get("loss", math.nan)
        if "loss" not in scored or np.size(loss) != 1:
            raise JobError(
                f"the model's {step} gives no 'loss', one number, but {sorted(scored)}",
                where=place_of(getattr(type(self._model), step)) or self._job.place,
                remedy="Let it return a dict in which 'loss' is the mean loss of the batch.",
            )
        return float(loss)

    @contextlib.contextmanager
    def _blamed(self, batch: Batch) -> Iterator[None]:
        """What the model's own parts raise on this batch is a `JobError`."""
        try:
            yield
        except HermesError:
            raise
        except Exception as error:  # the model's own layers, loss and metrics may raise anything
            raise blame_batch(self._job, _last_words(error), batch) from error


def _last_words(error: Exception) -> Exception:
    """An error of TensorFlow without the stack that it tells first, line by line."""
    text = str(error)
    if "Detected at node" not in text:
        return error
    told = text.rpartition("\n\n")[2].partition("[[{{node")[0].strip()
    kind = type(type(error).__name__, (Exception,), {})
    short: Exception = kind(told or text)
    return short.with_traceback(error.__traceback__)


def named(weights: Iterable[Any]) -> dict[str, Any]:
    """Weights by the path that Keras gives each ("dense/kernel"), in their order; where layers of
    one name share a path, the second is "dense/kernel#2"."""
    found: dict[str, Any] = {}
    for weight in weights:
        count, name = 1, weight.path
        while name in found:
            count += 1
            name = f"{weight.path}#{count}"
        found[name] = weight
    return found


def _like(weight: Any) -> Array:
    """An array of this shape and type, of no memory."""
    kind = np.dtype(keras.backend.standardize_dtype(weight.dtype))
    return np.broadcast_to(np.zeros((), kind), tuple(weight.shape))


def _device(backend: str, model: Any) -> str:
    """Where the backend computes, in the words of torch."""
    if backend == "torch":
        return str(model.weights[0].value.device)
    import tensorflow as tf

    return "cuda" if tf.config.list_logical_devices("GPU") else "cpu"
