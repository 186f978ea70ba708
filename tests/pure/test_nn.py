"""Does every module compute the gradient that it claims, and SGD the step?"""

from __future__ import annotations

import numpy as np
import pytest

from hermes import nn
from hermes.chance import generator
from hermes.errors import JobError


def in_float64(module: nn.Module) -> nn.Module:
    module.initialise(generator(1, "init"))
    for parameter in module.parameters():
        parameter.value = parameter.value.astype(np.float64)
    return module


def slope(function, array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of a number by every element of `array`, by central differences."""
    found = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        above = function()
        array[place] = kept - step
        found[place] = (above - function()) / (2 * step)
        array[place] = kept
    return found


MODULES = {
    "linear": (lambda: nn.Linear(4, 3), (5, 4)),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), (5, 4)),
    "linear on sequences": (lambda: nn.Linear(4, 3), (2, 6, 4)),
    "sigmoid": (nn.Sigmoid, (5, 4)),
    "relu": (nn.ReLU, (5, 4)),
    "softmax": (nn.Softmax, (5, 4)),
    "flatten": (nn.Flatten, (5, 2, 2)),
    "sequential": (
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(4, 6),
            nn.Sequential(nn.Sigmoid(), nn.Linear(6, 5)),
            nn.ReLU(),
            nn.Linear(5, 3),
            nn.Softmax(),
        ),
        (5, 2, 2),
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_backward_gives_the_gradients_that_finite_differences_give(name):
    make, shape = MODULES[name]
    module = in_float64(make())
    chance = generator(2, name)
    x = chance.normal(size=shape)
    weights = chance.normal(size=module.forward(x).shape)

    def loss() -> float:
        return float((module.forward(x) * weights).sum())

    module.forward(x)
    by_input = module.backward(weights)
    by_name = {key: parameter.grad for key, parameter in module.named_parameters()}
    np.testing.assert_allclose(by_input, slope(loss, x), atol=1e-7)
    for key, parameter in module.named_parameters():
        np.testing.assert_allclose(by_name[key], slope(loss, parameter.value), atol=1e-7)


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    outputs, labels = generator(3).normal(size=(6, 4)), np.array([0, 3, 1, 1, 2, 0])
    criterion = nn.CrossEntropy()
    criterion.forward(outputs, labels)
    grad = criterion.backward()
    expected = slope(lambda: criterion.forward(outputs, labels), outputs)
    np.testing.assert_allclose(grad, expected, atol=1e-8)


def test_cross_entropy_is_the_mean_of_minus_log_of_the_share():
    outputs = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    found = nn.CrossEntropy().forward(outputs, np.array([0, 2], np.uint8))
    assert found == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)


def test_huge_inputs_overflow_nowhere():
    huge = np.array([[1e4, -1e4, 0]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert nn.CrossEntropy().forward(huge, np.array([0])) == 0
        assert nn.CrossEntropy().forward(huge, np.array([1])) == 2e4
        assert nn.Softmax().forward(huge).tolist() == [[1, 0, 0]]
        assert nn.Sigmoid().forward(huge).tolist() == [[1, 0, 0.5]]


def test_names_shapes_and_types_are_those_of_torch():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2, bias=False)))
    found = {name: (value.shape, value.dtype.name) for name, value in model.state_dict().items()}
    assert found == {
        "0.weight": ((3, 4), "float32"),
        "0.bias": ((3,), "float32"),
        "2.0.weight": ((2, 3), "float32"),
    }


def test_all_stays_in_float32():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Sigmoid(), nn.Softmax())
    model.initialise(generator(1))
    y = model(np.ones((2, 2, 2), np.float32))
    assert y.dtype == np.float32
    assert model.backward(y).dtype == np.float32
    assert all(p.grad.dtype == np.float32 for p in model.parameters())
    nn.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1).step(0.5)
    assert all(p.value.dtype == np.float32 for p in model.parameters())


def test_linear_is_initialised_evenly_within_one_over_the_root_of_its_inputs():
    layer = nn.Linear(100, 400)
    layer.initialise(generator(1))
    assert np.abs(layer.weight.value).max() <= 0.1
    assert layer.weight.value.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.01)
    again = nn.Linear(100, 400)
    again.initialise(generator(1))
    assert np.array_equal(layer.weight.value, again.weight.value)


def test_own_modules_are_found_by_their_attributes_and_keep_values_that_they_set():
    class Gain(nn.Module):
        def __init__(self) -> None:
            self.gain = nn.Parameter(2)
            self.gain.value[:] = 1
            self.inner = nn.Linear(2, 2)

    model = Gain()
    model.initialise(generator(1))
    assert list(model.state_dict()) == ["gain", "inner.weight", "inner.bias"]
    assert model.gain.value.tolist() == [1, 1]


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)])
def test_sgd_follows_the_formula_of_torch(momentum, decay):
    parameter = nn.Parameter(1)
    parameter.value[:] = value = 2.0
    optimizer = nn.SGD([parameter], lr=0.5, momentum=momentum, weight_decay=decay)
    velocity = 0.0
    for grad, factor in [(1.0, 1.0), (-3.0, 0.5), (0.25, 2.0)]:
        parameter.grad[:] = grad
        optimizer.step(factor)
        velocity = momentum * velocity + grad + decay * value
        value -= 0.5 * factor * velocity
        assert parameter.value[0] == pytest.approx(value, rel=1e-6)


ERRORS = {
    "Linear(4, 3) takes inputs of shape (n, 4) and was given (2, 5)": lambda: nn.Linear(4, 3)(
        np.ones((2, 5))
    ),
    "Linear(0, 3)": lambda: nn.Linear(0, 3),
    "at place 1": lambda: nn.Sequential(nn.ReLU(), nn.ReLU),
    "SGD: lr is -1": lambda: nn.SGD([], lr=-1),
    "SGD: momentum is nan": lambda: nn.SGD([], lr=1, momentum=float("nan")),
    "y is float64": lambda: nn.CrossEntropy().forward(np.ones((2, 3)), np.ones(2)),
    "outputs have shape (2, 3) and y has (2, 2)": lambda: nn.CrossEntropy().forward(
        np.ones((2, 3)), np.ones((2, 2), int)
    ),
    "y has (2, 1): a column": lambda: nn.CrossEntropy().forward(
        np.ones((2, 3)), np.ones((2, 1), int)
    ),
    "y has (2, 3) and is one-hot": lambda: nn.CrossEntropy().forward(
        np.ones((2, 3)), np.eye(3)[:2]
    ),
    "given no samples": lambda: nn.CrossEntropy().forward(np.ones((0, 3)), np.ones(0, int)),
    "labels from 0 to 3; the model's 3 outputs stand for the labels 0 to 2": (
        lambda: nn.CrossEntropy().forward(np.ones((2, 3)), np.array([0, 3]))
    ),
    "labels from -1 to 0": lambda: nn.CrossEntropy().forward(np.ones((2, 3)), np.array([0, -1])),
}


@pytest.mark.parametrize("message", ERRORS)
def test_misuse_is_told_with_a_remedy(message):
    with pytest.raises(JobError) as caught:
        ERRORS[message]()
    assert message in str(caught.value)
    assert caught.value.remedy


def test_a_parameter_is_drawn_in_pieces_as_it_is_in_one() -> None:
    """The same numbers, whatever their number and layout: versions of before begin alike."""
    for shape in ((3,), (300, 500), (1 << 16,)):
        parameter = nn.Parameter(*shape, bound=0.5)
        parameter.initialise(generator(1, "init"))
        whole = generator(1, "init").uniform(-0.5, 0.5, shape).astype(np.float32)
        assert parameter.value.tobytes() == whole.tobytes()
    turned = nn.Parameter(300, 500, bound=0.5)
    turned.value = np.zeros((500, 300), np.float32).T
    turned.initialise(generator(1, "init"))
    assert (turned.value == generator(1, "init").uniform(-0.5, 0.5, (300, 500)).astype("f4")).all()
