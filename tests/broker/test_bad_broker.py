"""A broker that dies, has no room, hangs or is none: what does a user see, and what is kept?"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import DIGITS, ENDLESS, Shell, Shown, wait_for
from standing import stand

from hermes.broker.control import Child
from hermes.broker.places import free_port
from hermes.errors import BrokerUnreachable
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker


def begin(shell: Shell, broker: str, *more: str) -> subprocess.Popen[str]:
    """A run on this broker that has published a version, and would go on for ever."""
    run = shell.start(
        "run", DIGITS, "--broker", broker, "--run", "r", "--workers", "2", *ENDLESS, *more
    )
    wait_for(run, r"version \d+ ")
    until(lambda: "push (" in (shell.folder / "runs/r/central.log").read_text())
    return run


def until(holds: Callable[[], Any], timeout: float = 20.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def ended(run: subprocess.Popen[str]) -> str:
    """What it printed on stderr until its end, as a user reads it."""
    _, text = run.communicate(timeout=60)
    return text


def error_in(text: str) -> str:
    return text[text.index("error:") :]


def saved(shell: Shell) -> dict[str, Any]:
    """The result of a run whose last version was saved: the very one that the result names."""
    folder = shell.folder / "runs/r"
    result: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    from hermes.codec import digest_of

    assert digest_of((folder / "model.safetensors").read_bytes()) == result["digest"]
    assert (folder / "best.safetensors").exists()
    return result


# --- it dies in the middle (a) ------------------------------------------------------------------


def test_a_bad_broker_that_dies_and_comes_back(shell: Shell, tmp_path: Path, shown: Shown) -> None:
    """SIGKILL, started again on the same data and port: the same run goes on to its end, and what
    was acknowledged before is in it."""
    port = free_port()
    data = tmp_path / "kafka"
    with Child("apache", port=port, data=data) as broker:
        run = begin(shell, broker.address, "--set", "stop.seconds=12")
        broker.kill()
        assert wait_for(run, "the broker does not answer: nothing listens there")
    with Child("apache", port=port, data=data):
        text = ended(run)
    assert run.returncode == 0, text
    assert "the broker answers again" in text
    result = saved(shell)
    assert result["status"] == "finished"
    updates = result["updates"]
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]
    shown("A broker that dies and comes back: the run goes on", "hermes run", 0, text)


def test_a_bad_broker_of_a_worker_that_waits(shell: Shell, shown: Shown) -> None:
    """No run has begun yet: it says that its broker has gone, and when one is back."""
    port, seen = free_port(), list[str]()
    (shell.folder / "cluster.key").write_text("0" * 64 + "\n")
    (shell.folder / "cluster.key").chmod(0o600)
    at = ("--broker", f"127.0.0.1:{port}", "--key-file", "cluster.key")
    with Child("embedded", port=port):
        worker = shell.start("worker", *at, "--name", "w1")
        wait_for(worker, "waiting for", seen)
    wait_for(worker, "the broker does not answer: nothing listens there", seen)
    with Child("embedded", port=port):
        wait_for(worker, "the broker answers again", seen)
    wait_for(worker, "the broker does not answer", seen)
    worker.send_signal(signal.SIGINT)
    began = time.monotonic()
    text = "".join([*seen, ended(worker)])
    assert time.monotonic() - began < 10
    assert worker.returncode == 130, text
    shown("A waiting worker whose broker goes", "hermes worker, Ctrl-C", 130, text)


def test_a_bad_broker_that_dies_for_good(shell: Shell, tmp_path: Path, shown: Shown) -> None:
    """After --patience: exit 3, what, where, remedy, and the last version is saved."""
    with Child("apache", data=tmp_path / "kafka") as broker:
        run = begin(shell, broker.address, "--patience", "3")
        broker.kill()
        text = ended(run)
    assert run.returncode == 3
    told = error_in(text)
    assert f"error: {broker.address}: the broker has not answered the run's master for" in told
    assert "nothing listens there (connection refused)" in told
    assert "hermes broker start" in told
    assert re.search(r"Version \d+, the last one that it holds, is saved: /.*model", told)
    result = saved(shell)
    assert (result["status"], result["reason"]) == ("failed", "broker-unreachable")
    assert result["accuracy"]["validation"] is not None
    assert shell.left_behind() == []
    shown("A broker that dies for good", "hermes run --broker B --patience 3", 3, told)


def test_a_bad_end_of_an_embedded_broker(shell: Shell, shown: Shown) -> None:
    """It does not come back: exit 3 at once, and the last version is saved."""
    run = shell.start("run", DIGITS, "--run", "r", "--workers", "2", *ENDLESS)
    wait_for(run, r"version \d+ ")
    until(lambda: "push (" in (shell.folder / "runs/r/central.log").read_text())
    os.kill(shell.one("tansu"), signal.SIGKILL)
    began = time.monotonic()
    text = ended(run)
    assert time.monotonic() - began < 12
    assert run.returncode == 3
    told = error_in(text)
    assert "the embedded broker of this run has died, and its memory with it" in told
    assert "hermes broker start --kind apache" in told
    assert "is saved: " in told
    assert saved(shell)["status"] == "failed"
    assert shell.left_behind() == []
    shown("An embedded broker that dies", "hermes run", 3, told)


def test_a_bad_moment_for_ctrl_c(shell: Shell, shown: Shown) -> None:
    """The broker hangs: the first Ctrl-C writes the last version and says what the broker could not
    be told."""
    with Child("embedded") as broker:
        run = begin(shell, broker.address)
        stand(broker.pid)
        run.send_signal(signal.SIGINT)
        began, seen = time.monotonic(), list[str]()
        wait_for(run, "It could not be told that the run has stopped", seen)
        assert time.monotonic() - began < 20
        text = "".join(seen) + ended(run)
        assert time.monotonic() - began < 30, "its picture is drawn, too"
    assert run.returncode == 130, text
    assert "does not answer as a Kafka broker does" in text
    result = saved(shell)
    assert (result["status"], result["reason"]) == ("stopped", "interrupted")
    assert shell.left_behind() == []
    shown("Ctrl-C while the broker hangs", "hermes run, Ctrl-C", 130, text)


def test_a_bad_moment_for_two_ctrl_c(shell: Shell) -> None:
    """The second leaves within a second, with nothing left behind."""
    with Child("embedded") as broker:
        run = begin(shell, broker.address)
        stand(broker.pid)
        run.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two signals at once are one
        run.send_signal(signal.SIGINT)
        began = time.monotonic()
        text = ended(run)
        assert time.monotonic() - began < 1.5
    assert run.returncode == 130
    assert "Traceback" not in text
    until(lambda: shell.left_behind() == [], 5.0)


# --- it has no room (b) -------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.fail("needs the right to mount a small file system: run it as root, or leave it out")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_bad_broker_without_room(shell: Shell, tmp_path: Path, shown: Shown) -> None:
    """Its disk is full: exit 3, the message says so, and the last version is saved."""
    job = tmp_path / "big.py"
    wide = "nn.Linear(64, 4000), nn.ReLU(), nn.Linear(4000, 10)"
    text = Path(DIGITS).read_text()
    job.write_text(text.replace("nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)", wide))
    with small_disk(tmp_path / "disk", "48m") as disk:
        started = shell.json(
            "broker", "start", "--kind", "apache", "--port", "0", "--data", str(disk / "data")
        )
        try:
            command = ["run", str(job), "--broker", started["address"], "--patience", "3"]
            command += ["--run", "r", "--workers", "2", "--strategy", "bsp", *ENDLESS]
            done = shell(*command, "--set", "storage.max=off")
        finally:
            shell("broker", "stop", "--port", str(started["port"]))
    assert done.returncode == 3, done.stderr
    told = error_in(done.stderr)
    assert f"error: {started['address']}: the broker has not answered the run's master" in told
    assert "its disk is full, says its output" in told
    assert "Make room where its records lie" in told
    assert "broker.log" in told
    assert saved(shell)["reason"] == "broker-unreachable"
    shown("A broker that has no room left", "hermes run --broker B --patience 3", 3, told)


# --- it cannot be reached, or is none (c, h) ----------------------------------------------------


@pytest.mark.parametrize(
    ("command", "advertised"),
    [("master", "192.0.2.1:9092"), ("worker", "no-such-host.invalid:9092")],
)
def test_a_bad_advertised_address(
    shell: Shell, shown: Shown, command: str, advertised: str
) -> None:
    """The broker is there, and sends its clients where nobody answers: said in those words."""
    shell.environment["HERMES_INSECURE"] = "1"  # else it is not even tried, without TLS
    with Child("embedded", advertise=advertised) as broker:
        job = [DIGITS] if command == "master" else ["--name", "w"]
        done = shell(command, *job, "--broker", broker.address, "--run", "r")
    assert done.returncode == 3
    assert (
        f"the broker at {broker.address} says that it is to be reached at {advertised}, and "
        in (done.stderr)
    )
    assert "cannot be reached from here: " in done.stderr
    assert "--advertise HOST:PORT" in done.stderr
    shown(
        f"An advertised address that cannot be reached ({command})",
        f"hermes {command}",
        3,
        done.stderr,
    )


@contextmanager
def service(answer: bytes | None) -> Iterator[str]:
    """Something that listens, and answers every question with this (None: never)."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                connection.recv(1024)
                connection.sendall(answer)
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in held:
            connection.close()


STRANGE = {
    "silent": (None, "accepts the connection but does not answer as a Kafka broker does"),
    "web": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it is a web server"),
    "tls": (b"\x15\x03\x01\x00\x02\x02\x46", "it expects TLS, and we came without"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_bad_service_at_the_address(shell: Shell, shown: Shown, kind: str) -> None:
    """Whoever is there instead of a broker is named, within seconds; exit 3."""
    answer, words = STRANGE[kind]
    with service(answer) as address:
        done = shell("worker", "--broker", address, "--name", "w", "--patience", "2")
    assert done.returncode == 3
    assert f"error: {address}: " in done.stderr
    assert words in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("  "), "no remedy"
    shown(f"Not a broker: {kind}", "hermes worker --broker B", 3, done.stderr)


def test_a_bad_name_of_a_host(shell: Shell, shown: Shown) -> None:
    """A name that does not resolve."""
    done = shell("worker", "--broker", "no-such-host.invalid:9092", "--name", "w")
    assert done.returncode == 3
    assert "the name 'no-such-host.invalid' does not resolve" in done.stderr
    assert "Check the spelling of --broker" in done.stderr
    shown("A host name that does not resolve", "hermes worker --broker B", 3, done.stderr)


def test_a_bad_connection_for_some_seconds(shell: Shell, shown: Shown) -> None:
    """A broker that hangs for 5 s in the middle: the run goes on."""
    with Child("embedded") as broker:
        run = begin(shell, broker.address, "--set", "stop.seconds=8")
        stand(broker.pid)
        time.sleep(5.0)  # as long as the connection is cut
        os.kill(broker.pid, signal.SIGCONT)
        text = ended(run)
    assert run.returncode == 0, text
    assert saved(shell)["status"] == "finished"
    shown("A broker that hangs for 5 s", "hermes run", 0, text)


# --- what waits for it (g) ----------------------------------------------------------------------


def test_a_bad_time_to_move_a_reader() -> None:
    """A reader that is to go to another place while the broker is away waits, as long as it was
    told to: polled again and again, it once took a whole core for that."""
    with Child("embedded") as broker, KafkaLog(broker.address) as log:
        log.create(["hermes.x.ledger"])
        log.append("hermes.x.ledger", b"x").offset()
        reader = log.reader()
        reader.follow("hermes.x.ledger", 0)
        assert reader.poll(5.0)
        broker.kill()
        reader.follow("hermes.x.ledger", 7)
        before, began, polls = time.process_time(), time.monotonic(), 0
        while time.monotonic() - began < 2.0:
            assert reader.poll(0.5) == []
            polls += 1
        assert polls <= 5
        assert time.process_time() - before < 0.4
        log.abandon()
        with pytest.raises(BrokerUnreachable, match="given up"):
            reader.poll(60.0)


@pytest.mark.parametrize("wait", ["reader", "topics", "ends", "append", "acknowledgement"])
def test_a_bad_broker_given_up_is_waited_for_no_longer(wait: str) -> None:
    """Whoever waits for a broker that hangs, in whatever call, gets the error within a second."""
    with Child("embedded") as broker, KafkaLog(broker.address) as log:
        log.create(["hermes.x.ledger", "hermes.x.logs"])
        receipt = log.append("hermes.x.ledger", b"x")
        assert receipt.offset() == 0
        stand(broker.pid)
        late = log.append("hermes.x.ledger", b"y")
        calls: dict[str, Callable[[], Any]] = {
            "reader": log.reader,
            "topics": log.topics,
            "ends": lambda: log.ends(["hermes.x.ledger"]),
            "append": lambda: log.append("hermes.x.other", b"z"),
            "acknowledgement": lambda: late.offset(600.0),
        }
        caught: list[BaseException] = []

        def call() -> None:
            try:
                calls[wait]()
            except BrokerUnreachable as error:
                caught.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        log.abandon()
        thread.join(1.5)
        assert not thread.is_alive()
        assert len(caught) == 1
        broker.kill()
