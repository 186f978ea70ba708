"""What does a worker's round cost beside a bare loop, of torch or of Keras, on the same batches?

A whole run: broker, master and a worker as processes of their own, the worker with one thread. The
bare loop is a process, too; the two share one core, all others have the other. A second worker is
played (`players.py`): it holds its push back, so that the real one waits for its version. Meanwhile
the bare loop is handed the very batches that the worker will train next, which the ledger tells,
and the last version's weights, lest its numbers become others than the worker's. Then the push is
let go, and the two take turns of 50 ms (`turns.py`) until both have done the round. So both live
through the same conditions, and drift hits both alike.

Of both counts the CPU time of the whole process. A worker stands still whenever it is not its turn,
from the round that the master has noted to the next push, too: so nothing that it does is left out.
Its rounds follow each other, and what one of them takes holds the version's loading, gathering
batches, training, the hook after each step, storing the update, and whatever the other threads
(heartbeats, the ledger, blocks ahead) do meanwhile; since a worker that takes turns needs twice the
time, what it does every second counts for more than it would alone.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.bare import SILENCE, Bare, memory_kept, steps_for
from benchmarks.idle import program, until
from benchmarks.master import OTHER_CORE as OTHERS
from benchmarks.master import one_thread, pin
from benchmarks.memory import key_of
from benchmarks.players import BEAT, Player, ready_models
from benchmarks.turns import Side, cpu_seconds, halted, in_turns, thread_seconds
from hermes.broker.control import Kind
from hermes.codec import decode, decode_tensors
from hermes.data.cache import BlockCache
from hermes.job import Job
from hermes.jobfile import build
from hermes.machine.events import BeatDue, Began, Train
from hermes.machine.rounds import Plan, plan
from hermes.messages import (
    BlocksGranted,
    LedgerRecord,
    RoundNoted,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.perform.bench import WorkerBench
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.store import Store
from hermes.policy.presets import Settings, from_tree
from hermes.runtime.keys import cluster_key
from hermes.transport import names
from hermes.transport.kafka import KafkaLog
from hermes.values import Payload, Tensors

PAIRS, WARM = 20, 3
"""Pairs of rounds that are counted, and those before them, which are not."""
SECONDS = 1.6
"""CPU time of a round, about: at least one."""
BAR = 1.02
"""The interval of the ratio lies below."""
KERAS_BAR = 1.05
CONFIDENCE = 0.95

DEVICE, WORKER_CORE, OTHER_CORE = "device", OTHERS, 1 - OTHERS

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


KERAS_JOB = '''
import numpy as np
import keras
from keras import layers
import hermes


def data():
    chance = np.random.default_rng(0)
    x = chance.integers(0, 256, (20_000, 28, 28), dtype=np.uint8)
    return x, (x[:, 14, 14] // 26).astype(np.int64)


def model():
    """109 024 parameters."""
    made = keras.Sequential([
        keras.Input((28, 28)), layers.Reshape((28, 28, 1)), layers.Rescaling(1 / 255),
        layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dense(66, activation="relu"), layers.Dense(10),
    ])
    made.compile(keras.optimizers.SGD(0.01, momentum=0.9),
                 keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


job = hermes.Job(model=model, data=data, batch=32)
'''

FRAMEWORKS = {
    "torch": (JOB, "", "overhead", BAR),
    "keras-tensorflow": (KERAS_JOB, "tensorflow", "overhead-keras-tensorflow", KERAS_BAR),
    "keras-torch": (KERAS_JOB, "torch", "overhead-keras-torch", KERAS_BAR),
}
"""By name: the job, the backend of Keras, the marks of its table, the bar."""


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
        self._version: Payload | None = None
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
            elif isinstance(entry, VersionPublished):
                self._version = entry.payload

    def ready(self) -> bool:
        """Whether what was granted is enough for the next round that was not asked for."""
        return plan(self._settings, self._grants, self._offset) is not None

    def batches(self) -> list[tuple[Any, Any]]:
        """The batches of that round."""
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

    def weights(self) -> Tensors:
        """Those of the last version."""
        assert self._version is not None
        return decode_tensors(self._store.get(self._version))

    def _use_up(self, todo: Plan) -> None:
        self._grants = [grant for grant in self._grants if grant.number not in todo.finished]
        last = todo.segments[-1].grant
        first = self._grants[0].number if self._grants else None
        self._offset = todo.offset if first == last else 0


# --- pairs --------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """CPU seconds of one round."""

    bare: float
    worker: float
    """All of it."""
    thread: float
    """Its busiest thread, which trains."""


class Match:
    """A run in which each round of the worker takes turns with its bare twin."""

    def __init__(self, log: KafkaLog, run: str, shadow: Shadow, player: Player) -> None:
        self._shadow, self._player = shadow, player
        ledger = names.physical(run, names.LEDGER)
        self._reader = log.reader()
        self._reader.follow(ledger, 0)
        self._beat = 0.0

    def rounds(self, worker: int, bare: Bare, count: int) -> Iterator[Pair]:
        """So many rounds of the worker with this process id, each with its twin; one more comes
        before, which has none."""
        noted = self._shadow.noted
        self._player.deliver(Began(secrets.token_hex(8), "", ()))
        self._until(lambda: len(noted) == 1)
        with halted(worker):
            self._shadow.batches()
            for number in range(2, count + 2):
                self._until(lambda: self._shadow.ready() and bool(self._player.uploads))
                batches = self._shadow.batches()
                bare.take(batches, self._shadow.weights())
                yield self._pair(worker, bare, number)
                if noted[-1].steps != len(batches):
                    raise SystemExit(f"{noted[-1].steps} steps; the bare loop did {len(batches)}")

    def _pair(self, worker: int, bare: Bare, number: int) -> Pair:
        """The worker's round of this number, and its twin; one of them begins, then the other."""
        sides = [
            Side(worker, lambda: len(self._shadow.noted) >= number),
            Side(bare.pid, bare.done),
        ]
        threads = thread_seconds(worker)
        before = cpu_seconds(bare.pid), cpu_seconds(worker)
        with halted(bare.pid):
            bare.start()
            self._player.store()
            in_turns(sides[number % 2], sides[1 - number % 2], self._hear)
            after = cpu_seconds(bare.pid), cpu_seconds(worker)
        grown = {key: now - threads.get(key, 0.0) for key, now in thread_seconds(worker).items()}
        return Pair(after[0] - before[0], after[1] - before[1], max(grown.values()))

    def _until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SILENCE
        while not happened():
            self._hear(0.1)
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(self._shadow.noted)} rounds; the next one does not come")

    def _hear(self, seconds: float) -> None:
        """What the ledger says, within so many seconds."""
        for raw in self._reader.poll(seconds):
            record = decode(raw.value)
            assert isinstance(record, LedgerRecord)
            self._shadow.see(record)
            self._player.see(raw.offset, raw.value, record)
        if time.monotonic() > self._beat + BEAT:
            self._beat = time.monotonic()
            self._player.deliver(BeatDue(0))


def measure(text: str, kind: Kind, pairs: int, seconds: float) -> list[Pair]:
    """One run's pairs, of this job."""
    os.sched_setaffinity(0, {OTHER_CORE})
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(common.scratch())
        job = folder / "job.py"
        job.write_text(text, "utf-8")
        with one_thread(), memory_kept():
            bare = stack.enter_context(Bare(job, WORKER_CORE))
        steps = steps_for(bare, seconds)
        child = stack.enter_context(common.broker(kind))
        pin(child.pid, OTHER_CORE)
        wishes = [f"round.steps={steps}", "workers.lost=300", "storage.max=off"]
        wishes.append(f"stop.versions={WARM + pairs + 1}")
        sets = [word for wish in wishes for word in ("--set", wish)]
        place = ("--broker", child.address, "--run", "overhead")
        command = ("master", job, *place, "--expect", 2, "--strategy", "fedavg", *sets)
        with one_thread():
            stack.enter_context(program(*command, folder=folder, core=OTHER_CORE))
            key_of(folder)
            until(folder / "master.out", "successfully initialized")
            mine = ("worker", *place, "--name", DEVICE, "--threads", 1)
            with memory_kept():
                worker = stack.enter_context(program(*mine, folder=folder, core=WORKER_CORE))
        log = stack.enter_context(KafkaLog(child.address))
        key = cluster_key(folder / "cluster.key")
        player = Player(log, "overhead", 1, key, ready_models(text))
        shadow = Shadow(Store(log, "overhead"), folder / "cache", build(text, "job.py"))
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
    parser.add_argument("--seconds", type=float, default=SECONDS, help="CPU time of a round")
    parser.add_argument("--broker", choices=common.KINDS, default="embedded")
    parser.add_argument("--quick", action="store_true", help="4 short pairs: does it work?")
    parser.add_argument("--framework", choices=[*FRAMEWORKS], default="torch")
    wishes = parser.parse_args()
    text, backend, name, bar = FRAMEWORKS[wishes.framework]
    if backend:
        os.environ["KERAS_BACKEND"] = backend
    pairs, seconds = (4, 0.3) if wishes.quick else (wishes.pairs, wishes.seconds)
    found = measure(text, wishes.broker, pairs, seconds)
    rows = [
        row("the whole process", [pair.worker / pair.bare for pair in found], f"< {bar:g}"),
        row("its training thread", [pair.thread / pair.bare for pair in found], ""),
    ]
    head = ("CPU time", "median ratio", f"{CONFIDENCE:.0%} interval of the median", "bar")
    times = [statistics.median(times) for times in zip(*found, strict=True)]
    shown = common.table(head, rows)
    shown += f"\n\n{len(found)} pairs, {wishes.broker} broker; medians of a round: bare "
    shown += (
        f"{times[0]:.3f} s, the worker {times[1]:.3f} s, its training thread {times[2]:.3f} s. "
    )
    shown += "The interval is that of the sign test."
    common.report(name, shown, update=wishes.update)


if __name__ == "__main__":
    main()
