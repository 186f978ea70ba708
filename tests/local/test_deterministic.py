"""Whatever befalls the master, the run comes to the same model; and a slow worker gets less work.

Deterministic mode with real training: the promise "same digest as the undisturbed run" is made
here (protocol 12).
"""

from __future__ import annotations

import functools
from collections import defaultdict

import pytest
from blurred import finished

from benchmarks import kills as long_runs
from hermes.machine.audit import Audit
from hermes.messages import (
    BlocksGranted,
    Entry,
    Republished,
    Rewound,
    Rotated,
    ShardResized,
    StateReset,
    StateSaved,
    TailLost,
    Trimmed,
    UpdateRejected,
)
from hermes.simulate import kills
from hermes.simulate.driver import MILLI, Driver
from hermes.simulate.faults import KILLS, AppendFault, BrokerFault, Faults, MasterFault, records_of

SPEEDS = {"worker-1": 1.0, "worker-2": 1.0, "worker-3": 0.5}

SETTINGS = {
    "hermes-paper": {"gate.alpha": -0.7, "size.first": 64, "stop.versions": 6},
    "bsp": {"size.first": 64, "stop.versions": 8},
    # The master's momentum is formed again: from no snapshot, the first, the second.
    "fedavgm": {
        "size.first": 64,
        "stop.versions": 8,
        "round.steps": 2,
        "retention.snapshots": 3,
    },
}


def run(
    strategy: str,
    faults: Faults | None = None,
    speeds: dict[str, float] | None = None,
    **settings: object,
) -> Driver:
    """A finished run, whose ledger the audit has read."""
    driver = finished(strategy, {**SETTINGS[strategy], **settings}, speeds or SPEEDS, faults)
    Audit().read(driver.valid_records())
    return driver


def digest(driver: Driver) -> str:
    newest = driver.master.state.newest
    assert newest is not None
    return newest.payload.digest


@functools.cache
def undisturbed(strategy: str) -> Driver:
    return run(strategy)


def appends(strategy: str) -> int:
    """Ledger records of the undisturbed run."""
    return undisturbed(strategy).ledger_end()


PLACES = 2
"""Of a run that each kind of fault strikes in turn (`./scripts/benchmark kills`: all of them)."""


@pytest.mark.parametrize("fault", AppendFault, ids=lambda fault: fault.value)
@pytest.mark.parametrize("strategy", SETTINGS)
def test_a_fault_at_any_append_changes_no_bit(strategy: str, fault: AppendFault) -> None:
    """The master killed at any step of a commit, the record or its acknowledgement lost: one
    outcome."""
    calm = undisturbed(strategy)
    found = kills.places(calm).get(fault, list(range(calm.log.count)))
    for index in {found[len(found) * (1 + 2 * place) // (2 * PLACES)] for place in range(PLACES)}:
        disturbed = run(strategy, Faults(appends={index: fault}))
        assert disturbed.fired == {fault.value: 1}
        assert disturbed.masters == 1 + (fault in KILLS)
        assert kills.outcome(disturbed) == kills.outcome(calm)


LONG = ("bsp, rotating", "hermes-paper", "fedavgm")


@pytest.mark.parametrize("name", LONG)
def test_kills_everywhere_in_a_long_run_change_no_bit(name: str) -> None:
    """More than a hundred kills of all kinds, among them of masters that have just started, while
    what nobody needs is let go of."""
    case = long_runs.CASES[name]
    calm = long_runs.calm(case)
    assert calm.records >= 300
    driver = long_runs.run(case, calm.everywhere)
    assert set(driver.fired) == {fault.value for fault in KILLS}
    assert driver.fired.total() > 100
    assert kills.outcome(driver) == calm.outcome
    entries = entries_of(driver)
    assert len(entries[Trimmed]) > (2 if not case.trims else 10)
    assert bool(entries[Rotated]) == (not case.trims)
    assert bool(entries[StateSaved]) == (case.strategy == "fedavgm")


@pytest.mark.parametrize("strategy", SETTINGS)
def test_many_faults_in_one_run_change_no_bit(strategy: str) -> None:
    """One after another, records and acknowledgements lost among them."""
    fates = list(AppendFault)
    script = {index: fates[index // 3 % 4] for index in range(0, appends(strategy), 3)}
    disturbed = run(strategy, Faults(appends=script))
    assert set(disturbed.fired) == {fault.value for fault in fates[:4]}
    assert disturbed.masters > 3
    assert kills.outcome(disturbed) == kills.outcome(undisturbed(strategy))


# --- what a broker loses ------------------------------------------------------------------------

HALF = 0.5
"""Of a run's time."""


def entries_of(driver: Driver) -> dict[type, list[Entry]]:
    """By kind."""
    found: dict[type, list[Entry]] = defaultdict(list)
    for record in driver.valid_records():
        for entry in record.entries:
            found[type(entry)].append(entry)
    return found


def struck(strategy: str, *tails: tuple[str, int], dead: bool) -> Driver:
    """Half-way a broker loses so many records of these topics; `dead`: and no master lives just
    then, so that the next one has nothing in memory."""
    at = int(undisturbed(strategy).queue.now * HALF)
    brokers = tuple(BrokerFault(at, "tail", topic, count) for topic, count in tails)
    masters = (MasterFault(at - MILLI, "restart", 2 * MILLI),) if dead else ()
    driver = run(strategy, Faults(brokers=brokers, masters=masters))
    assert driver.fired["tail"] == len(tails)
    assert driver.masters == 1 + dead
    return driver


@pytest.mark.parametrize("dead", [False, True], ids=["from memory", "from its updates"])
@pytest.mark.parametrize("strategy", SETTINGS)
def test_versions_that_a_broker_lost_are_published_again(strategy: str, *, dead: bool) -> None:
    """The very same bytes; so the run comes to the same model."""
    driver = struck(strategy, ("model", 1 + dead), dead=dead)
    entries = entries_of(driver)
    assert len(entries[Republished]) == 1 + dead
    assert not entries[Rewound]
    assert digest(driver) == digest(undisturbed(strategy))


@pytest.mark.parametrize("strategy", SETTINGS)
def test_versions_that_cannot_be_made_again_are_said_to_be_lost(strategy: str) -> None:
    """Their updates are gone, too: the run goes back to a version that there is, says what was
    lost, and comes to its end."""
    gone = [("model", 2), *((f"from.{name}", 1000) for name in SPEEDS)]
    driver = struck(strategy, *gone, dead=True)
    (rewound,) = entries_of(driver)[Rewound]
    assert isinstance(rewound, Rewound)
    assert len(rewound.dropped) == 2
    assert rewound.lost
    assert driver.master.state.newest is not None
    assert driver.master.state.newest.version == SETTINGS[strategy]["stop.versions"]


def test_the_masters_own_tensors_are_formed_again() -> None:
    """Snapshots lost, master dead: from an older one, or from version 0, and the updates since."""
    driver = struck("fedavgm", ("state", 1), dead=True)
    assert not entries_of(driver)[StateReset]
    assert digest(driver) == digest(undisturbed("fedavgm"))


def test_what_a_broker_loses_of_a_worker_is_sent_again() -> None:
    """Messages by their numbers; an update whose tensors are gone is rejected, and said so."""
    driver = struck("bsp", ("from.worker-1", 3), dead=False)
    entries = entries_of(driver)
    assert entries[TailLost]
    assert driver.master.state.newest is not None
    assert driver.master.state.newest.version == SETTINGS["bsp"]["stop.versions"]


def test_an_update_cut_short_is_rejected() -> None:
    """Its last chunk is gone: the others go on, and its worker trains again."""
    driver = run("bsp", Faults(truncated=frozenset({5})))
    assert driver.fired == {"truncated": 1}
    (no,) = entries_of(driver)[UpdateRejected]
    assert isinstance(no, UpdateRejected)
    assert no.reason.code == "unreadable"
    assert driver.master.state.status == "finished"


# --- and others ---------------------------------------------------------------------------------


def test_messages_stored_twice_change_no_bit() -> None:
    """A broker that repeats what workers say is not believed twice."""
    disturbed = run("bsp", Faults(duplicated=frozenset(range(0, 60, 2))))
    assert disturbed.fired["duplicated"] > 10
    assert digest(disturbed) == digest(undisturbed("bsp"))


def test_a_fault_can_change_the_outcome() -> None:
    """(The comparison is not of equals only: other work gives another digest.)"""
    assert digest(run("bsp", None, {**SPEEDS, "worker-4": 1.0})) != digest(undisturbed("bsp"))


def test_a_slow_workers_shard_shrinks() -> None:
    """`hermes-paper`: a device ten times slower is an outlier; the reason carries every fact."""
    speeds = {**dict.fromkeys(["worker-1", "worker-2", "worker-3", "worker-4"], 1.0), "slow": 0.2}
    driver = run("hermes-paper", None, speeds, **{"stop.versions": 12, "size.first": 80})
    entries = [entry for record in driver.valid_records() for entry in record.entries]
    resized = [entry for entry in entries if isinstance(entry, ShardResized)]
    assert resized
    assert resized[0].worker == "slow"
    assert resized[0].size < 80 / 2
    facts = {"time", "q1", "q3", "iqr", "median", "a", "b", "steps", "size", "batch"}
    assert facts <= set(resized[0].reason.facts)
    assert resized[0].reason.facts["size"] == resized[0].size
    sizes = [e.size for e in entries if isinstance(e, BlocksGranted) and e.worker == "slow"]
    assert sizes[0] == 80
    assert sizes[-1] < 40
    assert driver.master.state.resizes == len(resized)


@pytest.mark.parametrize("strategy", SETTINGS)
def test_ledger_records_are_small(strategy: str) -> None:
    """Below 1 kB on average: the ledger's rate is bytes, not megabytes."""
    driver = undisturbed(strategy)
    sizes = [len(record.value) for record in records_of(driver.log, driver.topic)]
    assert sum(sizes) / len(sizes) < 1000
