"""How much memory does a master take, with a large model and ever more workers?

A whole run each: a broker, a master and workers as processes of their own, every round pushed and
merged. What is reported is the most that the master's process ever held (VmHWM), above that of the
same run with a model of one parameter. What a worker more costs is told by the runs of one
parameter: beside 43 MB the allocator's luck is larger than it.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks import common
from benchmarks.idle import program
from benchmarks.players import peak_of

WORKERS = (1, 4, 12)
FEW, MANY, TURNS = 1, 24, 3
"""Runs from which the cost of one worker more is taken."""
VERSIONS = 12
BAR = 8.0
"""Models."""
BAR_OF_ONE = 64.0
"""KiB a worker."""

JOB = '''
import numpy as np
import hermes
from hermes import nn


class Scale(nn.Module):
    """One parameter."""

    def __init__(self):
        self.scale = nn.Parameter(1, bound=1.0)

    def forward(self, x):
        self.x = x[:, :2]
        return self.x * self.scale.value

    def backward(self, grad):
        self.scale.grad[...] = (grad * self.x).sum()
        return grad


def data():
    chance = np.random.default_rng(0)
    x = chance.standard_normal(({samples}, {features}), dtype=np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int64)


def model():
    return {model}


job = hermes.Job(model=model, data=data, batch=8, loss=nn.CrossEntropy(),
                 optimizer=lambda params: nn.SGD(params, lr=1e-4))
'''

MODELS = {
    "one parameter": "Scale()",
    "43 MB": "nn.Sequential(nn.Linear(8, 3270), nn.ReLU(), nn.Linear(3270, 3270), nn.ReLU(), "
    "nn.Linear(3270, 2))",
}
SIZE = 4 * (8 * 3270 + 3270 + 3270 * 3270 + 3270 + 3270 * 2 + 2)
"""Bytes of the larger model's parameters."""

RESNET18 = Path(__file__).parents[1] / "examples" / "resnet18.py"
RESNET18_RUN = (2, 3)
"""Workers and versions."""
RESNET18_SIZE = 4 * (11_173_962 + 2 * 4800) + 8 * 20
"""Bytes: parameters, and what BatchNorm keeps beside them (running values, counters)."""

RESNET18_JOB = '''


class Scale(nn.Module):
    """One parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.flatten(1)[:, :10].float() / 255 * self.scale


def noise():
    chance = np.random.default_rng(0)
    x = chance.integers(0, 256, (160, 16, 16, 3), dtype=np.uint8)
    return x, np.arange(160) % 10


job = hermes.Job(model=lambda: {model}, data=noise, batch=16, loss=nn.CrossEntropyLoss(),
                 optimizer=lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9))
'''
"""What stands behind the example's source: a few small images in place of a file."""


def peak(process: subprocess.Popen[str], result: Path, seconds: float = 600.0) -> int:
    """The most that a master held until its result was written, in KiB: the picture that it then
    draws is an extra's."""
    most, deadline = 0, time.monotonic() + seconds
    while process.poll() is None and not result.exists() and time.monotonic() < deadline:
        most = max(most, peak_of(process.pid))
        time.sleep(0.05)
    if process.wait(60) != 0:
        raise SystemExit(f"the master ended with code {process.returncode}")
    return most


def of_size(model: str) -> str:
    """A job with a model of this size."""
    return JOB.format(model=MODELS[model], samples=480, features=8)


def run(text: str, workers: int, versions: int = VERSIONS) -> int:
    """One run of this job; the master's peak in KiB."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(common.scratch())
        address = stack.enter_context(common.broker("apache")).address
        job = folder / "job.py"
        job.write_text(text, "utf-8")
        wishes = [
            "gate.rule=open",
            "round.epochs=1",
            f"stop.versions={versions}",
            "workers.lost=120",
            "storage.max=off",
        ]
        sets = [word for wish in wishes for word in ("--set", wish)]
        command = ("master", job, "--broker", address, "--run", "memory", "--expect", workers)
        master = stack.enter_context(program(*command, *sets, folder=folder))
        for number in range(workers):
            own = folder / f"worker-{number}"
            own.mkdir()
            (own / "cluster.key").write_bytes(key_of(folder))
            (own / "cluster.key").chmod(0o600)
            name = ("--name", f"worker-{number}", "--cache", folder / "cache")
            call = ("worker", "--broker", address, "--run", "memory", *name)
            stack.enter_context(program(*call, folder=own))
        return peak(master, folder / "runs" / "memory" / "result.json")


def growth() -> float:
    """KiB that a worker more costs."""
    few, many = (
        statistics.median(run(of_size("one parameter"), workers) for _ in range(TURNS))
        for workers in (FEW, MANY)
    )
    return (many - few) / (MANY - FEW)


def key_of(folder: Path) -> bytes:
    """The cluster key, made by the master at its start."""
    path, deadline = folder / "cluster.key", time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit((folder / "master.out").read_text())
        time.sleep(0.1)
    time.sleep(0.2)
    return path.read_bytes()


def large_and_small() -> str:
    """Every number of workers, with both models."""
    peaks = {(model, n): run(of_size(model), n) for n in WORKERS for model in MODELS}
    rows = []
    for n in WORKERS:
        small, large = peaks["one parameter", n], peaks["43 MB", n]
        models = (large - small) * 1024 / SIZE
        rows.append((n, f"{small / 1024:.1f}", f"{large / 1024:.0f}", f"**{models:.1f}**"))
    head = ("workers", "one parameter, MiB", "43 MB, MiB", f"models above (<= {BAR:g})")
    text = common.table(head, rows)
    text += f"\n\nA worker more costs **{growth():.0f} KiB** (bar: {BAR_OF_ONE:g}): one parameter, "
    return text + f"{FEW} and {MANY} workers, the median of {TURNS} runs each."


def resnet18() -> str:
    """ResNet18 in torch, as examples/resnet18.py has it."""
    source = RESNET18.read_text("utf-8")
    small, large = (
        run(source + RESNET18_JOB.format(model=model), *RESNET18_RUN)
        for model in ("Scale()", 'ResNet18("cifar", 10)')
    )
    models = (large - small) * 1024 / RESNET18_SIZE
    workers, versions = RESNET18_RUN
    cells = (workers, versions, f"{small / 1024:.0f}", f"{large / 1024:.0f}", f"**{models:.1f}**")
    head = ("workers", "versions", "one parameter, MiB", "ResNet18, MiB", f"models (<= {BAR:g})")
    text = common.table(head, [cells])
    return text + f"\n\nA model is {RESNET18_SIZE / 1e6:.1f} MB; both jobs are of torch."


def main() -> None:
    """One of the two tables."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--model", choices=("sizes", "resnet18"), default="sizes")
    wishes = parser.parse_args()
    if wishes.model == "resnet18":
        common.report("memory-resnet18", resnet18(), update=wishes.update)
    else:
        common.report("memory", large_and_small(), update=wishes.update)


if __name__ == "__main__":
    main()
