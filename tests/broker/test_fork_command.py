"""`hermes fork`, as it is typed: from a run that is under way, and one that has ended."""

from __future__ import annotations

import signal
from uuid import uuid4

import pytest
from commands import DIGITS, ENDLESS, Shell, Shown, wait_for

from hermes.broker.control import Child

pytestmark = pytest.mark.broker


def test_a_fork_of_a_run_under_way(shell: Shell, embedded: Child, shown: Shown) -> None:
    """The parent goes on meanwhile; the child has versions, workers and topics of its own, all of
    it holds, and neither goes before the other."""
    run = f"tree-{uuid4().hex[:8]}"
    at, strategy = ("--broker", embedded.address), ("--strategy", "fedavgm")
    keeps = ("--set", "retention.keep=all")  # the best, however many versions have come since
    rules = (*strategy, *keeps, *ENDLESS)
    parent = shell.start("run", DIGITS, "--run", run, "--workers", "1", *at, *rules)
    wait_for(parent, r"version 1?\d+ ")
    # It ends at a version that is no better than one of its own before it: not without its own.
    more = ("--set", "stop.patience=1", "--set", "merge.momentum=0.5")
    child = shell.json("fork", run, "--at", "last", "--workers", "1", *more)
    forked = child["forked"]
    assert (child["run"], forked["parent"], child["status"]) == (f"{run}-f1", run, "finished")
    assert child["version"] > forked["version"]
    assert child["samples"] == forked["samples"] + child["workers"]["worker-1"]["samples"]
    assert parent.poll() is None, "the parent goes on"
    assert shell("verify", f"{run}-f1", *at).returncode == 0

    shell.start("fork", run, "--at", "best", "--run", f"{run}-b", "--strategy", "bsp", *ENDLESS)
    parent.send_signal(signal.SIGINT)
    parent.communicate()
    assert parent.returncode == 130
    waiting = shell.started[-1]
    token = wait_for(waiting, r"hermes worker --join (\S+)")[1]
    wait_for(waiting, "Master has been successfully initialized!")
    worker = shell.start("worker", "--join", token, "--name", "other")
    wait_for(waiting, r"version [1-9]")
    assert f"forked from {run} v" in shell("status", f"{run}-b").stdout
    rows = {row["run"]: row for row in shell.json("runs", *at)["runs"]}
    assert rows[run]["forked"] is None
    assert rows[f"{run}-f1"]["forked"] == forked
    assert f"{run} v{forked['version']}" in shell("runs").stdout
    assert shell.json("stop", f"{run}-b")["status"] == "stopped"
    waiting.communicate()
    worker.communicate()

    refused = shell("clean", run, "--yes")
    shown("A run with forks is not cleaned", f"hermes clean {run}", 2, refused.stderr)
    assert refused.returncode == 2
    order = f"hermes clean {run}-b, hermes clean {run}-f1, hermes clean {run}"
    assert order in refused.stderr
    for name in (f"{run}-b", f"{run}-f1", run):
        assert shell("clean", name, "--yes").returncode == 0
    assert shell.left_behind() == []
