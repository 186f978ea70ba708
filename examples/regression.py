"""A regression: ten inputs, one number (Friedman's first benchmark), in PyTorch.

    hermes check examples/regression.py      # tries it, and says what a run will cost
    hermes run examples/regression.py
    hermes run examples/regression.py -- --smoke     # the same, over in seconds

Labels are floats, so there is no accuracy: the metric is the mean absolute error, in units of y.
The noise alone makes it 0.8.
"""

import numpy as np
import torch
from torch import nn

import hermes


class Net(nn.Module):
    """Two hidden layers; its outputs have the labels' shape, (n,)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
        )

    def forward(self, x):
        return 14.4 + 5 * self.layers(x).squeeze(-1)  # mean and deviation of y, about


def friedman(samples=6000):
    """J. Friedman, Multivariate Adaptive Regression Splines, 1991: five of ten inputs matter."""
    chance = np.random.default_rng(1)
    x = chance.random((samples, 10), dtype=np.float32)
    one, two, three, four, five = x.T[:5]
    y = 10 * np.sin(np.pi * one * two) + 20 * (three - 0.5) ** 2 + 10 * four + 5 * five
    return x, (y + chance.normal(0, 1, samples)).astype(np.float32)


def absolute_error(outputs, labels):
    return (outputs - labels).abs().mean()


def job(args):
    return hermes.Job(
        model=Net,
        data=friedman,
        loss=nn.MSELoss(),
        metric=absolute_error,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.001, momentum=0.9),
        batch=32,
        stop=hermes.Stop(samples=5_000 if "--smoke" in args else 300_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
