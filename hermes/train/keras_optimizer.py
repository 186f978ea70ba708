"""What does Hermes ask of a compiled optimizer? Another rate, a fresh start, and how large the last
gradient was."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from hermes.train.keras_values import numpy_of

Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


class Optimizer:
    """The optimizer of a model, which stays Keras' own.

    A schedule of Keras counts this worker's own steps, and goes on counting when the optimizer
    begins anew.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        outer = model.optimizer
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
        if keras.backend.backend() == "tensorflow" and self._norm is None:
            self._norm = _watched(self._own)
            self._model.make_train_function(force=True)

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
        if keras.backend.backend() == "tensorflow":
            return float(numpy_of(self._norm))
        import torch

        grads = [weight.value.grad for weight in self._model.trainable_weights]
        norms = [torch.linalg.vector_norm(grad.float()) for grad in grads if grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


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
    return np.array(value) if value.any() else None


def _later(optimizer: Any) -> Later | None:
    """Puts it in the place of the optimizer's schedule; None where it has none."""
    schedule = getattr(optimizer, "_learning_rate", None)
    if not isinstance(schedule, Schedule):
        return None
    optimizer.learning_rate = found = Later(schedule)
    return found


def _watched(optimizer: Any) -> Any:
    """A variable that holds the norm of the gradients which `apply` was last given."""
    import tensorflow as tf

    norm = tf.Variable(0.0, trainable=False)
    apply = optimizer.apply

    def watched(grads: Any, trainable_variables: Any = None) -> Any:
        norm.assign(tf.linalg.global_norm([g for g in grads if g is not None]))
        return apply(grads, trainable_variables)

    optimizer.apply = watched
    return norm
