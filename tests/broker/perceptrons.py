"""One perceptron, and weights that it begins with, in each framework: jobs as texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HIDDEN, STEPS = 16, 50

KERAS = f"""\
import hermes
import keras
from keras import layers


def model():
    made = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Flatten(),
            layers.Dense({HIDDEN}, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.1, momentum=0.5), loss, metrics=["accuracy"])
    return made


job = hermes.Job(model=model, data=hermes.data.digits, init="keras.safetensors")
"""

TORCH = f"""\
import hermes
import torch
from torch import nn

job = hermes.Job(
    model=lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, {HIDDEN}), nn.ReLU(), nn.Linear({HIDDEN}, 10)
    ),
    data=hermes.data.digits,
    optimizer=lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.5),
    loss=nn.CrossEntropyLoss(),
    init="start.safetensors",
)
"""

NUMPY = (
    TORCH.replace("import torch\nfrom torch import nn", "from hermes import nn")
    .replace("torch.optim.SGD", "nn.SGD")
    .replace("CrossEntropyLoss", "CrossEntropy")
)

MISSING = """\
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "NAME":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
"""A sitecustomize.py that hides the framework NAME."""


def begin(folder: Path) -> None:
    """The jobs, and weights that all of them begin with, under the names of each."""
    for name, text in (("keras", KERAS), ("torch", TORCH), ("numpy", NUMPY)):
        (folder / f"of_{name}.py").write_text(text)
    chance = np.random.default_rng(1)
    shapes = {"1.weight": (HIDDEN, 64), "1.bias": (HIDDEN,), "3.weight": (10, HIDDEN)}
    weights = {
        name: chance.normal(scale=0.1, size=shape).astype(np.float32)
        for name, shape in {**shapes, "3.bias": (10,)}.items()
    }
    save_file(weights, folder / "start.safetensors")
    names = {"1": "sequential/dense", "3": "sequential/dense_1"}
    of_keras = {}
    for name, value in weights.items():
        layer, _, kind = name.partition(".")
        kept = np.ascontiguousarray(value.T) if kind == "weight" else value
        of_keras[f"{names[layer]}/{'kernel' if kind == 'weight' else 'bias'}"] = kept
    save_file(of_keras, folder / "keras.safetensors")


def without(framework: str, folder: Path) -> str:
    """A folder for PYTHONPATH: what is started with it lacks this framework."""
    bare = folder / "bare"
    bare.mkdir()
    (bare / "sitecustomize.py").write_text(MISSING.replace("NAME", framework))
    return str(bare)
