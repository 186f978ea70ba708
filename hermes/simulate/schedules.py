"""Do the machines keep their invariants whatever happens? Random schedules of faults.

The machines run under virtual time with references in place of tensors: a schedule costs
milliseconds. After each record the live state is compared with the fold of the ledger.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from hermes.codec import digest_of
from hermes.errors import Defect
from hermes.machine.audit import Audit
from hermes.machine.events import (
    Action,
    DataStored,
    Evaluate,
    EvaluationFinished,
    Event,
    FinalScored,
    Merge,
    MergeFailed,
    Score,
    ScoreLast,
    StoreFirst,
    Train,
    UpdateScored,
    UploadData,
    VersionStored,
)
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.messages import (
    PROTOCOL,
    BlocksGranted,
    DataPublished,
    LedgerRecord,
    RunOpened,
    Software,
    VersionPublished,
    WorkerAdmitted,
    WorkerLost,
)
from hermes.perform.bench import Trained
from hermes.perform.ledger import Ledger
from hermes.policy.presets import resolve, to_tree
from hermes.simulate.driver import Costs, Driver, Setup
from hermes.simulate.faults import AppendFault, Faults, WorkerFault
from hermes.transport import names, tensors
from hermes.transport.log import Log
from hermes.values import SECOND, Base, Payload, Reason

BEAT = 7 * SECOND // 10
LOST = 1.5
"""Seconds of silence after which a worker is lost, in these schedules."""

STEP = {
    "hermes-paper": SECOND // 50,
    "bsp": 3 * SECOND // 10,
    "fedavg": SECOND // 13,
}
"""What a step takes: a round of each strategy lasts a third of a second on a fast device."""

SHORT: dict[str, dict[str, Any]] = {
    "fedavg": {"round.steps": 4},
    "hermes-paper": {"gate.alpha": -0.7},
}
"""Settings that bring more pushes into fewer events."""

EVENTS = 4000
"""A schedule that takes more events than this has come to nothing."""


RUN = "schedule"


DAMAGED = 0.1 + 2 * 0.04
"""Of the draws 0.1 .. 2.1: one update in 25 cannot be read when it is merged."""


def reference(kind: str, number: int) -> Payload:
    """A payload that stands for tensors."""
    return Payload(
        f"{number:032x}", kind, 0, number, number, 1, 1000, digest_of(f"{kind}{number}".encode())
    )


class ReferenceHands:
    """The master's performer, with references for tensors."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _loss(self, *of: object) -> float:
        """Chance that is keyed by what it is for: who asks again is told the same."""
        return 0.1 + 2 * random.Random(f"{self._seed} {of}").random()  # noqa: S311  (no secret)

    def perform(self, action: Action, now: int) -> Event:
        """The outcome of an action, at once."""
        if isinstance(action, UploadData):
            counts = {"train": 12, "probe": 1, "validation": 1, "test": 1}
            samples = {"train": 95, "probe": 8, "validation": 8, "test": 8}
            return DataStored(
                DataPublished(
                    reference("data", 1), reference("data", 2), "", 8, counts, samples, 24, 8
                )
            )
        if isinstance(action, StoreFirst):
            return VersionStored(0, reference("model", 0))
        if isinstance(action, Score):
            birth, version = action.update.birth, action.version.version
            return UpdateScored(birth, version, 1.0, self._loss(birth, version))
        if isinstance(action, Merge):
            birth = action.parts[-1].update.birth
            if self._loss("damaged", birth) < DAMAGED:
                return MergeFailed(action.version, birth, Reason("unreadable"))
            return VersionStored(action.version, reference("model", action.version))
        if isinstance(action, Evaluate):
            version = action.version.version
            return EvaluationFinished(version, self._loss(version), 0.5, now, SECOND // 50)
        if isinstance(action, ScoreLast):
            return FinalScored(action.version.version, 0.5, 0.5, 0.5, 0.5)
        raise Defect(f"nobody performs {type(action).__name__}")


class ReferenceBench:
    """The worker's performer, with references for tensors."""

    def __init__(self, log: Log, name: str, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._log, self._name = log, name
        self._stored = 1000 * seed

    def fetch(self, grant: BlocksGranted) -> int:
        """Bytes of the blocks."""
        return grant.size * 100

    def load(self, version: VersionPublished) -> Base:
        """The base that the local model now has."""
        return Base(version.version, version.payload.digest)

    def train(self, action: Train) -> Trained:
        """A round of random losses."""
        samples = sum(part.stop - part.start for part in action.segments)
        steps = max(1, samples // action.batch)
        loss = self._random.uniform(0.1, 1.0)
        return Trained(steps, samples, loss, loss if action.probe else None)

    def store(self) -> Payload:
        """The local model, sent."""
        self._stored += 1
        short = names.from_worker(self._name)
        topic, number = names.physical(RUN, short), f"{self._stored:032x}"
        data = number.encode().ljust(1000)
        return tensors.send_payload(self._log, topic, short, 0, data, number)


class Schedule(NamedTuple):
    """One random schedule, made from its seed."""

    seed: int
    strategy: str
    workers: int
    versions: int
    faults: Faults


def draw(seed: int) -> Schedule:
    """The schedule of this seed."""
    chance = random.Random(seed)  # noqa: S311
    workers = chance.randint(1, 4)
    fate = list(AppendFault)
    appends = {chance.randint(0, 40): chance.choice(fate) for _ in range(chance.randint(0, 5))}
    who = [f"worker-{i + 1}" for i in range(workers)]
    strikes = tuple(
        WorkerFault(
            chance.randint(1, 300) * SECOND // 100,
            chance.choice(who),
            chance.choice(["kill", "kill", "cut", "cut", "leave", "clone"]),
            chance.randint(1, 30) * SECOND // 10,
        )
        for _ in range(chance.randint(0, 3))
    )
    lags = {
        f"from.{name}": chance.choice([SECOND // 20, SECOND // 2, 2 * SECOND])
        for name in who
        if chance.random() < 0.3
    }
    # A kill while messages are on their way: the next incarnation sends its update again.
    lags |= {f"from.{s.worker}": SECOND // 2 for s in strikes if s.kind == "kill" and s.at % 3 == 0}
    if chance.random() < 0.2:
        lags["lobby"] = SECOND // 4
    sleep = ((chance.randint(1, 6) * SECOND // 2, chance.randint(2, 9) * SECOND // 2),)
    return Schedule(
        seed,
        chance.choice(["hermes-paper", "bsp", "fedavg"]),
        workers,
        chance.randint(2, 5),
        Faults(
            appends=appends,
            duplicated=frozenset(chance.sample(range(60), chance.randint(0, 6))),
            dropped=frozenset(chance.sample(range(40), chance.randint(0, 2))),
            workers=strikes,
            zombies=tuple(
                chance.randint(1, 30) * SECOND // 10 for _ in range(chance.choice([0, 0, 0, 1, 2]))
            ),
            lags=lags,
            sleeps=sleep if chance.random() < 0.15 else (),
        ),
    )


def setup_of(schedule: Schedule) -> Setup:
    """Who takes part in it."""
    settings = resolve(
        schedule.strategy,
        [
            {"stop.versions": schedule.versions, "workers.lost": LOST, "workers.heartbeat": 0.7},
            SHORT.get(schedule.strategy, {}),
        ],
    )
    who = [f"worker-{i + 1}" for i in range(schedule.workers)]
    chance = random.Random(schedule.seed + 1)  # noqa: S311
    run = RunOpened(
        run=RUN,
        settings=to_tree(settings),
        seed=schedule.seed,
        expect=1,
        opened="",
        software=Software("0", PROTOCOL, "3", "none"),
        key_proof="",
    )
    return Setup(
        run,
        lambda _log: ReferenceHands(schedule.seed),
        lambda log, name: ReferenceBench(log, name, schedule.seed * 10 + int(name[-1])),
        {name: chance.choice([1.0, 1.0, 0.5, 0.2]) for name in who},
        {name: chance.randint(0, 4) * SECOND // 2 for name in who if chance.random() < 0.4},
    )


def run(schedule: Schedule, rules: Rules = PROTOCOL_RULES) -> Driver:
    """Run a schedule to its end; raises `Defect` where an invariant breaks."""
    driver = Driver(
        setup_of(schedule),
        costs=Costs(step=STEP[schedule.strategy], beat=BEAT),
        faults=schedule.faults,
        rules=rules,
    )
    master = driver.run(steps=EVENTS)
    records = driver.valid_records()
    audit = Audit().read(records)
    if not master.finished:
        version = master.state.newest.version if master.state.newest else -1
        at = driver.queue.now / SECOND
        raise Defect(f"the run came to nothing: version {version} at {at:.1f} s")
    _agree(driver, audit)
    _lost_were_silent(driver, records)
    _refold(driver)
    return driver


def _agree(driver: Driver, audit: Audit) -> None:
    """The state and the audit count alike."""
    state = driver.master.state
    members = state.members.values()
    counted = (
        sum(m.pushes for m in members),
        sum(m.applied for m in members),
        sum(m.rejected for m in members),
        sum(m.rounds for m in members),
    )
    audited = (len(audit.taken), len(audit.applied), len(audit.rejected), audit.rounds)
    if counted != audited:
        raise Defect(f"the state counts {counted}, the ledger {audited}")


def _lost_were_silent(driver: Driver, records: list[LedgerRecord]) -> None:
    """Nobody was declared lost whose message lay in its topic, read or not."""
    incarnation: dict[str, str] = {}
    for record in records:
        for entry in record.entries:
            if isinstance(entry, WorkerAdmitted):
                incarnation[entry.worker] = entry.incarnation
            elif isinstance(entry, WorkerLost):
                since = record.time - int(LOST * SECOND)
                who = (entry.worker, incarnation[entry.worker])
                heard = [at for at, *by in driver.arrivals if tuple(by) == who]
                if any(since <= at < record.time for at in heard):
                    raise Defect("was declared lost and had been heard", where=entry.worker)


def _refold(driver: Driver) -> None:
    """Whoever reads the ledger afterwards comes to the state that the last master had."""
    again = Ledger(driver.log, driver.topic, rules=driver.rules)
    again.fold()
    if again.state != driver.master.state:
        raise Defect("the fold of the ledger is not the live state")
