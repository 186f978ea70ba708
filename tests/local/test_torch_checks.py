"""Is what cannot be trained with torch refused in words that say whose line it is?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes.chance import generator
from hermes.errors import JobError
from hermes.jobfile import build
from hermes.train import make_trainer
from hermes.train.fit import check_fit

HEAD = """\
import hermes, numpy, torch
from torch import nn

def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
    def forward(self, x):
        return {forward}

job = hermes.Job(model={model}, data=hermes.data.digits,
    optimizer={optimizer}, loss={loss}, {more})
"""
MODEL, FORWARD, JOB, OPTIMIZER = 4, 12, 14, 15

PARTS = {
    "model": "model",
    "forward": "self.layer(x.flatten(1))",
    "optimizer": "lambda params: torch.optim.SGD(params, lr=0.1)",
    "loss": "nn.CrossEntropyLoss()",
    "more": "",
}

X = np.linspace(0, 1, 32, dtype=np.float32).reshape(8, 2, 2)
Y = np.arange(8) % 3


def fit(x: np.ndarray = X, y: np.ndarray = Y, **parts: str) -> float:
    text = HEAD.format(**{**PARTS, **parts})
    job = build(text, "job.py")
    return check_fit(job, make_trainer(job, generator(1)), (x, y))


def test_what_fits_fits() -> None:
    assert 0 < fit() < 5
    assert 0 < fit(model="Net") < 5
    assert 0 < fit(more="clip=lambda params: nn.utils.clip_grad_norm_(params, 1.0)") < 5


LAZY = "lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3))"
NO_PATH = "no gradient flows from the loss to the model's parameters"

MISTAKES: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "a layer of the wrong size": (
        {"model": "lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 3))"},
        "mat1 and mat2 shapes cannot be multiplied (8x4 and 5x3); the batch is x float32 (8, 2, 2)",
        JOB,
        "Mend that line",
    ),
    "a forward that fails": (
        {"model": "Net", "forward": "self.layer(x)"},
        "mat1 and mat2 shapes cannot be multiplied",
        FORWARD,
        "Mend that line",
    ),
    "images of bytes": (
        {"x": (X * 255).astype(np.uint8)},
        "x is uint8, and the model computes with floats; the batch is x uint8 (8, 2, 2)",
        MODEL,
        "x.float() / 255",
    ),
    "images of bytes in a forward": (
        {"x": (X * 255).astype(np.uint8), "model": "Net"},
        "x is uint8, and the model computes with floats",
        FORWARD,
        "return floats from data()",
    ),
    "labels above the outputs": (
        {"y": Y + 4},
        "labels from 4 to 6; the model's 3 outputs stand for the labels 0 to 2",
        MODEL,
        "Give its last layer 7 outputs, or number the labels from 0.",
    ),
    "labels below 0": (
        {"y": Y - 1},
        "labels from -1 to 1; the model's 3 outputs stand for the labels 0 to 2",
        MODEL,
        "Number the labels from 0.",
    ),
    "labels that are floats": (
        {"y": Y.astype(np.float32)},
        "y is float32, and the loss wants whole numbers",
        JOB,
        "y.astype(numpy.int64)",
    ),
    "labels that are whole numbers": (
        {"loss": "lambda o, y: nn.functional.binary_cross_entropy_with_logits(o[:, 0], y)"},
        "y is int64, and the loss wants floats",
        OPTIMIZER,
        "y.astype(numpy.float32)",
    ),
    "a model without layers": (
        {"model": "lambda: nn.Flatten()"},
        "the model has nothing to learn",
        JOB,
        "layers in a plain list are not found",
    ),
    "a frozen model": (
        {"model": "lambda: nn.Linear(2, 3).requires_grad_(False)"},
        "the model has nothing to learn",
        JOB,
        "requires_grad=False",
    ),
    "a lazy layer": ({"model": LAZY}, "'1.weight' is not initialised", JOB, "Name its sizes"),
    "a model on no device": (
        {"model": "lambda: nn.Linear(2, 3, device='meta')"},
        "'weight' is on the meta device: it has no values",
        JOB,
        "Build the model on the CPU",
    ),
    "complex weights": (
        {"model": "lambda: nn.Linear(4, 3, dtype=torch.complex64)"},
        "'weight' is complex64, which cannot be merged",
        JOB,
        "model.float()",
    ),
    "weights of bfloat16": (
        {"model": "lambda: model().bfloat16()"},
        "'1.weight' is bfloat16, which cannot be merged",
        JOB,
        "autocast=lambda",
    ),
    "no module": (
        {"model": "lambda: torch.zeros(3)"},
        "model() returned a Tensor",
        JOB,
        "torch.nn.Module",
    ),
    "a class, not a model": (
        {"model": "lambda: Net"},
        "model() returned a type",
        JOB,
        "It returns a model",
    ),
    "a path that is cut": (
        {"model": "Net", "forward": "self.layer(x.flatten(1)).detach()"},
        NO_PATH,
        8,
        "Look for detach()",
    ),
    "a loss that cuts the path": (
        {"loss": "lambda outputs, y: (outputs.argmax(1) == y).float().mean()"},
        NO_PATH,
        OPTIMIZER,
        "argmax",
    ),
    "a loss of other parameters": (
        {"loss": "lambda outputs, y: torch.ones(1, requires_grad=True).sum()"},
        NO_PATH,
        OPTIMIZER,
        "Look for",
    ),
    "a loss for each sample": (
        {"loss": "nn.CrossEntropyLoss(reduction='none')"},
        "the loss is not a scalar: it has the shape (8,)",
        JOB,
        "leave reduction='none' out",
    ),
    "a loss that is a float": (
        {"loss": "lambda outputs, y: nn.functional.cross_entropy(outputs, y).item()"},
        "the loss gave a float, not a tensor",
        OPTIMIZER,
        "no float()",
    ),
    "a loss of hermes.nn": (
        {"loss": "hermes.nn.CrossEntropy()"},
        "the loss is hermes.nn.CrossEntropy, the model is one of torch",
        JOB,
        "torch.nn.CrossEntropyLoss()",
    ),
    "a model that returns a tuple": (
        {"model": "Net", "forward": "(self.layer(x.flatten(1)), x)"},
        "the model returns a tuple, and that raises TypeError: cross_entropy_loss()",
        JOB,
        "criterion(outputs[0], labels)",
    ),
    "a tuple and the metric": (
        {
            "model": "Net",
            "forward": "(self.layer(x.flatten(1)), x)",
            "loss": "lambda outputs, y: nn.functional.cross_entropy(outputs[0], y)",
        },
        'the metric is "accuracy", and the model returns a tuple, not one tensor',
        JOB,
        "metric=None",
    ),
    "a metric without classes": (
        {"y": np.ones((8, 3), np.float32), "loss": "nn.MSELoss()"},
        'the metric is "accuracy", and outputs have shape (8, 3), labels (8, 3)',
        JOB,
        "metric=None",
    ),
    "a metric that raises": (
        {"more": "metric=lambda outputs, y: 1 / 0"},
        "the metric raises ZeroDivisionError: division by zero",
        OPTIMIZER,
        "Mend that line",
    ),
    "an optimizer of hermes.nn": (
        {"optimizer": "lambda params: hermes.nn.SGD([], lr=0.1)"},
        "optimizer(params) gave a SGD",
        OPTIMIZER,
        "torch.optim.SGD(params",
    ),
    "an optimizer of another model": (
        {"optimizer": "lambda params: torch.optim.SGD(model().parameters(), lr=0.1)"},
        "the optimizer holds none of the model's parameters",
        OPTIMIZER,
        "Build it of the parameters that it is given",
    ),
    "an optimizer of a bad rate": (
        {"optimizer": "lambda params: torch.optim.SGD(params, lr=-1)"},
        "optimizer(params) raises ValueError: Invalid learning rate: -1",
        OPTIMIZER,
        "Mend that line",
    ),
    "a clip that raises": (
        {"more": "clip=lambda params: nn.utils.clip_grad_norm_(params)"},
        "clip(params) raises TypeError",
        OPTIMIZER,
        "Mend that line",
    ),
    "an autocast that is none": (
        {"more": "autocast=lambda: torch.bfloat16"},
        "autocast() gave a dtype",
        OPTIMIZER,
        "It gives a context",
    ),
    "a step that returns nothing": (
        {"more": "step=lambda m, x, y: None"},
        "step(model, x, y) gave None, not a tensor",
        OPTIMIZER,
        "was `return` forgotten?",
    ),
    "a step that gives a float": (
        {"more": "step=lambda m, x, y: m(x).mean().item()"},
        "step(model, x, y) gave a float, not a tensor",
        OPTIMIZER,
        "no float()",
    ),
    "a step that gives many losses": (
        {"more": "step=lambda m, x, y: m(x)[:, 0]"},
        "step(model, x, y) gave what is not a scalar: it has the shape (8,)",
        OPTIMIZER,
        "end with .mean()",
    ),
    "a step that gives what is no loss of the model": (
        {"more": "step=lambda m, x, y: m(x).detach().mean()"},
        NO_PATH,
        OPTIMIZER,
        "Look for detach()",
    ),
    "a step that goes on to the gradients": (
        {"more": "step=lambda m, x, y: (lambda z: (z.backward(), z)[1])(m(x).mean())"},
        "step(model, x, y) has called backward()",
        OPTIMIZER,
        "Return the loss",
    ),
    "a step that raises": (
        {"more": "step=lambda m, x, y: m.nosuch(x)"},
        "step(model, x, y) raises AttributeError: 'Sequential' object has no attribute 'nosuch'",
        OPTIMIZER,
        "Mend that line",
    ),
    "a step of other arguments": (
        {"more": "step=lambda x, y: 0"},
        "step(model, x, y) raises TypeError",
        OPTIMIZER,
        "Mend that line",
    ),
    "outputs of one number, and labels without that axis": (
        {
            "y": Y.astype(np.float32),
            "model": "lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 1))",
            "loss": "nn.MSELoss()",
            "more": "metric=None",
        },
        "the outputs have the shape (8, 1), the labels (8,): the loss would compare each output",
        JOB,
        ".squeeze(-1)",
    ),
    "a metric of three values": (
        {"more": "metric=lambda outputs, y: (1, 2, 3)"},
        "the metric gave 3 values",
        OPTIMIZER,
        "(right among the rare, the rare)",
    ),
    "float16 and an optimizer that cannot scale": (
        {
            "optimizer": "lambda params: torch.optim.LBFGS(params)",
            "more": "autocast=lambda: torch.autocast('cpu', torch.float16)",
        },
        "the optimizer evaluates the loss itself, and autocast is float16",
        OPTIMIZER,
        "torch.bfloat16",
    ),
    "too little memory": (
        {"model": "Net", "forward": "torch.empty(1 << 50, 64)"},
        "the device has too little memory for a step",
        FORWARD,
        "a smaller batch",
    ),
    "a number that is not one": (
        {"model": "Net", "forward": "self.layer(x.flatten(1)).log()"},
        "the loss of the first step is nan",
        8,
        "Scale x",
    ),
    "a loss with parameters of its own": (
        {"loss": "nn.Sequential(nn.Linear(3, 1))"},
        "the loss, a Sequential, has parameters of its own",
        JOB,
        "make it a part of the model",
    ),
    "weights of half precision": (
        {"model": "lambda: Net().half()"},
        "'layer.weight' is float16, which cannot be merged",
        JOB,
        "autocast",
    ),
    "a device that is not here": (
        {"more": "device='cuda:99'"},
        "the device is cuda:99, and this machine has cpu",
        JOB,
        "--device auto",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_its_line_and_remedy(name: str) -> None:
    parts, what, line, remedy = MISTAKES[name]
    with pytest.raises(JobError) as caught:
        fit(**parts)
    error = caught.value
    assert what in error.what
    assert error.where == f"job.py:{line}"
    assert remedy in error.remedy
    assert "\n" not in error.what


def test_labels_out_of_range_that_the_loss_ignores_are_none() -> None:
    y = np.where(np.arange(8) == 3, -100, Y)
    assert 0 < fit(y=y) < 5
    with pytest.raises(JobError, match="labels from 0 to 7"):
        fit(y=np.where(np.arange(8) == 3, 7, Y))


class Extra:
    """No tensor."""


def test_a_state_that_is_no_tensor_does_not_travel() -> None:
    import torch
    from torch import nn

    import hermes

    class Odd(nn.Linear):
        def get_extra_state(self) -> Extra:
            return Extra()

        def set_extra_state(self, state: object) -> None:
            del state

    job = hermes.Job(
        model=lambda: Odd(2, 2),
        data=hermes.data.digits,
        optimizer=lambda params: torch.optim.SGD(params, lr=1),
        loss=nn.MSELoss(),
    )
    with pytest.raises(JobError) as caught:
        make_trainer(job, generator(1))
    assert "'_extra_state', which is no tensor but a Extra" in caught.value.what
    assert "get_extra_state" in caught.value.remedy


def test_a_parameter_outside_the_state_is_refused() -> None:
    import torch
    from torch import nn

    import hermes

    class Hidden(nn.Linear):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            found = super().state_dict(*args, **kwargs)
            del found["bias"]
            return found

    job = hermes.Job(
        model=lambda: Hidden(2, 2),
        data=hermes.data.digits,
        optimizer=lambda params: torch.optim.SGD(params, lr=1),
        loss=nn.MSELoss(),
    )
    with pytest.raises(JobError, match="the parameter 'bias' is not in the model's state_dict"):
        make_trainer(job, generator(1))
