"""How does a neural network learn? The smallest modules that do, in NumPy, to be read in an hour.

A module computes its output in `forward` and remembers what it needs; `backward` is then given the
gradient of the loss by that output, puts the gradient by each of its parameters into
`Parameter.grad`, and returns the gradient by its input. That is the chain rule, one link a module:

    outputs = model.forward(x)
    loss = criterion.forward(outputs, labels)
    model.backward(criterion.backward())
    optimizer.step()

The first axis of every array counts the samples of a batch. Names and shapes of parameters are
those of torch (`"0.weight"` of shape (out, in)), so that weights go from one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.errors import JobError

Array: TypeAlias = npt.NDArray[Any]

_DRAWN = 1 << 16
"""Numbers drawn at once: they come as float64, twice the room of a parameter."""


class Parameter:
    """An array that is learned: its `value`, and the gradient `grad` of the loss by it."""

    def __init__(self, *shape: int, bound: float = 0.0) -> None:
        """All zero. `bound`: `initialise` draws evenly from -bound .. bound; with 0 it leaves the
        value as it is."""
        self.value: Array = np.zeros(shape, np.float32)
        self.grad: Array = np.zeros(shape, np.float32)
        self.bound = bound

    def initialise(self, generator: np.random.Generator) -> None:
        """Draw the value anew, in place."""
        if self.bound:
            flat, size = self.value.flat, self.value.size
            for start in range(0, size, _DRAWN):
                count = min(_DRAWN, size - start)
                flat[start : start + count] = generator.uniform(-self.bound, self.bound, count)


class Module:
    """A piece of a network. A subclass defines `forward` and `backward`.

    Attributes that are parameters or modules are found by themselves, under their names.
    """

    def forward(self, x: Array) -> Array:
        """The output for the input `x`."""
        raise NotImplementedError

    def backward(self, grad: Array) -> Array:
        """Gradient of the loss by the input, given that by the last output; sets `grad` of the
        parameters (sets, not adds: there is nothing to reset between two steps)."""
        raise NotImplementedError

    def __call__(self, x: Array) -> Array:
        return self.forward(x)

    def parts(self) -> Iterator[tuple[str, object]]:
        """What this module is made of, by name."""
        yield from vars(self).items()

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters, also those of modules inside: `("0.weight", ...)`, ..."""
        for name, part in self.parts():
            if isinstance(part, Parameter):
                yield name, part
            elif isinstance(part, Module):
                for inner, parameter in part.named_parameters():
                    yield f"{name}.{inner}", parameter

    def parameters(self) -> list[Parameter]:
        """All parameters, for an optimizer."""
        return [parameter for _, parameter in self.named_parameters()]

    def state_dict(self) -> dict[str, Array]:
        """The values by name: the arrays themselves, not copies."""
        return {name: parameter.value for name, parameter in self.named_parameters()}

    def initialise(self, generator: np.random.Generator) -> None:
        """Draw all parameters anew, in their order."""
        for parameter in self.parameters():
            parameter.initialise(generator)


# --- layers -------------------------------------------------------------------------------------


class Linear(Module):
    """y = x W^T + b. Input (n, ..., inputs), output (n, ..., outputs).

    Initialised as torch does: weight and bias evenly from +-1/sqrt(inputs).
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        if min(inputs, outputs) < 1:
            raise JobError(
                f"Linear({inputs}, {outputs})", remedy="Both sizes are whole numbers from 1 up."
            )
        bound = 1 / math.sqrt(inputs)
        self.inputs, self.outputs = inputs, outputs
        self.weight = Parameter(outputs, inputs, bound=bound)
        self.bias = Parameter(outputs, bound=bound) if bias else None
        self._x: Array = np.zeros((0, inputs), np.float32)

    def forward(self, x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != self.inputs:
            raise JobError(
                f"Linear({self.inputs}, {self.outputs}) takes inputs of shape "
                f"(n, {self.inputs}) and was given {x.shape}",
                remedy="Make its first number the size of what comes in; images need a Flatten() "
                "in front.",
            )
        self._x = x
        y: Array = x @ self.weight.value.T
        if self.bias is not None:
            y += self.bias.value
        return y

    def backward(self, grad: Array) -> Array:
        flat = grad.reshape(-1, self.outputs)
        self.weight.grad = flat.T @ self._x.reshape(-1, self.inputs)
        if self.bias is not None:
            self.bias.grad = flat.sum(axis=0)
        back: Array = grad @ self.weight.value
        return back


class Sigmoid(Module):
    """1 / (1 + exp(-x)), each element for itself."""

    _y: Array

    def forward(self, x: Array) -> Array:
        small = np.exp(-np.abs(x))  # never above 1, so it cannot overflow
        self._y = np.where(x >= 0, 1, small) / (1 + small)
        return self._y

    def backward(self, grad: Array) -> Array:
        back: Array = grad * self._y * (1 - self._y)
        return back


class ReLU(Module):
    """max(x, 0), each element for itself."""

    _x: Array

    def forward(self, x: Array) -> Array:
        self._x = x
        return np.maximum(x, 0)

    def backward(self, grad: Array) -> Array:
        back: Array = grad * (self._x > 0)
        return back


class Softmax(Module):
    """Positive shares that add up to 1 along the last axis. (`CrossEntropy` has its own: a model
    that is trained with it ends without a Softmax.)"""

    _y: Array

    def forward(self, x: Array) -> Array:
        self._y = _softmax(x)
        return self._y

    def backward(self, grad: Array) -> Array:
        y = self._y
        back: Array = y * (grad - (grad * y).sum(axis=-1, keepdims=True))
        return back


class Flatten(Module):
    """(n, a, b, ...) -> (n, a * b * ...)."""

    _shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, grad: Array) -> Array:
        return grad.reshape(self._shape)


class Sequential(Module):
    """One module after the other; their parameters are named "0.weight", "0.bias", "2.weight"."""

    def __init__(self, *modules: Module) -> None:
        for place, module in enumerate(modules):
            if not isinstance(module, Module):
                raise JobError(
                    f"Sequential was given {module!r} at place {place}",
                    remedy="It takes modules of hermes.nn, such as ReLU() (with its parentheses).",
                )
        self.modules = modules

    def parts(self) -> Iterator[tuple[str, object]]:
        for place, module in enumerate(self.modules):
            yield str(place), module

    def forward(self, x: Array) -> Array:
        for module in self.modules:
            x = module.forward(x)
        return x

    def backward(self, grad: Array) -> Array:
        for module in reversed(self.modules):
            grad = module.backward(grad)
        return grad


# --- the loss -----------------------------------------------------------------------------------


class CrossEntropy:
    """Mean of -log softmax(outputs)[label]. Outputs (n, classes), labels (n,) whole numbers."""

    _outputs: Array
    _labels: Array

    def forward(self, outputs: Array, labels: Array) -> float:
        """The loss. Raises `JobError` where the labels do not fit the outputs."""
        _check_labels(outputs, labels)
        self._outputs, self._labels = outputs, labels
        top = outputs.max(axis=1)  # taken off first, so that exp cannot overflow
        total = np.log(np.exp(outputs - top[:, None]).sum(axis=1)) + top
        return float(np.mean(total - outputs[np.arange(len(labels)), labels], dtype=np.float64))

    def backward(self) -> Array:
        """Gradient by the outputs: (softmax - the label's 1) / n."""
        grad = _softmax(self._outputs)
        grad[np.arange(len(grad)), self._labels] -= 1
        return grad / len(grad)


def _softmax(x: Array) -> Array:
    powers: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _refuse_rows(labels: Array) -> None:
    """Labels of one row a sample: what they are most likely to be, and how they become numbers."""
    if labels.shape[1] == 1:
        raise JobError(
            f"CrossEntropy takes labels of shape (n,); y has {labels.shape}: a column",
            remedy="Return y[:, 0] from data(), as whole numbers.",
        )
    if bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
        raise JobError(
            f"CrossEntropy takes labels of shape (n,); y has {labels.shape} and is one-hot (a 1 "
            "among zeros in each row)",
            remedy="Return y.argmax(axis=1) from data().",
        )


def _check_labels(outputs: Array, labels: Array) -> None:
    if labels.ndim == 2 and outputs.ndim == 2:
        _refuse_rows(labels)
    if labels.dtype.kind not in "iu":
        raise JobError(
            f"CrossEntropy takes whole numbers as labels; y is {labels.dtype}",
            remedy="Return y.astype(numpy.int64) from data().",
        )
    if outputs.ndim != 2 or labels.shape != outputs.shape[:1]:
        raise JobError(
            f"CrossEntropy takes outputs of shape (n, classes) and labels of shape (n,); the "
            f"model's outputs have shape {outputs.shape} and y has {labels.shape}",
            remedy="End the model with Linear(..., classes), and give y one number a sample.",
        )
    if len(labels) == 0:
        raise JobError("CrossEntropy was given no samples", remedy="A batch has at least one.")
    least, most, classes = int(labels.min()), int(labels.max()), outputs.shape[1]
    if least < 0 or most >= classes:
        raise JobError(
            f"y has labels from {least} to {most}; the model's {classes} outputs stand for the "
            f"labels 0 to {classes - 1}",
            remedy=f"Give the model {most + 1} outputs, or count the labels from 0.",
        )


# --- the optimizer ------------------------------------------------------------------------------


class SGD:
    """Stochastic gradient descent, by torch's formula.

    g = grad + weight_decay * value;  v = momentum * v + g;  value -= lr * v
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        for name, value in settings.items():
            if not (math.isfinite(value) and value >= 0):
                raise JobError(f"SGD: {name} is {value}", remedy="It is a number from 0 up.")
        self.params = list(params)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        # One zero each: a model that is only scored has no use for a second one in memory.
        self._velocity = [np.zeros((), parameter.value.dtype) for parameter in self.params]

    def step(self, factor: float = 1.0) -> None:
        """Move every parameter against its gradient, at learning rate lr * factor."""
        for place, parameter in enumerate(self.params):
            move = parameter.grad
            if self.weight_decay:
                move = move + self.weight_decay * parameter.value
            if self.momentum:
                move = self._velocity[place] = self.momentum * self._velocity[place] + move
            parameter.value -= self.lr * factor * move
