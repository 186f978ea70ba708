"""Are the units of deploy/systemd/ such that systemd takes them, and `hermes` their commands?"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from commands import ROOT

from hermes.cli.app import app

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
PROGRAM = "/opt/hermes/bin/hermes"

unit = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)


def settings(path: Path) -> dict[str, str]:
    """Each setting of a unit; none stands twice in ours."""
    lines = path.read_text("utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and line[0] not in "#["]
    found = dict(pairs)
    assert len(found) == len(pairs)
    return found


def commands(path: Path) -> list[list[str]]:
    """The words after `hermes` of each command of a unit."""
    found = settings(path)
    words = [shlex.split(text) for name, text in found.items() if name.startswith("Exec")]
    assert all(line[0] == PROGRAM for line in words)
    return [line[1:] for line in words]


def test_there_is_a_broker_and_a_worker() -> None:
    assert [path.name for path in UNITS] == ["hermes-broker.service", "hermes-worker@.service"]


@unit
def test_commands_and_flags_of_a_unit_exist(path: Path) -> None:
    for words in commands(path):
        command = typer.main.get_command(app)
        while words and not words[0].startswith("-"):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


@unit
def test_a_unit_runs_as_its_own_user_and_writes_to_one_place(path: Path) -> None:
    found = settings(path)
    assert found["User"] == "hermes"
    assert found["NoNewPrivileges"] == "yes"
    assert found["ProtectSystem"] == "strict"
    assert found["ReadWritePaths"] == found["WorkingDirectory"] == "/var/lib/hermes"
    assert found["CapabilityBoundingSet"] == ""
    assert found["UMask"] == "0077"


@unit
def test_no_secret_stands_in_a_unit(path: Path) -> None:
    text = path.read_text("utf-8").lower()
    assert not re.search(r"(password|token|key)=(?!token\b)\S", text)
    assert "EnvironmentFile" in settings(path)


@unit
@pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not here",
)
def test_systemd_takes_a_unit(path: Path, tmp_path: Path) -> None:
    """All but the programs' path, which is not made here."""
    copy = tmp_path / path.name.replace("@", "@worker-1")
    copy.write_text(path.read_text("utf-8").replace(PROGRAM, str(shutil.which("true"))))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
