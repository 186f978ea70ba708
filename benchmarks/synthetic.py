"""What does a long run leave? The ledger of one that never happened, made of real records.

`synthetic_run(folder)` writes what `hermes report`, `status` and the like read of a saved run: many
workers of unequal speed and many versions, in a second or two. Every record is decided by nobody,
but encoded, numbered, chained, folded and checked as a master's are.
"""

from __future__ import annotations

import hashlib
import math
import random

from hermes.messages import (
    Contribution,
    DataPublished,
    Entry,
    RoundNoted,
    RunOpened,
    RunScored,
    RunStopped,
    ShardResized,
    Software,
    TrainingStarted,
    Update,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerLost,
)
from hermes.perform.ledger import Ledger
from hermes.policy.presets import resolve, to_tree
from hermes.runtime.archive import Archive
from hermes.runtime.folder import RunFolder
from hermes.transport.memory import MemoryLog
from hermes.values import SECOND, Base, Birth, Payload, Reason

MODEL = 380_000
"""Bytes of a version, and of an update."""

ROUND = 900_000_000
"""Nanoseconds of a round at speed 1, before shards are sized."""


class SyntheticRun:
    """A run in the making; `entries` go to its ledger one record at a time."""

    def __init__(self, folder: RunFolder, workers: int, versions: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.names = [f"worker-{index + 1}" for index in range(workers)]
        self.speeds = {n: 0.15 + 0.95 * self.chance.random() for n in self.names}
        self.limit = versions
        folder.create()
        self._archive = Archive(folder.ledger)
        log = MemoryLog()
        log.create(["ledger"])
        self.ledger = Ledger(log, "ledger", watcher=lambda raw, *_: self._archive.add(raw))
        self.ledger.start("n" * 32)
        self.version = self._version(0, (), 0)
        self.numbers = dict.fromkeys(self.names, 0)
        self.sizes = dict.fromkeys(self.names, 1024)
        self.open(folder.run, workers, seed)

    def say(self, now: int, *entries: Entry) -> None:
        """One record."""
        self.ledger.commit(entries, (), max(now, self.ledger.state.time))

    def open(self, run: str, workers: int, seed: int) -> None:
        """Everything before the training."""
        settings = resolve("hermes-paper", [{"stop.versions": self.limit, "gate.alpha": -1.1}])
        software = Software("0.1.0", 1, "3.11.7", "numpy 2.3.1")
        opened = RunOpened(
            run, to_tree(settings), seed, workers, "2026-01-01T12:00:00Z", software, ""
        )
        samples = {"train": 60_000, "probe": 1000, "validation": 5000, "test": 10_000}
        blocks = {split: -(-count // 32) for split, count in samples.items()}
        source = self._payload("data", 4000)
        data = DataPublished(source, source, "", 32, blocks, samples, 1024, 32)
        self.say(0, opened, data, self.version)
        for index, name in enumerate(self.names):
            admitted = WorkerAdmitted(
                name, f"inc-{name}", f"hello-{name}", opened, data, self.version, {}, started=False
            )
            self.say((index + 1) * SECOND // 20, admitted)
        self.say(SECOND, TrainingStarted(workers))

    def train(self) -> None:
        """Rounds of all workers, in the order of their ends, until the last version."""
        due = {name: SECOND + self._duration(name) for name in self.names}
        away = self.names[-1] if len(self.names) > 2 else ""
        back = 0
        while self.version.version < self.limit:
            name = min(due, key=lambda one: due[one])
            now = due[name]
            if name == away and not back and self.version.version > self.limit // 3:
                back = now + 40 * ROUND
                self.say(now, WorkerLost(name, Reason("silent", {"silent": 10.2, "limit": 10.0})))
                due[name] = back
                continue
            if name == away and now == back:
                self.say(now, WorkerBack(name))
            self._round(name, now)
            due[name] = now + self._duration(name)

    def close(self) -> None:
        """The end."""
        now = self.ledger.state.time + SECOND // 50
        reason = Reason("versions", {"versions": self.limit, "limit": self.limit})
        self.say(now, RunStopped("finished", reason))
        loss, accuracy = self._scores()
        self.say(
            now + SECOND // 10,
            RunScored(self.version.version, loss, accuracy, loss * 1.07, accuracy - 0.01),
        )
        self._archive.close()

    # --- pieces ---------------------------------------------------------------------------------

    def _duration(self, name: str) -> int:
        share = self.sizes[name] / 1024 / self.speeds[name]
        return int(ROUND * share * self.chance.uniform(0.9, 1.25)) + 1000

    def _payload(self, topic: str, length: int) -> Payload:
        identity = f"{self.chance.getrandbits(128):032x}"
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return Payload(identity, topic, 0, 0, 0, 1, length, digest)

    def _version(
        self, number: int, members: tuple[Contribution, ...], samples: int
    ) -> VersionPublished:
        reason = Reason("each-push", {"updates": len(members)})
        payload = self._payload("model", MODEL)
        return VersionPublished(number, payload, members, "interpolate", 0.5, samples, reason)

    def _scores(self) -> tuple[float, float]:
        progress = self.version.version / self.limit
        loss = 2.3 * math.exp(-5 * progress) + 0.08 + self.chance.uniform(0, 0.02)
        return loss, min(1.0, 1 - 0.35 * loss / 2.4 - 0.002)

    def _round(self, name: str, now: int) -> None:
        push = self.chance.random() < 0.17
        veto = not push and self.chance.random() < 0.004
        samples = self.sizes[name] * 5
        busy = int(ROUND * self.sizes[name] / 1024 / self.speeds[name])
        waited = int(busy * self.chance.uniform(0.02, 0.15))
        z = self.chance.gauss(-1.6 if push else 0.2, 0.3)
        verdict = "push" if push else "veto" if veto else "quiet"
        code = {"push": "below-threshold", "veto": "not-finite", "quiet": "above-threshold"}
        reason = Reason(code[verdict], {"z": z, "threshold": -1.1, "loss": 0.3})
        base = self.version.version
        noted = RoundNoted(
            name,
            self.numbers[name] + 1,
            base,
            samples // 32,
            samples,
            busy,
            waited,
            0.3,
            verdict,
            reason,
            (),
            moved=waited // 3 if push else 0,
        )
        self.numbers[name] += 1
        if push:
            self._push(name, now, noted, samples)
        else:
            self.say(now, noted)
        if self.chance.random() < 0.03:
            self._resize(name, now)

    def _push(self, name: str, now: int, noted: RoundNoted, samples: int) -> None:
        birth = Birth(f"inc-{name}", self.numbers[name])
        base = Base(self.version.version, self.version.payload.digest)
        payload = self._payload(f"from.{name}", MODEL)
        update = Update(birth, base, samples, 1, base.version, payload)
        if self.chance.random() < 0.01:
            reason = Reason("loss-not-finite", {"loss": None})
            self.say(now, noted, UpdateTaken(name, update), UpdateRejected(name, birth, reason))
            return
        member = Contribution(name, birth, self.chance.uniform(0.2, 0.8), samples)
        merged = self.version.samples + samples
        self.version = self._version(self.version.version + 1, (member,), merged)
        self.say(now, noted, UpdateTaken(name, update), self.version)
        loss, accuracy = self._scores()
        cost = SECOND // 200
        self.say(now + cost, VersionEvaluated(self.version.version, loss, accuracy, now, cost))

    def _resize(self, name: str, now: int) -> None:
        ideal = 1024 * self.speeds[name] * self.chance.uniform(0.9, 1.1)
        size = max(32, int(ideal) // 32 * 32)
        facts = {"time": 1.9, "q1": 0.8, "q3": 1.1, "median": 0.95, "size": size}
        self.sizes[name] = size
        self.say(now + SECOND // 100, ShardResized(name, size, 32, Reason("outlier", facts)))


def synthetic_run(
    folder: RunFolder, *, workers: int = 12, versions: int = 1000, seed: int = 0
) -> RunFolder:
    """Write the records of a run that has finished, into its folder."""
    run = SyntheticRun(folder, workers, versions, seed)
    run.train()
    run.close()
    return folder
