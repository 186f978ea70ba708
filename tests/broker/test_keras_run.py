"""Does a job of Keras train through a broker, on both backends, as torch and NumPy do?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from commands import ROOT, Shell, Shown, wait_for
from perceptrons import HIDDEN, KERAS, STEPS, begin, without

from hermes.broker.control import Child

pytestmark = pytest.mark.broker

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
    begin(tmp_path)

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


@pytest.mark.timeout(240)
def test_bad_workers_of_another_backend_or_without_it_say_so(
    shown: Shown, tmp_path: Path, shell: Shell, embedded: Child
) -> None:
    begin(tmp_path)
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
    shell.environment["PYTHONPATH"] = without("tensorflow", tmp_path)
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
    "a Lambda over what data() has left": (
        KERAS.replace(
            "def model",
            "MEAN = 0.0\n\n\ndef data():\n    global MEAN\n"
            "    x, y = hermes.data.digits()\n    MEAN = x.mean()\n    return x, y\n\n\ndef model",
        )
        .replace("layers.Flatten()", "layers.Flatten(), layers.Lambda(lambda x: x - MEAN)")
        .replace("data=hermes.data.digits", "data=data"),
        "of_keras.py:20: model() uses 'MEAN', which line 12 sets as data() is called: workers",
    ),
    "a layer of a module beside the job": (
        KERAS.replace("def model():", "def model():\n    from mine import Mine\n").replace(
            "layers.Flatten()", "Mine()"
        ),
        "of_keras.py:7: the job file imports 'mine', which workers do not have",
    ),
    "a callback that raises as a round ends": (
        KERAS.replace(
            "def model",
            "class Told(keras.callbacks.Callback):\n    def on_epoch_end(self, epoch, logs):\n"
            "        print(logs['val_loss'])\n\n\ndef model",
        ).replace("job = hermes.Job(", "job = hermes.Job(callbacks=lambda: [Told()], "),
        "of_keras.py:8: a callback raises KeyError: 'val_loss'",
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
    (tmp_path / "mine.py").write_text(
        "from keras.layers import Flatten\n\n\nclass Mine(Flatten):\n    pass\n"
    )
    for command in ("check",) if "callback" in what else ("check", "run"):
        done = shell(command, "of_keras.py")
        assert done.returncode == 2, done.stderr
        assert message in done.stdout + done.stderr
    shown(f"a job of Keras: {what}", f"hermes {command} of_keras.py", done.returncode, done.stderr)
    assert not (tmp_path / "runs").exists()
    assert shell.left_behind() == []


@pytest.mark.timeout(240)
def test_layers_of_the_jobs_own_train_and_their_export_is_warned_of(
    tmp_path: Path, shell: Shell
) -> None:
    """A Lambda, and a class that is registered with Keras: workers build both from the text."""
    shell.environment["KERAS_BACKEND"] = "torch"
    own = (
        "@keras.saving.register_keras_serializable()\nclass Mine(layers.Flatten):\n    pass\n\n\n"
        "def model"
    )
    text = KERAS.replace(', init="keras.safetensors"', ", stop=hermes.Stop(samples=1500)")
    for name, changed, line in (
        ("lambda", text.replace("layers.Flatten()", "layers.Lambda(lambda x: x[:, 0])"), 10),
        ("class", text.replace("layers.Flatten()", "Mine()").replace("def model", own), 6),
    ):
        (tmp_path / "own.py").write_text(changed)
        wanted = f"own.py:{line}: hermes export --format keras cannot write this model: "
        for command in (("check", "own.py"), ("run", "own.py", "--workers", "1", "--run", name)):
            done = shell(*command, timeout=100)
            assert done.returncode == 0, done.stderr
            assert done.stderr.count(wanted) == 1, done.stderr
        refused = shell("export", name, "--format", "pt")
        assert refused.returncode == 2, refused.stderr
        assert "Take --format keras" in refused.stderr
        refused = shell("export", name, "--format", "keras")
        assert refused.returncode == 2, refused.stderr
        assert "Keras alone cannot build this model" in refused.stderr
