"""Which module of Python's library is this line from? Words as numbers, in PyTorch.

    hermes check examples/text.py            # tries it, and says what a run will cost
    hermes run examples/text.py
    hermes run examples/text.py -- --smoke   # the same, over in seconds

The lines are those of the library of the master's Python; workers need none of them.
"""

import importlib.util
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

import hermes

MODULES = (
    "argparse",
    "doctest",
    "ipaddress",
    "mailbox",
    "pickletools",
    "tarfile",
    "turtle",
    "typing",
)
"""The classes."""

BUCKETS = 2048
"""Numbers that words are mapped to: 1 .. BUCKETS - 1; 0 fills short lines up."""
WORDS = 24
"""Of a line at most."""


class Net(nn.Module):
    """The mean of the words' vectors, and one hidden layer."""

    def __init__(self):
        super().__init__()
        self.vectors = nn.Embedding(BUCKETS, 16, padding_idx=0)
        self.hidden = nn.Linear(16, 64)
        self.out = nn.Linear(64, len(MODULES))

    def forward(self, x):
        x = x.long()  # words travel as int16: a quarter of the bytes
        words = (x > 0).sum(dim=1, keepdim=True)
        mean = self.vectors(x).sum(dim=1) / words
        return self.out(torch.relu(self.hidden(mean)))


def numbers(line):
    """The words of a line, each as a number that does not depend on the other lines."""
    words = re.findall(r"[A-Za-z]+|[^\sA-Za-z]", line)[:WORDS]
    return [1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in words]


def lines():
    """Lines of three words or more: x int16 (n, WORDS), y int64 (n,)."""
    x, y = [], []
    for label, module in enumerate(MODULES):
        source = Path(importlib.util.find_spec(module).origin)
        for line in source.read_text(encoding="utf-8").splitlines():
            if len(found := numbers(line)) >= 3:
                x.append(found + [0] * (WORDS - len(found)))
                y.append(label)
    return np.array(x, np.int16), np.array(y)


def job(args):
    return hermes.Job(
        model=Net,
        data=lines,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.Adam(params, lr=0.002),
        batch=32,
        stop=hermes.Stop(samples=5_000 if "--smoke" in args else 120_000, patience=50),
    )


if __name__ == "__main__":
    hermes.main(job)
