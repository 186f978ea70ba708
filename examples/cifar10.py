"""CIFAR-10 with a convolutional network (966 274 parameters), in PyTorch.

    hermes check examples/cifar10.py -- cifar10.npz      # tries it, and says what a run will cost
    hermes run examples/cifar10.py -- cifar10.npz
    python examples/cifar10.py -- cifar10.npz            # a master; elsewhere: hermes worker
    hermes run examples/cifar10.py -- --smoke            # seconds, and no file: digits of Hermes
    hermes run examples/cifar10.py -- cifar10.npz lr=0.06 momentum=0 batch=8 until=0.5

`until` is the share of the run's samples after which the learning rate is all the way down.

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


class Net(nn.Module):
    """Three convolutions, each followed by pooling, and two linear layers. No batch norms: their
    running means differ between workers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(128 * 4 * 4, 424)
        self.fc2 = nn.Linear(424, 10)
        self.to(memory_format=torch.channels_last)  # a quarter less work for a CPU

    def forward(self, x):
        x = x.permute(0, 3, 1, 2).float() / 255  # images travel as bytes, channels last
        for conv in (self.conv1, self.conv2, self.conv3):
            x = torch.relu(self.pool(conv(x)))
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


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


KNOBS = {"lr": 0.02, "momentum": 0.9, "batch": 32, "until": 1.0}


def turned(words):
    """The knobs as these words set them: lr=0.06."""
    found = dict(KNOBS)
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = type(KNOBS[name])(value)
        except (KeyError, ValueError):
            raise JobError(
                f"examples/cifar10.py does not know what to do with {word!r}",
                remedy=f"After the file it takes numbers for {', '.join(KNOBS)}, as in lr=0.06.",
            ) from None
    return found


def job(args):
    smoke = args[:1] == ["--smoke"]
    if not args:
        raise JobError(
            "examples/cifar10.py needs one file",
            remedy="hermes run examples/cifar10.py -- cifar10.npz (what it holds: see its top); "
            "to try without a file: -- --smoke",
        )
    knobs = turned(args[1:])
    lr, momentum, until = knobs["lr"], knobs["momentum"], knobs["until"]

    def steady_then_down(progress):
        """The learning rate's factor: a short rise, then constant, then down to nothing."""
        done = progress / until
        return max(0.02, min(1.0, 0.1 + done / 0.03, (1 - done) / 0.4))

    return hermes.Job(
        model=Net,
        data=digits if smoke else lambda: images(args[0]),
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.SGD(
            params, lr=lr, momentum=momentum, weight_decay=5e-4
        ),
        schedule=steady_then_down,
        batch=knobs["batch"],
        split=hermes.Split(train=0.77, probe=0.02, validation=0.06, test=0.15),
        round=hermes.Round(epochs=1),  # short rounds: an update soon, however slow the device
        stop=hermes.Stop(versions=1) if smoke else hermes.Stop(samples=1_500_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
