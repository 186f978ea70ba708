"""How is torch's chance drawn from a stream of ours? By seeding its generators."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SCORING = 0
"""The seed of an evaluation: one model always has one score."""


def seed_of(stream: np.random.Generator) -> int:
    """A seed for torch from the stream's next bits; the stream itself is left as it was."""
    return int(copy.deepcopy(stream.bit_generator).random_raw()) >> 1


def seed(number: int, device: torch.device) -> None:
    """Chance on this device, and on the CPU, begins anew."""
    torch.default_generator.manual_seed(number)  # torch.manual_seed costs 1 ms: it sees to all
    if device.type == "cuda":
        torch.cuda.manual_seed_all(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def seeded(number: int, device: torch.device) -> Iterator[None]:
    """Within, chance begins at this seed; afterwards the CPU's goes on where it was."""
    before = torch.default_generator.get_state()
    try:
        seed(number, device)
        yield
    finally:
        torch.default_generator.set_state(before)


@contextmanager
def drawn(stream: np.random.Generator) -> Iterator[None]:
    """Within, a model is drawn from the stream, on whatever device; afterwards as `seeded`."""
    before = torch.default_generator.get_state()
    try:
        torch.manual_seed(seed_of(stream))
        yield
    finally:
        torch.default_generator.set_state(before)
