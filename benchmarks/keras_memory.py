"""How much memory does a worker of a Keras model take above a bare process of Keras?

The bare process builds the same compiled model and trains it by `train_on_batch`, on as many
batches; the worker is one of a whole run (embedded broker, fedavg, two workers), its cache of
blocks on disk. Of both, the most that the process ever held (VmHWM), with a large model and with a
tiny one: what counts is how much more the large model costs the worker.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from benchmarks import common
from benchmarks.idle import program
from benchmarks.memory import key_of
from benchmarks.players import peak_of

BACKENDS = ("tensorflow", "torch")
VERSIONS, STEPS = 6, 40
TINY, LARGE = 1, 3270
"""Units of a layer."""
BAR = 3.0
"""Models."""

JOB = """
import numpy as np
import keras
from keras import layers
import hermes


def data():
    chance = np.random.default_rng(0)
    x = chance.standard_normal((640, 8), dtype=np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def model():
    made = keras.Sequential([
        keras.Input((8,)), layers.Dense(UNITS, activation="relu"),
        layers.Dense(UNITS, activation="relu"), layers.Dense(2),
    ])
    made.compile(keras.optimizers.SGD(1e-4),
                 keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


job = hermes.Job(model=model, data=data, batch=8)
"""
SIZE = 4 * (8 * LARGE + LARGE + LARGE * LARGE + LARGE + LARGE * 2 + 2)
"""Bytes of the large model's parameters."""

BARE = (
    JOB
    + f"""
made, (x, y) = model(), data()
for step in range({STEPS}):
    made.train_on_batch(x[8 * step: 8 * step + 8], y[8 * step: 8 * step + 8])
made.test_on_batch(x[:64], y[:64])
"""
    + r"""
import re
print(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read()).group(1))
"""
)


def bare(units: int) -> int:
    """KiB of a process of Keras that trains this model."""
    text = BARE.replace("UNITS", str(units))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def worker(units: int) -> int:
    """KiB of a worker that trains it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(common.scratch())
        address = stack.enter_context(common.broker("embedded")).address
        (folder / "job.py").write_text(JOB.replace("UNITS", str(units)), "utf-8")
        wishes = [f"round.steps={STEPS}", f"stop.versions={VERSIONS}", "storage.max=off"]
        sets = [word for wish in wishes for word in ("--set", wish)]
        place = ("--broker", address, "--run", "memory")
        command = ("master", folder / "job.py", *place, "--expect", 2, "--strategy", "fedavg")
        stack.enter_context(program(*command, *sets, folder=folder))
        key = key_of(folder)
        processes = []
        for number in range(2):
            own = folder / f"worker-{number}"
            own.mkdir()
            (own / "cluster.key").write_bytes(key)
            (own / "cluster.key").chmod(0o600)
            call = ("worker", *place, "--name", f"worker-{number}", "--threads", 1)
            processes.append(stack.enter_context(program(*call, folder=own)))
        most, deadline = 0, time.monotonic() + 300
        while any(process.poll() is None for process in processes):
            most = max(most, *(peak_of(process.pid) for process in processes))
            if time.monotonic() > deadline:
                raise SystemExit((folder / "master.out").read_text())
            time.sleep(0.05)
        if any(process.returncode for process in processes):
            raise SystemExit((folder / "worker-0" / "worker.out").read_text())
        return most


def main() -> None:
    """Both backends."""
    wishes = common.arguments(str(__doc__)).parse_args()
    rows = []
    for backend in BACKENDS:
        os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        alone, whole = ([kind(units) for units in (TINY, LARGE)] for kind in (bare, worker))
        models = [(large - tiny) * 1024 / SIZE for tiny, large in (alone, whole)]
        cells = [f"{kib / 1024:.0f}" for kib in (*alone, *whole)]
        rows.append((backend, *cells, f"**{models[1] - models[0]:.1f}**"))
    head = ("backend", "Keras alone, tiny model: MiB", "large", "a worker, tiny", "large")
    text = common.table((*head, f"models more (<= {BAR:g})"), rows)
    text += f"\n\nThe large model is {SIZE / 1e6:.1f} MB; {VERSIONS} versions of {STEPS} steps."
    common.report("keras-memory", text, update=wishes.update)


if __name__ == "__main__":
    main()
