"""Does a cluster come up from nothing, stay as it is, grow, shrink, and leave nothing behind?"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from commands import DIGITS, ENDLESS, Shell, wait_for
from nodes import SECRETS, Folder, by_name, mode, tree
from sshd import Sshd

from hermes.broker.control import Child

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def broker() -> Iterator[Child]:
    with Child("embedded") as child:
        yield child


@pytest.fixture
def cluster(shell: Shell, broker: Child) -> Folder:
    return Folder(shell, broker.address)


def until(true: Callable[[], object], log: Path | None = None, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, log.read_text() if log else "it has not come to be"
        time.sleep(0.1)


def test_from_nothing_to_a_run_and_back_to_nothing(
    cluster: Folder, machines: Callable[[], Sshd]
) -> None:
    for name in ("n1", "n2"):
        cluster.add(name, machines())
    before = {name: tree(machine.home) for name, machine in cluster.machines.items()}
    here = tree(cluster.path)

    plan = by_name(cluster.json("up", "--dry-run"))
    assert {node["state"] for node in plan.values()} == {"planned"}
    assert any("start the worker n1" in text for text in plan["n1"]["did"])
    assert any("venv" in command for command in plan["n1"]["commands"])
    assert before == {name: tree(machine.home) for name, machine in cluster.machines.items()}
    assert tree(cluster.path).keys() == here.keys(), "nothing is made here either"

    report = cluster.json("up")
    assert [node["state"] for node in report["nodes"]] == ["up", "up"]
    for name in ("n1", "n2"):
        assert cluster.worker(name)
        for secret in SECRETS:
            assert mode(cluster.home(name) / secret) == 0o600
        assert mode(cluster.home(name)) == 0o700
        assert mode(cluster.home(name) / "worker.log") == 0o600
    assert mode(cluster.path / "secrets") == 0o700
    key = (cluster.path / "secrets" / "cluster.key").read_text().strip()
    assert key not in "".join(cluster.machines["n1"].processes().values())

    workers = [cluster.worker(name) for name in ("n1", "n2")]
    there = tree(cluster.home("n1") / "venv")
    again = cluster.json("up")
    assert [(node["state"], node["did"]) for node in again["nodes"]] == [("unchanged", [])] * 2
    assert [cluster.worker(name) for name in ("n1", "n2")] == workers
    assert tree(cluster.home("n1") / "venv").keys() == there.keys()

    cluster.settings = {"strategy": "fedavg", "stop": {"samples": 40_000}}
    cluster.write()
    done = cluster.shell("run", DIGITS, "--cluster", str(cluster.path), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["strategy"], result["status"], result["reason"]) == (
        "fedavg",
        "finished",
        "samples",
    )
    assert set(result["workers"]) == {"n1", "n2"}
    assert Path(result["paths"]["folder"]).parent == cluster.path / "runs"

    down = cluster.json("down")
    assert [node["state"] for node in down["nodes"]] == ["down", "down"]
    for name, machine in cluster.machines.items():
        assert machine.left() == {}
        found = tree(cluster.home(name)).keys()
        assert "venv" in found
        assert not [path for path in found if re.search(r"\.key|access|password|pem", path)
                    and not path.startswith(("venv/", "cache/"))]  # fmt: skip
        log = (cluster.home(name) / "worker.log").read_text()
        assert key not in log
    assert cluster.json("up")["nodes"][0]["did"][0].startswith("send cluster.key")

    cluster.json("down", "--purge")
    for name, machine in cluster.machines.items():
        assert tree(machine.home).keys() == before[name].keys()
        assert machine.left() == {}
    assert {path for path in tree(cluster.path) if not path.startswith("runs")} == set(here)
    config = Path(cluster.shell.environment["HERMES_CONFIG"])
    assert not list(config.rglob("*.json"))


def test_a_worker_is_restarted_only_where_something_has_changed_and_rises_again_by_itself(
    cluster: Folder, machines: Callable[[], Sshd]
) -> None:
    cluster.add("n1", machines())
    cluster.add("n2", machines(), tmux=True)
    cluster.json("up")
    one, two = cluster.worker("n1"), cluster.worker("n2")
    assert one
    assert two
    tmux = cluster.machines["n2"].ssh("tmux ls")
    assert "hermes-n2:" in tmux.stdout, tmux.stderr
    cluster.nodes["n1"]["threads"] = 1
    report = by_name(cluster.json("up"))
    assert report["n1"]["did"] == ["start the worker n1"]
    assert report["n2"]["did"] == []
    assert cluster.worker("n1") not in (one, None)
    assert cluster.worker("n2") == two
    (cluster.path / "secrets" / "cluster.key").write_text("ab" * 32 + "\n")
    report = by_name(cluster.json("up"))
    assert report["n2"]["did"][-1] == "start the worker n2 in the tmux session hermes-n2"
    assert (cluster.home("n2") / "cluster.key").read_text() == "ab" * 32 + "\n"
    last = cluster.worker("n2")
    assert last not in (two, None)
    os.kill(last, signal.SIGKILL)  # type: ignore[arg-type]
    until(lambda: cluster.worker("n2") not in (last, None))
    cluster.json("down", "--purge")
    assert cluster.machines["n2"].ssh("tmux ls").returncode != 0


def test_nodes_come_and_go_while_a_run_goes_on(
    cluster: Folder, machines: Callable[[], Sshd]
) -> None:
    cluster.add("n1", machines())
    cluster.add("n2", machines())
    cluster.json("up")
    run = ("run", DIGITS, "--cluster", str(cluster.path), "--run", "long", "-d", *ENDLESS)
    begun = cluster.shell.json(*run)
    assert begun["run"] == "long"
    waiting = cluster.shell.start("wait", "long", "--cluster", str(cluster.path), "--json")
    cluster.add("n3", machines())
    cluster.remove("n1")
    report = cluster.json("up")
    assert {name: node["state"] for name, node in by_name(report).items()} == {
        "n2": "unchanged",
        "n3": "up",
    }
    (gone,) = report["removed"]
    assert (gone["name"], gone["state"]) == ("n1", "down")
    assert cluster.worker("n1") is None
    assert not (cluster.home("n1") / "cluster.key").exists()
    log = cluster.path / "runs" / "long" / "central.log"
    until(lambda: "n3 is admitted" in log.read_text(), log)
    until(lambda: re.search(r"n1 (says bye|has left)", log.read_text()), log)
    out = ("--out", str(cluster.path))
    assert cluster.shell("stop", "long", *out).returncode == 0
    said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert json.loads(said)["run"] == "long"
    report = cluster.json("down", "--purge")
    assert {node["name"] for node in report["nodes"]} == {"n1", "n2", "n3"}
    assert not cluster.home("n1").exists(), "what was left of it goes, too"


def test_a_cluster_that_is_not_up_runs_nothing(cluster: Folder, machine: Sshd) -> None:
    cluster.add("n1", machine)
    done = cluster.shell("run", DIGITS, "--cluster", str(cluster.path))
    assert done.returncode == 2
    assert "this cluster is not up" in done.stderr
    cluster.json("up")
    cluster.machines["n1"].ssh("kill -TERM $(cat .hermes-edge/worker.pid)")
    until(lambda: not (cluster.home("n1") / "worker.pid").exists())
    assert cluster.worker("n1") is None
    done = cluster.shell("run", DIGITS, "--cluster", str(cluster.path))
    assert done.returncode == 2
    assert "no worker of this cluster runs" in done.stderr
    for flags in (["--workers", "2"], ["--broker", "h:1"]):
        done = cluster.shell("run", DIGITS, "--cluster", str(cluster.path), *flags)
        assert (done.returncode, f"{flags[0]}: with --cluster" in done.stderr) == (2, True)
    done = cluster.shell("run", DIGITS, "-d")
    assert (done.returncode, "--cluster DIR" in done.stderr) == (2, True)


def test_nodes_without_internet_install_from_wheels_that_are_sent(
    cluster: Folder, machines: Callable[[], Sshd], tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    needs = [
        text.partition(";")[0] for text in requires("hermes-edge") or () if "extra" not in text
    ]
    command = [sys.executable, "-m", "pip", "download", "-q", "--prefer-binary", "-d", str(wheels)]
    filled = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        filled = subprocess.run([*command, *needs], capture_output=True, timeout=100)
    if filled is None or filled.returncode:
        pytest.skip("no package index is in reach, to fill a folder of wheels from")
    cluster.master["wheels"] = str(wheels)
    cluster.add("n1", machines(), packages="venv")
    (done,) = cluster.json("up")["nodes"]
    assert done["did"][1].startswith(f"send {len(list(wheels.iterdir()))} wheels")
    there = cluster.home("n1") / "venv"
    (site,) = there.glob("lib/python*/site-packages")
    assert (site / "numpy").is_dir()
    assert not (site / "system.pth").exists()
    assert not list(site.glob("*/INSTALLER")), "pip was not needed"
    assert cluster.json("up")["nodes"][0]["did"] == []
    cluster.json("down", "--purge")
    # A wheel that is missing is pip's to tell.
    next(wheels.glob("msgspec-*")).unlink()
    (failed,) = cluster.json("up", code=5)["nodes"]
    assert "msgspec" in failed["error"]["what"]
    cluster.json("down", "--purge")


# --- broken off -----------------------------------------------------------------------------------

SLOW = """\
#!/bin/sh
# A Python that takes its time over the first environment.
case "$*" in *venv*) [ -e {mark} ] || {{ : >{mark}; sleep 600; }} ;; esac
exec {python} "$@"
"""


def slow_python(folder: Path) -> str:
    path = folder / "slow-python"
    path.write_text(SLOW.format(mark=folder / "slept", python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_a_connection_that_breaks_in_the_middle_is_made_anew(
    cluster: Folder, machine: Sshd, tmp_path: Path
) -> None:
    cluster.add("n1", machine, python=slow_python(tmp_path))
    process = cluster.shell.start("up", str(cluster.path))
    wait_for(process, "making the venv")
    until((tmp_path / "slept").exists)
    machine.drop()
    seen: list[str] = []
    wait_for(process, "n1 +up$", seen)
    assert any("the SSH connection broke; connecting again" in line for line in seen)
    assert process.wait(60) == 0
    assert not any("sleep 600" in text for text in machine.processes().values())


def test_a_node_that_goes_away_in_the_middle_does_not_stop_the_others(
    cluster: Folder, machines: Callable[[], Sshd], tmp_path: Path
) -> None:
    gone = cluster.add("n1", machines(), python=slow_python(tmp_path))
    cluster.add("n2", machines())
    process = cluster.shell.start("up", str(cluster.path))
    wait_for(process, "n1 +making the venv")
    until((tmp_path / "slept").exists)
    gone.stop()
    said, told = process.communicate(timeout=100)
    assert process.returncode == 5
    assert "1 of 2 workers up" in said
    assert "error: n1" in told
    assert "connection refused" in told
    gone.start()
    assert [node["state"] for node in cluster.json("up")["nodes"]] == ["up", "unchanged"]
    gone.stop()
    done = cluster("down")
    assert done.returncode == 5
    assert "left n1" in done.stdout
    assert "a worker may still run there" in done.stdout
    gone.start()
    assert by_name(cluster.json("down", "--purge"))["n1"]["state"] == "down"
    assert gone.processes() == {}


def test_ctrl_c_stops_every_thread_and_the_same_command_goes_on(
    cluster: Folder, machines: Callable[[], Sshd], tmp_path: Path
) -> None:
    machine = cluster.add("n1", machines(), python=slow_python(tmp_path))
    process = cluster.shell.start("up", str(cluster.path))
    wait_for(process, "making the venv")
    until((tmp_path / "slept").exists)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert time.monotonic() - began < 5
    assert "the same command goes on" in told
    until(lambda: machine.left() == {})
    assert cluster.json("up")["nodes"][0]["state"] == "up"


def test_a_folder_of_somebody_else_is_left_alone(cluster: Folder, machine: Sshd) -> None:
    (machine.home / "mine").mkdir()
    (machine.home / "mine" / "thesis").write_text("years")
    cluster.add("n1", machine, folder="~/mine")
    for command in (("up",), ("down", "--purge")):
        report = cluster.json(*command, code=5)
        assert "has not put there" in report["nodes"][0]["error"]["what"]
    assert (machine.home / "mine" / "thesis").read_text() == "years"


def test_a_worker_without_its_guard_is_found_and_ended(cluster: Folder, machine: Sshd) -> None:
    cluster.add("n1", machine)
    cluster.json("up")

    def orphan() -> int:
        os.kill(int((cluster.home("n1") / "worker.pid").read_text()), signal.SIGKILL)
        worker = cluster.worker("n1")
        assert worker
        return worker

    before = orphan()
    (done,) = cluster.json("up")["nodes"]
    assert done["did"] == ["start the worker n1"]
    assert cluster.worker("n1") not in (before, None)
    orphan()
    cluster.json("down")
    assert machine.left() == {}


def test_a_node_that_somebody_else_works_on_is_left_alone(cluster: Folder, machine: Sshd) -> None:
    cluster.add("n1", machine)
    cluster.json("up")
    lock = cluster.home("n1") / ".lock"
    assert not lock.is_symlink()
    with subprocess.Popen(["sh", "-s"], stdin=subprocess.PIPE) as other:
        lock.symlink_to(str(other.pid))
        (failed,) = cluster.json("down", code=5)["nodes"]
        assert f"works on it just now (its process {other.pid} there)" in failed["error"]["what"]
        assert cluster.worker("n1")
        other.kill()
    cluster.json("down")  # a dead one holds nothing
    assert machine.left() == {}
    assert not lock.is_symlink()


def test_a_node_that_reaches_no_package_index_says_so_in_a_line(
    cluster: Folder, machine: Sshd
) -> None:
    settings = machine.home / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("[global]\nindex-url = http://127.0.0.1:1/simple\n")
    cluster.add("n1", machine, packages="venv")
    began = time.monotonic()
    (failed,) = cluster.json("up", code=5)["nodes"]
    assert time.monotonic() - began < 30
    assert failed["error"]["what"] == "no package index can be reached from it"
    assert '"wheels" in conf/master.json' in failed["error"]["remedy"]


def test_one_at_a_time_brings_a_cluster_up(cluster: Folder, machine: Sshd, tmp_path: Path) -> None:
    cluster.add("n1", machine, python=slow_python(tmp_path))
    process = cluster.shell.start("up", str(cluster.path))
    wait_for(process, "making the venv")
    until((tmp_path / "slept").exists)
    for command in ("up", "down"):
        done = cluster(command)
        assert done.returncode == 2
        assert "another hermes up or down is at this cluster" in done.stderr
        if sys.platform == "linux":
            assert f"process {process.pid}" in done.stderr
    cluster.json("up", "--dry-run")
    process.send_signal(signal.SIGKILL)  # a dead one holds nothing
    process.communicate(timeout=30)
    assert cluster.json("up")["nodes"][0]["state"] == "up"
    cluster.json("down")


def test_a_node_with_a_new_address_comes_up_though_its_old_place_is_gone(
    cluster: Folder, machines: Callable[[], Sshd]
) -> None:
    old = cluster.add("n1", machines())
    cluster.json("up")
    old.stop()
    new = cluster.add("n1", machines())
    for _ in range(2):  # it is told each time, until it is given up
        (node,) = cluster.json("up")["nodes"]
        assert node["state"] in ("up", "unchanged")
        assert "hermes down --forget n1" in node["warnings"][0]
        assert cluster.worker("n1")
    done = cluster("down", "--forget", "n2")
    assert (done.returncode, "n2 has no place" in done.stderr) == (2, True)
    done = cluster("down", "--forget", "n1")
    assert done.returncode == 0, done.stderr
    assert "is given up" in done.stdout
    assert cluster.json("up")["nodes"][0]["warnings"] == []
    assert [node["state"] for node in cluster.json("down", "--purge")["nodes"]] == ["down"]
    assert new.left() == {}
