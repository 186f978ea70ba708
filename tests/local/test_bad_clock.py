"""A wall clock that is wrong or jumps changes nothing: only texts for people look at it."""

from __future__ import annotations

import ast
import datetime
import itertools
import time
from pathlib import Path

import pytest
from crew import Crew

ROOT = Path(__file__).parents[2] / "hermes"

JOB = """\
import hermes
from hermes import nn
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    data=hermes.data.digits, optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(), stop=hermes.Stop(versions=30))
"""

WALL = {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime", "asctime"}
"""Of the module `time`."""

PLACES = {
    "runtime/logs.py": "utc_now: the times of log lines, run.json and the run's opening",
    "cli/prepare.py": "new_run_id: the date in a run's name",
    "cli/trouble.py": "the name of a defect's report",
    "runtime/caches.py": "how old what lies in the caches is, for `hermes clean`",
    "data/cache.py": "when a block was last used, as its file's time",
    "cli/refused.py": "how long ago the broker's log says that somebody was refused",
    "cluster/doctor.py": "how long a certificate holds",
    "cluster/facts.py": "how far a node's clock is from ours",
}
"""Where wall time may be read, and what for."""


def readers(text: str) -> set[str]:
    """What a module calls of the wall clock."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "time" and node.attr in WALL:
                found.add(f"time.{node.attr}")
            if node.value.id in ("datetime", "date") and node.attr in ("now", "today", "utcnow"):
                found.add(f"datetime.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found |= {f"time.{alias.name}" for alias in node.names if alias.name in WALL}
    return found


def test_bad_clocks_are_read_in_few_places_only() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if readers(path.read_text("utf-8"))
    }
    assert found == PLACES.keys()
    assert readers("import time\ntime.time()") == {"time.time"}
    assert readers("from datetime import datetime\ndatetime.now()") == {"datetime.now"}


class Mad(datetime.datetime):
    """A clock that leaps by years, to and fro."""

    leaps = itertools.cycle([0, 40 * 365, -30 * 365, 1, -2])

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        days = datetime.timedelta(days=next(cls.leaps))
        return datetime.datetime(2026, 1, 1, tzinfo=tz) + days


@pytest.mark.parametrize("strategy", ["bsp", "hermes-paper"])
def test_a_bad_clock_changes_no_decision_and_no_bit(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, so that arrivals have one order: the same digest, nobody lost, no deadline."""
    settings = {"workers__heartbeat": 0.1, "workers__lost": 5.0, "stop__versions": 6}
    more = {"gate__rule": "open", "size__first": 100} if strategy == "hermes-paper" else {}
    calm = Crew(tmp_path / "calm", JOB, strategy, **settings, **more).see_through(1)
    leaps = itertools.cycle([0.0, 4e9, -3e9, 1e3, -86400.0])
    monkeypatch.setattr(time, "time", lambda: max(1.0, 1.7e9 + next(leaps)))
    monkeypatch.setattr(time, "time_ns", lambda: int(max(1.0, 1.7e9 + next(leaps)) * 1e9))
    monkeypatch.setattr("hermes.runtime.logs.datetime", Mad)
    mad = Crew(tmp_path / "mad", JOB, strategy, **settings, **more).see_through(1)
    assert (mad.error, calm.error) == (None, None), mad.said()
    assert mad.result["status"] == calm.result["status"] == "finished", mad.said()
    assert mad.result["digest"] == calm.result["digest"]
    assert mad.result["version"] == calm.result["version"] == 6
    assert "lost" not in mad.said()
    years = {line.at[:4] for line in mad.lines}
    assert {"2065", "2066"} & years, "the clock did leap"
    assert 0 < mad.result["seconds"] < 60
