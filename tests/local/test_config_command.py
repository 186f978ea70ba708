"""Does `hermes config` show what is in force, where it comes from, and what is odd?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from commands import Shown

from hermes.cli.entry import run
from hermes.policy.presets import known_keys

CONFIG = {
    "version": 1,
    "defaults": {"user": "pi"},
    "nodes": [
        {"name": "worker-1", "host": "10.0.0.11"},
        {"name": "worker-2", "host": "10.0.0.12", "user": "anna", "threads": 2},
    ],
}
MASTER = {"version": 1, "address": "10.0.0.1"}
SETTINGS: dict[str, Any] = {"version": 1, "gate": {"veto": 2.5}, "stop": {"samples": 700}}

JOB = """\
import hermes
from hermes import nn

job = hermes.Job(
    model=lambda: nn.Linear(64, 10),
    data=hermes.data.digits,
    loss=nn.CrossEntropy(),
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    stop=hermes.Stop(samples=1000, patience=9),
)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    lay()


def lay(config: Any = CONFIG, master: Any = MASTER, settings: Any = SETTINGS) -> None:
    Path("conf").mkdir(exist_ok=True)
    for name, tree in (("config", config), ("master", master), ("settings", settings)):
        Path("conf", f"{name}.json").write_text(json.dumps(tree, indent=1))


def told(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert run(["config", *args, "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def test_each_value_and_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    assert found["nodes"][1]["threads"] == 2
    assert found["master"]["port"] == 9092
    assert found["settings"]["gate.veto"] == 2.5
    origins = found["from"]
    assert origins["nodes[0].user"] == "conf/config.json:4"
    assert origins["nodes[1].user"] == "conf/config.json:14"
    assert origins["nodes[0].threads"] == "default"
    assert origins["master.address"] == "conf/master.json:3"
    assert origins["master.port"] == "default"
    assert origins["gate.veto"] == "conf/settings.json:4"
    assert origins["gate.rate"] == "strategy hermes"
    assert origins["gate.alpha"] == "default"
    assert origins["strategy"] == "default"
    assert set(found["settings"]) == set(known_keys())
    assert set(found["settings"]) <= set(origins)
    assert "master.version" not in origins


def test_later_ones_win_default_strategy_job_file_environment_flag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("job.py").write_text(JOB)
    found = told(capsys, "--job", "job.py")
    assert found["settings"]["stop.patience"] == 9
    assert found["from"]["stop.patience"] == "job.py:4"
    assert found["settings"]["stop.samples"] == 700, "the file wins over the job"
    assert found["from"]["stop.samples"] == "conf/settings.json:7"

    monkeypatch.setenv("HERMES_SET", "stop.samples=800 workers.max=9")
    monkeypatch.setenv("HERMES_STRATEGY", "hermes-paper")
    lay(settings={"version": 1, "stop": {"samples": 700}})
    found = told(capsys, "--job", "job.py")
    assert found["settings"]["stop.samples"] == 800
    assert found["from"]["stop.samples"] == "HERMES_SET"
    assert (found["settings"]["strategy"], found["from"]["strategy"]) == (
        "hermes-paper",
        "HERMES_STRATEGY",
    )
    found = told(capsys, "--set", "stop.samples=900", "--strategy", "fedavg")
    assert (found["settings"]["stop.samples"], found["from"]["stop.samples"]) == (900, "--set")
    assert found["from"]["workers.max"] == "HERMES_SET"
    assert found["from"]["strategy"] == "--strategy"
    assert found["from"]["round.steps"] == "strategy fedavg"


def test_another_strategy_for_once_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a file that names none, or another one: what the file asks for in vain is a warning."""
    assert run(["config", "--strategy", "fedavg", "--check"]) == 0
    assert "gate.veto will not take effect" in capsys.readouterr().err


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["all", "nodes", "port", "22", "default"] in lines, "what holds for all is told once"
    assert ["worker-1", "host", "10.0.0.11", "conf/config.json:9"] in lines
    assert ["threads", "2", "conf/config.json:15"] in lines
    assert ["threads", "all", "cores", "(NumPy:", "1)", "default"] in lines
    assert ["master", "address", "10.0.0.1", "conf/master.json:3"] in lines
    assert ["stop.samples", "700", "conf/settings.json:7"] in lines
    assert ["stop.patience", "off", "default"] in lines


def test_one_node_alone_has_its_own_rows(capsys: pytest.CaptureFixture[str]) -> None:
    lay(config={**CONFIG, "nodes": CONFIG["nodes"][:1]})  # type: ignore[index]
    assert run(["config"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["worker-1", "host", "10.0.0.11", "conf/config.json:9"] in lines
    assert ["user", "pi", "conf/config.json:4"] in lines


def test_no_node_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    lay(config={"version": 1, "nodes": []})
    assert run(["config", "--check"]) == 0
    assert "conf/config.json:3: there is no node" in capsys.readouterr().err


# --- what is odd ----------------------------------------------------------------------------------

MANY = {"version": 1, "nodes": [{"name": f"w{i}", "host": f"10.0.1.{i}"} for i in range(1, 71)]}
EXAMPLE = {"version": 1, "nodes": [{"name": "w", "host": "192.0.2.9"}]}

ODD: list[tuple[str, dict[str, Any], str]] = [
    ("the master's address is every machine's own", {"master": {"version": 1, "address":
      "127.0.0.1"}}, "worker-1 cannot reach a broker there"),
    ("so is what the broker listens at", {"master": {"version": 1, "listen": "localhost"}},
      "Take 0.0.0.0"),
    ("security is off", {"master": {"version": 1, "security": "off"}},
      "conf/master.json:3: security is off"),
    ("a broker elsewhere, and a port of it here", {"master": {"version": 1, "port": 1,
      "broker": "kafka:9093"}}, "conf/master.json:3: port says nothing"),
    ("an address for examples", {"config": EXAMPLE}, "conf/config.json:6: 192.0.2.9"),
    ("more nodes than may take part", {"config": MANY}, "there are 70 nodes, and workers.max=64"),
    ("a setting that never counts", {"settings": {"version": 1, "gate": {"alpha": -1}}},
      "conf/settings.json:4: gate.alpha will not take effect"),
]  # fmt: skip


@pytest.mark.parametrize(("title", "files", "said"), ODD, ids=lambda value: str(value)[:40])
def test_bad_beside_no_mistake_is_a_warning_with_a_remedy(
    title: str,
    files: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
    shown: Shown,
) -> None:
    lay(**files)
    assert run(["config", "--check"]) == 0
    seen = capsys.readouterr()
    assert seen.out.startswith("conf: no mistake (")
    assert said in seen.err
    assert seen.err.count("warning: ") == 1
    shown(title, "hermes config --check", 0, seen.err)
    assert any(said in text for text in told(capsys)["odd"])


def test_nothing_odd_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--check"]) == 0
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("conf: no mistake (2 nodes, hermes)\n", "")


def test_loopback_is_right_where_all_nodes_are_here(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [{"name": "a", "host": "127.0.0.1"}, {"name": "b", "host": "localhost", "port": 2222}]
    lay(config={"version": 1, "nodes": nodes}, master={"version": 1, "address": "127.0.0.1"})
    assert run(["config", "--check"]) == 0
    assert capsys.readouterr().err == ""


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["--json"], ["--check"]], ids=str)
def test_bad_files_are_told_with_exit_code_2(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lay(master={**MASTER, "prot": 9092})
    assert run(["config", *flags]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "error: conf/master.json:4: unknown key prot\n  Did you mean port?" in seen.err


def test_bad_flags_are_told_with_where_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--set", "gate.alhpa=1"]) == 2
    assert "--set: unknown setting 'gate.alhpa'" in capsys.readouterr().err
    assert run(["config", "--job", "absent.py"]) == 2
    assert "absent.py: there is no such job file" in capsys.readouterr().err
