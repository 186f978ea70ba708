"""Do the benchmarks measure what they say? Their players play by the rules, the bare loop trains
what the worker trains, two processes take turns, and an interval is one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.memory import of_size
from benchmarks.overhead import CONFIDENCE, Shadow, interval
from benchmarks.players import Meter, Player, play, ready_models
from benchmarks.turns import Side, cpu_seconds, halted, in_turns, thread_seconds
from hermes.chance import generator
from hermes.codec import decode, decode_tensors, digest_of, encode_tensors
from hermes.jobfile import build
from hermes.messages import LedgerRecord, VersionPublished
from hermes.perform.keeper import ChunkKeeper
from hermes.perform.store import Store
from hermes.policy.aggregate import mean_of_models
from hermes.runtime.join import wait_for_run
from hermes.train import make_trainer
from hermes.transport import names
from hermes.transport.log import Record
from hermes.transport.tensors import Chunk
from hermes.values import Payload
from tests.local.crew import KEY, Crew

TEXT = of_size("one parameter")
VERSIONS = 6


class Cast(Crew):
    """A crew whose workers are played."""

    meter: Meter

    def _serve(self, name: str) -> None:
        assert wait_for_run(self.log, "r", {}, 30, threading.Event().wait)
        number = int(name.removeprefix("worker-"))
        player = Player(self.log, "r", number, KEY, ready_models(TEXT))
        meter = Meter(os.getpid(), 2, VERSIONS)
        play(self.log, "r", [player], meter)
        self.meter = meter


def ledger(crew: Crew) -> list[LedgerRecord]:
    """All records."""
    topic, reader = names.physical("r", names.LEDGER), crew.log.reader()
    reader.follow(topic, 0)
    records = [decode(raw.value) for raw in reader.poll(1.0, limit=10_000)]
    return [record for record in records if isinstance(record, LedgerRecord)]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_master_takes_players_for_workers(tmp_path: Path, workers: int) -> None:
    """Every push is merged, and none is taken from memory: each version differs from the last."""
    settings = {"round__steps": 1, "stop__versions": VERSIONS}
    cast = Cast(tmp_path, TEXT, "fedavg", **settings).see_through(workers)
    assert cast.error is None, cast.error
    assert cast.result["status"] == "finished"
    entries = [entry for record in ledger(cast) for entry in record.entries]
    versions = [entry for entry in entries if isinstance(entry, VersionPublished)]
    assert [len(version.members) for version in versions] == [0] + [workers] * VERSIONS
    digests = [version.payload.digest for version in versions]
    assert all(one != other for one, other in pairwise(digests))
    assert cast.meter.found["updates"] == workers * (VERSIONS - 2)
    assert cast.meter.found["peak"] > 1000


def test_what_players_push_is_merged(tmp_path: Path) -> None:
    """The last version of two players is the mean of two of their models."""
    settings = {"round__steps": 1, "stop__versions": VERSIONS}
    cast = Cast(tmp_path, TEXT, "fedavg", **settings).see_through(2)
    models = [decode_tensors(model.data) for model in ready_models(TEXT)]
    means = {
        digest_of(encode_tensors(mean_of_models([(one, 1.0), (other, 1.0)])))
        for one in models
        for other in models
    }
    assert cast.result["digest"] in means


def test_the_bare_loop_trains_what_the_worker_trains(tmp_path: Path) -> None:
    """Bit for bit: the batches that the ledger tells of, in a plain loop, give the last version.
    Rounds of 60 of some 300 samples cross the edges of grants."""
    settings = {"round__steps": 7, "stop__versions": 11}
    crew = Crew(tmp_path, TEXT, "fedavg", **settings).see_through(1)
    job = build(TEXT, "job.py")
    shadow = Shadow(Store(crew.log, "r"), tmp_path / "cache", job, "worker-1")
    for record in ledger(crew):
        shadow.see(record)
    trainer = make_trainer(job, generator(0, "init"))
    for number in range(11):
        batches = shadow.batches()
        assert sum(len(x) for x, _ in batches) == shadow.noted[number].samples
        for x, y in batches:
            trainer.step(x, y, 1.0)
    assert digest_of(encode_tensors(trainer.weights())) == crew.result["digest"]


BUSY = """
import sys, threading, time
def use(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
thread = threading.Thread(target=use, args=(0.1,))
thread.start()
use(float(sys.argv[1]))
thread.join()
print(time.process_time(), flush=True)
sys.stdin.readline()
"""


class Busy(subprocess.Popen[str]):
    """A process that takes so many seconds of CPU time, and 0.1 in another thread, tells what it
    took and waits for a word."""

    def __init__(self, seconds: float) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", BUSY, str(seconds)]
        super().__init__(command, stdin=pipe, stdout=pipe, text=True)

    @property
    def state(self) -> str:
        """`stopped`, or another of psutil's."""
        return str(psutil.Process(self.pid).status())


@pytest.fixture
def two() -> Iterator[list[Busy]]:
    """Two that take 0.1 and 0.3 seconds."""
    with Busy(0.1) as one, Busy(0.3) as other:
        yield [one, other]
        one.kill()
        other.kill()


def halts(process: Busy) -> bool:
    """Whether it stands still, soon."""
    end = time.monotonic() + 5
    while process.state != "stopped" and time.monotonic() < end:
        pass
    return process.state == "stopped"


def test_two_processes_take_turns_until_both_are_done(two: list[Busy]) -> None:
    """Never both at a time; one goes on alone; what they took is what they tell themselves."""
    took: dict[int, float] = {}
    turns: list[int] = []

    def done(mine: Busy, other: Busy) -> bool:
        assert halts(other)
        turns.append(mine.pid)
        took[mine.pid] = cpu_seconds(mine.pid)
        return took[mine.pid] > (0.15 if mine is two[0] else 0.35)

    one, other = two
    with halted(one.pid), halted(other.pid):
        sides = Side(one.pid, lambda: done(one, other)), Side(other.pid, lambda: done(other, one))
        in_turns(*sides, turn=0.01)
        assert halts(one)
        assert halts(other)
    order = [pid for pid, last in zip(turns, [0, *turns], strict=False) if pid != last]
    assert len(order) > 4
    assert order[:2] == [one.pid, other.pid]
    assert turns[-1] == other.pid
    for process in two:
        assert process.stdout is not None
        told = float(process.stdout.readline())
        assert told == pytest.approx(cpu_seconds(process.pid), abs=0.02)
        threads = thread_seconds(process.pid)
        assert threads[process.pid] == max(threads.values()) < told - 0.09


def test_after_an_error_nobody_stands_still(two: list[Busy]) -> None:
    """Neither the one whose turn it was, nor the other."""
    one, other = two

    def breaks(_seconds: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), halted(one.pid), halted(other.pid):
        in_turns(Side(one.pid, lambda: False), Side(other.pid, lambda: False), breaks)
    for process in two:
        assert process.stdout is not None
        assert float(process.stdout.readline()) > 0.1


def test_a_dozen_updates_of_a_million_parameters_are_transferred_once() -> None:
    """The master keeps all their chunks as they come by; not those of a model of 33 MiB."""
    keeper, data, count = ChunkKeeper(), bytes(4_000_000), 8
    digest, ids = digest_of(data), [f"{number:032x}" for number in range(12)]
    for index in range(count):
        for name in ids:
            chunk = Chunk(name, index, count, len(data))
            keeper.add(Record("t", index, data[slice(*chunk.span)], chunk.headers()))
    for name in ids:
        payload = Payload(name, "t", 0, 0, count - 1, count, len(data), digest)
        assert keeper.take("t", payload) == data
    large = Chunk("ab" * 16, 0, 66, 33 << 20)
    keeper.add(Record("t", 0, bytes(512 << 10), large.headers()))
    assert not len(keeper)


@pytest.mark.parametrize(("count", "low"), [(20, 5), (6, 0), (4, 0), (30, 9)])
def test_an_interval_is_two_order_statistics(count: int, low: int) -> None:
    """As tables of the sign test have them at 95 %; with too few values, all of them."""
    values = [float(value) for value in generator(1, "shuffled").permutation(count)]
    assert interval(values) == (low, count - 1 - low)


def test_an_interval_covers_the_median() -> None:
    """In as many of many samples as it says, and not in many more."""
    chance, runs = np.random.default_rng(5), 2000
    inside = sum(
        low <= math.log(2) <= high
        for low, high in (interval(list(chance.exponential(size=20))) for _ in range(runs))
    )
    assert CONFIDENCE - 0.015 < inside / runs < CONFIDENCE + 0.025
