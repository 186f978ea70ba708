"""The steps of docs/security.md to a new cluster key: everyone gets it, and new runs are its."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import DIGITS, Shell
from nodes import Folder, by_name
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
    made.add("n1", machines())
    yield made
    done = made("down", "--purge")
    assert done.returncode == 0, done.stderr
    assert not shell.left_behind()


def test_a_new_cluster_key(cluster: Folder) -> None:
    cluster.json("up")
    run = ("run", DIGITS, "--cluster", str(cluster.path), "--set", "stop.samples=5000", "--json")
    first = cluster.shell(*run)
    assert first.returncode == 0, first.stderr

    key = Path(cluster.shell.environment["HERMES_CONFIG"]) / "cluster.key"
    old = key.rename(key.with_name("cluster.key.old"))
    (cluster.path / "secrets" / "cluster.key").unlink()
    assert by_name(cluster.json("up"))["n1"]["state"] == "up", "it was started again"
    assert key.read_text() != old.read_text()
    assert (cluster.home("n1") / "cluster.key").read_text() == key.read_text()

    second = cluster.shell(*run)
    assert second.returncode == 0, second.stderr
    before = json.loads(first.stdout)["run"]
    seen = ("--out", str(cluster.path))
    again = (
        "verify",
        before,
        "--scores",
        *seen,
    )  # it runs the job, whose signature is the old key's
    done = cluster.shell(*again)
    assert done.returncode != 0, done.stdout
    assert "cluster key" in done.stderr, done.stderr
    done = cluster.shell(*again, "--key-file", str(old))
    assert done.returncode == 0, done.stdout + done.stderr
