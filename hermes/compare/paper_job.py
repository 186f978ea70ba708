"""What did the paper's authors train? The model of their shipped example on MNIST, as a job.

784 - 128 - 64 - 10 with ReLU (109,386 parameters), SGD at a learning rate of 0.1, batches of 16: as
the published code's example has it, which is not known to be what the paper's tables were made
with. `hermes reproduce` runs it; by hand: `hermes simulate hermes/compare/paper_job.py --devices
conf/devices/edge12.json -- mnist.npz`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import hermes
from hermes import nn
from hermes.errors import JobError

BATCH = 16
RATE = 0.1
REMEDY = (
    "It holds x_train (60000, 28, 28) and x_test (10000, 28, 28), uint8, with y_train and y_test, "
    "as ~/.keras/datasets/mnist.npz does; see the top of examples/mnist.py."
)


class Scaled(nn.Flatten):
    """Images travel as bytes, a quarter of the floats: here they become 0 .. 1."""

    def forward(self, x: nn.Array) -> nn.Array:
        return super().forward(x).astype(np.float32) / 255


def model() -> nn.Module:
    """The example's."""
    return nn.Sequential(
        *(Scaled(), nn.Linear(784, 128), nn.ReLU()),
        *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def mnist(path: str) -> Any:
    """What the file holds; called on the master alone. Raises `JobError` where it is not MNIST."""
    try:
        found = hermes.data.npz(path)
    except JobError as error:
        raise JobError(error.what, where=path, remedy=REMEDY) from None
    for part in found:
        if (
            not isinstance(part, tuple)
            or part[0].shape[1:] != (28, 28)
            or part[0].dtype != np.uint8
        ):
            raise JobError(
                "it is not MNIST as this job reads it",
                where=path,
                remedy=REMEDY,
            )
    return found


def job(args: list[str]) -> hermes.Job:
    """`args`: the file."""
    if len(args) != 1:
        raise JobError("it takes one argument", remedy="The path of mnist.npz.")
    return hermes.Job(
        model=model,
        data=lambda: mnist(args[0]),
        batch=BATCH,
        optimizer=lambda params: nn.SGD(params, lr=RATE),
        loss=nn.CrossEntropy(),
    )
