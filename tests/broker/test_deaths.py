"""Does a run on Apache Kafka outlive its processes? Kills, a pause, a link that is cut, each seen
to have struck; nothing is lost, nothing is applied twice, and the run goes on soon."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import DIGITS

from tests.faults.books import compare
from tests.faults.schedule import Fault
from tests.faults.supervisor import Setting, Supervisor

pytestmark = pytest.mark.broker

FAULTS = (
    Fault(target="worker-1", version=2),
    Fault(target="master", after=0.5),
    Fault(target="worker-2", after=0.3),  # while nobody leads
    Fault(target="broker", after=4.0),
    Fault(target="worker-3", kind="pause", lasts=2.0, after=5.0),
    Fault(target="master", after=0.5),
    Fault(target="link", kind="close", lasts=1.0, after=4.0),
    Fault(target="master", after=2.0),
    Fault(target="worker-1", after=0.1),
)

SOON = 30.0
"""Seconds from a master's death to the next version, at most: others share the machine."""


def test_a_run_outlives_its_processes(tmp_path: Path) -> None:
    setting = Setting(Path(DIGITS), set_=("gate.alpha=-0.5", "size.first=64", "round.epochs=2"))
    with Supervisor(tmp_path, setting, link=True) as run:
        run.go_through(FAULTS)
        run.settle()
        run.stop()
        assert not run.journal.ended, "a process ended by itself"
        assert run.fired() == {"worker": 3, "master": 3, "broker": 1}
        assert len(run.recoveries) == 3
        assert run.recoveries[-1] < SOON
        code, said = run.hermes("verify", setting.run, "--out", str(tmp_path))
        assert code == 0, said
        books = compare(tmp_path / "state" / "workers", setting.run, run.watch.path)
    assert not books.wrong
    assert books.terms == 4
    assert books.pushed == books.applied + books.rejected + books.undecided + books.unsent
