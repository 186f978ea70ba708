"""Does a run on Apache Kafka outlive its processes? Kills and a pause, each seen to have struck;
nothing is lost, nothing is applied twice, and the run goes on soon."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import DIGITS

from tests.faults.books import compare
from tests.faults.schedule import Fault
from tests.faults.supervisor import Setting, Supervisor

# Kafka starts twice, at its own pace; what must be soon is asserted by itself.
pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]

FAULTS = (
    Fault(target="worker-1", version=2),
    Fault(target="master", after=0.5),
    Fault(target="worker-2", after=0.3),  # while nobody leads
    Fault(target="worker-3", kind="pause", lasts=2.0, more=2),
    Fault(target="broker", after=0.5),
    Fault(target="master", after=1.2),  # while the broker is away
    Fault(target="worker-1", more=2),
)

SOON, LATE = 20.0, 80.0
"""Seconds from a master's death to the next version, at most: while all others live, and while the
broker is away, too. (Others share the machine: Kafka alone takes 4 to 35 s to start.)"""


def test_a_run_outlives_its_processes(tmp_path: Path) -> None:
    setting = Setting(Path(DIGITS), set_=("gate.alpha=-0.5", "size.first=64", "round.epochs=2"))
    with Supervisor(tmp_path, setting) as run:
        run.go_through(FAULTS)
        run.settle()
        run.stop((Fault(target="master"),))  # before it has written the results
        assert not run.journal.ended, "a process ended by itself"
        assert run.fired() == {"worker": 3, "master": 3, "broker": 1}
        assert len(run.recoveries) == 2
        assert run.recoveries[0] < SOON
        assert run.recoveries[1] < LATE
        code, said = run.hermes("verify", setting.run, "--out", str(tmp_path))
        assert code == 0, said
        books = compare(tmp_path / "state" / "workers", setting.run, run.watch.path)
    assert (tmp_path / "runs" / setting.run / "result.json").exists()
    assert not books.wrong
    assert books.terms == 4
    assert books.pushed == books.applied + books.rejected + books.undecided + books.unsent
