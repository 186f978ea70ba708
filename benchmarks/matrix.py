"""How much of bare training is left where a matrix of simulated cells trains? The same model and
batches, by a process of `hermes compare` on one core and by a plain loop of torch on another one at
the same time, then the other way about: a machine's speed, which changes from minute to minute, is
the same for both. What a cell does besides - simulating, merging, scoring the grid on validation
and test, starting Python - counts against it; what the loop does before its first step does not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import common
from benchmarks.plain import of_example
from hermes.compare.cell import Order
from hermes.compare.outcome import Outcome
from hermes.compare.pool import run_all
from hermes.jobfile import build, load_source
from hermes.policy.presets import resolve, to_tree
from hermes.report.words import count as grouped
from hermes.simulate.devices import load

ROOT = Path(__file__).parents[1]
JOB = ROOT / "examples" / "mnist.py"
EDGE = ROOT / "conf" / "devices" / "edge12.json"
BATCH = 32
"""Samples of a step, as the job has it."""
STRATEGIES = ("fedavg", "fedbuff")
LOOK = 50
"""Steps between two looks at whether the loop is to end."""
GRIDS = (1000.0, 10.0)
"""Virtual seconds between two points: as good as none, and a usual one."""


def used() -> float:
    """CPU seconds of the children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def bare(args: list[str]) -> tuple[int, float]:
    """Steps of a plain loop until stdin ends, and their CPU seconds; says so before the first."""
    import torch

    plain = of_example(JOB, args)
    order = torch.randperm(plain.count)
    print("ready", flush=True)
    step, spent = 0, time.process_time()
    while not (step % LOOK == 0 and select.select([sys.stdin], [], [], 0)[0]):
        place = step * BATCH % (plain.count - BATCH)
        plain.step(order[place : place + BATCH])
        step += 1
    return step, time.process_time() - spent


def loop_on(core: int, args: list[str]) -> subprocess.Popen[str]:
    """One beside us, on that core; its first step is under way."""
    command = [sys.executable, "-m", "benchmarks.matrix", "--bare", "--", *args]
    going = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert going.stdout is not None
    if going.stdout.readline() != "ready\n":
        raise SystemExit("the plain loop did not begin; what it said stands above")
    return going


def orders(
    samples: int, grid: float, seeds: Sequence[int], args: list[str], folder: Path
) -> list[Order]:
    """The cells: each strategy with these seeds."""
    source, loaded = load_source(JOB), load(EDGE)
    job = build(source.text, source.name, args)
    world = msgspec.structs.replace(loaded.world, evaluate_seconds=grid)
    stop = {"stop.samples": samples, "stop.patience": None, "stop.versions": None}
    return [
        Order(
            strategy=strategy,
            devices="edge12",
            seed=seed,
            settings=to_tree(resolve(strategy, [job.settings(), stop])),
            world=world,
            world_file=loaded.file,
            world_digest=loaded.digest,
            job_file=str(JOB),
            job_name=source.name,
            job_text=source.text,
            args=tuple(args),
            device=None,
            path=str(folder / f"{strategy}-{seed}-{grid:g}.json"),
        )
        for strategy in STRATEGIES
        for seed in seeds
    ]


class Side(NamedTuple):
    """What was trained on one side, with how many CPU seconds."""

    samples: int
    cpu: float

    @property
    def rate(self) -> float:
        """Samples a CPU second."""
        return self.samples / self.cpu


class Half(NamedTuple):
    """A matrix on one core, and a loop on the other one."""

    matrix: Side
    points: int
    """Of the grid, scored."""
    loop: Side


def half(cores: tuple[int, int], cells: list[Order], args: list[str]) -> Half:
    """These cells on the first core, a loop on the second one as long as they take."""
    loop = loop_on(cores[1], args)
    os.sched_setaffinity(0, {cores[0]})
    spent = used()
    try:
        for ended in run_all(cells, 1, lambda: False, lambda _running: None):
            if ended.error:
                raise SystemExit(ended.error)
        cpu = used() - spent
    finally:
        os.sched_setaffinity(0, set(cores))
        told, _ = loop.communicate("")
    steps, seconds = json.loads(told)
    done = [msgspec.json.decode(Path(o.path).read_bytes(), type=Outcome) for o in cells]
    trained = sum(one.trained for one in done)
    points = sum(len(one.points) for one in done)
    return Half(Side(trained, cpu), points, Side(steps * BATCH, seconds))


def row(samples: int, grid: float, seeds: int, args: list[str]) -> list[str]:
    """A line of the table."""
    one, other = sorted(os.sched_getaffinity(0))[:2]
    with common.scratch() as folder:
        first, second = range(1, seeds + 1), range(seeds + 1, 2 * seeds + 1)
        halves = [
            half(cores, orders(samples, grid, some, args, folder), args)
            for cores, some in (((one, other), first), ((other, one), second))
        ]
    ours, theirs = (
        Side(sum(side.samples for side in sides), sum(side.cpu for side in sides))
        for sides in zip(*((h.matrix, h.loop) for h in halves), strict=True)
    )
    return [
        f"{grid:g}",
        str(len(STRATEGIES) * seeds * 2),
        grouped(ours.samples),
        str(sum(h.points for h in halves)),
        grouped(round(ours.rate)),
        grouped(round(theirs.rate)),
        f"**{100 * ours.rate / theirs.rate:.0f} %**",
        ", ".join(f"{100 * h.matrix.rate / h.loop.rate:.0f} %" for h in halves),
    ]


def main() -> None:
    """All grids."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--samples", type=int, default=120_000, help="of each cell")
    parser.add_argument("--seeds", type=int, default=2, help="of each strategy, on each core")
    parser.add_argument("--grid", type=float, nargs="*", default=GRIDS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    given = sys.argv[1:]
    own, args = (given, ["--smoke"])
    if "--" in given:
        own, args = given[: given.index("--")], given[given.index("--") + 1 :]
    wishes = parser.parse_args(own)
    if wishes.bare:
        print(json.dumps(bare(args)))
        return
    args = [str(Path(arg).resolve()) if Path(arg).exists() else arg for arg in args]
    rows = [row(wishes.samples, grid, wishes.seeds, args) for grid in wishes.grid]
    head = (
        "grid (virtual s)",
        "cells",
        "samples trained",
        "points scored",
        "samples a CPU second",
        "bare",
        "of bare (>= 90 %)",
        "by core",
    )
    common.report("matrix", common.table(head, rows), update=wishes.update)


if __name__ == "__main__":
    main()
