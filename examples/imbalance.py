"""Uneven classes: one machine in twenty has a fault. The rare ones weigh more, in PyTorch.

    hermes check examples/imbalance.py       # tries it, and says what a run will cost
    hermes run examples/imbalance.py
    hermes run examples/imbalance.py -- plain        # all weigh the same, to compare
    hermes run examples/imbalance.py -- --smoke      # weighted, over in seconds

Who finds every machine sound is right in 95 % of all cases. So the metric is the balanced recall:
what share of the sound ones is found sound, and of the faulty ones faulty, and the mean of both.
"""

import numpy as np
import torch
from torch import nn

import hermes

FAULTY = 0.05
"""Share of the samples whose label is 1."""

WEIGHTS = torch.tensor([0.5 / (1 - FAULTY), 0.5 / FAULTY])
"""Of a sample, by its label: both classes together weigh the same."""


def vibrations(samples=12_000):
    """x float32 (n, 64), a hum and noise, and with a fault a knock at each turn; y int64 (n,)."""
    chance = np.random.default_rng(1)
    y = (chance.random(samples) < FAULTY).astype(np.int64)
    time = np.arange(64)
    hum = np.sin(time * chance.uniform(0.2, 0.5, (samples, 1)) + chance.uniform(0, 6, (samples, 1)))
    turn, start = chance.integers(8, 14, (samples, 1)), chance.integers(0, 8, (samples, 1))
    knock = 1.0 * ((time - start) % turn == 0) * y[:, None]
    return (hum + knock + chance.normal(0, 0.5, (samples, 64))).astype(np.float32), y


def model():
    return nn.Sequential(
        nn.Unflatten(1, (1, 64)),
        nn.Conv1d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(8),
        nn.Flatten(),
        nn.Linear(64, 2),
    )


def balanced_recall(outputs, labels):
    """A sum, and what it is to be divided by once all batches are added up: no batch alone has
    enough of the rare class to tell."""
    weights = WEIGHTS.to(labels.device)[labels]
    right = outputs.argmax(dim=1) == labels
    return (weights * right).sum(), weights.sum()


def job(args):
    return hermes.Job(
        model=model,
        data=vibrations,
        loss=nn.CrossEntropyLoss(weight=None if "plain" in args else WEIGHTS),
        metric=balanced_recall,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.02, momentum=0.9),
        batch=64,
        stop=hermes.Stop(samples=5_000 if "--smoke" in args else 80_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
