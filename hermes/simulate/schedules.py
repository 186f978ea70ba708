"""Do the machines keep their invariants whatever happens? Random schedules of faults.

The machines run under virtual time with references in place of tensors: a schedule costs
milliseconds. A schedule is data, made from its seed: it can be printed, made smaller, and run
again. After each record all that must hold is looked at (`simulate.watch`).
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from hermes.errors import Defect
from hermes.machine.repair import NOTHING_LEFT
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.messages import SIMULATED, RunOpened, RunReopened
from hermes.perform.ledger import Ledger
from hermes.policy.presets import resolve, to_tree
from hermes.simulate.driver import Costs, Driver, Setup, nothing_brought
from hermes.simulate.faults import (
    KILLS_BESIDE,
    AppendFault,
    BrokerFault,
    Disturbance,
    Faults,
    MasterFault,
    WorkerFault,
)
from hermes.simulate.references import (
    RUN,
    ReferenceBench,
    ReferenceHands,
    Shelf,
    brought,
    genuine,
    own_of,
)
from hermes.simulate.references import reference as reference
from hermes.values import SECOND, Reason

BEAT = 7 * SECOND // 10
LOST = 1.5
"""Seconds of silence after which a worker is lost, in these schedules."""

LONGEST = 6.0
"""Seconds after which one is, whatever its own pace: longer than any other fault lasts."""

FOR_EVER = 10**6 * SECOND
"""How long a worker hangs that nobody starts again."""

STEP = {
    "hermes-paper": SECOND // 50,
    "bsp": 3 * SECOND // 10,
    "fedavg": SECOND // 20,
    "fedavgm": SECOND // 20,
    "asp": 3 * SECOND // 10,
    "ssp": 3 * SECOND // 10,
    "selsync": 3 * SECOND // 10,
    "fedbuff": SECOND // 20,
    "ebsp": SECOND // 10,
    "fastest-alone": SECOND // 20,
    "hermes": SECOND // 50,
}
"""What a step takes: a round of each strategy lasts a third of a second on a fast device."""

SHORT: dict[str, dict[str, Any]] = {
    # Seven batches are more than two grants: a worker needs a third one ahead.
    "fedavg": {"round.steps": 7},
    "fedavgm": {"round.steps": 7},
    "hermes-paper": {"gate.alpha": -0.7},
    "fedbuff": {"round.steps": 7, "close.count": 2},
    "ebsp": {"size.lookahead": 6},
    "fastest-alone": {"round.steps": 7},
    "selsync": {"gate.delta": 0.12},
}
"""Settings that bring more pushes into fewer events."""

CHUNKS = 20
"""Of a payload, where topics are to be let go of: a topic begins anew at some records only."""

EVENTS = 2000
"""A schedule that takes more events than this has come to nothing; the longest of those that
finish takes 800."""


class Fault(NamedTuple):
    """One thing that goes wrong. What the numbers mean is in `KINDS`."""

    kind: str
    at: int
    """A time (ns), or a count from 0."""
    who: str = ""
    lasts: int = 0


class Kind(NamedTuple):
    """What a kind of fault strikes, and how it is told."""

    counts: str
    """What `at` counts: "append", "message", "update", "action"; or "time" (ns); or "topic"; of
    the "end" it is how much is added."""
    text: str


KINDS: dict[str, Kind] = {
    "lost": Kind("append", "the record never reaches the broker; the outcome is unknown"),
    "unknown": Kind("append", "the record is there, the acknowledgement is lost"),
    "killed-before": Kind("append", "the master dies before the append"),
    "killed-after": Kind("append", "the master dies after the append, before it knows"),
    "forged": Kind("append", "just before it somebody writes in the master's name"),
    "raced": Kind("append", "just before it a second master claims the run"),
    "slow-append": Kind("append", "the broker's disk takes 2 s"),
    "duplicated": Kind("message", "stored twice"),
    "unacknowledged": Kind("message", "arrives unacknowledged, and is sent again 1 s later"),
    "dropped": Kind("message", "acknowledged and lost"),
    "lie": Kind("update", "claims what cannot be"),
    "slow-master": Kind("action", "takes the master's disk, and the master, longer by"),
    "late": Kind("action", "takes longer, while the master goes on, by"),
    "restart": Kind("time", "the master dies, and is started again after"),
    "zombie": Kind("time", "a second master takes over, the first lives on"),
    "sleep": Kind("time", "the master sleeps for"),
    "overslept": Kind("time", "a second master takes over while the first sleeps for"),
    "kill": Kind("time", "dies, and is started again after"),
    "cut": Kind("time", "is cut off for"),
    "leave": Kind("time", "says bye, and is back after"),
    "clone": Kind("time", "a second process takes the name of"),
    "slow-worker": Kind("time", "has a disk that gives nothing for"),
    "hang": Kind("time", "is alive and gets nowhere for"),
    "lag": Kind("topic", "is read later by"),
    "stop": Kind("time", "somebody asks the run to stop"),
    "killed-taken": Kind("append", "the master dies before it, an input in its hands"),
    "killed-stored": Kind("append", "the master dies before it, what it names being stored"),
    "killed-applied": Kind("append", "the master dies after it, nothing of what follows done"),
    "killed-performing": Kind("append", "the master dies after it, half of what follows done"),
    "delayed": Kind("update", "its chunks are longer under way by"),
    "truncated": Kind("update", "its last chunk is acknowledged and lost"),
    "tail": Kind("time", "the broker is gone for a moment, and the last records of"),
    "full": Kind("time", "the broker takes nothing from the master for"),
    "reopened": Kind("end", "it is opened again, to go on by more versions"),
}
"""Every kind of fault."""

APPENDS: dict[str, AppendFault | Disturbance] = {
    **{fault.value: fault for fault in AppendFault},
    **{disturbance.value: disturbance for disturbance in Disturbance},
}
EARLY = (
    "lost", "unknown", "killed-before", "killed-after", "forged", "raced", "slow-append",
)  # fmt: skip
"""Those that strike at an append ..."""
BESIDE = tuple(fault.value for fault in KILLS_BESIDE)
"""... and between two."""
BROKER_KINDS = ("tail", "full")
MASTER_KINDS = ("restart", "zombie", "sleep", "overslept")
DRAWN = ("kill", "cut", "leave", "clone", "slow-worker")
WORKER_KINDS = (*DRAWN, "hang")


class Schedule(NamedTuple):
    """One schedule: who takes part, and what goes wrong."""

    seed: int
    strategy: str
    versions: int
    speeds: tuple[float, ...]
    """Of worker-1, worker-2, ..."""
    joins: tuple[int, ...]
    """Run time (ns) at which each of them comes."""
    script: tuple[Fault, ...] = ()
    keep: int = 0
    """The newest versions that are kept, so few that topics are let go of; 0: as by default."""
    trims: bool = True
    """Whether the broker can forget the first records of a topic; else topics are rotated."""
    resident: bool = False
    """Whether workers bring their data, and are asked what a version is worth."""


SLOWEST = 0.6
"""`size.slowest`, where the slow workers rest: workers of speed 1 train, those of 0.5 and 0.2 stand
by."""

STRATEGIES = (
    *("hermes-paper", "bsp", "fedavg", "fedavgm"),
    *("asp", "ssp", "fedbuff", "ebsp", "fastest-alone", "hermes", "selsync"),
)
"""Under `fedavgm` and `hermes` the master holds tensors of its own. (`central` is bsp of one
worker, which alone may hang for ever.)"""


BRINGING = 1_000_000
"""From this seed on workers bring their data, and score versions."""


def draw(seed: int, strategy: str | None = None) -> Schedule:
    """The schedule of this seed."""
    chance = random.Random(seed)  # noqa: S311
    drawn = chance.choice(STRATEGIES[:3])
    speeds = tuple(chance.choice([1.0, 1.0, 0.5, 0.2]) for _ in range(chance.randint(1, 4)))
    late = [chance.randint(1, 4) * SECOND // 2 if chance.random() < 0.3 else 0 for _ in speeds]
    versions = chance.randint(2, 5)
    who = [f"worker-{i + 1}" for i in range(len(speeds))]
    script = [
        *_appends(chance),
        *_messages(chance),
        *_masters(chance),
        *_workers(chance, who),
    ]
    script += _lags(chance, who, script)
    if chance.random() < 0.12:
        script.append(Fault("stop", chance.randint(5, 60) * SECOND // 10))
    script += _hangs(chance, who)
    script += _storage(chance, who)
    keep = chance.choice([0, 0, 2, 2, 3, 4])
    trims = not keep or chance.random() < 0.4
    if chance.random() < 0.2:
        versions += chance.randint(2, 6)  # long enough for several generations
    if chance.random() < 0.2:
        drawn = STRATEGIES[3]
    if chance.random() < 0.3:
        drawn = chance.choice(STRATEGIES[4:])
    drawn = strategy or drawn
    brings = seed >= BRINGING
    who_and_what = (speeds, tuple(late), tuple(script), keep, trims, brings)
    return Schedule(seed, drawn, versions, *who_and_what)


def _appends(chance: random.Random) -> list[Fault]:
    places = sorted({chance.randint(0, 45) for _ in range(chance.randint(0, 5))})
    return [Fault(chance.choice(EARLY), place) for place in places]


def _messages(chance: random.Random) -> list[Fault]:
    found = [Fault("duplicated", at) for at in chance.sample(range(60), chance.randint(0, 4))]
    found += [Fault("unacknowledged", at) for at in chance.sample(range(60), chance.randint(0, 3))]
    lost = chance.sample(range(40), chance.randint(0, 2))
    if chance.random() < 0.1:  # a bad minute: what is sent again is lost again
        lost += range(lost[0] + 1, lost[0] + 8) if lost else range(5, 12)
    found += [Fault("dropped", at) for at in sorted(set(lost))]
    if chance.random() < 0.2:
        found.append(Fault("lie", chance.randint(0, 8)))
    if chance.random() < 0.3:
        kind = chance.choice(["slow-master", "late"])
        found.append(Fault(kind, chance.randint(0, 10), "", chance.randint(2, 30) * TENTH))
    return found


TENTH = SECOND // 10


def _masters(chance: random.Random) -> list[Fault]:
    kinds = chance.choices(MASTER_KINDS, k=chance.choice([0, 0, 0, 1, 1, 2]))
    return [
        Fault(kind, chance.randint(1, 50) * TENTH, "", chance.randint(5, 45) * TENTH)
        if kind != "zombie"
        else Fault(kind, chance.randint(1, 50) * TENTH)
        for kind in kinds
    ]


def _workers(chance: random.Random, who: list[str]) -> list[Fault]:
    kinds = chance.choices(DRAWN, [3, 3, 1, 1, 1], k=chance.randint(0, 3))
    return [
        Fault(
            kind,
            chance.randint(1, 300) * SECOND // 100,
            chance.choice(who),
            0 if kind == "clone" else chance.randint(1, 30) * TENTH,
        )
        for kind in kinds
    ]


def _hangs(chance: random.Random, who: list[str]) -> list[Fault]:
    """For a while; where there are others, perhaps for ever."""
    if chance.random() >= 0.15:
        return []
    lasts = chance.randint(20, 120) * TENTH
    if len(who) > 1 and chance.random() < 0.5:
        lasts = FOR_EVER
    return [Fault("hang", chance.randint(1, 300) * SECOND // 100, chance.choice(who), lasts)]


def _storage(chance: random.Random, who: list[str]) -> list[Fault]:
    """What befalls what is stored, and whoever stores it."""
    found: list[Fault] = []
    if chance.random() < 0.4:
        found.append(Fault(chance.choice(BESIDE), chance.randint(1, 45)))
    if chance.random() < 0.4:  # of several actions at once there are few but in the beginning
        found.append(Fault("killed-performing", chance.randint(1, 12)))
    if chance.random() < 0.4:  # nor of those that store something
        found.append(Fault("killed-stored", chance.randint(2, 30)))
    if chance.random() < 0.12:
        found.append(Fault("delayed", chance.randint(0, 8), "", chance.randint(2, 30) * TENTH))
    if chance.random() < 0.12:
        found.append(Fault("truncated", chance.randint(0, 8)))
    topics = ["model", "model", "state", *(f"from.{name}" for name in who)]
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2])):
        at, count = chance.randint(1, 500) * SECOND // 100, chance.randint(1, 60)
        found.append(Fault("tail", at, chance.choice(topics), count))
    if chance.random() < 0.12:
        found.append(
            Fault("full", chance.randint(1, 40) * TENTH, "", chance.randint(2, 40) * TENTH)
        )
    if chance.random() < 0.15:
        found.append(Fault("reopened", chance.randint(1, 4)))
    return found


def _lags(chance: random.Random, who: list[str], script: list[Fault]) -> list[Fault]:
    lags = {
        f"from.{name}": chance.choice([SECOND // 20, SECOND // 2, 2 * SECOND])
        for name in who
        if chance.random() < 0.3
    }
    # A kill while messages are on their way: the next incarnation sends its update again.
    lags |= {f"from.{f.who}": SECOND // 2 for f in script if f.kind == "kill" and f.at % 3 == 0}
    if chance.random() < 0.2:
        lags["lobby"] = SECOND // 4
    return [Fault("lag", 0, topic, lasts) for topic, lasts in sorted(lags.items())]


# --- running one --------------------------------------------------------------------------------


def faults_of(script: tuple[Fault, ...]) -> Faults:
    """The driver's script."""

    def places(kind: str) -> frozenset[int]:
        return frozenset(fault.at for fault in script if fault.kind == kind)

    return Faults(
        appends={fault.at: APPENDS[fault.kind] for fault in script if fault.kind in APPENDS},
        duplicated=places("duplicated"),
        unacknowledged=places("unacknowledged"),
        dropped=places("dropped"),
        lies=places("lie"),
        slow={f.at: f.lasts for f in script if f.kind == "slow-master"},
        late={f.at: f.lasts for f in script if f.kind == "late"},
        delayed={f.at: f.lasts for f in script if f.kind == "delayed"},
        truncated=places("truncated"),
        brokers=tuple(
            BrokerFault(f.at, f.kind, f.who, f.lasts) for f in script if f.kind in BROKER_KINDS
        ),
        workers=tuple(
            WorkerFault(f.at, f.who, f.kind, f.lasts) for f in script if f.kind in WORKER_KINDS
        ),
        masters=tuple(MasterFault(f.at, f.kind, f.lasts) for f in script if f.kind in MASTER_KINDS),
        lags={f.who: f.lasts for f in script if f.kind == "lag"},
        stops=tuple(fault.at for fault in script if fault.kind == "stop"),
    )


@functools.cache
def settings_of(
    strategy: str, versions: int, keep: int = 0, slowest: float | None = None
) -> dict[str, Any]:
    """The settings in force, as a tree."""
    common: dict[str, Any] = {"stop.versions": versions, "workers.heartbeat": 0.7}
    if keep:
        common |= {"retention.keep": f"last:{keep}", "retention.snapshots": max(1, keep // 2)}
    common |= {"workers.lost": LOST, "workers.longest": LONGEST}
    if slowest is not None:
        common["size.slowest"] = slowest
    return to_tree(resolve(strategy, [common, SHORT.get(strategy, {})]))


def _settings(schedule: Schedule, versions: int) -> dict[str, Any]:
    """Those of this schedule; in every other one of `hermes` the slow workers rest."""
    rest = schedule.strategy == "hermes" and schedule.seed % 2 == 1
    return settings_of(schedule.strategy, versions, schedule.keep, SLOWEST if rest else None)


def setup_of(schedule: Schedule) -> Setup:
    """Who takes part in it."""
    who = [f"worker-{i + 1}" for i in range(len(schedule.speeds))]
    numbers, chunks = itertools.count(1), CHUNKS if schedule.keep else 1
    run = RunOpened(
        run=RUN,
        settings=_settings(schedule, schedule.versions),
        seed=schedule.seed,
        expect=1,
        opened="",
        software=SIMULATED,
        key_proof="",
    )
    data = brought(central=_is_central(schedule)) if schedule.resident else None
    own = own_of if schedule.resident else nothing_brought
    return Setup(
        run,
        lambda log: ReferenceHands(schedule.seed, Shelf(log, chunks, numbers), data),
        lambda log, name: ReferenceBench(
            name, schedule.seed * 10 + int(name[-1]), Shelf(log, chunks, numbers), own(name)
        ),
        dict(zip(who, schedule.speeds, strict=True)),
        dict(zip(who, schedule.joins, strict=True)),
        schedule.trims,
        own,
    )


def _is_central(schedule: Schedule) -> bool:
    """Whether the master has a validation set of its own: some strategies need one."""
    return schedule.strategy == "hermes-paper" or schedule.seed % 3 == 0


def run(
    schedule: Schedule,
    rules: Rules = PROTOCOL_RULES,
    look: Callable[[Driver], None] = lambda _driver: None,
) -> Driver:
    """Run a schedule to its end; raises `Defect` where an invariant breaks. `look` is shown the
    driver before it starts: what it holds can be told of a run that broke."""
    driver = Driver(
        setup_of(schedule),
        costs=Costs(step=STEP[schedule.strategy], beat=BEAT),
        faults=faults_of(schedule.script),
        rules=rules,
        genuine=genuine,
    )
    look(driver)
    driver.run(steps=EVENTS)
    for fault in schedule.script:
        if fault.kind == "reopened" and driver.finished:
            driver.go_on(_more(schedule, fault.at))
            driver.run_on(steps=EVENTS)
    driver.read_ledger()
    state = driver.watch.state
    if not driver.finished:
        version = state.newest.version if state.newest else -1
        at = driver.queue.now / SECOND
        raise Defect(f"the run came to nothing: version {version} at {at:.1f} s")
    nothing_left = state.stopped is not None and state.stopped.code == NOTHING_LEFT
    if not state.scored and not nothing_left:
        raise Defect("a master came to an end that is not in the ledger")
    _agree(driver)
    _refold(driver)
    return driver


def _more(schedule: Schedule, versions: int) -> RunReopened:
    """The same run, by so many versions longer."""
    last = schedule.versions + versions
    settings = _settings(schedule, last)
    return RunReopened(settings, Reason("asked", {"versions": last}))


def _agree(driver: Driver) -> None:
    """The state and the audit count alike."""
    members, audit = driver.watch.state.members.values(), driver.watch.audit
    counted = (
        sum(m.pushes for m in members),
        sum(m.applied for m in members),
        sum(m.rejected for m in members),
        sum(m.rounds for m in members),
    )
    audited = (len(audit.taken), len(audit.applied), len(audit.rejected), audit.rounds)
    if counted != audited:
        raise Defect(f"the state counts {counted}, the ledger {audited}")


def _refold(driver: Driver) -> None:
    """Whoever reads the ledger afterwards comes to the state that the last master had."""
    again = Ledger(driver.log, driver.topic, rules=driver.rules)
    again.fold()
    if again.state != driver.watch.state:
        raise Defect("the fold of the ledger is not the live state")
