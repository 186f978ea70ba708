"""What does a worker cost that has nothing to do?

Its process is looked at from outside, over a minute, once while it waits for a run and once while
it is admitted and waits for the others (it beats every second then).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks import common

SECONDS = 60.0
SETTLE = 8.0
"""Seconds after which a process that has come to rest is looked at."""

JOB = Path(__file__).parents[1] / "examples" / "digits.py"
BARS = {"apache": 1.0, "embedded": 3.0}
"""Per cent of one core."""


@contextmanager
def program(
    *arguments: object, folder: Path, core: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`hermes ARGUMENTS`, its output in a file, on one core alone where one is named; ended
    afterwards."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    command = [*pinned, sys.executable, "-m", "hermes", *map(str, arguments)]
    environment = {**os.environ, "HERMES_CONFIG": str(folder), "HERMES_STATE": str(folder)}
    output = folder / f"{arguments[0]}.out"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, text=True, env=environment, cwd=folder
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def until(output: Path, pattern: str, seconds: float = 60.0) -> None:
    """Wait until a program has said this."""
    deadline = time.monotonic() + seconds
    while not re.search(pattern, output.read_text()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{output.name} did not say {pattern!r}:\n{output.read_text()}")
        time.sleep(0.1)


def share(pid: int, seconds: float) -> float:
    """Per cent of one core that a process takes, over so many seconds."""
    process = psutil.Process(pid)
    time.sleep(SETTLE)
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.monotonic() - begun
    return 100 * (after.user + after.system - before.user - before.system) / took


def waits_for_a_run(address: str, folder: Path, seconds: float) -> float:
    """A worker without a run."""
    with program("worker", "--broker", address, "--name", "w", folder=folder) as worker:
        until(folder / "worker.out", "wait")
        return share(worker.pid, seconds)


def waits_for_others(address: str, folder: Path, seconds: float) -> float:
    """A worker of a run that expects one more."""
    command = ("master", JOB, "--broker", address, "--run", "idle", "--expect", 2)
    mine = ("worker", "--broker", address, "--name", "w")
    with program(*command, folder=folder), program(*mine, folder=folder) as worker:
        until(folder / "worker.out", "admitted")
        return share(worker.pid, seconds)


STATES: Sequence[tuple[str, Callable[[str, Path, float], float]]] = (
    ("no run is there", waits_for_a_run),
    ("admitted, the others are not there", waits_for_others),
)


def main() -> None:
    """Both states on both brokers."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    wishes = parser.parse_args()
    rows = []
    for kind in common.KINDS:
        with common.broker(kind) as broker:
            for name, measure in STATES:
                with common.scratch() as folder:
                    found = measure(broker.address, folder, wishes.seconds)
                rows.append((kind, name, f"**{found:.2f} %**", f"{BARS[kind]:g} %"))
                print(*rows[-1], sep="\t", flush=True)
    head = ("broker", "the worker waits:", "of one core", "bar")
    common.report("idle", common.table(head, rows), update=wishes.update)


if __name__ == "__main__":
    main()
