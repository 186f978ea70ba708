"""How much of two bare training loops is left where a matrix of simulated cells trains? The same
model, steps and batches, by two processes of `hermes compare` and by two plain loops of torch, in
turns: loops, matrix, loops. What a cell does besides - simulating, merging, scoring the grid on
validation and test, starting Python - counts against it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import common
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
PROCESSES = 2
BATCH = 32
"""Samples of a step, as the job has it."""
STRATEGIES = ("fedavg", "fedbuff")
GRIDS = (1000.0, 10.0)
"""Virtual seconds between two points: as good as none, and a usual one."""


class Took(NamedTuple):
    """Seconds, of both processes together where they are the CPU's."""

    wall: float
    cpu: float


def used() -> float:
    """CPU seconds of the children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def bare(steps: int, args: list[str]) -> Took:
    """So many steps as a plain loop takes them; what stands before the first is not counted."""
    import torch

    torch.set_num_threads(1)
    source = load_source(JOB)
    job = build(source.text, source.name, args)
    data = job.data()
    (x, y) = data[0] if isinstance(data[0], tuple) else data
    x, y = torch.tensor(x), torch.tensor(y).long()
    model, loss = job.model(), job.loss
    optimizer = job.optimizer(model.parameters())
    order = torch.randperm(len(x))
    began, spent = time.monotonic(), time.process_time()
    for step in range(steps):
        place = step * job.batch % (len(x) - job.batch)
        chosen = order[place : place + job.batch]
        optimizer.zero_grad()
        found = loss(model(x[chosen]), y[chosen])
        found.backward()
        optimizer.step()
        found.item()
    return Took(time.monotonic() - began, time.process_time() - spent)


def loops(steps: int, args: list[str]) -> Took:
    """That many in all, in two processes at once."""
    command = [sys.executable, "-m", "benchmarks.matrix", "--bare", str(steps // PROCESSES)]
    going = [
        subprocess.Popen([*command, "--", *args], stdout=subprocess.PIPE) for _ in range(PROCESSES)
    ]
    found = [Took(*json.loads(one.communicate()[0])) for one in going]
    return Took(max(one.wall for one in found), sum(one.cpu for one in found))


def orders(samples: int, grid: float, seeds: int, args: list[str], folder: Path) -> list[Order]:
    """The cells: each strategy with so many seeds."""
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
        for seed in range(1, seeds + 1)
    ]


def matrix(samples: int, grid: float, seeds: int, args: list[str]) -> tuple[Took, int, int]:
    """What all cells took, the samples that they trained, and the points that were scored."""
    with common.scratch() as folder:
        cells = orders(samples, grid, seeds, args, folder)
        began, spent = time.monotonic(), used()
        for ended in run_all(cells, PROCESSES, lambda: False, lambda _running: None):
            if ended.error:
                raise SystemExit(ended.error)
        took = Took(time.monotonic() - began, used() - spent)
        done = [msgspec.json.decode(Path(o.path).read_bytes(), type=Outcome) for o in cells]
    return took, sum(one.trained for one in done), sum(len(one.points) for one in done)


def row(samples: int, grid: float, seeds: int, args: list[str]) -> list[str]:
    """A line of the table."""
    half = samples * len(STRATEGIES) * seeds // BATCH // 2
    before = loops(half, args)
    took, trained, points = matrix(samples, grid, seeds, args)
    after = loops(trained // BATCH - half, args)  # cells train a little more than they merge
    wall, cpu = before.wall + after.wall, before.cpu + after.cpu
    return [
        f"{grid:g}",
        str(len(STRATEGIES) * seeds),
        grouped(trained),
        str(points),
        f"{cpu:.1f} / {took.cpu:.1f}",
        f"**{100 * cpu / took.cpu:.0f} %**",
        f"{wall:.1f} / {took.wall:.1f}",
        f"{100 * wall / took.wall:.0f} %",
    ]


def main() -> None:
    """All grids."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--samples", type=int, default=120_000, help="of each cell")
    parser.add_argument("--seeds", type=int, default=2, help="of each strategy: a cell each")
    parser.add_argument("--grid", type=float, nargs="*", default=GRIDS)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    given = sys.argv[1:]
    own, args = (given, ["--smoke"])
    if "--" in given:
        own, args = given[: given.index("--")], given[given.index("--") + 1 :]
    wishes = parser.parse_args(own)
    if wishes.bare:
        print(json.dumps(bare(wishes.bare, args)))
        return
    args = [str(Path(arg).resolve()) if Path(arg).exists() else arg for arg in args]
    rows = [row(wishes.samples, grid, wishes.seeds, args) for grid in wishes.grid]
    head = (
        "grid (virtual s)",
        "cells",
        "samples trained",
        "points scored",
        "CPU s: loops / matrix",
        "of bare (CPU)",
        "wall s: loops / matrix",
        "of bare (wall)",
    )
    common.report("matrix", common.table(head, rows), update=wishes.update)


if __name__ == "__main__":
    main()
