"""Can a user start a test bed, use it, and be rid of it?"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bed import ROOT

Testbed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    """scripts/testbed, for beds in a folder of the test's."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "scripts" / "testbed", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    yield run
    run("stop")


def test_a_bed_is_started_looked_at_cut_mended_and_stopped(
    testbed: Testbed, tmp_path: Path
) -> None:
    started = testbed("start", "-n", "2", "--rates", "10mbit", "--shares", "100,25")
    assert started.returncode == 0, started.stderr
    assert "hermes init cluster --workers worker-1,worker-2" in started.stdout
    refused = testbed("start")
    assert (refused.returncode, refused.stderr[:28]) == (2, "testbed: there is a test bed")
    assert testbed("ssh", "worker-2", "hostname").stdout == "worker-2\n"
    assert testbed("ssh", "worker-2", "exit 7").returncode == 7
    init = "hermes init cluster --workers worker-1,worker-2 && ls cluster/conf"
    assert "config.json" in testbed("ssh", "master", init).stdout
    testbed("ssh", "worker-1", "setsid sleep 600 > /dev/null 2>&1 < /dev/null &")
    testbed("cut", "worker-2")
    rows = [line.split() for line in testbed("status").stdout.splitlines()]
    assert rows[2] == ["worker-1", "10.77.0.1", "10mbit", "100", "%", "1"]
    assert rows[3] == ["worker-2", "10.77.0.2", "cut", "25", "%", "0"]
    testbed("mend", "worker-2")
    assert testbed("ssh", "worker-2", "hostname").stdout == "worker-2\n"
    stopped = testbed("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bed_whose_keeper_was_killed_is_taken_away(testbed: Testbed, tmp_path: Path) -> None:
    assert testbed("start", "-n", "1").returncode == 0
    (folder,) = tmp_path.glob("hermes-bed-*-*")
    os.kill(int(folder.name.split("-")[2]), signal.SIGKILL)
    assert "there is no test bed" in testbed("status").stderr
    assert folder.name in testbed("stop").stdout
    assert not folder.exists()
    assert "there is no test bed" in testbed("stop").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["start", "--rates", "10"], "testbed: '10' is no rate; rates look like 500kbit"),
        (["start", "--shares", "1,2"], "testbed: 2 shares for 4 workers; one, or as many"),
        (["start", "-n", "100"], "testbed: 100 workers; a bed has 1 to 99"),
        (["cut", "worker-1"], "testbed: there is no test bed. Make one"),
    ],
)
def test_a_mistake_is_named(testbed: Testbed, words: list[str], said: str) -> None:
    done = testbed(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
