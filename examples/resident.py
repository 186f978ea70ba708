"""Data that stay where they are: each worker trains on a file of its own, and no sample travels.

    python examples/resident.py split 4 parts           # parts/part1.npz .. part4.npz: digits
    hermes broker start
    hermes master examples/resident.py --strategy hermes --expect 4
    hermes worker --name site-1 --data parts/part1.npz  # ... site-4, each where its file lies
    hermes broker stop

The master has no sample: versions are scored by the workers, each on a part of what it has, and the
run stops by what their sums come to.
"""

import sys
from pathlib import Path

import numpy as np

import hermes
from hermes import nn


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def split(count, folder):
    """Cut digits into so many files, of unequal sizes: the second has twice the first, ..."""
    x, y = hermes.data.digits()
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.cumsum(np.arange(1, count + 1)) * len(x) // (count * (count + 1) // 2)
    for number, chosen in enumerate(np.split(np.arange(len(x)), ends[:-1]), 1):
        np.savez(folder / f"part{number}.npz", x=x[chosen], y=y[chosen])
        sys.stdout.write(f"{folder}/part{number}.npz: {len(chosen)} samples\n")


job = hermes.Job(
    model=model,
    data=None,  # each worker brings its own: hermes worker --data FILE.npz
    batch=32,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(),
    stop=hermes.Stop(accuracy=0.95, samples=200_000),
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["split"]:
        split(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        hermes.main(job)
