"""A training step of one's own: a network that names a digit and draws it again, in PyTorch.

    hermes check examples/two_losses.py      # tries it, and says what a run will cost
    hermes run examples/two_losses.py
    hermes run examples/two_losses.py -- --smoke     # the same, over in seconds

It learns from the sum of two losses, which `step` gives. It is scored as any classifier: by `loss`
and the accuracy of what `forward` returns.
"""

import torch
from torch import nn

import hermes


class Net(nn.Module):
    """One code of 24 numbers, from which both the class and the image are read."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 24), nn.ReLU()
        )
        self.classes = nn.Linear(24, 10)
        self.decoder = nn.Sequential(nn.Linear(24, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x):
        return self.classes(self.encoder(x))


classify, draw = nn.CrossEntropyLoss(), nn.MSELoss()


def step(model, x, y):
    """The loss of a batch; gradients and the optimizer's step are Hermes's."""
    code = model.encoder(x)
    return classify(model.classes(code), y) + 5 * draw(model.decoder(code), x.flatten(1))


def job(args):
    return hermes.Job(
        model=Net,
        data=hermes.data.digits,
        step=step,
        loss=classify,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
        batch=32,
        stop=hermes.Stop(samples=5_000 if "--smoke" in args else 150_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
