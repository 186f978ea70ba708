"""Does a model of 100 M parameters (400 MB) get through, and in how much memory?

A whole run: Apache Kafka, a master and two workers as processes of their own, all settings as they
are but for the strategy (`bsp`: each worker takes one step and pushes) and the stop after version
1. So version 0 goes to both workers, both updates come back, and the version made of them is
published, scored and saved. `hermes verify` then forms it anew from the updates and compares bit
for bit.

Memory is the most that a process ever held (VmHWM), above that of the same run with one parameter.
What a broken transfer of such a model costs is measured apart, by `benchmarks/link.py`: up as an
update or a version goes, down as a version comes, through a proxy that counts bytes and resets all
connections again and again.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import common, link
from benchmarks.idle import program
from benchmarks.memory import JOB, key_of
from benchmarks.players import peak_of

SIDE = 10_000
"""Of the one weight matrix: 100 M parameters. One matrix is the worst case: what is done tensor by
tensor saves nothing."""
WORKERS = 2
BAR = 8.0
"""Models at the master."""
SECONDS = 3000.0
"""Until a run must have ended."""

ONCE = ("--strategy", "bsp", "--set", "stop.versions=1")
"""There and back once."""
MOMENTUM = ("--strategy", "hermes", "--set", "stop.versions=3")
"""The default strategy, whose master holds a momentum in float64: two models more."""

RATE = 16e6
"""Bytes a second of the link that is cut: what is up for 5 s carries a fifth of the model."""


class Found(NamedTuple):
    """What a run came to."""

    seconds: float
    """From the start of the processes to the master's end."""
    master: int
    """The most that it held, KiB."""
    worker: int
    """The same of the worker that held most."""
    bytes: dict[str, dict[str, int]]
    """Values of records by kind, "sent" and "received", of all processes together."""


def run(model: str, side: int, wishes: Sequence[str] = ONCE) -> Found:
    """One run of this model."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(common.scratch())
        address = stack.enter_context(common.broker("apache")).address
        job = folder / "job.py"
        job.write_text(JOB.format(model=model, samples=160, features=side), "utf-8")
        begun = time.monotonic()
        command = ("master", job, "--broker", address, "--run", "large", "--expect", WORKERS)
        master = stack.enter_context(program(*command, *wishes, folder=folder))
        workers = [stack.enter_context(worker(folder, address, n)) for n in range(WORKERS)]
        peaks = watched([master, *workers])
        seconds = time.monotonic() - begun
        if master.returncode:
            raise SystemExit((folder / "master.out").read_text())
        result = json.loads((folder / "runs" / "large" / "result.json").read_text("utf-8"))
        verify(folder, address)
        return Found(seconds, peaks[0], max(peaks[1:]), result["bytes"])


@contextlib.contextmanager
def worker(folder: Path, address: str, number: int) -> Iterator[subprocess.Popen[str]]:
    """A worker with a folder of its own."""
    own = folder / f"worker-{number}"
    own.mkdir()
    (own / "cluster.key").write_bytes(key_of(folder))
    (own / "cluster.key").chmod(0o600)
    name = ("--name", f"worker-{number}", "--cache", own / "cache")
    with program("worker", "--broker", address, "--run", "large", *name, folder=own) as process:
        yield process


def watched(processes: list[subprocess.Popen[str]]) -> list[int]:
    """The most that each held until the first of them, the master, has ended; in KiB."""
    peaks, deadline = [0] * len(processes), time.monotonic() + SECONDS
    while processes[0].poll() is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"the run has not ended in {SECONDS:g} s")
        peaks = [max(most, peak_of(one.pid)) for most, one in zip(peaks, processes, strict=True)]
        time.sleep(0.05)
    return peaks


def verify(folder: Path, address: str) -> None:
    """`hermes verify` must form each version but the first anew, with its digest."""
    command = [sys.executable, "-m", "hermes", "verify", "large", "--broker", address, "--json"]
    told = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, timeout=SECONDS
    )
    if told.returncode:
        raise SystemExit(told.stdout + told.stderr)
    outcomes = json.loads(told.stdout)["outcomes"]
    if outcomes.pop("checked") != 1 or list(outcomes) != ["recomputed"]:
        raise SystemExit(f"not every version was formed again: {outcomes}")


def row(name: str, found: Found, small: Found, model: int) -> list[object]:
    """A line of the table."""
    master, at_worker = (
        (large - base) * 1024 / model
        for large, base in ((found.master, small.master), (found.worker, small.worker))
    )
    sent, received = (sum(kind[way] for kind in found.bytes.values()) for way in WAYS)
    print(f"{name}: master {master:.2f} models, worker {at_worker:.2f}", flush=True)
    return [
        name, f"{found.seconds:.0f}", f"{sent / 1e6:.0f}", f"{received / 1e6:.0f}",
        f"{found.master / 1024:.0f}", f"**{master:.1f}**", f"{at_worker:.1f}",
    ]  # fmt: skip


WAYS = ("sent", "received")

HEAD = (
    "run", "s", "sent, MB", "received, MB", "master, MiB", f"models above (<= {BAR:g})",
    "models above, worker",
)  # fmt: skip


def main() -> None:
    """All runs."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--side", type=int, default=SIDE, help="of the weight matrix")
    parser.add_argument("--default", action="store_true", help="three versions by hermes, too")
    wishes = parser.parse_args()
    side, model = wishes.side, 4 * wishes.side**2
    large = f"nn.Linear({side}, {side}, bias=False)"
    small = run("Scale()", side)
    once = run(large, side)
    rows = [row("there and back once", once, small, model)]
    if wishes.default:
        rows.append(row("three versions by `hermes`", run(large, side, MOMENTUM), small, model))
    print(common.table(HEAD, rows), flush=True)
    cut = common.table(link.HEAD, link.cell("apache", "close", RATE, model))
    text = f"{common.table(HEAD, rows)}\n\nA payload of that size over a link that is cut:\n\n{cut}"
    common.report("large", text, update=wishes.update)
    held = once.master - small.master
    if held * 1024 > BAR * model:
        raise SystemExit(f"the master held more than {BAR:g} models: {held} KiB of {model} bytes")


if __name__ == "__main__":
    main()
