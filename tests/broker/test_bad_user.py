"""Full disks, taken ports and names, machines that slept: with processes as they are."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import safetensors.numpy
from commands import Shell, Shown, wait_for
from mounts import on_disk
from standing import stand

from hermes.broker.control import Child

pytestmark = pytest.mark.broker

JOB = """\
import hermes
from hermes import nn
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, {width}), nn.ReLU(),
                                nn.Linear({width}, 10)),
    data=hermes.data.digits, optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(), stop=hermes.Stop(seconds={seconds}))
"""


# --- full disks ---------------------------------------------------------------------------------


def test_a_bad_full_disk_of_results_ends_the_run_and_saves_the_model(
    shown: Shown, tmp_path: Path
) -> None:
    """--out is full in the middle: the log cannot be written, the run ends, its model is kept."""
    (tmp_path / "job.py").write_text(JOB.format(width=64, seconds=30))
    disk = tmp_path / "disk"
    typed = "run job.py --workers 1 --strategy bsp --run full --out disk"
    done = on_disk(disk, "size=64k", f"$HERMES {typed} --quiet", tmp_path)
    shown("the disk of --out is full", f"hermes {typed}", done.returncode, done.stderr)
    assert done.returncode == 4
    assert done.stderr.count("error: ") == 1
    assert re.search(r"^error: \S*/disk/runs/full/", done.stderr)
    assert "No space left on device" in done.stderr
    assert "Make room there, or choose another place" in done.stderr
    match = re.search(r"Version (\d+), the last one that it holds, is saved: (\S+)", done.stderr)
    assert match
    assert int(match[1]) > 0
    assert safetensors.numpy.load(Path(match[2]).read_bytes())


def test_a_bad_full_disk_of_blocks_ends_the_run(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB.format(width=8, seconds=30))
    disk = tmp_path / "disk"
    typed = "run job.py --workers 2 --strategy bsp --run full"
    variables = {"HERMES_CACHE": str(disk)}
    done = on_disk(disk, "size=40k", f"$HERMES {typed} --quiet", tmp_path, **variables)
    shown("the disk of HERMES_CACHE is full", f"hermes {typed}", done.returncode, done.stderr)
    assert done.returncode == 4
    assert done.stderr.count("error: ") == 1
    assert "the cache of blocks cannot be used: No space left on device" in done.stderr


def test_a_bad_full_disk_of_a_worker_loses_nothing_that_it_trained(
    shown: Shown, tmp_path: Path, embedded: Child
) -> None:
    """Its outbox cannot be written: the update goes out all the same, then it says why, and bye."""
    run = f"state-{uuid4().hex[:8]}"
    (tmp_path / "job.py").write_text(JOB.format(width=8, seconds=20))
    at = f"--broker {embedded.address} --run {run}"
    master = f"$HERMES master job.py {at} --strategy bsp --json > result.json 2> said &"
    worker = f"$HERMES worker {at} --name small --state disk"
    fill = "while ! grep -q ' version [1-9]' said; do sleep 0.1; done; cp /dev/zero disk/x"
    done = on_disk(
        tmp_path / "disk",
        "size=64k",
        f"{master} ({fill}) 2> /dev/null & {worker}; code=$?; wait; exit $code",
        tmp_path,
    )
    assert done.returncode == 4, done.stderr
    end = done.stderr[done.stderr.rindex("small: leaves") :]
    shown("the disk of a worker's state is full", f"hermes worker {at}", 4, end)
    assert "small: disk/workers/" in done.stderr
    assert "the worker's outbox cannot be used: No space left on device" in done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    said = (tmp_path / "said").read_text()
    shown("the same at the master", f"hermes master job.py {at}", 4, said[-900:])
    assert result["reason"] == "no-worker-can-train", said
    updates = result["updates"]
    assert updates["pushed"] == result["workers"]["small"]["rounds"] > 0
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]


# --- ports --------------------------------------------------------------------------------------


class Page(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("kind", ["embedded", "apache"])
def test_a_bad_port_is_taken(kind: str, shown: Shown, shell: Shell, embedded: Child) -> None:
    """By a broker of Hermes, or by a foreign program; said in less time than a broker takes."""
    broker = f"{Path(f'/proc/{embedded.pid}/comm').read_text().strip()} (process {embedded.pid})"
    mine = Path("/proc/self/comm").read_text().strip()
    foreign = f"a program that is no Kafka broker: {mine} (process {os.getpid()})"
    cases = [("another broker", embedded.port, f"an embedded broker: {broker}")]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cases.append(("a web server", server.server_address[1], foreign))
        for title, port, who in cases:
            typed = ("broker", "start", "--kind", kind, "--port", str(port), "--quiet")
            done = shell(*typed)
            shown(f"{kind}: the port is {title}'s", f"hermes {' '.join(typed)}", 2, done.stderr)
            assert done.returncode == 2
            assert f"port {port} is taken by {who}" in done.stderr
            assert "--port 0 for any that is free" in done.stderr
            assert done.stderr.count("error: ") == 1
        server.shutdown()


# --- names --------------------------------------------------------------------------------------


def test_a_bad_name_that_is_taken_here_is_refused_at_once(
    shown: Shown, shell: Shell, embedded: Child
) -> None:
    """Before there is a run; whoever has it is named. Another run's worker may have the name."""
    at = ("worker", "--broker", embedded.address, "--name", "twin", "--run", "not-yet")
    first = shell.start(*at)
    wait_for(first, "waiting for run not-yet", [])
    locks = list((shell.folder / "state" / "names").glob("*.lock"))
    assert len(locks) == 1
    second = shell(*at)
    shown("two workers of one name", f"hermes {' '.join(at)}", second.returncode, second.stderr)
    assert second.returncode == 2
    assert second.stderr.startswith(
        f"error: --name: another worker named 'twin' is on this machine already (process "
        f"{first.pid}), for the run 'not-yet' at {embedded.address}\n"
    )
    other = shell.start(*at[:-1], "another")
    wait_for(other, "waiting for run another", [])
    first.kill()
    first.wait()
    with locks[0].open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process


# --- sleep --------------------------------------------------------------------------------------

FAST = ("--set", "workers.heartbeat=0.2", "--set", "workers.lost=3")
NAP = 8.0
"""Seconds: longer than a worker may be silent, and than a master is only busy."""


@contextlib.contextmanager
def asleep(pid: int, seconds: float) -> Iterator[None]:
    """The process stands still for so long, as a laptop that is closed."""
    try:
        stand(pid)
        time.sleep(seconds)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_bad_sleep_of_a_worker_and_then_of_the_master(shown: Shown, shell: Shell) -> None:
    """The worker is lost and comes back, its update judged; the master blames nobody for its own
    sleep."""
    (shell.folder / "job.py").write_text(JOB.format(width=8, seconds=60))
    typed = ("run", "job.py", "--workers", "2", *FAST, "--run", "nap", "--json")
    process, seen = shell.start(*typed), []
    wait_for(process, "worker-2 is admitted", seen)
    note = json.loads((shell.folder / "runs" / "nap" / "run.json").read_text())
    with asleep(note["workers"]["worker-2"], NAP):
        assert "worker-2 is lost: silent for" in wait_for(process, "worker-2 is lost", seen).string
    wait_for(process, "worker-2 is back", seen)
    mark = len(seen)
    with asleep(process.pid, NAP):
        pass
    assert (
        "every deadline starts anew"
        in wait_for(process, "stood still, or was busy, for", seen).string
    )
    wait_for(process, r"version \d+", seen)
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=30)
    after = "".join([*seen[mark:], rest])
    assert "is lost" not in after, after
    lines = [line for line in seen if re.search("lost|back|stood still", line)]
    shown("a worker slept, then the master", f"hermes {' '.join(typed)}", 130, "".join(lines))
    result = json.loads(out)
    worker = result["workers"]["worker-2"]
    pending = worker["undecided"]
    assert worker["pushes"] == worker["applied"] + worker["rejected"] + pending
    assert {w["status"] for w in result["workers"].values()} == {"left"}
