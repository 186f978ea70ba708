"""What does a test of `hermes up` need? A cluster's folder, whose nodes are SSH servers on loopback
with homes of their own. They borrow the packages of the Python that runs the tests, to be quick."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from commands import Shell
from sshd import Sshd

import hermes

SECRETS = ("cluster.key", "access.json")


class Folder:
    """A cluster's folder; `hermes` as a user types it there."""

    def __init__(self, shell: Shell, broker: str, **master: Any) -> None:
        self.path = shell.folder / "cluster"
        self.shell = shell
        self.nodes: dict[str, dict[str, Any]] = {}
        self.machines: dict[str, Sshd] = {}
        (self.path / "conf").mkdir(parents=True)
        # Whoever edits the source while a test runs gives its nodes no other Hermes.
        shutil.copytree(Path(hermes.__file__).parent, shell.folder / "source" / "hermes")
        shell.environment["PYTHONPATH"] = str(shell.folder / "source")
        known = shell.folder / "known_hosts"
        known.touch()
        shell.environment |= {"HERMES_KNOWN_HOSTS": str(known), "HOME": str(shell.folder)}
        shell.environment.pop("SSH_AUTH_SOCK", None)
        self.known_hosts = known
        self.master = {"broker": broker, "security": "off", **master}
        self.settings: dict[str, Any] = {"strategy": "hermes"}

    def add(self, name: str, machine: Sshd, **changes: Any) -> Sshd:
        """A node there."""
        self.machines[name] = machine
        self.nodes[name] = {
            "name": name,
            "host": machine.address,
            "port": machine.port,
            "user": machine.user,
            "key": str(machine.key),
            "fingerprint": machine.fingerprint,
            **changes,
        }
        self.write()
        return machine

    def remove(self, name: str) -> None:
        """It is in conf no more."""
        del self.nodes[name]
        self.write()

    def write(self) -> None:
        """conf/, as it is now."""
        defaults = {"python": sys.executable, "packages": "system", "tmux": False}
        config = {"version": 1, "defaults": defaults, "nodes": list(self.nodes.values())}
        for name, content in (
            ("config", config),
            ("master", {"version": 1, **self.master}),
            ("settings", {"version": 1, **self.settings}),
        ):
            (self.path / "conf" / f"{name}.json").write_text(json.dumps(content))

    def __call__(self, *args: str, timeout: float = 110) -> subprocess.CompletedProcess[str]:
        """`hermes ...` for this cluster."""
        self.write()
        command, *flags = args
        return self.shell(command, str(self.path), *flags, timeout=timeout)

    def json(self, *args: str, code: int = 0) -> dict[str, Any]:
        """The same with --json; what it prints."""
        done = self(*args, "--json")
        assert done.returncode == code, done.stderr + done.stdout
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def home(self, name: str) -> Path:
        """Of a node: what Hermes has there."""
        return self.machines[name].home / ".hermes-edge"

    def worker(self, name: str) -> int | None:
        """The pid of its worker; None where it does not run."""
        found = [
            pid
            for pid, command in self.machines[name].processes().items()
            if " worker " in command and f"--name {name}" in command
        ]
        assert len(found) < 2, found
        return found[0] if found else None


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The nodes of a report."""
    return {node["name"]: node for node in report["nodes"]}


def tree(folder: Path) -> dict[str, float]:
    """All files below, with their times."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            found[str(path.relative_to(folder))] = path.lstat().st_mtime
    return found


def mode(path: Path) -> int:
    """Who may do what with it."""
    return stat.S_IMODE(path.stat().st_mode)
