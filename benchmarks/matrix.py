"""How much of bare training is left where a matrix of simulated cells trains, on both cores? Each
tenth step of a cell is followed by one of a plain loop of torch (`plain_beside.py`): by the same
process, within milliseconds, so that a machine whose speed changes from minute to minute is as fast
for both. What a cell does besides - simulating, merging, scoring the grid on validation and test,
starting Python - counts against it; what the loop does before its first step does not.
"""

from __future__ import annotations

import resource
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import common
from benchmarks.plain_beside import FORM
from hermes.compare.cell import Order, order_of
from hermes.compare.matrix import Cell
from hermes.compare.outcome import Outcome
from hermes.compare.pool import run_all
from hermes.jobfile import build, load_source
from hermes.messages import JobSource
from hermes.policy.presets import resolve
from hermes.report.words import count as grouped
from hermes.simulate.devices import load

ROOT = Path(__file__).parents[1]
JOB = Path(__file__).with_name("plain_beside.py")
EDGE = ROOT / "conf" / "devices" / "edge12.json"
STRATEGIES = ("fedavg", "fedbuff")
CORES = 2
"""Of them, one cell each at a time."""
GRIDS = (1000.0, 10.0)
"""Virtual seconds between two points: as good as none, and a usual one."""


def used() -> float:
    """CPU seconds of the children that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def orders(samples: int, grid: float, seeds: int, args: list[str], folder: Path) -> list[Order]:
    """The cells: each strategy with these seeds."""
    written, loaded = load_source(JOB), load(EDGE)
    job = build(written.text, written.name, args)
    source = JobSource(written.name, written.text, tuple(args))
    world = msgspec.structs.replace(loaded.world, evaluate_seconds=grid)
    stop = {"stop.samples": samples, "stop.patience": None, "stop.versions": None}
    cells = [
        Cell(
            strategy,
            "edge12",
            seed,
            resolve(strategy, [job.settings(), stop]),
            tuple(args),
            loaded._replace(world=world),
        )
        for strategy in STRATEGIES
        for seed in range(1, seeds + 1)
    ]
    return [order_of(one, source, JOB, None, folder) for one in cells]


class Beside(NamedTuple):
    """What the plain loops did, in all cells together."""

    steps: int
    samples: int
    seconds: float
    """CPU seconds of these steps."""
    before: float
    """CPU seconds before the first of them."""

    @property
    def step(self) -> float:
        """CPU seconds of one."""
        return self.seconds / self.steps


def beside(folder: Path) -> Beside:
    """As the cells wrote it down."""
    told = [struct.unpack(FORM, path.read_bytes()) for path in folder.iterdir()]
    return Beside(*(sum(parts) for parts in zip(*told, strict=True)))


def row(samples: int, grid: float, seeds: int, args: list[str]) -> list[str]:
    """A line of the table."""
    with common.scratch() as folder:
        (told := folder / "told").mkdir()
        cells = orders(samples, grid, seeds, [str(told), *args], folder)
        spent = used()
        for ended in run_all(cells, CORES, lambda: False, lambda _running: None):
            if ended.error:
                raise SystemExit(ended.error)
        plain = beside(told)
        cpu = used() - spent - plain.seconds - plain.before
        done = [msgspec.json.decode(Path(o.path).read_bytes(), type=Outcome) for o in cells]
    trained = sum(one.trained for one in done)
    bare = plain.seconds * trained / plain.samples
    return [
        f"{grid:g}",
        str(len(cells)),
        grouped(trained),
        str(sum(len(one.points) for one in done)),
        f"{1e3 * plain.step:.2f}",
        f"{bare:.1f}",
        f"{cpu:.1f}",
        f"**{100 * bare / cpu:.1f} %**",
    ]


def main() -> None:
    """All grids."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--samples", type=int, default=120_000, help="of each cell")
    parser.add_argument("--seeds", type=int, default=3, help="of each strategy")
    parser.add_argument("--grid", type=float, nargs="*", default=GRIDS)
    given = sys.argv[1:]
    own, args = (given, ["--smoke"])
    if "--" in given:
        own, args = given[: given.index("--")], given[given.index("--") + 1 :]
    wishes = parser.parse_args(own)
    args = [str(Path(arg).resolve()) if Path(arg).exists() else arg for arg in args]
    rows = [row(wishes.samples, grid, wishes.seeds, args) for grid in wishes.grid]
    head = (
        "grid (virtual s)",
        "cells",
        "samples trained",
        "points scored",
        "a bare step, ms",
        "as many bare steps, CPU s",
        "cells, CPU s",
        "of bare (>= 90 %)",
    )
    common.report("matrix", common.table(head, rows), update=wishes.update)


if __name__ == "__main__":
    main()
