"""The broker of `hermes up`, and each node's user there: without the nodes."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hermes.broker import control
from hermes.broker.places import free_port
from hermes.broker.refusals import refusals
from hermes.cluster import entrance
from hermes.cluster.brought import Notes
from hermes.cluster.conf import Cluster, load
from hermes.cluster.progress import Board
from hermes.cluster.up import _open
from hermes.cluster.users import ensure_user, revoke_user
from hermes.transport.access import Access, access_file, config_folder, write_access

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.fixture
def folder(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster's folder; whatever broker is left is stopped."""
    for name in ("HERMES_ACCESS", "HERMES_INSECURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HERMES_CONFIG", str(state.parent / "config"))
    yield state.parent / "cluster"
    for running in control.status():
        control.stop(running.port)


def written(folder: Path, nodes: tuple[str, ...], **master: Any) -> Cluster:
    """conf/ says so."""
    conf = folder / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    every = [{"name": name, "host": f"{name}.invalid"} for name in nodes]
    (conf / "config.json").write_text(json.dumps({"version": 1, "nodes": every}))
    (conf / "master.json").write_text(json.dumps({"version": 1, **master}))
    (conf / "settings.json").write_text(json.dumps({"version": 1, "strategy": "hermes"}))
    return load(folder)


def left() -> list[Path]:
    """Of this machine's configuration: what opens brokers."""
    return [path for path in config_folder().rglob("*") if path.is_file() and "access" in str(path)]


def test_a_broker_of_our_own(folder: Path) -> None:
    port = free_port()
    said: dict[str, Any] = {"port": port, "address": "127.0.0.1", "listen": "127.0.0.1"}
    cluster = written(folder, ("n1", "n2"), **said)
    notes = Notes(cluster)
    assert entrance.enter(cluster, notes).files.keys() == {"n1", "n2"}
    (running,) = control.status()
    assert not refusals(Path(running.log)), "the broker's own start is nobody's refusal"
    password = (cluster.secrets / "users" / "n2.password").read_text()

    # Somebody revokes a node with the broker's address alone: its password's file stays here.
    with entrance.connected(cluster) as log:
        assert revoke_user(log, None, "n2")
    assert entrance.enter(cluster, notes).files.keys() == {"n1"}, "up undoes no revoke"
    written(folder, ("n1",), **said)
    entrance.forget(cluster, ["n2"], notes)
    cluster = written(folder, ("n1", "n2"), **said)
    assert entrance.enter(cluster, notes).files.keys() == {"n1"}, "nor by way of conf/"
    with entrance.connected(cluster) as log:
        ensure_user(log, cluster.secrets, "n2")  # as hermes invite does
    assert entrance.enter(cluster, notes).files.keys() == {"n1", "n2"}
    assert (cluster.secrets / "users" / "n2.password").read_text() != password

    # Whom we took out ourselves comes back with conf/.
    entrance.forget(cluster, ["n2"], notes)
    assert entrance.enter(cluster, notes).files.keys() == {"n1", "n2"}

    # Nothing has changed: it goes on. Another address to listen at: it does not.
    assert [one.pid for one in control.status()] == [running.pid]
    cluster = written(folder, ("n1", "n2"), **{**said, "listen": "0.0.0.0"})
    entrance.enter(cluster, notes)
    (wide,) = control.status()
    assert (wide.listen, wide.pid != running.pid) == ("0.0.0.0", True)

    # It dies, and leaves its master's password behind: down takes that away.
    os.kill(wide.pid, signal.SIGKILL)
    while wide.alive():
        os.waitpid(wide.pid, 0)
    assert any(path.suffix == ".password" for path in left())
    entrance.clear_ours(cluster, notes.now)
    assert not left()


def test_the_access_file_that_was_there_stays(folder: Path) -> None:
    """A managed broker's: it is the user's own, whatever it says."""
    with control.Child("embedded") as broker:
        cluster = written(folder, ("n1",), broker=broker.address, security="off")
        theirs = access_file(broker.address)
        write_access(theirs.parent, broker.address, Access(insecure=True), file=theirs)
        notes = Notes(cluster)
        entrance.enter(cluster, notes)
        entrance.clear_ours(cluster, notes.now)
        assert theirs.exists()

        theirs.unlink()
        entrance.enter(cluster, notes)
        assert theirs.exists()
        entrance.clear_ours(cluster, notes.now)
        assert not theirs.exists()


def test_notes_of_an_older_hermes_are_read(folder: Path, state: Path) -> None:
    running = control.start("embedded", port=0)
    note = state / "brokers" / str(running.port) / "broker.json"
    old = json.loads(note.read_text())
    del old["listen"]
    note.write_text(json.dumps(old))
    assert [one.listen for one in control.status()] == [""]


def test_a_dry_run_that_finds_a_bad_file_keeps_nobody_waiting(folder: Path) -> None:
    cluster = written(folder, ("n1",), address="127.0.0.1")
    cluster.secrets.mkdir(mode=0o700)
    (cluster.secrets / "cluster.key").touch(mode=0o600)
    (cluster.secrets / "access.json").write_text("no JSON")
    door = entrance.Door()
    _open(cluster, Notes(cluster), door, Board(["broker"], None), dry_run=True)
    assert door.wait(threading.Event()) is None
    assert door.error is not None
    assert "this is not JSON" in door.error.what
