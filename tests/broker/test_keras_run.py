"""Does a job of Keras train through a broker, on both backends, as torch and NumPy do?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from commands import ROOT, Shell, Shown, wait_for
from safetensors.numpy import save_file

from hermes.broker.control import Child

pytestmark = pytest.mark.broker

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

NO_TENSORFLOW = """\
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""

OPENED = """\
import sys
import keras
import numpy as np

assert "hermes" not in sys.modules
model = keras.saving.load_model(sys.argv[1])
digits = np.load(sys.argv[2])
loss, accuracy = model.evaluate(digits["x"], digits["y"], verbose=0)
print(accuracy)
"""


@pytest.fixture(autouse=True)
def own_settings(shell: Shell, tmp_path: Path) -> None:
    """Keras writes a file of settings into the home folder when it is first imported."""
    shell.environment["KERAS_HOME"] = str(tmp_path / "keras")


@pytest.mark.timeout(240)  # TensorFlow is loaded by three processes, and compiles in each
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_the_example_trains_and_plain_keras_opens_the_model(
    backend: str, tmp_path: Path, shell: Shell
) -> None:
    shell.environment["KERAS_BACKEND"] = backend
    path = str(ROOT / "examples" / "master_keras.py")
    done = shell("run", path, "--workers", "2", "--json", "--", "--smoke", timeout=220)
    assert done.returncode == 0, done.stderr
    written = shell("export", "--format", "keras", "--to", "model.keras")
    assert written.returncode == 0, written.stderr
    assert 'keras.saving.load_model("model.keras")' in written.stdout
    digits = str(ROOT / "hermes" / "data" / "digits.npz")
    other = {"torch": "tensorflow", "tensorflow": "torch"}[backend]
    opened = subprocess.run(
        [sys.executable, "-I", "-c", OPENED, "model.keras", digits],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**shell.environment, "KERAS_BACKEND": other},
    )
    assert opened.returncode == 0, opened.stderr
    assert float(opened.stdout.split()[-1]) > 0.6
    assert shell.left_behind() == []


@pytest.mark.timeout(300)
def test_keras_torch_and_numpy_come_to_the_same_loss(
    tmp_path: Path, shell: Shell, embedded: Child
) -> None:
    """One start, the same blocks, 50 steps: within 1e-3."""
    _start(tmp_path)

    def train(name: str, backend: str = "") -> dict[str, Any]:
        shell.environment["KERAS_BACKEND"] = backend
        if not backend:
            del shell.environment["KERAS_BACKEND"]
        run = f"{name}-{uuid4().hex[:8]}"
        sets = [f"stop.versions={STEPS}", "stop.samples=off"]
        typed = [part for text in sets for part in ("--set", text)]
        return shell.json(
            *("run", f"of_{name}.py", "--broker", embedded.address, "--run", run),
            *("--workers", "1", "--strategy", "bsp", *typed),
        )

    found = [train("numpy"), train("torch"), train("keras", "tensorflow"), train("keras", "torch")]
    for split in ("validation", "test"):
        losses = [result["loss"][split] for result in found]
        assert max(losses) - min(losses) < 1e-3
        assert max(losses) < 2
    assert {result["version"] for result in found} == {STEPS}
    accuracies = [result["accuracy"]["test"] for result in found]
    assert max(accuracies) - min(accuracies) < 1e-6


def _start(folder: Path) -> None:
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


@pytest.mark.timeout(240)
def test_bad_workers_of_another_backend_or_without_it_say_so(
    shown: Shown, tmp_path: Path, shell: Shell, embedded: Child
) -> None:
    _start(tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(NO_TENSORFLOW)
    run = f"backends-{uuid4().hex[:8]}"
    at = ("--broker", embedded.address, "--run", run)
    ends = ("--set", "stop.samples=off", "--set", "stop.seconds=600")
    master = shell.start("master", "of_keras.py", *at, "--expect", "3", *ends)
    wait_for(master, "waiting for")
    shell.environment["KERAS_BACKEND"] = "torch"
    other = shell("worker", *at, "--name", "other")
    del shell.environment["KERAS_BACKEND"]
    shown(
        "a worker with another backend",
        "hermes worker",
        other.returncode,
        other.stderr.replace(run, "r"),
    )
    assert other.returncode == 2
    assert "the run computes with Keras on tensorflow, and KERAS_BACKEND is torch here" in (
        other.stderr
    )
    shell.environment["PYTHONPATH"] = str(tmp_path / "bare")
    bare = shell("worker", *at, "--name", "bare")
    shell.environment.pop("PYTHONPATH")
    shown(
        "a worker without TensorFlow",
        "hermes worker",
        bare.returncode,
        bare.stderr.replace(run, "r"),
    )
    assert bare.returncode == 2
    assert "needs the module 'tensorflow', which is not here" in bare.stderr
    assert "pip install 'hermes-edge[keras-tensorflow]'" in bare.stderr
    shell("stop", run)
    master.wait(60)


COMPILED = "    made.compile(keras.optimizers.SGD(0.1, momentum=0.5), loss, metrics=["

BAD = {
    "not compiled": (
        KERAS.replace(COMPILED, "    print(["),
        "of_keras.py:6: the model is not compiled",
    ),
    "not built": (
        KERAS.replace("            keras.Input((8, 8)),\n", ""),
        "of_keras.py:6: the model is not built: it does not know the shape of its samples",
    ),
    "another shape each time": (
        KERAS.replace("def model", "sizes = iter(range(9, 99))\n\n\ndef model").replace(
            f"Dense({HIDDEN}", "Dense(next(sizes)"
        ),
        "of_keras.py:9: model() gives another model each time it is called",
    ),
    "two frameworks": (
        KERAS.replace("import keras\n", "import keras\nimport torch\n"),
        "of_keras.py:3: two frameworks in one job: Keras on tensorflow, and torch",
    ),
    "another backend than it chooses": (
        "import os\n\nos.environ['KERAS_BACKEND'] = 'torch'\n" + KERAS,
        "of_keras.py:5: KERAS_BACKEND is tensorflow here, and the job has Keras on torch",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_jobs_of_keras_are_refused_before_anything_is_sent(
    what: str, shown: Shown, tmp_path: Path, shell: Shell
) -> None:
    """By `check` and by the master alike, with file and line."""
    text, message = BAD[what]
    shell.environment["KERAS_BACKEND"] = "tensorflow"
    (tmp_path / "of_keras.py").write_text(text.replace(', init="keras.safetensors"', ""))
    for command in ("check", "run"):
        done = shell(command, "of_keras.py")
        assert done.returncode == 2, done.stderr
        assert message in done.stdout + done.stderr
    shown(f"a job of Keras: {what}", "hermes check of_keras.py", done.returncode, done.stderr)
    assert not (tmp_path / "runs").exists()
    assert shell.left_behind() == []
