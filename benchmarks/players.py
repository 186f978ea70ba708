"""Who pushes updates without training any? One process that plays all workers of a run.

Each player is the worker's own machine: it knocks, is admitted, is granted blocks, pushes and waits
for its version, in real messages. Only what the machine asks for is not done: no block and no
version is fetched, a round takes no time, and what is pushed is one of a few models made before.
So a player costs little more than its bytes on their way, and a master is what a run waits for.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from msgspec.structs import replace

from hermes.chance import generator
from hermes.codec import decode, encode, encode_tensors, proof_of
from hermes.jobfile import build
from hermes.machine import worker
from hermes.machine.events import (
    Action,
    BeatDue,
    Began,
    BlocksFetched,
    Event,
    FetchBlocks,
    LedgerSeen,
    LoadVersion,
    RoundFinished,
    Send,
    SendBeat,
    SendHello,
    StoreUpdate,
    Train,
    UpdateStored,
    VersionLoaded,
)
from hermes.machine.worker import WorkerState
from hermes.messages import (
    Envelope,
    Heartbeat,
    Hello,
    LedgerRecord,
    VersionPublished,
    WorkerBody,
)
from hermes.runtime.keys import cluster_key
from hermes.runtime.software import software
from hermes.train import make_trainer
from hermes.transport import names, tensors
from hermes.transport.kafka import KafkaLog
from hermes.transport.log import Log, Receipt
from hermes.values import Base, Payload

MODELS = 5
"""Models that are pushed, in turn: none twice in a row, and none that is the version in force."""

BEAT = 1.0
"""Seconds between two heartbeats."""

PATIENCE = 120.0
"""Seconds without a version."""


class Ready(NamedTuple):
    """A model that can be pushed."""

    data: bytes
    digest: str

    @property
    def count(self) -> int:
        return max(1, -(-len(self.data) // tensors.CHUNK))


def ready_models(text: str) -> list[Ready]:
    """Models like that of this job, each a little different."""
    chance = np.random.default_rng(7)
    weights = make_trainer(build(text, "job.py"), generator(0, "init")).weights()
    found = []
    for _ in range(MODELS):
        moved = {
            name: (array + chance.normal(0, 1e-3, array.shape)).astype(array.dtype)
            for name, array in weights.items()
        }
        data = encode_tensors(moved)
        found.append(Ready(data, hashlib.sha256(data).hexdigest()))
    return found


class Upload(NamedTuple):
    """A payload under way."""

    topic: str
    """Its short name."""
    id: str
    model: Ready
    receipts: list[Receipt]

    def stored(self) -> UpdateStored:
        """Wait for it."""
        offsets = [receipt.offset() for receipt in self.receipts]
        first, last, length = min(offsets), max(offsets), len(self.model.data)
        count, digest = self.model.count, self.model.digest
        return UpdateStored(Payload(self.id, self.topic, 0, first, last, count, length, digest))


class Player:
    """One worker."""

    def __init__(self, log: Log, run: str, number: int, key: bytes, models: list[Ready]) -> None:
        self.name = f"worker-{number}"
        self._log, self._run, self._key, self._models = log, run, key, models
        self._turn = number
        self._topic = names.physical(run, names.from_worker(self.name))
        self._state = WorkerState(self.name, secrets.token_hex(8))
        self.uploads: list[Upload] = []

    @property
    def gone(self) -> bool:
        """Whether it has left."""
        return self._state.phase == "gone"

    def see(self, offset: int, data: bytes, record: LedgerRecord) -> None:
        """A record of the ledger, and its bytes."""
        self.deliver(LedgerSeen(record, offset, hashlib.sha256(data).digest()))

    def store(self) -> None:
        """What is under way has arrived, and is pushed."""
        uploads, self.uploads = self.uploads, []
        for upload in uploads:
            self.deliver(upload.stored())

    def deliver(self, event: Event) -> None:
        """One event, and all that comes of it at once."""
        events = deque([event])
        while events:
            step = worker.decide(self._state, time.monotonic_ns(), events.popleft())
            self._state = step.state
            for action in step.actions:
                outcome = self._perform(action)
                if outcome is not None:
                    events.append(outcome)

    def _perform(self, action: Action) -> Event | None:
        if isinstance(action, SendHello):
            self._knock(action)
        elif isinstance(action, Send):
            self._post(action.number, action.body)
        elif isinstance(action, SendBeat):
            self._post(0, Heartbeat(action.steps, action.last))
        elif isinstance(action, StoreUpdate):
            self.uploads.append(self._upload())
        elif isinstance(action, FetchBlocks):
            return BlocksFetched(action.grant.number)
        elif isinstance(action, LoadVersion):
            return VersionLoaded(Base(action.version.version, action.version.payload.digest))
        elif isinstance(action, Train):
            samples = sum(part.stop - part.start for part in action.segments)
            return RoundFinished(action.round, 1, samples, 1_000_000, 1.0, 1.0)
        return None

    def _knock(self, action: SendHello) -> None:
        made_of = software("")
        hello = Hello(self._run, self.name, self._state.incarnation, action.nonce, made_of)
        signed = replace(hello, proof=proof_of(self._key, hello))
        self._log.append(names.physical(self._run, names.LOBBY), encode(signed))

    def _post(self, number: int, body: WorkerBody) -> None:
        seen, state = self._state.authority, self._state
        envelope = Envelope(state.incarnation, number, seen.offset, seen.chain, body)
        self._log.append(self._topic, encode(envelope))

    def _upload(self) -> Upload:
        """As `send_payload`, but for the hash, which is known, and the waiting."""
        self._turn += 1
        model, name = self._models[self._turn % MODELS], tensors.new_payload_id()
        view = memoryview(model.data)
        receipts = []
        for index in range(model.count):
            chunk = tensors.Chunk(name, index, model.count, len(view))
            first, end = chunk.span
            receipts.append(self._log.append(self._topic, bytes(view[first:end]), chunk.headers()))
        return Upload(names.from_worker(self.name), name, model, receipts)


def peak_of(pid: int) -> int:
    """The most that a process ever held, in KiB; 0 where that is not to be had any more."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found.group(1)) if found else 0
    return 0


class Meter:
    """What a master's process did between two versions, and held until then."""

    def __init__(self, pid: int, first: int, last: int) -> None:
        self._process, self._first, self._last = psutil.Process(pid), first, last
        self._updates = 0
        self._begun: tuple[float, float] | None = None
        self.found: dict[str, float] = {}

    def see(self, record: LedgerRecord) -> None:
        """Count the versions of a record."""
        for entry in record.entries:
            if not isinstance(entry, VersionPublished):
                continue
            if self._begun is not None and entry.version <= self._last:
                self._updates += len(entry.members)
            if entry.version == self._first:
                self._begun = self._now()
            if entry.version == self._last and self._begun is not None:
                wall, cpu = (a - b for a, b in zip(self._now(), self._begun, strict=True))
                most = peak_of(self._process.pid)
                self.found = {"updates": self._updates, "wall": wall, "cpu": cpu, "peak": most}

    def _now(self) -> tuple[float, float]:
        times = self._process.cpu_times()
        return time.perf_counter(), times.user + times.system


def play(log: Log, run: str, players: list[Player], meter: Meter) -> None:
    """Take part until the run has stopped."""
    ledger = names.physical(run, names.LEDGER)
    reader = log.reader()
    reader.follow(ledger, log.ends([ledger])[ledger])
    for player in players:
        player.deliver(Began(secrets.token_hex(8), "", ()))
    heard = beat = time.monotonic()
    while not all(player.gone for player in players):
        for raw in reader.poll(0.1):
            record = decode(raw.value)
            assert isinstance(record, LedgerRecord)
            meter.see(record)
            for player in players:
                player.see(raw.offset, raw.value, record)
            heard = time.monotonic()
        for player in players:
            player.store()
        if time.monotonic() > beat + BEAT:
            beat = time.monotonic()
            for player in players:
                player.deliver(BeatDue(0))
        if time.monotonic() > heard + PATIENCE:
            raise SystemExit(f"the ledger is silent; players: {[p._state.phase for p in players]}")
    reader.close()
    if not meter.found:
        raise SystemExit("the run stopped before its last version")


def main() -> None:
    """One process's work; prints what the meter found."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    for name in ("address", "run", "job", "key"):
        parser.add_argument(name)
    for name in ("workers", "master", "first", "last"):
        parser.add_argument(name, type=int)
    parser.add_argument("--core", type=int)
    wishes = parser.parse_args()
    if wishes.core is not None:
        os.sched_setaffinity(0, {wishes.core})
    models = ready_models(Path(wishes.job).read_text("utf-8"))
    key = cluster_key(Path(wishes.key))
    meter = Meter(wishes.master, wishes.first, wishes.last)
    with KafkaLog(wishes.address) as log:
        players = [
            Player(log, wishes.run, number + 1, key, models) for number in range(wishes.workers)
        ]
        play(log, wishes.run, players, meter)
    print(json.dumps(meter.found))


if __name__ == "__main__":
    main()
