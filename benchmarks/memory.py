"""How much memory does a master take, with a model of 43 MB and ever more workers?

A whole run each: a broker, a master and workers as processes of their own, every round pushed and
merged. What is reported is the most that the master's process ever held (VmHWM), above that of the
same run with a model of one parameter. What a worker more costs is told by the runs of one
parameter: beside 43 MB the allocator's luck is larger than it.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks import common
from benchmarks.idle import program

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
    x = chance.standard_normal((480, 8), dtype=np.float32)
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


def peak(process: subprocess.Popen[str], result: Path, seconds: float = 600.0) -> int:
    """The most that a master held until its result was written, in KiB: the picture that it then
    draws is an extra's."""
    status, most = Path(f"/proc/{process.pid}/status"), 0
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if result.exists():
                break
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            most = max(most, int(found.group(1)) if found else 0)
        time.sleep(0.05)
    if process.wait(60) != 0:
        raise SystemExit(f"the master ended with code {process.returncode}")
    return most


def run(model: str, workers: int) -> int:
    """One run; the master's peak in KiB."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(common.scratch())
        address = stack.enter_context(common.broker("apache")).address
        job = folder / "job.py"
        job.write_text(JOB.format(model=MODELS[model]), "utf-8")
        wishes = [
            "gate.rule=open",
            "round.epochs=1",
            f"stop.versions={VERSIONS}",
            "workers.lost=60",
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
        statistics.median(run("one parameter", workers) for _ in range(TURNS))
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


def main() -> None:
    """Every number of workers, with both models."""
    wishes = common.arguments(str(__doc__)).parse_args()
    peaks = {(model, n): run(model, n) for n in WORKERS for model in MODELS}
    rows = []
    for n in WORKERS:
        small, large = peaks["one parameter", n], peaks["43 MB", n]
        models = (large - small) * 1024 / SIZE
        rows.append((n, f"{small / 1024:.1f}", f"{large / 1024:.0f}", f"**{models:.1f}**"))
    head = ("workers", "one parameter, MiB", "43 MB, MiB", "models above (<= 8)")
    text = common.table(head, rows)
    text += f"\n\nA worker more costs **{growth():.0f} KiB** (bar: {BAR_OF_ONE:g}): one parameter, "
    text += f"{FEW} and {MANY} workers, the median of {TURNS} runs each."
    common.report("memory", text, update=wishes.update)


if __name__ == "__main__":
    main()
