"""Is memory flat over a long run? Half an hour on digits, four emulated workers, every process
looked at every 15 s: the memory that is its own (USS), after five minutes and at the end."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks import common

SECONDS = 1820.0
EVERY = 15.0
WARM = 300.0
"""Seconds after which growth counts."""

JOB = Path(__file__).parents[1] / "examples" / "digits.py"

Samples = dict[str, list[tuple[float, int]]]
"""By process: (seconds, bytes)."""


def name_of(process: psutil.Process) -> str:
    """ "master", "worker-1", ... or the broker's program."""
    words = process.cmdline()
    if "--name" in words:
        return words[words.index("--name") + 1]
    return "master" if "run" in words else Path(words[0]).name


def look(root: psutil.Process, at: float, samples: Samples) -> None:
    """One sample of each process."""
    for process in (root, *root.children(recursive=True)):
        try:
            uss = process.memory_full_info().uss
            samples.setdefault(name_of(process), []).append((at, uss))
        except psutil.Error:
            continue  # it has just ended


def run(seconds: float) -> Samples:
    """The samples of one run."""
    samples: Samples = {}
    rules = ["stop.patience=off", "stop.samples=off", f"stop.seconds={seconds}"]
    sets = [word for rule in rules for word in ("--set", rule)]
    with common.scratch() as folder:
        command = [sys.executable, "-m", "hermes", "run", str(JOB), "--workers", "4", "--quiet"]
        command += ["--speeds", "0.15,0.15,0.08,0.03", "--out", str(folder), *sets]
        environment = {**os.environ, "HERMES_CONFIG": str(folder)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        begun = time.monotonic()
        root = psutil.Process(process.pid)
        while process.poll() is None:
            if time.monotonic() - begun < seconds:  # afterwards it scores, writes and draws
                look(root, time.monotonic() - begun, samples)
            time.sleep(EVERY if seconds > 10 * EVERY else 1.0)
    if process.returncode:
        raise SystemExit(f"the run ended with code {process.returncode}")
    return samples


def row(name: str, samples: list[tuple[float, int]], warm: float) -> list[str]:
    """First, last and slope, once warm."""
    late = [(at, size) for at, size in samples if at >= warm]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope
    mib = 1 << 20
    return [
        name,
        f"{late[0][1] / mib:.1f}",
        f"{late[-1][1] / mib:.1f}",
        f"**{slope * 60 / 1024:.0f}**",
    ]


def main() -> None:
    """One long run."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    wishes = parser.parse_args()
    warm = min(WARM, wishes.seconds / 3)
    samples = run(wishes.seconds)
    rows = [row(name, samples[name], warm) for name in sorted(samples)]
    head = ("process", f"MiB after {warm:.0f} s", "MiB at the end", "KiB a minute")
    common.report("flat", common.table(head, rows), update=wishes.update)


if __name__ == "__main__":
    main()
