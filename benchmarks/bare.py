"""What does a plain loop of torch, or of Keras, over given batches take? A process of its own, that
holds them."""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.turns import cpu_seconds
from hermes.values import Tensors

BATCH = 32
SILENCE = 300.0
"""Seconds after which something is wrong."""

MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
"""For glibc, in both processes."""


def serve(job: Path, core: int) -> None:
    """Be the peer: for each line on stdin, the name of a file with batches, take them into memory
    and say "ready"; on the next line, do a plain loop over them and say "done". The model begins
    with the weights that lie in the file, too, if there are any."""
    os.sched_setaffinity(0, {core})
    parts: dict[str, Any] = {"__name__": "job"}
    exec(job.read_text("utf-8"), parts)
    loop = _torch_loop(parts) if "optimizer" in parts else _keras_loop(parts)
    for line in sys.stdin:
        with np.load(line.strip()) as file:
            pairs = list(zip(file["x"], file["y"], strict=True))
            weights = {n: file[n] for n in file.files if n not in ("x", "y")}
        loop.load(weights)
        print("ready", flush=True)
        sys.stdin.readline()
        losses = []
        for x, y in pairs:
            losses.append(loop.step(x, y))
        print("done", flush=True)


class Loop(NamedTuple):
    """A plain loop's two parts."""

    load: Callable[[dict[str, Any]], None]
    """Take these weights; without any, go on with what there is."""
    step: Callable[[Any, Any], float]
    """Train one batch; its loss."""


def _torch_loop(parts: dict[str, Any]) -> Loop:
    import torch

    torch.set_num_threads(1)
    model, criterion = parts["model"](), parts["loss"]
    optimizer = parts["optimizer"](list(model.parameters()))

    def load(weights: dict[str, Any]) -> None:
        if weights:
            model.load_state_dict({n: torch.from_numpy(array) for n, array in weights.items()})

    def step(x: Any, y: Any) -> float:
        optimizer.zero_grad()
        loss = criterion(model(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return Loop(load, step)


def _keras_loop(parts: dict[str, Any]) -> Loop:
    model = parts["model"]()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)

    def load(weights: dict[str, Any]) -> None:
        if weights:
            for weight in model.weights:
                weight.assign(weights[weight.path])

    def step(x: Any, y: Any) -> float:
        return float(model.train_on_batch(x, y, return_dict=True)["loss"])

    return Loop(load, step)


class Bare:
    """The process of the bare loop."""

    def __init__(self, job: Path, core: int) -> None:
        command = [sys.executable, "-m", "benchmarks.bare", str(job), str(core)]
        pipe = subprocess.PIPE
        self._folder = job.parent
        self._said = (job.parent / "bare.err").open("w")  # TensorFlow greets there
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._said, text=True
        )
        self._done = False
        self.pid = self._process.pid

    def take(self, batches: list[tuple[Any, Any]], weights: Tensors | None = None) -> None:
        """Have these in memory, ready to be trained, from these weights on."""
        path = self._folder / "batches.npz"
        x, y = (np.stack(part) for part in zip(*batches, strict=True))
        arrays: dict[str, Any] = {**(weights or {}), "x": x, "y": y}
        np.savez(path, **arrays)
        self._say(str(path))
        self._hear("ready")

    def start(self) -> None:
        """Train them."""
        self._done = False
        self._say("go")

    def done(self, timeout: float = 0.0) -> bool:
        """Whether they are trained."""
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        if not self._done and select.select([output], [], [], timeout)[0]:
            self._hear("done")
            self._done = True
        return self._done

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _hear(self, line: str) -> None:
        assert self._process.stdout is not None
        if (heard := self._process.stdout.readline().strip()) != line:
            errors = (self._folder / "bare.err").read_text()
            raise SystemExit(f"the bare loop says {heard!r}, not {line!r}: {errors}")

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._said.close()


def steps_for(bare: Bare, seconds: float) -> int:
    """Steps that last about so long."""
    chance = np.random.default_rng(1)
    pairs = [
        (chance.integers(0, 256, (BATCH, 28, 28), dtype=np.uint8), chance.integers(0, 10, BATCH))
        for _ in range(60)
    ]
    times = []
    for _ in range(3):
        bare.take(pairs)
        before = cpu_seconds(bare.pid)
        bare.start()
        if not bare.done(SILENCE):
            raise SystemExit("the bare loop does not come to its end")
        times.append(cpu_seconds(bare.pid) - before)
    return max(10, math.ceil(seconds / (min(times) / len(pairs))))


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """What is started inside keeps the memory of a step for the next. By default glibc decides by
    the heap's layout, chance of a process, whether a step's tensors cost 5 page faults or 1000:
    a tenth of the time, for a whole run."""
    before = {key: os.environ.get(key) for key in MEMORY}
    os.environ.update(MEMORY)
    try:
        yield
    finally:
        for key, value in before.items():
            del os.environ[key]
            if value is not None:
                os.environ[key] = value


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
