"""Augmentation on the worker: each time a digit is trained on, it lies a little elsewhere.

    hermes check examples/augment.py         # tries it, and says what a run will cost
    hermes run examples/augment.py
    hermes run examples/augment.py -- --smoke        # the same, over in seconds

The data travel once, as they are; `step` moves them on the device that trains, by torch's chance,
which Hermes seeds for each round. Models are scored on the digits as they are.
"""

import torch
from torch import nn

import hermes


def model():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def data():
    x, y = hermes.data.digits()
    return x[:, None], y  # one channel: (n, 1, 8, 8)


def shifted(x):
    """Each image moved by -1, 0 or 1 pixels in both directions, of its own."""
    n, _, height, width = x.shape
    down, right = torch.randint(0, 3, (2, n, 1), device=x.device)
    rows = down + torch.arange(height, device=x.device)  # (n, height)
    columns = right + torch.arange(width, device=x.device)
    images = torch.arange(n, device=x.device)[:, None, None]
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


criterion = nn.CrossEntropyLoss()


def step(model, x, y):
    """The loss to learn from: called in training alone, never where a model is scored."""
    return criterion(model(shifted(x)), y)


def job(args):
    return hermes.Job(
        model=model,
        data=data,
        step=step,
        loss=criterion,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
        batch=32,
        stop=hermes.Stop(samples=5_000 if "--smoke" in args else 200_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
