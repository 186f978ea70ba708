"""Is what `hermes up` brings up locked: a user for each node, and nothing secret to be seen?"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from commands import DIGITS, Shell
from nodes import Folder, by_name, mode
from sshd import Sshd

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]


@pytest.fixture
def cluster(shell: Shell, machines: Callable[[], Sshd]) -> Iterator[Folder]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = Folder(
        shell, "apache", port=port, listen="127.0.0.1", address="127.0.0.1", security="on"
    )
    for name in ("n1", "n2"):
        made.add(name, machines())
    yield made
    done = made("down", "--purge")
    assert done.returncode == 0, done.stderr
    assert not shell.left_behind()


def secrets_of(cluster: Folder) -> dict[str, str]:
    """Each password and key, by the file that has it."""
    folder = cluster.path / "secrets"
    found = {path.name: path.read_text().strip() for path in folder.rglob("*.password")}
    found["cluster.key"] = (folder / "cluster.key").read_text().strip()
    found["ca.key"] = (folder / "ca.key").read_text().splitlines()[1]
    return found


def test_each_node_has_its_own_user_and_one_that_was_revoked_stays_out(cluster: Folder) -> None:
    report = cluster.json("up")
    assert [node["state"] for node in report["nodes"]] == ["up", "up"]
    secrets = secrets_of(cluster)
    assert {"n1.password", "n2.password", "master.password"} <= secrets.keys()
    assert len(set(secrets.values())) >= 5
    for path in (cluster.path / "secrets").rglob("*"):
        assert not mode(path) & 0o077, path
    for name in ("n1", "n2"):
        access = json.loads((cluster.home(name) / "access.json").read_text())
        assert (access["tls"], access["user"]) == (True, name)
        assert mode(cluster.home(name) / f"{name}.password") == 0o600
        there = "".join(path.read_text() for path in cluster.home(name).glob("*.password"))
        assert secrets[f"{name}.password"] in there
        assert secrets["master.password"] not in there

    run = ("run", DIGITS, "--cluster", str(cluster.path), "--set", "stop.samples=20000")
    done = cluster.shell(*run, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["workers"]) == {"n1", "n2"}
    shown = done.stdout + done.stderr + cluster("doctor").stdout
    seen = [shown, *_command_lines(), *_texts(cluster)]
    for name, secret in secrets.items():
        assert not [text for text in seen if secret in text], name

    revoked = cluster.shell("revoke", "n2", "--cluster", str(cluster.path))
    assert revoked.returncode == 0, revoked.stderr
    report = by_name(cluster.json("up", code=5))
    assert report["n1"]["state"] == "unchanged"
    assert "it was revoked" in report["n2"]["error"]["what"]
    doctor = cluster.json("doctor", code=5)
    found = {
        node["name"]: [one["text"] for one in node["findings"] if one["check"] == "worker"]
        for node in doctor["nodes"]
    }
    assert found == {"n1": ["runs"], "n2": ["revoked"]}
    again = cluster.shell("invite", "n2", "--cluster", str(cluster.path))
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("n2 may come in. As a node of conf/")
    key = str(cluster.shell.folder / "n2.key")
    invited = cluster.shell("invite", "n2", "--cluster", str(cluster.path), "--to", key)
    assert invited.returncode == 0, invited.stderr
    assert f"it needs no file: hermes up {cluster.path}" in invited.stdout
    report = by_name(cluster.json("up"))
    assert (report["n1"]["state"], report["n2"]["state"]) == ("unchanged", "up")
    said = cluster("doctor").stdout
    assert "up at" in said
    assert "fit, and up: hermes run JOB.py --cluster" in said

    # A device that was stolen answers nobody, and comes in no more.
    cluster.remove("n2")
    cluster.machines["n2"].stop()
    (gone,) = cluster.json("up", code=5)["removed"]
    assert "connection refused" in gone["error"]["what"]
    assert "n2.password" not in secrets_of(cluster)
    cluster.machines["n2"].start()
    assert cluster.json("up")["removed"][0]["state"] == "down"
    assert "n2.password" not in secrets_of(cluster)


def _command_lines() -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            yield " ".join(process.cmdline())
        except psutil.Error:
            continue


def _texts(cluster: Folder) -> Iterator[str]:
    """All that is for people: logs, results, what the broker prints."""
    state = Path(cluster.shell.environment["HERMES_STATE"])
    places = [cluster.path / "runs", state, *(cluster.home(name) for name in cluster.machines)]
    for place in places:
        for path in place.rglob("*"):
            if path.suffix in (".log", ".json", ".1", ".html") and path.name != "access.json":
                yield path.read_text(errors="replace")
