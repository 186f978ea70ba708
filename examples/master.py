"""Your own training, in PyTorch: edit the three marked places, then

    hermes check examples/master.py          # tries it, and says what a run will cost
    hermes run examples/master.py            # broker, master and workers on this machine
    python examples/master.py                # a master; start workers elsewhere: hermes worker

As it stands it learns to read 1797 handwritten digits of 8 x 8 pixels.
"""

import torch
from torch import nn

import hermes


# 1. The model: a function that builds it. Master and workers each call it.
def model():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


# 2. The data: a function that returns (x, y), first axis: samples. Called once, on the master.
#    From a file: hermes.data.npz("my.npz"); with a test set: (x, y), (x_test, y_test).
def data():
    return hermes.data.digits()


def job(args):
    return hermes.Job(
        model=model,
        data=data,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        batch=32,
        # 3. When to stop: the first rule that holds.
        stop=hermes.Stop(samples=5_000 if "--smoke" in args else 200_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
