"""Samples from a torch.utils.data.Dataset: noisy waves of four forms, told apart by convolutions.

    hermes check examples/dataset.py         # tries it, and says what a run will cost
    hermes run examples/dataset.py
    hermes run examples/dataset.py -- --smoke        # fewer samples: over in seconds

`data` gives two Datasets, the second the official test set; one alone would do. Each sample is
asked for once, on the master, which never holds them all in memory. What a Dataset draws by chance
is thus drawn once: for augmentation, see examples/augment.py.
"""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

import hermes

FORMS = (
    lambda turns: np.sin(2 * np.pi * turns),
    lambda turns: np.sign(np.sin(2 * np.pi * turns)),  # square
    lambda turns: 2 * (turns % 1) - 1,  # sawtooth
    lambda turns: 4 * np.abs(turns % 1 - 0.5) - 1,  # triangle
)


class Waves(Dataset):
    """(wave of shape (1, 64), number of its form), drawn from a seed and the sample's index."""

    def __init__(self, samples, seed):
        self.samples, self.seed = samples, seed

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        chance = np.random.default_rng((self.seed, index))
        turns = chance.uniform(2, 5) * np.arange(64) / 64 + chance.random()
        wave = FORMS[index % 4](turns) + chance.normal(0, 0.3, 64)
        return torch.tensor(wave, dtype=torch.float32).unsqueeze(0), index % 4


def model():
    return nn.Sequential(
        nn.Conv1d(1, 16, 7, padding=3),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Conv1d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Flatten(),
        nn.Linear(32 * 4, 4),
    )


def job(args):
    smoke = "--smoke" in args
    train, test = Waves(800 if smoke else 8000, seed=1), Waves(200 if smoke else 2000, seed=2)
    return hermes.Job(
        model=model,
        data=lambda: (train, test),
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.03, momentum=0.9),
        batch=32,
        stop=hermes.Stop(samples=5_000 if smoke else 200_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
