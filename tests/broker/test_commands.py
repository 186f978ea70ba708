"""Do the commands train, end to end, as processes of their own, and leave nothing behind?"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
import safetensors.numpy
from commands import DIGITS, ENDLESS, Shell, wait_for

from hermes.broker.control import Child

pytestmark = pytest.mark.broker


def test_run_on_the_embedded_broker(shell: Shell) -> None:
    result = shell.json("run", DIGITS, "--workers", "2", "--set", "stop.samples=20000")
    assert (result["status"], result["reason"]) == ("finished", "samples")
    assert result["samples"] >= 20_000
    assert result["samples"] == sum(w["samples"] for w in result["workers"].values())
    assert sorted(result["workers"]) == ["worker-1", "worker-2"]
    updates = result["updates"]
    decided = updates["applied"] + updates["rejected"] + updates["undecided"]
    assert updates["pushed"] == decided
    assert result["accuracy"]["test"] > 0.5
    assert result["bytes"]["data"]["received"] > 100_000
    assert set(result["bytes"]) == {"data", "model", "update", "control", "logs"}

    paths = result["paths"]
    for name in ("folder", "log", "central_log", "result", "model", "best", "picture", "report"):
        assert Path(paths[name]).is_absolute()
        assert Path(paths[name]).exists()
    model = Path(paths["model"]).read_bytes()
    assert hashlib.sha256(model).hexdigest() == result["digest"]
    assert safetensors.numpy.load(model)
    assert json.loads(Path(paths["result"]).read_text()) == result
    assert (shell.folder / "runs" / "latest").resolve() == Path(paths["folder"])
    assert shell.left_behind() == []

    status = shell.json("status")
    assert (status["source"], status["status"]) == ("saved", "finished")
    assert status["samples"] == result["samples"]
    assert "Master has been successfully initialized!" in shell("logs").stdout


def test_the_demo(shell: Shell) -> None:
    done = shell("demo")
    assert done.returncode == 0, done.stderr
    assert re.search(r"worker-4 +[\d ]+", done.stdout)
    test = re.search(r"test +accuracy ([\d.]+)", done.stdout)
    assert test
    assert float(test[1]) >= 0.93
    assert (shell.folder / "runs" / "latest" / "curves.png").exists()
    assert shell.left_behind() == []


def test_the_pieces(shell: Shell, embedded: Child) -> None:
    run = f"pieces-{uuid4().hex[:8]}"
    at = ("--broker", embedded.address)
    master = shell.start("master", DIGITS, *at, "--run", run, "--expect", "2", "--json", *ENDLESS)
    token = wait_for(master, r"hermes worker --join (\S+)")[1]
    wait_for(master, r"Master has been successfully initialized!")
    assert "waiting for workers: 0 of 2" in shell("status", run).stdout

    join = ("worker", "--join", token, "--name")
    workers = [shell.start(*join, name, "--json") for name in ("left", "right")]
    wait_for(master, r"version [1-9]")
    live = shell.json("status", run)
    assert (live["source"], live["training"], live["master_alive"]) == ("live", True, True)
    assert sorted(live["workers"]) == ["left", "right"]
    assert shell.json("status", run, *at)["broker"] == embedded.address
    rows = {row["run"]: row for row in shell.json("runs", *at)["runs"]}
    assert rows[run]["status"] == "running"
    twice = shell("master", DIGITS, *at, "--run", run, "--out", "elsewhere")
    assert twice.returncode == 2
    assert "its master lives" in twice.stderr
    unknown = shell("status", "unknown", *at)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "there is no run 'unknown'" in unknown.stderr

    follower = shell.start("logs", run, "-f", *at, "--json")
    of_the_file = shell.start("logs", "-f")
    stopped = shell.json("stop")
    assert (stopped["run"], stopped["status"], stopped["already"]) == (run, "stopped", False)
    out, _ = master.communicate()
    result = json.loads(out)
    assert master.returncode == 0
    assert (result["status"], result["reason"]) == ("stopped", "requested")
    for worker in workers:
        said, _ = worker.communicate()
        assert (worker.returncode, json.loads(said)["code"]) == (0, "done")
    lines = [json.loads(line) for line in follower.communicate()[0].splitlines()]
    assert {line["source"] for line in lines} == {"master", "left", "right"}
    assert "The run has stopped: requested" in of_the_file.communicate()[0]
    assert shell.json("stop", run)["already"]


def test_ctrl_c_stops_a_run_and_writes_its_results(shell: Shell) -> None:
    process = shell.start("run", DIGITS, "--workers", "1", "--json", *ENDLESS)
    wait_for(process, r"version [1-9]")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    result = json.loads(out)
    assert (result["status"], result["reason"]) == ("stopped", "interrupted")
    assert Path(result["paths"]["model"]).exists()
    assert shell.left_behind() == []


def test_a_worker_says_bye(shell: Shell, embedded: Child) -> None:
    run = f"bye-{uuid4().hex[:8]}"
    at = ("--broker", embedded.address, "--run", run)
    master = shell.start("master", DIGITS, *at, *ENDLESS)
    worker = shell.start("worker", *at, "--name", "one", "--speed", "0.5")
    wait_for(worker, r"one: admitted")
    worker.send_signal(signal.SIGTERM)
    worker.communicate()
    assert worker.returncode == 130
    wait_for(master, r"one says bye")
    master.send_signal(signal.SIGINT)
    master.communicate()
    assert master.returncode == 130


def test_model_and_data_that_do_not_fit_leave_no_run(shell: Shell) -> None:
    job = Path(DIGITS).read_text().replace("Linear(64, 128)", "Linear(60, 128)")
    (shell.folder / "misfit.py").write_text(job)
    done = shell("run", "misfit.py", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"misfit.py:\d+: Linear\(60, 128\) takes inputs of shape", done.stderr)
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert not (shell.folder / "runs").exists()
    assert shell.left_behind() == []


def test_broker_start_status_stop(shell: Shell) -> None:
    started = shell.json("broker", "start", "--port", "0")
    assert shell.json("broker", "status") == {"brokers": [{**started, "refused": []}]}
    assert shell.json("runs", "--broker", started["address"]) == {"runs": []}
    empty = shell("status", "--broker", started["address"])
    assert (empty.returncode, "there is no run here" in empty.stderr) == (2, True)
    assert shell.json("broker", "stop") == started
    assert shell.json("broker", "status") == {"brokers": []}
    assert shell.left_behind() == []


def test_a_broker_of_its_own_that_dies_ends_the_run(shell: Shell) -> None:
    process = shell.start("run", DIGITS, "--workers", "2", *ENDLESS)
    wait_for(process, "worker-2 is admitted")
    os.kill(shell.one("tansu"), signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "the embedded broker of this run has died" in errors
    assert "Traceback" not in errors
    assert shell.left_behind() == []


def test_a_killed_worker_is_said_and_lost_and_the_others_go_on(shell: Shell) -> None:
    fast = ("--set", "workers.heartbeat=0.2", "--set", "workers.lost=3")
    process = shell.start("run", DIGITS, "--workers", "2", *ENDLESS, *fast, "--json")
    wait_for(process, r"version \d+ ")  # both are admitted: before, its death would be the run's
    os.kill(shell.one("--name worker-2"), signal.SIGKILL)
    wait_for(process, "the process of worker-2 has ended with code -9")
    wait_for(process, "worker-2 is lost: silent for")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    result = json.loads(out)
    assert (result["status"], result["reason"]) == ("stopped", "interrupted")
    assert result["workers"]["worker-2"]["status"] == "lost"
    assert result["workers"]["worker-1"]["status"] == "left"
    assert shell.left_behind() == []


def test_a_killed_master_takes_its_children_with_it(shell: Shell) -> None:
    process = shell.start("run", DIGITS, "--workers", "2", *ENDLESS)
    wait_for(process, "worker-2 is admitted")
    process.kill()
    process.communicate()
    over = Event()
    gone = any(not shell.left_behind() or over.wait(0.1) for _ in range(100))
    assert gone, shell.left_behind()


def test_a_run_that_no_worker_is_left_of_fails(shell: Shell) -> None:
    process = shell.start("run", DIGITS, "--workers", "1", *ENDLESS, "--json")
    wait_for(process, "worker-1 is admitted")
    os.kill(shell.one("--name worker-1"), signal.SIGKILL)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 4
    assert json.loads(out)["reason"] == "no-worker-left"


def test_what_a_job_prints_is_no_result(shell: Shell) -> None:
    """With --json there is one object on stdout, whatever the job itself has to say."""
    text = Path(DIGITS).read_text()
    said = 'print("read")\n\n\ndef model():\n    print("built")\n'
    talking = text.replace("def model():\n", said)
    assert talking != text
    (shell.folder / "talks.py").write_text(talking)
    result = shell.json("run", "talks.py", "--workers", "1", "--set", "stop.samples=4000")
    assert result["status"] == "finished"
