"""What does a worker's round cost beside a bare torch loop on the same batches?

A whole run: broker, master and a worker as processes of their own, the worker alone on its core,
with one thread, the others on the other core. A second worker is played (`players.py`): it holds
its push back, so that after each round the real one waits. Then the worker is stopped (SIGSTOP) and
a plain loop, in a process of its own on the same core, trains the very batches of that round, which
lie in its memory. So the two take turns, and drift hits both alike.

Of Hermes is counted `busy` of the round: gathering batches, training, the hook after each step, and
whatever the worker's other threads (heartbeats, the ledger, blocks ahead) take from the core
meanwhile. `moved`, reported beside it, is the storing of the update and the loading of the version.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.idle import program, until
from benchmarks.master import OTHER_CORE as OTHERS
from benchmarks.master import one_thread, pin
from benchmarks.memory import key_of
from benchmarks.players import BEAT, Player, ready_models
from hermes.broker.control import Kind
from hermes.codec import decode
from hermes.data.cache import BlockCache
from hermes.job import Job
from hermes.jobfile import build
from hermes.machine.events import BeatDue, Began, Train
from hermes.machine.rounds import Plan, plan
from hermes.messages import BlocksGranted, LedgerRecord, RoundNoted, WorkerAdmitted
from hermes.perform.bench import WorkerBench
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.store import Store
from hermes.policy.presets import Settings, from_tree
from hermes.runtime.keys import cluster_key
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

PAIRS, WARM = 20, 3
"""Pairs of rounds that are counted, and those before them, which are not."""
SECONDS = 1.6
"""Of a round, about: at least one."""
BAR = 1.02
"""The interval of the ratio lies below."""
CONFIDENCE = 0.95

DEVICE, WORKER_CORE, OTHER_CORE = "device", OTHERS, 1 - OTHERS
BATCH = 32
SILENCE = 300.0
"""Seconds without a round."""

JOB = '''
import numpy as np
import torch
from torch import nn
import hermes


class Scaled(nn.Module):
    """Bytes as numbers of 0 .. 1."""

    def forward(self, x):
        return x.unsqueeze(1).float() / 255


def data():
    chance = np.random.default_rng(0)
    x = chance.integers(0, 256, (20_000, 28, 28), dtype=np.uint8)
    return x, (x[:, 14, 14] // 26).astype(np.int64)


def model():
    """109 024 parameters."""
    return nn.Sequential(
        Scaled(), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(1568, 66), nn.ReLU(), nn.Linear(66, 10),
    )


def optimizer(params):
    return torch.optim.SGD(params, lr=0.01, momentum=0.9)


loss = nn.CrossEntropyLoss()

job = hermes.Job(model=model, data=data, batch=32, loss=loss, optimizer=optimizer)
'''


# --- the bare loop ------------------------------------------------------------------------------


def serve(job: Path) -> None:
    """Be the peer: for each line on stdin, the name of a file with batches, print the seconds
    that a plain loop over them takes. The model goes on from one to the next."""
    import torch

    os.sched_setaffinity(0, {WORKER_CORE})
    torch.set_num_threads(1)
    parts: dict[str, Any] = {"__name__": "job"}
    exec(job.read_text("utf-8"), parts)
    model, criterion = parts["model"](), parts["loss"]
    optimizer = parts["optimizer"](list(model.parameters()))
    for line in sys.stdin:
        with np.load(line.strip()) as file:
            pairs = list(zip(file["x"], file["y"], strict=True))
        started, losses = time.perf_counter(), []
        for x, y in pairs:
            optimizer.zero_grad()
            loss = criterion(model(torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(json.dumps(time.perf_counter() - started), flush=True)


class Bare:
    """The process of the bare loop."""

    def __init__(self, job: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.overhead", "--serve", str(job)]
        pipe = subprocess.PIPE
        self._folder = job.parent
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def seconds(self, batches: list[tuple[Any, Any]]) -> float:
        """What training these takes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        path = self._folder / "batches.npz"
        np.savez(path, x=np.stack([x for x, _ in batches]), y=np.stack([y for _, y in batches]))
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def steps_for(bare: Bare, seconds: float) -> int:
    """Steps that last about so long."""
    chance = np.random.default_rng(1)
    pairs = [
        (chance.integers(0, 256, (BATCH, 28, 28), dtype=np.uint8), chance.integers(0, 10, BATCH))
        for _ in range(60)
    ]
    took = min(bare.seconds(pairs) for _ in range(3))
    return max(10, math.ceil(seconds / (took / len(pairs))))


# --- what the worker trains ---------------------------------------------------------------------


class Recorder:
    """Takes a trainer's place, and keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, Any]] = []

    def begin_round(self, _generator: np.random.Generator) -> None:
        """Nothing."""

    def step(self, x: Any, y: Any, _factor: float) -> float:
        """Keep them."""
        self.batches.append((x, y))
        return 0.0


class Shadow:
    """Knows from the ledger which batches the worker trains, by the worker's own code."""

    def __init__(self, store: Store, cache: Path, job: Job, name: str = DEVICE) -> None:
        self._store, self._cache, self._job, self._name = store, cache, job, name
        self._settings = Settings()
        self._seed = 0
        self._blocks: Blocks | None = None
        self._grants: list[BlocksGranted] = []
        self._offset = 0
        self.noted: list[RoundNoted] = []

    def see(self, record: LedgerRecord) -> None:
        """One record."""
        for entry in record.entries:
            if isinstance(entry, WorkerAdmitted) and entry.worker == self._name:
                self._settings, self._seed = from_tree(entry.opened.settings), entry.opened.seed
                _, manifest = read_upload(self._store, entry.data)
                self._blocks = Blocks(self._store, manifest, BlockCache(self._cache, 1 << 30))
            elif isinstance(entry, BlocksGranted) and entry.worker == self._name:
                self._grants.append(entry)
            elif isinstance(entry, RoundNoted) and entry.worker == self._name:
                self.noted.append(entry)

    def batches(self) -> list[tuple[Any, Any]]:
        """The batches of the next round that was not asked for."""
        todo = plan(self._settings, self._grants, self._offset)
        assert todo is not None
        assert self._blocks is not None
        recorder = Recorder()
        job, seed = self._job, self._seed
        bench = WorkerBench(self._name, seed, job, recorder, self._blocks)  # type: ignore[arg-type]
        for grant in self._grants:
            self._blocks.fetch("train", bench.indices(grant))
            bench.accept(grant)
        bench.train(Train(1, todo.segments, todo.batch, todo.joined, 0.0, ""))
        self._use_up(todo)
        return recorder.batches

    def _use_up(self, todo: Plan) -> None:
        self._grants = [grant for grant in self._grants if grant.number not in todo.finished]
        last = todo.segments[-1].grant
        first = self._grants[0].number if self._grants else None
        self._offset = todo.offset if first == last else 0


# --- pairs --------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Seconds of one round."""

    bare: float
    busy: float
    moved: float
    """Storing the update before, and loading the version that this round began with."""


class Match:
    """A run in which each round waits for its bare twin."""

    def __init__(self, log: KafkaLog, run: str, shadow: Shadow, player: Player) -> None:
        self._shadow, self._player = shadow, player
        ledger = names.physical(run, names.LEDGER)
        self._reader = log.reader()
        self._reader.follow(ledger, 0)
        self._beat = 0.0

    def rounds(self, worker: int, bare: Bare, count: int) -> Iterator[Pair]:
        """So many rounds of the worker with this process id, each with its twin."""
        self._player.deliver(Began(secrets.token_hex(8), "", ()))
        for number in range(1, count + 1):
            self._wait(number)
            with stopped(worker):
                batches = self._shadow.batches()
                took = bare.seconds(batches)
            noted = self._shadow.noted[number - 1]
            if noted.steps != len(batches):
                raise SystemExit(f"{noted.steps} steps; the bare loop did {len(batches)}")
            yield Pair(took, noted.busy / 1e9, noted.moved / 1e9)
            self._player.store()

    def _wait(self, rounds: int) -> None:
        """Until the worker has told of so many rounds, and the player has one to push."""
        heard = time.monotonic()
        while len(self._shadow.noted) < rounds or not self._player.uploads:
            for raw in self._reader.poll(0.1):
                record = decode(raw.value)
                assert isinstance(record, LedgerRecord)
                self._shadow.see(record)
                self._player.see(raw.offset, raw.value, record)
            if time.monotonic() > self._beat + BEAT:
                self._beat = time.monotonic()
                self._player.deliver(BeatDue(0))
            if time.monotonic() > heard + SILENCE:
                raise SystemExit(f"{len(self._shadow.noted)} rounds; the next one does not come")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def measure(kind: Kind, pairs: int, seconds: float) -> list[Pair]:
    """One run's pairs."""
    os.sched_setaffinity(0, {OTHER_CORE})
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(common.scratch())
        job = folder / "job.py"
        job.write_text(JOB, "utf-8")
        with one_thread():
            bare = stack.enter_context(Bare(job))
        steps = steps_for(bare, seconds)
        child = stack.enter_context(common.broker(kind))
        pin(child.pid, OTHER_CORE)
        wishes = [f"round.steps={steps}", "workers.lost=300", "storage.max=off"]
        wishes.append(f"stop.versions={WARM + pairs}")
        sets = [word for wish in wishes for word in ("--set", wish)]
        place = ("--broker", child.address, "--run", "overhead")
        command = ("master", job, *place, "--expect", 2, "--strategy", "fedavg", *sets)
        with one_thread():
            stack.enter_context(program(*command, folder=folder, core=OTHER_CORE))
            key_of(folder)
            until(folder / "master.out", "successfully initialized")
            mine = ("worker", *place, "--name", DEVICE, "--threads", 1)
            worker = stack.enter_context(program(*mine, folder=folder, core=WORKER_CORE))
        log = stack.enter_context(KafkaLog(child.address))
        key = cluster_key(folder / "cluster.key")
        player = Player(log, "overhead", 1, key, ready_models(JOB))
        shadow = Shadow(Store(log, "overhead"), folder / "cache", build(JOB, "job.py"))
        found = Match(log, "overhead", shadow, player).rounds(worker.pid, bare, WARM + pairs)
        return list(found)[WARM:]


# --- what comes of it ---------------------------------------------------------------------------


def interval(values: list[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Of the median, by the sign test: two order statistics, whatever the distribution. The whole
    range where there are too few values for this confidence."""
    ordered, n = sorted(values), len(values)
    below, cut = 0.0, 0
    while cut < n // 2:
        below += math.comb(n, cut) / 2**n
        if 2 * below > 1 - confidence:
            break
        cut += 1
    low = max(0, cut - 1)
    return ordered[low], ordered[n - 1 - low]


def row(name: str, ratios: list[float], bar: str) -> list[str]:
    """A line of the table."""
    low, high = interval(ratios)
    return [name, f"{statistics.median(ratios):.4f}", f"**{low:.4f} .. {high:.4f}**", bar]


def main() -> None:
    """All pairs, and what they come to."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a round, about")
    parser.add_argument("--broker", choices=common.KINDS, default="embedded")
    parser.add_argument("--quick", action="store_true", help="4 short pairs: does it work?")
    parser.add_argument("--serve", type=Path, help=common.HIDDEN)
    wishes = parser.parse_args()
    if wishes.serve:
        serve(wishes.serve)
        return
    pairs, seconds = (4, 0.3) if wishes.quick else (wishes.pairs, wishes.seconds)
    found = measure(wishes.broker, pairs, seconds)
    rows = [
        row("busy", [pair.busy / pair.bare for pair in found], f"< {BAR:g}"),
        row("busy and moved", [(p.busy + p.moved) / p.bare for p in found], ""),
    ]
    head = ("of a round", "median ratio", f"{CONFIDENCE:.0%} interval of the median", "bar")
    times = [statistics.median(times) for times in zip(*found, strict=True)]
    text = common.table(head, rows)
    text += f"\n\n{len(found)} pairs, {wishes.broker} broker; medians: bare {times[0]:.3f} s, busy "
    text += f"{times[1]:.3f} s, moved {times[2]:.3f} s. The interval is that of the sign test."
    common.report("overhead", text, update=wishes.update)


if __name__ == "__main__":
    main()
