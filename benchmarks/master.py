"""How many updates does a master merge in a second of its core, and what does it hold?

A whole master's process, alone on one core: it reads the workers' topics, checks and merges each
update of a million parameters, stores each version and writes the ledger. The broker, and one
process that plays all the workers (`players.py`), share the other core. Counted is what the
master's process takes, all its threads together, evaluations beside the merging too, from one
version to a later one. With two cores the broker is what such a run waits for: so the bar is put to
updates a second of the master's own CPU time, and the rate by the clock is shown beside it.

The peer does, on the same core and in turns with it, what no master could do without, in bare NumPy
and hashlib: it copies each update's bytes and hashes them, adds them up in float64, divides, and
copies and hashes the version. It neither sends nor receives, and writes nothing down.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.idle import program, until
from benchmarks.memory import JOB, key_of
from hermes.broker.control import Kind
from hermes.chance import generator
from hermes.jobfile import build
from hermes.train import make_trainer

WIDTH = 994
MODELS = {
    "one parameter": "Scale()",
    "1 M": f"nn.Sequential(nn.Linear(8, {WIDTH}), nn.ReLU(), nn.Linear({WIDTH}, {WIDTH}), "
    f"nn.ReLU(), nn.Linear({WIDTH}, 2))",
}
PARAMETERS = 8 * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH + WIDTH * 2 + 2
SIZE = 4 * PARAMETERS
"""Bytes of the larger model's parameters."""
SAMPLES = 2400
SCORED = SAMPLES * 15 // 100
"""Of the validation set."""

UPDATES, WARM = 240, 24
"""Updates that are counted, and those before them, which are not."""
ROUNDS = 3
BAR = 50.0
"""Updates a second of CPU time."""

MASTER_CORE, OTHER_CORE = 0, 1

STRATEGIES = {
    "fedavg": ("fedavg", "round.steps=1"),
    "hermes-paper": ("hermes-paper", "gate.rule=open", "round.epochs=1", "size.rule=fixed"),
}
"""A name, and what is set: rounds are short, and every one is pushed."""


class Cell(NamedTuple):
    """One row of the table."""

    strategy: str
    workers: int

    @property
    def members(self) -> int:
        """Updates in a version."""
        return self.workers if self.strategy == "fedavg" else 1


CELLS = (Cell("fedavg", 1), Cell("fedavg", 4), Cell("fedavg", 12), Cell("hermes-paper", 4))


class Measured(NamedTuple):
    """What one run gave."""

    rate: float
    """Updates a second."""
    cost: float
    """CPU seconds an update."""
    peak: int
    """KiB that the master held at most."""


class Peer(NamedTuple):
    """CPU seconds."""

    merge: float
    """Of an update."""
    evaluation: float
    """Of one look at the validation set."""


# --- Hermes -------------------------------------------------------------------------------------


def run(cell: Cell, model: str, kind: Kind, updates: int) -> Measured:
    """One run."""
    first = max(2, WARM // cell.members)
    last = first + max(2, updates // cell.members)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(common.scratch())
        child = stack.enter_context(common.broker(kind))
        pin(child.pid, OTHER_CORE)
        job = folder / "job.py"
        job.write_text(JOB.format(model=MODELS[model], samples=SAMPLES), "utf-8")
        strategy, *wishes = STRATEGIES[cell.strategy]
        wishes += [f"stop.versions={last}", "workers.lost=60", "storage.max=off"]
        sets = [word for wish in wishes for word in ("--set", wish)]
        place = ("--broker", child.address, "--run", "merge", "--expect", cell.workers)
        command = ("master", job, *place, "--strategy", strategy, *sets)
        with one_thread():
            master = stack.enter_context(program(*command, folder=folder, core=MASTER_CORE))
        key_of(folder)
        until(folder / "master.out", "successfully initialized")
        given = (child.address, "merge", job, folder / "cluster.key", cell.workers, master.pid)
        found = common.in_a_process("benchmarks.players", *given, first, last, "--core", OTHER_CORE)
        if master.wait(60):
            raise SystemExit((folder / "master.out").read_text())
    updates = found["updates"]
    return Measured(updates / found["wall"], found["cpu"] / updates, found["peak"])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """What is started inside computes in one thread."""
    keys = (
        *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
        *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
    )
    before = {key: os.environ.get(key) for key in keys}
    os.environ.update(dict.fromkeys(keys, "1"))
    try:
        yield
    finally:
        for key, value in before.items():
            del os.environ[key]
            if value is not None:
                os.environ[key] = value


def pin(pid: int, core: int) -> None:
    """All threads of a process to one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})


# --- the peer -----------------------------------------------------------------------------------


def peer(members: int) -> Peer:
    """What this process takes for versions of so many updates, and for an evaluation."""
    os.sched_setaffinity(0, {MASTER_CORE})
    chance = np.random.default_rng(0)
    updates = [chance.standard_normal(PARAMETERS, np.float32).tobytes() for _ in range(members)]
    versions = max(4, 120 // members)
    return Peer(cpu(lambda: merged(updates), versions) / members, cpu(evaluation(), 10))


def cpu(call: Callable[[], object], times: int) -> float:
    """CPU seconds of one call; the first is not counted."""
    call()
    started = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - started) / times


def merged(updates: list[bytes]) -> str:
    """One version of these updates; its digest."""
    total: np.ndarray | None = None
    for update in updates:
        data = bytearray(update)
        hashlib.sha256(data).hexdigest()
        model = np.frombuffer(data, np.float32).astype(np.float64)
        total = model if total is None else np.add(total, model, out=total)
    assert total is not None
    version = np.divide(total, len(updates), out=total).astype(np.float32).tobytes()
    return hashlib.sha256(version).hexdigest()


def evaluation() -> Callable[[], object]:
    """Something that loads the model and looks at as many samples as the validation set has."""
    job = build(JOB.format(model=MODELS["1 M"], samples=SAMPLES), "job.py")
    trainer = make_trainer(job, generator(0, "init"))
    weights, (x, y) = trainer.weights(), job.data()

    def call() -> None:
        trainer.load(weights)
        trainer.evaluate([(x[:SCORED], y[:SCORED])])

    return call


# --- the table ----------------------------------------------------------------------------------

HEAD = (
    "strategy", "workers", "updates/s", "CPU ms an update", f"updates a CPU second (>= {BAR:g})",
    "peer: CPU ms", "ratio", "MiB", "models above one parameter",
)  # fmt: skip


def row(cell: Cell, kind: Kind, updates: int, rounds: int) -> tuple[list[object], float]:
    """A line of the table, and the CPU seconds of an evaluation: medians, and the median of the
    ratios turn by turn."""
    runs, peers = [], []
    for _ in range(rounds):
        with one_thread():
            found = common.in_a_process("benchmarks.master", "--peer", cell.members)
        peers.append(Peer(*found))
        runs.append(run(cell, "1 M", kind, updates))
    small = run(cell, "one parameter", kind, updates).peak
    rate, cost, most = (statistics.median(column) for column in zip(*runs, strict=True))
    bare, looked = (statistics.median(column) for column in zip(*peers, strict=True))
    ratio = statistics.median(a.cost / b.merge for a, b in zip(runs, peers, strict=True))
    models = (most - small) * 1024 / SIZE
    return [
        cell.strategy, cell.workers, f"{rate:.0f}", f"{cost * 1e3:.1f}", f"**{1 / cost:.0f}**",
        f"{bare * 1e3:.1f}", f"{ratio:.1f}", f"{most / 1024:.0f}", f"{models:.1f}",
    ], looked  # fmt: skip


def main() -> None:
    """All cells, or one process of the peer."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--updates", type=int, default=UPDATES, help="counted, in each run")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--broker", choices=common.KINDS, default="embedded")
    parser.add_argument("--only", help="the cells of this strategy, or of so many workers")
    parser.add_argument("--quick", action="store_true", help="one short run: does it work?")
    parser.add_argument("--peer", type=int, help=common.HIDDEN)
    wishes = parser.parse_args()
    if wishes.peer:
        print(json.dumps(peer(wishes.peer)))
        return
    updates, rounds = (24, 1) if wishes.quick else (wishes.updates, wishes.rounds)
    rows, looks = [], []
    for cell in CELLS:
        if wishes.only in (None, cell.strategy, str(cell.workers)):
            line, looked = row(cell, wishes.broker, updates, rounds)
            rows.append(line)
            looks.append(looked)
            print(*line, sep="\t", flush=True)
    text = common.table(HEAD, rows)
    text += f"\n\n{PARAMETERS:,} parameters, {wishes.broker} broker; medians of {rounds}. An "
    text += f"evaluation on {SCORED} samples takes {statistics.median(looks) * 1e3:.0f} ms of CPU "
    text += "time; hermes-paper looks at each update and at each version with one."
    common.report("master", text.replace(",", " ", 1), update=wishes.update)


if __name__ == "__main__":
    main()
