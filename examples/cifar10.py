"""CIFAR-10 with a convolutional network (966 722 parameters), in PyTorch.

    hermes check examples/cifar10.py -- cifar10.npz      # tries it, and says what a run will cost
    hermes run examples/cifar10.py -- cifar10.npz
    python examples/cifar10.py -- cifar10.npz            # a master; elsewhere: hermes worker
    hermes run examples/cifar10.py -- --smoke            # seconds, and no file: digits of Hermes

cifar10.npz holds x_train (50000, 32, 32, 3) and x_test (10000, 32, 32, 3), uint8, and their labels
y_train and y_test. To make it, with torchvision:

    one, two = (torchvision.datasets.CIFAR10("data", train=t, download=True) for t in (True, False))
    numpy.savez("cifar10.npz", x_train=one.data, y_train=one.targets,
                x_test=two.data, y_test=two.targets)
"""

import numpy as np
import torch
from torch import nn

import hermes
from hermes.errors import JobError


def block(channels, width):
    """A convolution, a normalisation (of groups: batch norms would keep running means, which
    differ between workers), and half the image."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.GroupNorm(8, width),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


class Net(nn.Module):
    """Three blocks, and two linear layers."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(block(3, 32), block(32, 64), block(64, 128))
        self.fc1 = nn.Linear(128 * 4 * 4, 424)
        self.fc2 = nn.Linear(424, 10)

    def forward(self, x):
        x = x.permute(0, 3, 1, 2).float() / 255  # images travel as bytes, channels last
        return self.fc2(torch.relu(self.fc1(self.blocks(x).flatten(1))))


def images(path):
    """What the file holds; called on the master alone."""
    train, test = hermes.data.npz(path)
    if not isinstance(train, tuple) or train[0].shape[1:] != (32, 32, 3):
        raise JobError(
            f"{path} is not CIFAR-10",
            remedy="It needs x_train (n, 32, 32, 3), y_train (n,), x_test and y_test; see the top "
            "of examples/cifar10.py.",
        )
    return [(x, y.reshape(-1)) for x, y in (train, test)]  # keras.datasets has y as (n, 1)


def digits():
    """The 8 x 8 digits that come with Hermes, enlarged to 32 x 32 bytes in three channels."""
    x, y = hermes.data.digits()
    large = np.kron(x[:200] * 255, np.ones((4, 4))).astype(np.uint8)
    return np.repeat(large[..., None], 3, axis=3), y[:200]


def job(args):
    smoke = args == ["--smoke"]
    if len(args) != 1:
        raise JobError(
            "examples/cifar10.py needs one file",
            remedy="hermes run examples/cifar10.py -- cifar10.npz (what it holds: see its top); "
            "to try without a file: -- --smoke",
        )
    return hermes.Job(
        model=Net,
        data=digits if smoke else lambda: images(args[0]),
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=5e-4),
        batch=32,
        round=hermes.Round(epochs=1),  # short rounds: an update soon, however slow the device
        stop=hermes.Stop(versions=1) if smoke else hermes.Stop(samples=1_500_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
