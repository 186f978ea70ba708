"""How is the chance of Keras drawn from a stream of ours? By the states of its seed generators."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np


def reseed(model: Any, stream: np.random.Generator) -> None:
    """Every seed generator of the model's layers (Dropout and the like) begins anew, each at seeds
    of its own; the stream itself is left as it was.

    What a model draws without a `keras.random.SeedGenerator` of its own is out of reach.
    """
    known = {id(weight) for weight in model.weights}
    known |= {id(v) for metric in model.metrics for v in metric.variables}
    seeds = np.random.Generator(copy.deepcopy(stream.bit_generator))
    for variable in model.variables:
        if id(variable) not in known and variable.path.endswith("seed_generator_state"):
            variable.assign(np.array([int(seeds.integers(2**31)), 0]))
    if keras.backend.backend() == "torch":  # where Dropout draws from torch's own generator
        import torch

        torch.manual_seed(int(seeds.integers(2**63)))


@contextmanager
def drawn(stream: np.random.Generator) -> Iterator[None]:
    """Within, a model is built as if it were the first of its process: layers are numbered from
    one name on ("dense", "dense_1"), and weights are drawn from the stream.

    Keras takes its default seeds from Python's `random`; `keras.utils.set_random_seed` would load
    TensorFlow even where the backend is torch.
    """
    policy = keras.config.dtype_policy()
    before = random.getstate()
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)  # the job's own, which its top level may have set
    try:
        random.seed(int(copy.deepcopy(stream.bit_generator).random_raw()))
        yield
    finally:
        random.setstate(before)
