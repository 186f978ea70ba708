"""Whatever befalls the master, the run comes to the same model; and a slow worker gets less work.

Deterministic mode with real training: the promise "same digest as the undisturbed run" is made
here (protocol 12).
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest

import hermes
from hermes import nn
from hermes.chance import generator
from hermes.machine.audit import Audit
from hermes.messages import BlocksGranted, ShardResized
from hermes.policy.presets import resolve
from hermes.simulate.driver import Driver
from hermes.simulate.faults import AppendFault, Faults, records_of
from hermes.simulate.local import LocalRun

SPEEDS = {"worker-1": 1.0, "worker-2": 1.0, "worker-3": 0.5}

SETTINGS = {
    "hermes-paper": {"gate.alpha": -0.7, "size.first": 60, "stop.versions": 6},
    "bsp": {"size.first": 60, "stop.versions": 8},
    # The master's momentum is formed again: from no snapshot, the first, the second.
    "fedavgm": {
        "size.first": 60,
        "stop.versions": 8,
        "round.steps": 2,
        "retention.snapshots": 3,
    },
}


def points() -> tuple[np.ndarray, np.ndarray]:
    """Three blurred classes in eight dimensions."""
    chance = generator(3, "points")
    y = np.arange(600) % 3
    x = chance.normal(size=(600, 8)) + 1.5 * np.eye(8)[y]
    return x.astype(np.float32), y.astype(np.int64)


JOB = hermes.Job(
    model=lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
    data=points,
    batch=16,
    optimizer=lambda params: nn.SGD(params, lr=0.1, momentum=0.5),
    loss=nn.CrossEntropy(),
)


def run(
    strategy: str,
    faults: Faults | None = None,
    speeds: dict[str, float] | None = None,
    **settings: object,
) -> Driver:
    """A finished run, whose ledger the audit has read."""
    layers = [JOB.settings(), SETTINGS[strategy], settings]
    with tempfile.TemporaryDirectory() as folder:
        made = LocalRun(JOB, resolve(strategy, layers), 1, Path(folder))
        driver = Driver(made.setup(speeds or SPEEDS), faults=faults)
        assert driver.run().finished
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


PLACES = 4


@pytest.mark.parametrize("place", range(PLACES))
@pytest.mark.parametrize("fault", AppendFault, ids=lambda fault: fault.value)
@pytest.mark.parametrize("strategy", SETTINGS)
def test_a_fault_at_any_append_changes_no_bit(
    strategy: str, fault: AppendFault, place: int
) -> None:
    """The master killed before or after it, the record or its acknowledgement lost: one digest."""
    index = 1 + place * (appends(strategy) - 2) // (PLACES - 1)
    disturbed = run(strategy, Faults(appends={index: fault}))
    assert disturbed.fired == {fault.value: 1}
    assert disturbed.masters == 1 + fault.value.startswith("killed")
    assert digest(disturbed) == digest(undisturbed(strategy))


@pytest.mark.parametrize("strategy", SETTINGS)
def test_many_faults_in_one_run_change_no_bit(strategy: str) -> None:
    """One after another, masters killed again as they start among them."""
    fates = list(AppendFault)
    script = {index: fates[index // 3 % 4] for index in range(0, appends(strategy), 3)}
    disturbed = run(strategy, Faults(appends=script))
    assert set(disturbed.fired) == {fault.value for fault in AppendFault}
    assert disturbed.masters > 3
    calm, found = undisturbed(strategy).master.state, disturbed.master.state
    assert digest(disturbed) == digest(undisturbed(strategy))
    assert found.scores == calm.scores
    assert found.cursor == calm.cursor
    assert {n: (m.rounds, m.samples, m.size) for n, m in found.members.items()} == {
        n: (m.rounds, m.samples, m.size) for n, m in calm.members.items()
    }


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
