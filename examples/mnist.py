"""MNIST with a small convolutional network (108 618 parameters), in PyTorch.

    hermes check examples/mnist.py -- mnist.npz      # tries it, and says what a run will cost
    hermes run examples/mnist.py -- mnist.npz
    python examples/mnist.py -- mnist.npz            # a master; workers elsewhere: hermes worker
    hermes run examples/mnist.py -- --smoke          # seconds, and no file: the digits of Hermes
    hermes run examples/mnist.py -- mnist.npz lr=0.3 momentum=0 batch=16 until=0.5

`until` is the share of the run's samples after which the learning rate is all the way down.

mnist.npz holds x_train (60000, 28, 28) and x_test (10000, 28, 28), uint8, and their labels y_train
and y_test. It is what `keras.datasets.mnist` keeps as ~/.keras/datasets/mnist.npz; or, by hand:

    one, two = (torchvision.datasets.MNIST("data", train=t, download=True) for t in (True, False))
    numpy.savez("mnist.npz", x_train=one.data, y_train=one.targets,
                x_test=two.data, y_test=two.targets)
"""

import numpy as np
import torch
from torch import nn

import hermes
from hermes.errors import JobError


class Net(nn.Module):
    """Two convolutions, each followed by pooling, and two linear layers.

    In training each image is moved by up to `shift` pixels: what is seen again is seen anew.
    """

    def __init__(self, shift):
        super().__init__()
        self.shift = shift
        self.conv1 = nn.Conv2d(1, 16, 3)
        self.conv2 = nn.Conv2d(16, 32, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(32 * 5 * 5, 128)
        self.fc2 = nn.Linear(128, 10)
        self.to(memory_format=torch.channels_last)  # a third less work for a CPU

    def forward(self, x):
        if self.training and self.shift:
            x = moved(x, self.shift)
        x = x.float().unsqueeze(1) / 255  # images travel as bytes: a quarter of the floats
        x = x.contiguous(memory_format=torch.channels_last)
        x = torch.relu(self.pool(self.conv1(x)))
        x = torch.relu(self.pool(self.conv2(x)))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def moved(x, most):
    """Each image by 0 .. `most` pixels in either direction, at random; black comes in."""
    count, height, width = x.shape
    x = nn.functional.pad(x, (most,) * 4)
    top, left = torch.randint(2 * most + 1, (2, count, 1, 1), device=x.device)
    rows = top + torch.arange(height, device=x.device)[:, None]
    columns = left + torch.arange(width, device=x.device)
    return x[torch.arange(count, device=x.device)[:, None, None], rows, columns]


def images(path):
    """What the file holds; called on the master alone."""
    train, test = hermes.data.npz(path)
    if not isinstance(train, tuple) or train[0].shape[1:] != (28, 28):
        raise JobError(
            f"{path} is not MNIST",
            remedy="It needs x_train (n, 28, 28), y_train (n,), x_test and y_test; see the top of "
            "examples/mnist.py.",
        )
    return train, test


def digits():
    """The 8 x 8 digits that come with Hermes, enlarged to 28 x 28 bytes."""
    x, y = hermes.data.digits()
    large = np.kron(x[:400] * 255, np.ones((3, 3))).astype(np.uint8)
    return np.pad(large, ((0, 0), (2, 2), (2, 2))), y[:400]


KNOBS = {"lr": 0.05, "momentum": 0.9, "batch": 32, "until": 1.0, "shift": 1}


def turned(words):
    """The knobs as these words set them: lr=0.3."""
    found = dict(KNOBS)
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = type(KNOBS[name])(value)
        except (KeyError, ValueError):
            raise JobError(
                f"examples/mnist.py does not know what to do with {word!r}",
                remedy=f"After the file it takes numbers for {', '.join(KNOBS)}, as in lr=0.3.",
            ) from None
    return found


def job(args):
    smoke = args[:1] == ["--smoke"]
    if not args:
        raise JobError(
            "examples/mnist.py needs one file",
            remedy="hermes run examples/mnist.py -- mnist.npz (what it holds: see its top); "
            "to try without a file: -- --smoke",
        )
    knobs = turned(args[1:])
    lr, momentum, until = knobs["lr"], knobs["momentum"], knobs["until"]

    def steady_then_down(progress):
        """The learning rate's factor: most of the last point of accuracy comes while it falls."""
        return min(1.0, max(0.02, (1 - progress / until) / 0.4))

    return hermes.Job(
        model=lambda: Net(knobs["shift"]),
        data=digits if smoke else lambda: images(args[0]),
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.SGD(params, lr=lr, momentum=momentum),
        schedule=steady_then_down,
        batch=knobs["batch"],
        split=hermes.Split(train=0.75, probe=0.025, validation=0.075, test=0.15),
        round=hermes.Round(epochs=1),  # short rounds: an update soon, however slow the device
        stop=hermes.Stop(versions=1) if smoke else hermes.Stop(samples=600_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
