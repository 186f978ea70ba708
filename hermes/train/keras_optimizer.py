"""What does Hermes ask of a compiled optimizer? Another rate, a fresh start, and how large the last
gradient was."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import keras

from hermes.errors import JobError
from hermes.train.keras_values import numpy_of

Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


class Optimizer:
    """The optimizer of a model, which stays Keras' own.

    A schedule of Keras counts this worker's own steps, and goes on counting when the optimizer
    begins anew.
    """

    def __init__(self, model: Any, where: str) -> None:
        """Raises `JobError`, at `where`, for one that another model has."""
        self._model = model
        outer = model.optimizer
        _check_own(model, where)
        self._own = getattr(outer, "inner_optimizer", outer)  # a LossScaleOptimizer has one inside
        outer.build(model.trainable_variables)
        self._later = _later(self._own)
        rate = self._own.learning_rate
        self._rate = float(numpy_of(rate)) if isinstance(rate, keras.Variable) else None
        self._first = [_begun(variable) for variable in outer.variables]
        self._began = False
        self._norm: Any = None

    def watch(self) -> None:
        """From the next step on, the gradient can be asked for. On TensorFlow a compiled step is
        compiled anew, for nothing can be asked of it afterwards."""
        if self._norm is None:
            self._norm = _watched(self._own)
            self._model.make_train_function(force=True)

    def before_step(self) -> None:
        """A step that is skipped, its gradient not finite, has none."""
        if self._norm is not None:
            self._norm.assign(0.0)

    @contextlib.contextmanager
    def as_compiled(self) -> Iterator[None]:
        """Within, the optimizer has the schedule that it was compiled with, and not ours."""
        if self._later is None:
            yield
            return
        self._own.learning_rate = self._later.inner
        try:
            yield
        finally:
            self._own.learning_rate = self._later

    def begin(self) -> None:
        """Steps count from now on: those before were trials."""
        if not self._began:
            self.reset()
        self._began = True

    def at(self, factor: float) -> None:
        """Go on at `factor` times the learning rate that it was compiled with."""
        if self._rate is not None:
            self._own.learning_rate.assign(self._rate * factor)

    def reset(self) -> None:
        """As it was compiled: momentum and the like are forgotten."""
        if self._later is not None and self._began:
            done = int(numpy_of(self._own.iterations))
            self._later.before.assign(int(numpy_of(self._later.before)) + done)
        rate = None if self._rate is None else numpy_of(self._own.learning_rate)
        for variable, value in zip(self._model.optimizer.variables, self._first, strict=True):
            variable.assign(keras.ops.zeros_like(variable) if value is None else value)
        if rate is not None:  # a callback may have set another
            self._own.learning_rate.assign(rate)

    def gradient(self) -> float:
        """L2 norm of the gradient of the last step, before the optimizer's own clipping."""
        return float(numpy_of(self._norm))


_HOLDERS: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()
"""Whose an optimizer, or a metric, is in this process."""


def _check_own(model: Any, where: str) -> None:
    """Each model has its own: an optimizer knows the weights of the first it was given, and a
    metric would add up what two models score."""
    compiled = getattr(model, "_compile_metrics", None)
    metrics = keras.tree.flatten(getattr(compiled, "_user_metrics", None))
    for part in (model.optimizer, *metrics):
        if not isinstance(part, keras.optimizers.Optimizer | keras.metrics.Metric):
            continue
        holder = _HOLDERS.setdefault(part, weakref.ref(model))
        if holder() is not model:
            kind = "optimizer" if part is model.optimizer else "metric"
            raise JobError(
                f"model() compiles each model with one and the same {kind}, {type(part).__name__}",
                where=where,
                remedy=f"Build it within model(): model.compile({kind}"
                f"{'=' if kind == 'optimizer' else 's=['}keras.{kind}s.{type(part).__name__}(...)"
                f"{'' if kind == 'optimizer' else ']'}). What was built at the top of the file is "
                "shared by all who train and score it.",
            )


class Later(Schedule):  # type: ignore[misc]
    """A schedule that has `before` steps behind it."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.before = keras.Variable(0, dtype="int64", trainable=False, name="steps_before")

    def __call__(self, step: Any) -> Any:
        return self.inner(keras.ops.cast(step, "int64") + self.before)

    def get_config(self) -> dict[str, Any]:
        return {"inner": self.inner.get_config()}


def _begun(variable: Any) -> Any:
    """What it begins with; None for zeros, as of momentum, which need not be kept."""
    value = numpy_of(variable)
    return value if value.any() else None


def _later(optimizer: Any) -> Later | None:
    """Puts it in the place of the optimizer's schedule; None where it has none."""
    schedule = getattr(optimizer, "_learning_rate", None)
    if not isinstance(schedule, Schedule):
        return None
    optimizer.learning_rate = found = Later(schedule)
    return found


def _watched(optimizer: Any) -> Any:
    """A variable that holds the norm of the gradients which `apply` was last given: there they are
    no longer multiplied by the scale of a `LossScaleOptimizer`."""
    ops = keras.ops
    norm = keras.Variable(0.0, dtype="float32", trainable=False, name="gradient_norm")
    apply = optimizer.apply

    def watched(grads: Any, trainable_variables: Any = None) -> Any:
        whole = [_whole(grad) for grad in grads if grad is not None]
        squares = [ops.sum(ops.square(ops.cast(grad, "float32"))) for grad in whole]
        norm.assign(ops.sqrt(sum(squares)))
        return apply(grads, trainable_variables)

    optimizer.apply = watched
    return norm


def _whole(grad: Any) -> Any:
    """A gradient as one tensor: in the slices of an embedding's, rows may come twice."""
    if not hasattr(grad, "indices"):
        return grad
    import tensorflow as tf

    return tf.convert_to_tensor(grad)
