"""What does a run on one machine do about its workers' processes?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hermes.errors import UsageError
from hermes.jobfile import build
from hermes.machine.state import MasterState
from hermes.messages import JobSource, LogLine
from hermes.policy.presets import resolve
from hermes.runtime.folder import RunFolder
from hermes.runtime.local import LocalCluster, LocalOptions, check_local, fitting_speeds
from hermes.runtime.master import MasterOptions, MasterProcess
from hermes.runtime.measure import EMULATED
from hermes.transport.memory import MemoryLog

JOB = """
import hermes
from hermes import nn
job = hermes.Job(
    model=lambda: nn.Linear(4, 2), data=hermes.data.digits,
    optimizer=lambda params: nn.SGD(params, lr=0.1), loss=nn.CrossEntropy(),
)
"""


class Quiet:
    """Listens, and keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def opened(self, vitals: object) -> None:
        """Nothing."""

    def took(self, record: object) -> None:
        """Nothing."""

    def uploading(self, sent: int, total: int) -> None:
        """Nothing."""

    def ready(self) -> None:
        """Nothing."""

    def changed(self, state: MasterState, now: int) -> None:
        """Nothing."""

    def line(self, line: LogLine) -> None:
        """Keep it."""
        self.lines.append(line.text)


def _options(tmp_path: Path, workers: int, speeds: tuple[float, ...] | None = None) -> LocalOptions:
    job = build(JOB, "job.py")
    source = JobSource("job.py", JOB, ())
    settings = resolve("bsp", [])
    folder = RunFolder(tmp_path, "r")
    master = MasterOptions("r", source, job, settings, 0, workers, b"k", folder, tmp_path / "c")
    return LocalOptions(master, None, workers, speeds, tmp_path / "key")


@pytest.mark.parametrize(
    ("started", "ended", "why"),
    [
        (None, 1, "worker-died-before-the-start"),
        (5, 1, None),
        (5, 2, "no-worker-left"),
    ],
)
def test_a_run_that_cannot_go_on_is_given_up(
    tmp_path: Path, started: int | None, ended: int, why: str | None
) -> None:
    """Before the start every worker is expected; after it one that is left is enough."""
    listener = Quiet()
    cluster = LocalCluster(_options(tmp_path, 2), "broker", listener)
    cluster.grace = 0.0
    asked: list[tuple[str, str]] = []

    class Master(MasterProcess):
        def interrupt(self, reason: str = "interrupted", status: str = "stopped") -> None:
            asked.append((reason, status))

    cluster.master = Master(MemoryLog(), _options(tmp_path, 2).master, listener)
    programs = ["pass"] * ended + ["import sys; sys.stdin.read()"] * (2 - ended)
    for index, program in enumerate(programs):
        cluster.processes[f"worker-{index + 1}"] = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE
        )
    for process in list(cluster.processes.values())[:ended]:
        process.wait()
    for _ in range(3):
        cluster.changed(MasterState(started=started), 0)
    assert asked == ([(why, "failed")] if why else [])
    assert len(listener.lines) == ended
    for process in cluster.processes.values():
        assert process.stdin is not None
        process.stdin.close()
    cluster.stop()


def test_speeds_are_scaled_only_where_the_cores_cannot_give_them() -> None:
    """What counts is the work that the speeds ask for, not their sum."""
    light = fitting_speeds([1, 1, 0.5, 0.1], EMULATED / 10, cores=2)
    assert light.emulated == (1, 1, 0.5, 0.1)
    assert light.step_seconds == EMULATED
    heavy = fitting_speeds([1, 1, 0.5, 0.1], 10 * EMULATED, cores=2)
    assert heavy.step_seconds == 10 * EMULATED
    assert sum(heavy.emulated) == pytest.approx(1.5)
    assert heavy.emulated[3] / heavy.emulated[0] == pytest.approx(0.1)
    assert "scaled" in str(heavy)
    assert "scaled" not in str(light)


@pytest.mark.parametrize(
    ("workers", "speeds", "what"),
    [(0, None, "0 workers"), (2, (1.0,), "1 speeds for 2 workers"), (1, (0.0,), "0 is no speed")],
)
def test_what_cannot_be_is_said(tmp_path: Path, workers: int, speeds: Any, what: str) -> None:
    """Before anything is started."""
    with pytest.raises(UsageError, match=what):
        check_local(_options(tmp_path, workers, speeds))
