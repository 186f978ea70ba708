"""Does it matter where the master dies? One kill a run, at each record of the ledger in turn and at
each step of its commit; then runs with kills of all kinds. Real training in deterministic mode."""

from __future__ import annotations

import functools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

import hermes
from benchmarks import common
from hermes import nn
from hermes.chance import generator
from hermes.machine.audit import Audit
from hermes.policy.presets import resolve
from hermes.simulate import kills
from hermes.simulate.driver import Driver
from hermes.simulate.faults import KILLS, AppendFault, Faults
from hermes.simulate.kills import Outcome
from hermes.simulate.local import LocalRun

SPEEDS = {"worker-1": 1.0, "worker-2": 1.0, "worker-3": 0.5}

KEEP = {"retention.keep": "last:4", "retention.snapshots": 2}
"""So little that a run of 300 records lets go of most of what it stored."""

SETTINGS: dict[str, dict[str, object]] = {
    "bsp": {"size.first": 64, "stop.versions": 76},
    "hermes-paper": {
        "gate.alpha": -0.7, "size.first": 32, "round.epochs": 1, "stop.versions": 58,
    },
    "fedavgm": {"size.first": 64, "round.steps": 2, "stop.versions": 64},
    "selsync": {"size.first": 64, "gate.delta": 0.12, "stop.versions": 30},
}  # fmt: skip
"""Each brings 300 records and more."""


def points() -> tuple[np.ndarray, np.ndarray]:
    """Three blurred classes in sixteen dimensions."""
    chance = generator(3, "points")
    y = np.arange(240) % 3
    x = chance.normal(size=(240, 16)) + 1.5 * np.eye(16)[y]
    return x.astype(np.float32), y.astype(np.int64)


JOB = hermes.Job(
    model=lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)),
    data=points,
    batch=8,
    optimizer=lambda params: nn.SGD(params, lr=0.1, momentum=0.5),
    loss=nn.CrossEntropy(),
)
"""323 weights."""


class Case(NamedTuple):
    """One kind of run."""

    strategy: str
    trims: bool
    """Whether the broker can trim; else topics are rotated."""

    @property
    def name(self) -> str:
        """For people."""
        return self.strategy if self.trims else f"{self.strategy}, rotating"


CASES = {
    case.name: case
    for case in (*(Case(name, True) for name in SETTINGS), *(Case(n, False) for n in SETTINGS))
}


def run(case: Case, faults: Faults | None = None, **settings: object) -> Driver:
    """A finished run, whose ledger the audit has read."""
    layers = [JOB.settings(), SETTINGS[case.strategy], KEEP, settings]
    with common.scratch() as folder:
        made = LocalRun(JOB, resolve(case.strategy, layers), 1, Path(folder))
        driver = Driver(made.setup(SPEEDS)._replace(trims=case.trims), faults=faults)
        if not driver.run().finished:
            raise SystemExit(f"{case.name} came to nothing with {faults}")
    Audit().read(driver.valid_records())
    return driver


class Calm(NamedTuple):
    """A run that nothing disturbs."""

    outcome: Outcome
    records: int
    single: tuple[tuple[AppendFault, int], ...]
    everywhere: Faults


@functools.cache
def calm(case: Case) -> Calm:
    """It, and the kills that it has room for."""
    driver = run(case)
    single = tuple(kills.single(driver))
    return Calm(kills.outcome(driver), driver.ledger_end(), single, kills.everywhere(driver))


class Found(NamedTuple):
    """What came of one run."""

    case: str
    kind: str
    place: int
    """-1: kills everywhere."""
    kills: int
    fired: bool
    """Whether all that should fire did."""
    same: bool
    what: str
    """What went wrong, if something did."""


def one(name: str, place: int, kind: str) -> Found:
    """One run with one kill, or (place -1) with kills of all kinds."""
    case = CASES[name]
    known = calm(case)
    faults = Faults(appends={place: AppendFault(kind)}) if place >= 0 else known.everywhere
    wanted = {kind} if place >= 0 else {fault.value for fault in KILLS}
    try:
        driver = run(case, faults)
    except Exception as error:  # noqa: BLE001  (whatever it is, the run did not come to its end)
        return Found(name, kind, place, 0, True, False, f"{type(error).__name__}: {error}")
    same = kills.outcome(driver) == known.outcome
    fired = set(driver.fired) == wanted and (place < 0 or driver.fired.total() == 1)
    return Found(name, kind, place, driver.fired.total(), fired, same, "" if same else "differs")


def todo(names: list[str], every: int) -> Iterator[tuple[str, int, str]]:
    """The runs of these cases: of the records each `every`-th."""
    for name in names:
        yield name, -1, "all"
        for fault, place in calm(CASES[name]).single:
            if place % every == 0:
                yield name, place, fault.value


def rows(found: list[Found]) -> list[tuple[object, ...]]:
    """The table's, by case."""
    table: list[tuple[object, ...]] = []
    for name, case in CASES.items():
        mine = [one for one in found if one.case == name]
        if not mine:
            continue
        kinds = Counter(one.kind.removeprefix("killed-") for one in mine if one.place >= 0)
        each = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        together = sum(one.kills for one in mine if one.place < 0)
        differ = sum(not one.same for one in mine)
        idle = sum(not one.fired for one in mine)
        table.append((name, calm(case).records, len(mine), each, together, idle, f"**{differ}**"))
    return table


HEAD = (
    "strategy",
    "records",
    "runs",
    "with one kill",
    "kills in the one with all kinds",
    "did not fire",
    "other outcome",
)


def kept(path: Path | None) -> list[Found]:
    """What an earlier call has found."""
    if path is None or not path.exists():
        return []
    return [Found(*json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def main() -> None:
    """Kill, and compare."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this; again")
    parser.add_argument("--every", type=int, default=1, help="of the records only each N-th")
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--keep", type=Path, help="a file: what was run is kept, and not run again")
    wishes = parser.parse_args()
    begun = time.perf_counter()
    found = kept(wishes.keep)
    known = {(one.case, one.place, one.kind) for one in found}
    left = [w for w in todo(wishes.case or list(CASES), wishes.every) if w not in known]
    random.Random(0).shuffle(left)  # what is done so far says something of all
    with ProcessPoolExecutor(wishes.processes) as pool:
        for done, result in enumerate(pool.map(one, *zip(*left, strict=True)), 1) if left else ():
            found.append(result)
            if wishes.keep is not None:
                with wishes.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
            if not (result.same and result.fired):
                print(f"\n{result}", file=sys.stderr, flush=True)
            if sys.stderr.isatty() or done % 100 == 0:
                print(f"\r{done} of {len(left)}", end="", file=sys.stderr, flush=True)
    wrong = [one for one in found if not (one.same and one.fired)]
    head = (
        f"{len(found)} runs, {sum(one.kills for one in found)} kills, {len(wrong)} that came to "
        f"another outcome or did not fire, {time.perf_counter() - begun:.0f} s"
    )
    text = f"{head}\n\n{common.table(HEAD, rows(found))}"
    common.report("kills", text, update=wishes.update and not wrong)
    if wrong:
        raise SystemExit("\n".join(map(str, wrong[:5])))


if __name__ == "__main__":
    main()
