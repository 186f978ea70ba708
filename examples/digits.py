"""Handwritten digits with a small network in NumPy: the smallest whole job, and what `hermes demo`
runs. Also: `hermes run examples/digits.py`, or `python examples/digits.py`."""

import hermes
from hermes import nn


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


job = hermes.Job(
    model=model,
    data=hermes.data.digits,  # 1797 images of 8 x 8
    batch=32,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(),
    stop=hermes.Stop(samples=200_000, patience=50),
)

if __name__ == "__main__":
    hermes.main(job)
