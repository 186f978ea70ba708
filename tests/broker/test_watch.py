"""Does somebody who watches a run from the log alone see it go, and leave it alone?"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from uuid import uuid4

import pytest
from commands import DIGITS, ENDLESS, Shell, wait_for

from hermes.broker.control import Child

pytestmark = pytest.mark.broker


def until_line(process: subprocess.Popen[str], holds: Callable[[str], object]) -> str:
    """The first line of its stdout that is as wanted (pytest's time-out bounds it)."""
    assert process.stdout is not None
    for line in iter(process.stdout.readline, ""):
        if holds(line):
            return line
    raise AssertionError(process.communicate())


def test_watching_a_run_to_its_end(shell: Shell, embedded: Child) -> None:
    run = f"watched-{uuid4().hex[:8]}"
    at = ("--broker", embedded.address)
    running = shell.start(
        *("run", DIGITS, *at, "--run", run, "--workers", "2", "--strategy", "bsp", *ENDLESS)
    )
    wait_for(running, r"Master has been successfully initialized!")
    progress = re.compile(r"\d s  version [1-9]\d*  [\d ]+ samples  loss [\d.]+")

    leaves = shell.start("status", "--watch", run, *at, "--every", "0.25")
    until_line(leaves, progress.search)
    leaves.send_signal(signal.SIGINT)
    assert "running, 2 workers" in leaves.communicate()[0]
    assert leaves.returncode == 0
    assert running.poll() is None, "the run goes on"

    here = shell.start("status", "--watch", run)
    there = shell.start("status", "--watch", run, *at, "--json", "--every", "0.25")
    until_line(here, progress.search)
    versions: list[int] = []
    until_line(there, lambda line: versions.append(json.loads(line)["version"]) or versions[4:])
    assert versions == sorted(versions)
    assert versions[0] < versions[-1]
    assert shell("stop", run).returncode == 0

    shown, said = here.communicate()
    assert (here.returncode, said) == (0, "")
    assert "stopped: requested" in shown
    assert re.search(r"worker-2 +(left|leaving)", shown)
    told = json.loads(there.communicate()[0].splitlines()[-1])
    assert (there.returncode, told["status"]) == (0, "stopped")
    assert told["accuracy"]["test"] is not None
    assert all(worker["bytes"]["sent"] > 1000 for worker in told["workers"].values())
    assert told["storage"]["used"] > 100_000
    running.communicate()
    assert running.returncode == 0


def test_watching_before_the_workers_come(shell: Shell, embedded: Child) -> None:
    run = f"early-{uuid4().hex[:8]}"
    at = ("--broker", embedded.address)
    master = shell.start("master", DIGITS, *at, "--run", run, "--expect", "2", *ENDLESS)
    wait_for(master, r"waiting for 2 workers\. On each:")
    watching = shell.start("status", "--watch", run, *at, "--json", "--every", "0.25")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert (first["training"], first["expect"]) == (False, 2)
    shell.start("worker", *at, "--run", run, "--name", "worker-1")
    while not (found := json.loads(watching.stdout.readline()))["workers"]:
        pass
    assert found["workers"]["worker-1"]["doing"] == "ready"
    assert "waiting for workers: 1 of 2" in shell("status", run, *at).stdout
    master.send_signal(signal.SIGINT)
    last = json.loads(watching.communicate()[0].splitlines()[-1])
    assert (watching.returncode, last["status"]) == (0, "stopped")
    assert last["stop"]["code"] == "interrupted"
