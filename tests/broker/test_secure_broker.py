"""`hermes broker start --secure`: what it leaves on the disk, and what it finds there again."""

from __future__ import annotations

import json
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Shell

from hermes.broker import apache, control, secured
from hermes.broker.secured import Secure
from hermes.cluster.users import ensure_user, revoke_user
from hermes.errors import UsageError
from hermes.transport.access import access_file, access_to
from hermes.transport.kafka import KafkaLog

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.fixture
def place(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders of the test's own; whatever broker is left is stopped."""
    for name in ("HERMES_ACCESS", "HERMES_INSECURE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HERMES_CONFIG", str(state.parent / "config"))
    yield state.parent
    for running in control.status():
        control.stop(running.port)


def command_lines(stop: threading.Event, seen: set[bytes]) -> None:
    """All that run on this machine while it goes on."""
    while not stop.is_set():
        for process in Path("/proc").glob("[0-9]*"):
            try:
                seen.add((process / "cmdline").read_bytes())
            except OSError:
                continue
        time.sleep(0.005)


def test_it_comes_back_as_it_was(place: Path) -> None:
    """Started, used and started again: users and passwords are kept, revoked ones too. (Where one
    had been deleted, no user came in any more.)"""
    seen: set[bytes] = set()
    stop = threading.Event()
    watcher = threading.Thread(target=command_lines, args=(stop, seen))
    watcher.start()
    try:
        running = control.start("apache", port=0, secure=Secure())
    finally:
        stop.set()
        watcher.join()
    assert running.secrets is not None
    secrets = Path(running.secrets)
    for name in (secured.BROKER, secured.MASTER):
        password = secured.password_file(secrets, name).read_bytes().strip()
        assert not any(password in line for line in seen), "on a command line"
    assert any(b"@" in line and b"format.args" in line for line in seen), "the watch sees it"
    folders = [secrets, *(path for path in secrets.rglob("*") if path.is_dir())]
    assert running.data
    assert {stat.S_IMODE(f.stat().st_mode) for f in (*folders, Path(running.data))} == {0o700}
    files = [path for path in secrets.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert not (secrets / "format.args").exists()
    before = {path.name: path.read_bytes() for path in files if path.name != "server.properties"}

    names = [f"w{number}" for number in range(6)]
    with KafkaLog(running.address) as log:
        for name in names:
            ensure_user(log, secrets, name)
        for name in names[:3]:
            assert revoke_user(log, secrets, name)
        assert not revoke_user(log, secrets, names[0])
        log.create(["hermes.test.kept"])
    assert access_file(running.address).exists()
    control.stop(running.port)
    assert not access_file(running.address).exists(), "it would be in the way of another broker"

    again = control.start("apache", port=running.port, secure=Secure())
    assert again.secrets == running.secrets
    after = {name: (secrets / name).read_bytes() for name in before if (secrets / name).exists()}
    assert after == {name: before[name] for name in after}
    with KafkaLog(again.address) as log:
        assert log.guards is not None
        assert log.guards.users() == ["broker", "master", *names[3:]]
        assert log.topics("hermes.test.") == ["hermes.test.kept"]
    control.stop(again.port)

    with pytest.raises(UsageError, match="kept by a secure broker; without --secure everyone"):
        control.start("apache", port=running.port)
    with pytest.raises(UsageError, match="have other passwords than those kept in") as caught:
        control.start("apache", port=running.port, secure=Secure(place / "others"))
    assert "--secrets DIR" in caught.value.remedy


def test_records_of_an_open_broker_get_no_users_afterwards(place: Path) -> None:
    running = control.start("apache", port=0)
    assert access_to(running.address).user is None
    control.stop(running.port)
    with pytest.raises(UsageError, match="was made for a broker without users"):
        control.start("apache", port=running.port, secure=Secure())


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_folders_are_those_that_were_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    """Java reads its settings as ISO-8859-1, and names of files as the locale says."""
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("HERMES_STATE", str(place / "stät 漢😀"))
    data = place / "dü=\\u0041 #"
    running = control.start("apache", port=0, data=data, secure=Secure(place / "geheim: ö"))
    assert running.data == str(data)
    assert (data / "meta.properties").exists()
    with KafkaLog(running.address) as log:
        log.create(["hermes.test.kept"])
    control.stop(running.port)
    assert any(path.name.startswith("hermes.test.kept") for path in data.iterdir())
    assert (Path(running.log).with_name("refused.log")).exists()
    assert {path.name for path in place.iterdir()} == {
        data.name, "config", "geheim: ö", "stät 漢😀"
    }  # fmt: skip


def test_a_folder_that_kafka_would_split(place: Path) -> None:
    with pytest.raises(UsageError, match="a comma, or a blank at an end, splits it") as caught:
        control.start("apache", port=0, data=place / "a,b")
    assert caught.value.where == "--data"
    assert not (place / "a,b").exists()


def test_docker_runs_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is at hand: a stand-in that runs the image's Java with the jars that are here shows
    that formatting and starting are given all that they need, and no password."""
    from hermes.broker.jars import jars

    stand_in = place / "docker"
    stand_in.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {place}/docker.log\n'
        '[ "$1" = info ] && exit 0\n'
        '[ "$1" = rm ] && exit 1\n'  # there is none of this name any more
        'while [ "$1" != "' + apache.IMAGE + '" ]; do shift; done; shift\n'
        f'case "$1" in @*) sed -i "s#/opt/kafka/libs/\\*#{jars()}#" "${{1#@}}"\n'
        'exec java "$@";; esac\n'
        "for part; do shift; case $part in /opt/kafka/libs/*) part='" + jars() + "';; esac\n"
        'set -- "$@" "$part"; done\n'
        'exec java "$@"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(apache.shutil, "which", lambda name: str(stand_in))
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    running = control.start("apache", port=0, secure=Secure(place / "secrets"))
    with KafkaLog(running.address) as log:
        assert log.guards is not None
        assert log.guards.users() == ["broker", "master"]
    log_of_calls = (place / "docker.log").read_text()
    started = log_of_calls.splitlines()[-1]
    for folder in (Path(running.log).parent, running.data, place / "secrets"):
        assert f"--mount=type=bind,source={folder},target={folder} " in started
    assert "--entrypoint=java" in started
    for name in (secured.BROKER, secured.MASTER):
        password = secured.password_file(place / "secrets", name).read_text().strip()
        assert password not in log_of_calls
    # What was noted ends the container, too: it does not go with a client that is killed.
    name = started.partition("--name=")[2].split()[0]
    note = Path(running.log).with_name("broker.json")
    noted = json.loads(note.read_text())
    assert noted["remove"] == [str(stand_in), "rm", "--force", name]
    control.stop(running.port)
    assert (place / "docker.log").read_text().splitlines()[-1] == f"rm --force {name}"
    note.write_text(json.dumps({**noted, "remove": [str(stand_in), "rm", "the-client-was-killed"]}))
    assert control.status() == []
    assert (place / "docker.log").read_text().splitlines()[-1] == "rm the-client-was-killed"


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("/a:b c", "type=bind,source=/a:b c,target=/a:b c"),
        ("/a,b", 'type=bind,"source=/a,b","target=/a,b"'),
        ('/a"b', 'type=bind,"source=/a""b","target=/a""b"'),
    ],
)
def test_what_docker_is_told_of_a_folder(folder: str, told: str) -> None:
    assert apache._mount(Path(folder)) == told


def test_invite_asks_for_what_is_missing(shell: Shell, place: Path) -> None:
    """At an open broker there are no users; with a cluster that is not up, no broker."""
    folder = shell.folder / "cluster"
    folder.mkdir()
    for typed, what in (
        (("invite", "w1", "--cluster", str(folder)), "this cluster has no broker yet"),
        (("revoke", "w1", "--cluster", str(folder)), "this cluster has no broker yet"),
        (("invite", "master"), "'master' is the user of the master itself"),
        (("invite", "w1"), "are not on this machine"),
    ):
        done: subprocess.CompletedProcess[str] = shell(*typed)
        assert done.returncode == 2, done.stderr
        assert what in done.stderr
