"""Is what is wrong with a node told by name, by the doctor before and by `hermes up`, and do the
others come up all the same?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from commands import Shell, Shown
from nodes import Folder, by_name
from sshd import Sshd

from hermes.broker.control import Child

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

FAKE = """\
#!/bin/sh
case "$*" in -c*version_info*) echo 'shim: a warning' >&2; echo 3.8; exit ;; esac
exec {python} "$@"
"""
"""A Python that says it is 3.8."""

OLD = """\
#!/bin/sh
exec {python} -c 'import sys; sys.version_info = (3, 8, 10); sys.argv[1:2] = []
exec(sys.stdin.read())' "$@"
"""
"""The same, for a script on its standard input."""

LATE = """\
#!/bin/sh
exec {python} -c 'import sys, time; now = time.time; time.time = lambda: now() - 7200
sys.argv[1:2] = []; exec(sys.stdin.read())' "$@"
"""
"""A Python on a device whose clock is two hours behind."""


@pytest.fixture(scope="module")
def broker() -> Iterator[Child]:
    with Child("embedded") as child:
        yield child


@pytest.fixture
def cluster(shell: Shell, broker: Child) -> Folder:
    return Folder(shell, broker.address)


@pytest.fixture
def disk() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a small disk there; needs root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    with ExitStack() as stack:

        def mount(path: Path, options: str) -> None:
            path.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("a disk cannot be mounted here")
            stack.callback(subprocess.run, ["umount", "-l", str(path)], check=True)

        yield mount


def program(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def error_of(report: dict[str, Any], name: str) -> str:
    error = by_name(report)[name]["error"]
    assert error["remedy"], error
    return str(error["what"])


def test_one_bad_node_never_stops_the_others(
    cluster: Folder, machines: Callable[[], Sshd], tmp_path: Path, shown: Shown
) -> None:
    cluster.add("good", machines())
    cluster.add("unknown", machines(), fingerprint=None)
    changed = cluster.add("changed", machines())
    changed.stop()
    changed.new_host_key()
    changed.start()
    cluster.add("user", machines(), user="nobody-here")
    cluster.add("off", machines()).stop()
    cluster.add("name", machines(), host="no-such-host.invalid")
    cluster.add("old", machines(), python=program(tmp_path, "old", FAKE))
    cluster.add("none", machines(), python="/usr/bin/no-python")
    report = cluster.json("up", code=5)
    states = {name: node["state"] for name, node in by_name(report).items()}
    assert states == {name: "up" if name == "good" else "failed" for name in cluster.nodes}
    assert "host key is not known" in error_of(report, "unknown")
    assert "has CHANGED" in error_of(report, "changed")
    assert "'nobody-here'" in error_of(report, "user")
    assert "connection refused" in error_of(report, "off")
    assert "does not resolve" in error_of(report, "name")
    assert "Python is 3.8" in error_of(report, "old")
    assert "no Python that runs" in error_of(report, "none")
    assert cluster.worker("good")
    for name in ("unknown", "changed", "user"):
        assert not cluster.home(name).exists(), "nothing was sent to it"
    done = cluster("up")
    assert done.returncode == 5
    assert "1 of 8 workers up" in done.stdout
    assert done.stderr.count("error: ") == 7
    done = cluster("up", "--quiet")
    shown("seven bad nodes of eight", "hermes up", 5, done.stderr)
    cluster("down", "--purge")


def test_the_doctor_sees_them_before_anything_is_touched(
    cluster: Folder, machines: Callable[[], Sshd], tmp_path: Path, shown: Shown
) -> None:
    cluster.add("good", machines(), packages="venv")
    cluster.add("unknown", machines(), fingerprint=None)
    cluster.add("old", machines(), python=program(tmp_path, "old", OLD))
    cluster.add("late", machines(), python=program(tmp_path, "late", LATE))
    cluster.add("none", machines(), python="/usr/bin/no-python")
    taken = cluster.add("taken", machines(), folder="~/mine")
    (taken.home / "mine").mkdir()
    (taken.home / "mine" / "thesis").write_text("years")
    cluster.add("wants", machines(), extras=["torch"], python="/usr/bin/python3")
    before = {name: sorted(machine.home.rglob("*")) for name, machine in cluster.machines.items()}
    report = cluster.json("doctor", code=5)
    assert report["fit"] is False
    bad = {
        node["name"]: {one["check"]: one for one in node["findings"] if one["level"] == "bad"}
        for node in report["nodes"]
    }
    assert bad["good"] == {}
    assert "not known" in bad["unknown"]["ssh"]["what"]
    assert bad["old"]["python"]["text"] == "3.8.10: too old"
    assert bad["late"]["clock"]["text"] == "2.0 hours behind"
    assert "does not run" in bad["none"]["python"]["what"]
    assert "has not put there" in bad["taken"]["disk"]["what"]
    assert all(one["remedy"] for node in bad.values() for one in node.values())
    (good,) = [node for node in report["nodes"] if node["name"] == "good"]
    checks = {one["check"]: one["text"] for one in good["findings"]}
    assert checks["broker"] == "reached"
    assert checks["clock"] == "right"
    assert {"ssh", "python", "disk", "memory", "clock", "packages", "broker", "worker"} <= set(
        checks
    )
    here = {one["check"]: one["text"] for one in report["here"]["findings"]}
    assert here["limits"] == "records of 2 MiB go through"
    done = cluster("doctor")
    assert done.returncode == 5
    assert "2.0 hours behind" in done.stdout
    done = cluster("doctor", "--quiet")
    shown("five nodes that are not fit", "hermes doctor", 5, done.stderr)
    after = {name: sorted(machine.home.rglob("*")) for name, machine in cluster.machines.items()}
    assert after == before
    assert not (cluster.path / "secrets").exists()


def test_a_full_disk_and_a_read_only_home(
    cluster: Folder, machines: Callable[[], Sshd], disk: Callable[[Path, str], None]
) -> None:
    full = cluster.add("full", machines())
    disk(full.home / ".hermes-edge", "size=600k")
    cluster.add("half", machines(), folder="~/disk/hermes")
    disk(cluster.machines["half"].home / "disk", "size=4m")
    still = cluster.add("still", machines(), folder="~/locked/hermes")
    disk(still.home / "locked", "ro,size=1m")
    cluster.add("good", machines())
    report = cluster.json("doctor", code=5)
    found = {
        node["name"]: {one["check"]: one["what"] for one in node["findings"]}
        for node in report["nodes"]
    }
    assert "MB free, and what is to be installed needs" in found["full"]["disk"]
    assert "cannot be written" in found["still"]["disk"]
    assert found["good"]["disk"] == ""
    report = cluster.json("up", code=5)
    assert "No space left" in error_of(report, "full")
    assert "No space left" in error_of(report, "half")
    assert "Read-only file system" in error_of(report, "still")
    assert by_name(report)["good"]["state"] == "up"
    cluster("down", "--purge")


# --- the address that workers are told ------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def broker_finding(cluster: Folder) -> dict[str, Any]:
    report = cluster.json("doctor", code=5)
    (node,) = report["nodes"]
    (found,) = [one for one in node["findings"] if one["check"] == "broker"]
    assert found["level"] == "bad"
    return dict(found)


def test_an_address_that_workers_cannot_reach_is_named_so(
    shell: Shell, machine: Sshd, shown: Shown
) -> None:
    port = free_port()
    cluster = Folder(shell, "apache", port=port, listen="127.0.0.1", address="127.0.0.2")
    cluster.add("worker-2", machine)
    found = broker_finding(cluster)
    told = f"the address that workers are told, 127.0.0.2:{port}, cannot be reached from worker-2"
    assert told in found["what"]
    assert '"address": "127.0.0.1" in conf/master.json' in found["remedy"]
    done = cluster("doctor", "--quiet")
    shown("an address that workers cannot reach", "hermes doctor", 5, done.stderr)
    cluster.master["address"] = "127.0.0.1"
    report = cluster.json("doctor")
    assert report["fit"] is True
    with socket.socket() as again:  # nothing listens any more
        assert again.connect_ex(("127.0.0.1", port)) != 0


def test_an_address_that_leads_to_another_machine_is_named_so(shell: Shell, machine: Sshd) -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:

        def answer() -> None:
            peer, _ = other.accept()
            peer.sendall(b"I am somebody else")
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        port = other.getsockname()[1]
        cluster = Folder(shell, "apache", port=port, listen="127.0.0.1", address="127.0.0.2")
        cluster.add("worker-2", machine)
        assert "leads to another machine from worker-2" in broker_finding(cluster)["what"]


def test_a_port_that_is_taken_is_told(shell: Shell, machine: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        cluster = Folder(shell, "apache", port=port, listen="127.0.0.1", address="127.0.0.1")
        cluster.add("worker-2", machine)
        report = cluster.json("doctor", code=5)
        assert "cannot listen" in report["here"]["findings"][0]["what"]


def test_a_broker_that_is_not_there_is_told_once_and_nodes_wait_for_the_next_time(
    shell: Shell, machine: Sshd
) -> None:
    cluster = Folder(shell, f"127.0.0.1:{free_port()}")
    cluster.add("n1", machine)
    began = time.monotonic()
    done = cluster("up")
    assert done.returncode == 3
    assert "nothing listens there" in done.stderr
    assert "it is installed, but there is no broker" in done.stderr
    assert time.monotonic() - began < 60
    assert not cluster.worker("n1")
    cluster("down", "--purge")


def test_a_worker_that_runs_already_is_named(cluster: Folder, machine: Sshd) -> None:
    cluster.add("n1", machine)
    machine.ssh("setsid sh -c 'sleep 600; : worker --name n1' </dev/null >/dev/null 2>&1 &")
    report = cluster.json("doctor", code=5)
    (found,) = [one for one in report["nodes"][0]["findings"] if one["check"] == "worker"]
    assert found["text"] == "another runs"


def test_wheels_that_do_not_fit_are_told(
    shell: Shell, broker: Child, machine: Sshd, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in (
        "numpy-2.4.6-cp36-cp36m-manylinux_2_28_x86_64",
        "msgspec-0.22.0-cp311-cp311-manylinux_2_28_riscv64",
        "kafka_python-3.0.12-py3-none-any",
    ):
        (wheels / f"{name}.whl").write_bytes(b"")
    cluster = Folder(shell, broker.address, wheels=str(wheels))
    cluster.add("n1", machine, packages="venv")
    report = cluster.json("doctor", code=5)
    (found,) = [one for one in report["nodes"][0]["findings"] if one["check"] == "packages"]
    assert "no wheel of numpy, msgspec, safetensors, crc32c" in found["what"]
