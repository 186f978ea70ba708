"""How does a test type commands? As a user: `hermes` as processes of their own, in a folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

Shown = Callable[[str, str, int, str], None]
"""The fixture `shown`: (what went wrong, the command, its exit code, what it printed)."""

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "examples" / "digits.py")
ENDLESS = ("--set", "stop.samples=off", "--set", "stop.patience=off")


class Shell:
    """Runs `hermes` in a folder, in an environment that marks all that comes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"HERMES_TEST_MARK={uuid4()}"
        name, _, value = self.mark.partition("=")
        plain = {key: text for key, text in os.environ.items() if not key.startswith("HERMES_")}
        places = {
            f"HERMES_{key}": str(folder / key.lower()) for key in ("CONFIG", "STATE", "CACHE")
        }
        self.environment = {**plain, **places, name: value}
        self.started: list[subprocess.Popen[str]] = []

    def __call__(self, *args: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "hermes", *args],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start one command; what is left of it is ended with the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "hermes", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )
        self.started.append(process)
        return process

    def json(self, *args: str) -> dict[str, Any]:
        """Run one command with --json; what it prints, which is one object."""
        done = self(*args, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert done.stdout.count("\n") == 1
        assert isinstance(found, dict)
        return found

    def left_behind(self) -> list[str]:
        """Command lines of processes that carry our mark (Linux)."""
        return list(self.processes().values())

    def one(self, text: str) -> int:
        """The pid of the one process that carries our mark and has this in its command line."""
        (pid,) = [pid for pid, command in self.processes().items() if text in command]
        return pid

    def processes(self) -> dict[int, str]:
        """Command lines by pid, of what carries our mark."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (process / "environ").read_bytes().split(b"\0")
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if marked and command:
                found[int(process.name)] = command
        return found

    def close(self) -> None:
        """End what was started, stopped or not."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()


def wait_for(
    process: subprocess.Popen[str], pattern: str, seen: list[str] | None = None
) -> re.Match[str]:
    """The first line on its stderr in which the pattern is found (pytest's time-out bounds it);
    all lines go to `seen`."""
    assert process.stderr is not None
    seen = [] if seen is None else seen
    for line in process.stderr:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"{pattern!r} is not in: {''.join(seen)}")
