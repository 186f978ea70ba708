"""Does `scripts/tmux_cluster` put a cluster into one tmux session, and take all of it away?"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from commands import DIGITS, ENDLESS, ROOT, Shell

SCRIPT = ROOT / "scripts" / "tmux_cluster"

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed here"),
]


class Tmux:
    """A tmux server of the test's own, and the script that fills it."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.socket = f"hermes-test-{uuid4().hex[:8]}"

    def script(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the script, as somebody without a terminal does."""
        return self._run(str(SCRIPT), *args, "-L", self.socket)

    def tmux(self, *args: str) -> str:
        """What a command of tmux says; nothing if there is no such session."""
        return self._run("tmux", "-L", self.socket, *args).stdout.strip()

    def panes(self) -> dict[str, str]:
        """Each pane's title, and what it shows with the lines before."""
        listed = self.tmux("list-panes", "-s", "-F", "#{pane_id} #{pane_title}").splitlines()
        titles = dict(line.split(" ", 1) for line in listed)
        return {
            title: self.tmux("capture-pane", "-p", "-J", "-S", "-200", "-t", pane)
            for pane, title in titles.items()
        }

    def pane(self, start: str) -> str:
        """What the pane shows whose title starts so."""
        (text,) = [text for title, text in self.panes().items() if title.startswith(start)]
        return text

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=self.shell.folder,
            env={**self.shell.environment, "TMUX": ""},
            stdin=subprocess.DEVNULL,
            timeout=90,
        )


@pytest.fixture
def tmux(shell: Shell) -> Iterator[Tmux]:
    made = Tmux(shell)
    yield made
    made.script("--kill")
    made.tmux("kill-server")


def until(holds: Callable[[], bool]) -> None:
    """pytest's time-out bounds it."""
    while not holds():
        time.sleep(0.2)


def test_a_cluster_in_one_session_trains_and_shows_its_result(tmux: Tmux, tmp_path: Path) -> None:
    done = tmux.script(DIGITS, "--speeds", "1,0.5", "--set", "stop.samples=3000", "--detach")
    assert done.returncode == 0, done.stderr
    assert "--kill" in done.stdout
    until(lambda: "The run is over" in tmux.pane("master"))

    titles = [title.partition(" ")[0].rstrip(",:") for title in tmux.panes()]
    assert titles == ["broker", "master", "worker-1", "worker-2", "central"]
    shown = tmux.pane("master")
    assert "finished, samples" in shown
    assert "(exit code 0)" in shown
    assert "worker-2" in shown, "the table of its end"
    until(lambda: "The run has finished" in tmux.pane("central"))
    result = json.loads((tmp_path / "runs" / "latest" / "result.json").read_text())
    assert result["status"] == "finished"
    assert set(result["workers"]) == {"worker-1", "worker-2"}

    master = tmux.tmux("show-options", "-v", "-t", "=hermes:", "@master")
    tmux.tmux("send-keys", "-t", master, "Enter")
    until(lambda: not tmux.shell.left_behind())
    assert tmux.tmux("list-sessions") == ""


def test_kill_stops_the_run_and_leaves_no_process(tmux: Tmux, tmp_path: Path) -> None:
    assert tmux.script(DIGITS, "-n", "1", *ENDLESS, "--detach").returncode == 0
    until(lambda: "push" in tmux.pane("worker-1"))

    again = tmux.script(DIGITS, "--detach")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert "--kill" in again.stderr

    ended = tmux.script("--kill")
    assert ended.returncode == 0, ended.stderr
    assert tmux.shell.left_behind() == []
    result = json.loads((tmp_path / "runs" / "latest" / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("stopped", "interrupted")
    assert "no tmux session" in tmux.script("--kill").stdout


def test_a_session_that_tmux_ends_takes_its_broker_with_it(tmux: Tmux) -> None:
    assert tmux.script(DIGITS, "-n", "1", *ENDLESS, "--detach").returncode == 0
    until(lambda: "push" in tmux.pane("worker-1"))
    tmux.tmux("kill-session", "-t", "hermes")
    until(lambda: not tmux.shell.left_behind())


def test_what_cannot_be_started_is_told_before_anything_is(tmux: Tmux) -> None:
    for args, word in (
        (["nowhere.py"], "there is no job file"),
        ([DIGITS, "-n", "3", "--speeds", "1,1"], "-n 3, and 2 speeds"),
        ([DIGITS, "-n", "none"], "-n none"),
        ([DIGITS, "--sped", "1"], "unknown flag: --sped"),
        ([DIGITS, "--kind", "rabbit"], "rabbit"),
    ):
        done = tmux.script(*args, "--detach")
        assert done.returncode == 2, args
        assert word in done.stderr
        assert tmux.shell.left_behind() == []


def test_without_tmux_it_says_what_to_install(shell: Shell, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "basename", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT), DIGITS],
        capture_output=True,
        text=True,
        env={"PATH": str(programs)},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert "apt-get install tmux" in done.stderr
