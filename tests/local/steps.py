"""Whole runs, step by step, for the tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hermes.jobfile import build, load_source
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord
from hermes.perform.ledger import Void, read_record
from hermes.policy.presets import resolve
from hermes.simulate.driver import Driver
from hermes.simulate.faults import records_of
from hermes.simulate.local import LocalRun
from hermes.transport.log import Record

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.py")
SAMPLES = {"hermes-paper": 40_000, "bsp": 4_000, "fedavg": 40_000}


class Step(NamedTuple):
    """A moment of a run: the state after a record."""

    record: LedgerRecord
    state: MasterState
    raw: Record


def whole_run(strategy: str, folder: Path) -> list[Step]:
    """A run of four workers, the last one slow, in deterministic mode."""
    source = load_source(DIGITS)
    job = build(source.text, source.name)
    settings = resolve(strategy, [job.settings(), {"stop.samples": SAMPLES[strategy]}])
    local = LocalRun(job, settings, 0, folder)
    speeds = {"worker-1": 1, "worker-2": 1, "worker-3": 0.5, "worker-4": 0.1}
    driver = Driver(local.setup(speeds))
    assert driver.run().finished
    return steps(records_of(driver.log, driver.topic))


def steps(raws: Iterable[Record]) -> list[Step]:
    """The fold of a ledger, record by record."""
    state, found = MasterState(), []
    for raw in raws:
        read = read_record(state, raw)
        assert not isinstance(read, Void)
        state, record = read
        found.append(Step(record, state, raw))
    return found
