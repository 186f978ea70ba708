"""What a run behind locked doors is worth: it finishes and leaves no secret, and who has stolen
something gets no further than that opens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import DIGITS, ENDLESS, Shell, Shown, wait_for
from fortress import SOON, Fortress, raised, refused, told
from msgspec.structs import replace

from hermes.codec import encode, proof_of
from hermes.messages import Hello
from hermes.runtime.software import software
from hermes.transport import names
from hermes.transport.kafka import KafkaLog
from hermes.transport.log import Record

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    yield from raised(tmp_path_factory.mktemp("fortress"))


def invited(fortress: Fortress, folder: Path, name: str) -> tuple[Shell, list[str]]:
    """A machine of its own for a worker, and the line to type there."""
    key = folder / f"{name}.key"
    told = fortress.shell.json("invite", name, "--broker", fortress.address, "--to", str(key))
    line = str(told["join"]).split()
    assert line[:3] == ["hermes", "worker", "--join"]
    assert key.stat().st_mode & 0o777 == 0o600
    machine = Shell(folder / name)
    machine.folder.mkdir()
    return machine, [*line[1:-1], str(key)]


def secrets_of(fortress: Fortress) -> dict[str, str]:
    """Everything that nobody else may see, by what it is."""
    found = {file.stem: file.read_text().strip() for file in (fortress.secrets / "users").iterdir()}
    key = (fortress.shell.folder / "config" / "cluster.key").read_text().strip()
    authority = (fortress.secrets / "ca.key").read_text().splitlines()[1]
    return {**found, "cluster key": key, "authority's key": authority}


def raw(secrets: dict[str, str]) -> dict[str, bytes]:
    """As bytes; the cluster key as those that it stands for, too."""
    found = {name: text.encode() for name, text in secrets.items()}
    return {**found, "cluster key, raw": bytes.fromhex(secrets["cluster key"])}


def in_processes(wanted: dict[str, bytes]) -> list[str]:
    """Which of these stand in a process's command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for place in ("cmdline", "environ"):
            try:
                content = (process / place).read_bytes()
            except OSError:
                continue
            found += [f"{name} in {process / place}" for name in wanted if wanted[name] in content]
    return found


def test_a_secret_that_a_process_shows_is_found() -> None:
    """So that finding none means something."""
    wait = "import sys; print('here', flush=True); sys.stdin.read()"
    for words, more in ((["hidden"], {}), ([], {"WORD": "hidden"})):
        program, around = [sys.executable, "-c", wait, *words], {**os.environ, **more}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(program, **pipes, env=around) as it:
            # Popen comes back when the old image is gone; /proc shows the new one's words later.
            assert it.stdout is not None
            assert it.stdout.readline() == b"here\n"
            assert str(it.pid) in "".join(in_processes({"it": b"hidden"}))
            it.communicate()


@contextmanager
def watched(wanted: dict[str, bytes]) -> Iterator[list[str]]:
    """What the processes of this time show, looked at again and again."""
    found: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            found.extend(in_processes(wanted))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def in_files(wanted: dict[str, bytes], folder: Path, but: tuple[Path, ...]) -> list[str]:
    """Which of these lie in files below a folder, but for those that are meant to hold them."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file() and not any(place == file or place in file.parents for place in but):
            content = file.read_bytes()
            found += [f"{name} in {file}" for name in wanted if wanted[name] in content]
    return found


def send_again(fortress: Fortress, run: str) -> None:
    """As one of its workers: the first hello of the run."""
    topic = names.physical(run, names.LOBBY)
    with KafkaLog(fortress.address, access=fortress.master) as log:
        reader = log.reader()
        reader.follow(topic, 0)
        hello = reader.poll(10)[0]
        reader.close()
    with KafkaLog(fortress.address, access=fortress.user("w2")) as thief:
        thief.append(topic, hello.value).offset()


def test_a_whole_run_behind_locked_doors(fortress: Fortress, tmp_path: Path) -> None:
    """It is stopped and verified; nothing that it leaves, and no process while it goes on, holds a
    password or the cluster key. A hello of it that is sent again admits nobody."""
    shell, run = fortress.shell, "safe"
    at = ("--broker", fortress.address)
    master = shell.start("master", DIGITS, *at, "--run", run, "--expect", "2", *ENDLESS, "--json")
    wait_for(master, r"--join (\S+)")
    machines = [invited(fortress, tmp_path, name) for name in ("w1", "w2")]
    wanted = raw(secrets_of(fortress))
    with watched(wanted) as shown_by_processes:
        workers = [machine.start(*line, "--run", run) for machine, line in machines]
        seen: list[str] = []
        wait_for(master, r"w2", seen)
        send_again(fortress, run)
        wait_for(master, "sent again: that is ignored", seen)
        shell("stop", run, *at)
        out, said = master.communicate(timeout=150)
    assert shown_by_processes == []
    assert master.returncode == 0, said
    for worker in workers:
        worker.terminate()
        _, told_ = worker.communicate(timeout=30)
        assert not any(text in told_ for text in secrets_of(fortress).values())
    assert not any(text in out + said + "".join(seen) for text in secrets_of(fortress).values())
    done = shell("verify", run, "--key-file", "config/cluster.key")
    assert done.returncode == 0, done.stdout + done.stderr
    state = shell.json("status", run)
    assert state["broker"] == fortress.address
    assert state["refused"] == [], "nothing that a run does by itself is refused"
    assert state["quarantined"]["by_reason"] == {"repeated-hello": 1}
    with KafkaLog(fortress.address, access=fortress.user("w1")) as log:
        refused(lambda: log.append(names.physical(run, names.LEDGER), b"x").offset())
    told(fortress, "w1", f"write {names.physical(run, names.LEDGER)}", "no right to it")
    shown_ = " ".join(shell("status", run).stdout.split())
    assert f"refused: w1 at 127.0.0.1: write hermes.{run}.ledger: no right to it (once," in shown_
    assert re.search(r"w1 is admitted", (shell.folder / f"runs/{run}/central.log").read_text())
    central = (shell.folder / f"runs/{run}/central.log").read_text()
    assert central.count("w1 is admitted") + central.count("w2 is admitted") == 2
    meant = (fortress.secrets, shell.folder / "config")
    found = in_files(wanted, shell.folder, meant)
    keys = tuple(tmp_path / f"{name}.key" for name in ("w1", "w2"))
    found += in_files(wanted, tmp_path, keys)
    assert found == []
    assert in_files(wanted, fortress.secrets, ()), "the search finds them where they are"


def test_a_job_that_was_altered(fortress: Fortress, shown: Shown, tmp_path: Path) -> None:
    """Whoever has stolen the master's access file can put other bytes where the job lies: no worker
    runs them."""
    run, at = "altered", ("--broker", fortress.address)
    master = fortress.shell.start("master", DIGITS, *at, "--run", run, "--expect", "1")
    wait_for(master, r"--join (\S+)")
    topic = names.physical(run, names.DATA)
    with KafkaLog(fortress.address, access=fortress.master) as log:
        reader = log.reader()
        reader.follow(topic, 0)
        end, records = log.ends([topic])[topic], list[Record]()
        while len(records) < end:
            records += reader.poll(1)
        reader.close()
        log.delete([topic])
        log.create([topic])
        for record in records:
            value = record.value
            if record.offset == 0:
                value = value.replace(b"import", b"IMPORT", 1)
                assert value != record.value, "the job is what comes first"
            log.append(topic, value, record.headers).offset()
    machine, line = invited(fortress, tmp_path, "w1")
    done = machine(*line, "--run", run)
    assert done.returncode == 2, done.stderr
    assert "its bytes are not the job that was signed" in done.stderr
    shown("A job that was altered at the broker", "hermes worker", 2, done.stderr)
    master.terminate()
    master.communicate(timeout=40)


def test_a_job_of_somebody_who_has_no_cluster_key(
    fortress: Fortress, shown: Shown, tmp_path: Path
) -> None:
    """Whoever has stolen the master's access file can begin a run: no worker runs its job, and no
    hello is taken by it."""
    thief = Shell(tmp_path / "thief")
    thief.folder.mkdir()
    thief.environment["HERMES_ACCESS"] = str(fortress.secrets / "access.json")
    run, at = "forged", ("--broker", fortress.address)
    master = thief.start("master", DIGITS, *at, "--run", run, "--expect", "1")
    wait_for(master, r"--join (\S+)")
    machine, line = invited(fortress, tmp_path, "w1")
    worker = machine.start(*line, "--run", run)
    wait_for(worker, "waiting for run")
    began = time.monotonic()
    _, said = worker.communicate(timeout=30)
    assert time.monotonic() - began < SOON
    assert worker.returncode == 2, said
    assert "this worker has another cluster key than the run's master" in said
    key = bytes.fromhex((fortress.shell.folder / "config/cluster.key").read_text())
    bare = Hello(run, "w1", "inc", "nonce", software(""))
    with KafkaLog(fortress.address, access=fortress.user("w1")) as log:
        signed = encode(replace(bare, proof=proof_of(key, bare)))
        log.append(names.physical(run, names.LOBBY), signed).offset()
    end = time.monotonic() + SOON
    while not thief.json("status", run)["quarantined"]["count"]:
        assert time.monotonic() < end
    thief.close()
    shown("A job that is not signed with our key", "hermes worker", 2, said)


def test_a_run_goes_on_without_a_worker_that_is_revoked(
    fortress: Fortress, shown: Shown, tmp_path: Path
) -> None:
    """The worker ends within seconds and says why; the run's status tells of both."""
    shell, run, at = fortress.shell, "revoking", ("--broker", fortress.address)
    master = shell.start("master", DIGITS, *at, "--run", run, "--expect", "2", *ENDLESS)
    wait_for(master, r"--join (\S+)")
    machines = [invited(fortress, tmp_path, name) for name in ("w1", "w2")]
    workers = [machine.start(*line, "--run", run) for machine, line in machines]
    central = shell.folder / f"runs/{run}/central.log"

    def until(holds: Callable[[], object], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, central.read_text()[-2000:]
            time.sleep(0.2)

    until(lambda: central.exists() and central.read_text().count("push (") > 3, 60)
    done = shell("revoke", "w2", *at)
    assert done.returncode == 0, done.stderr
    began = time.monotonic()
    _, said = workers[1].communicate(timeout=30)
    assert time.monotonic() - began < 2 * SOON
    assert workers[1].returncode == 3, said
    assert "the broker does not let us" in said
    shown("A worker of a run is revoked", "hermes worker", 3, said)
    assert shell.json("status", run)["workers"]["w2"]["health"] == "revoked"
    until(lambda: "w2" in central.read_text().rpartition("is lost")[0][-200:], 40)
    before = shell.json("status", run)
    assert before["workers"]["w2"]["status"] != "alive"
    assert {one["why"] for one in before["refused"] if one["user"] == "w2"} == {"revoked"}
    until(lambda: shell.json("status", run)["version"] > before["version"], 20)
    assert workers[0].poll() is None
    for process in (workers[0], master):
        process.terminate()
        process.communicate(timeout=40)
