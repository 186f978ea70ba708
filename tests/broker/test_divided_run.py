"""A run whose data is divided: over a real broker, its master killed, each worker on its pool."""

from __future__ import annotations

import json

import pytest
from commands import Shell
from test_resume import Run

from hermes.broker.control import Child
from hermes.machine.pools import pool_at
from hermes.machine.state import MasterState
from hermes.messages import BlocksGranted, LedgerRecord
from hermes.perform.ledger import Ledger
from hermes.transport import names
from hermes.transport.log import Record

pytestmark = pytest.mark.broker

DIVIDED = ("--set", "data.partition=by-class", "--set", "data.classes=5")


def test_a_divided_run_goes_on_on_the_same_pools(shell: Shell, embedded: Child) -> None:
    """Two pools of five digits each: no third worker is let in, a killed master's successor grants
    on from the same pools, and the books are right."""
    run = Run(shell, embedded)
    run.begin("--set", "gate.rule=open", *DIVIDED)
    before = run.reaches(2)
    assert before.data is not None
    assert len(before.data.pools) == 2
    third = shell("worker", *run.at, "--run", run.name, "--name", "worker-3")
    assert third.returncode == 2, third.stderr
    assert "data.pools" in third.stderr
    died = run.kill_master()
    assert died.newest is not None
    going_on = shell.start("resume", run.name, "--json")
    after = run.reaches(died.newest.version + 2)
    assert {n: m.pool for n, m in after.members.items()} == {
        n: m.pool for n, m in before.members.items()
    }
    assert shell("stop", run.name).returncode == 0
    out, err = going_on.communicate(timeout=60)
    assert going_on.returncode == 0, err
    assert json.loads(out)["version"] >= died.newest.version + 2
    granted: dict[str, set[int]] = {}

    def see(_raw: Record, record: LedgerRecord, state: MasterState) -> None:
        for entry in record.entries:
            if isinstance(entry, BlocksGranted) and state.data is not None:
                places = (place for part in entry.ranges for place in range(part.first, part.last))
                pools = {pool_at(state.data, place) for place in places}
                granted.setdefault(entry.worker, set()).update(pools)

    Ledger(run.log, names.physical(run.name, names.LEDGER), watcher=see).fold()
    assert sorted(granted.values(), key=min) == [{0}, {1}]
    found = shell("verify", run.name, "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    run.log.close()
