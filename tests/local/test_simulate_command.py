"""Is a simulated run one that can be believed? `hermes simulate`, as it is typed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import DIGITS, ENDLESS, ROOT, Shell, Shown, wait_for

from hermes.cli.entry import run
from hermes.codec import decode
from hermes.messages import (
    Entry,
    LedgerRecord,
    Trimmed,
    VersionEvaluated,
    WorkerBack,
    WorkerLost,
)
from hermes.runtime.archive import read_archive
from hermes.values import SECOND

EDGE = ROOT / "conf" / "devices" / "edge12.json"
LAN = ROOT / "conf" / "devices" / "lan12.json"

Simulate = Callable[..., dict[str, Any]]


@pytest.fixture
def simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Simulate:
    """Types the command in this process; its result."""

    def typed(devices: Path, *args: str, folder: str = "out") -> dict[str, Any]:
        flags = ["--out", str(tmp_path / folder), "--json", "--quiet"]
        code = run(["simulate", DIGITS, "--devices", str(devices), *flags, *args])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        found = json.loads(printed.out)
        assert isinstance(found, dict)
        return found

    return typed


def written(path: Path, **changes: Any) -> Path:
    """A file of two devices, but for these changes."""
    world: dict[str, Any] = {
        "samples_per_second": 2000,
        "links": {"default": {"latency_ms": 5, "up_mbit": 10, "down_mbit": 10}},
        "devices": [{"name": "quick"}, {"name": "slow", "speed": 0.5}],
    }
    world.update(changes)
    path.write_text(json.dumps({key: value for key, value in world.items() if value is not None}))
    return path


def entries(result: dict[str, Any]) -> list[tuple[int, Entry]]:
    """The ledger, as its folder has it: virtual time and entry."""
    found = []
    for raw in read_archive(Path(result["paths"]["log"]) / "ledger.records"):
        record = decode(raw.value)
        assert isinstance(record, LedgerRecord)
        found += [(record.time, entry) for entry in record.entries]
    return found


@pytest.mark.parametrize("strategy", ["hermes-paper", "fedavg"])
def test_the_same_again_is_the_same(
    strategy: str, simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ledger and weights, byte for byte, whatever the run is called; other commands work on it,
    and `verify` forms every version again. The evaluation grid is fixed, and costs nothing."""
    say = ("--strategy", strategy, "--set", "stop.samples=9000")
    one = simulate(EDGE, *say, "--run", "one", "--keep-log", folder="a")
    other = simulate(EDGE, *say, "--run", "other", folder="b")
    another = simulate(EDGE, *say, "--seed", "1", folder="c")
    files = [Path(r["paths"]["log"]) / "ledger.records" for r in (one, other, another)]
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    for key in ("digest", "ledger_digest", "seconds", "bytes", "workers"):
        assert one[key] == other[key]
    assert one["digest"] != another["digest"]
    assert one["simulated"] is True
    assert one["status"] == "finished"
    assert len(one["workers"]) == 12
    scored = [entry for _, entry in entries(one) if isinstance(entry, VersionEvaluated)]
    assert len(scored) > 1
    assert {entry.started % SECOND for entry in scored} == {0}
    assert {entry.cost for entry in scored} == {0}
    where = ("--out", str(tmp_path / "a"))
    for command in (["status"], ["runs"], ["report"], ["why", "device-12"], ["logs"]):
        assert run([*command, *where]) == 0
    capsys.readouterr()
    assert run(["verify", "one", *where, "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["findings"] == []
    assert verified["outcomes"]["recomputed"] == one["version"]
    assert verified["run"] == "one"
    assert run(["replay", "one", *where]) == 2
    assert "run one: it was simulated, and its job is not signed" in capsys.readouterr().err
    told = (tmp_path / "a" / "runs" / "one" / "report.html").read_text("utf-8")
    assert "hermes 0" not in told
    assert run(["verify", "other", "--out", str(tmp_path / "b")]) == 0
    assert "its topics were not kept" in capsys.readouterr().out


def test_a_slower_link_takes_longer_by_what_the_bytes_cost(
    simulate: Simulate, tmp_path: Path
) -> None:
    """One device, one version after the other: nothing hides behind anything."""
    took, moved = {}, {}
    for mbit in (10, 2):
        link = {"default": {"latency_ms": 5, "up_mbit": mbit, "down_mbit": mbit}}
        file = written(tmp_path / f"{mbit}.json", links=link, devices=[{"name": "d"}])
        say = ("--strategy", "bsp", "--set", "stop.versions=10", "--set", "stop.samples=off")
        result = simulate(file, *say, folder=str(mbit))
        took[mbit], moved[mbit] = result["seconds"], result["traffic"]["d"]
    large = moved[10]["update"]["sent"] + moved[10]["model"]["received"]
    assert large == moved[2]["update"]["sent"] + moved[2]["model"]["received"]
    rest = sum(way for kind in ("data", "control") for way in moved[2][kind].values())
    more = 8 / 2e6 - 8 / 10e6
    # The first version is loaded before training starts, the last one after the end.
    least = (large - 2 * large / 20) * more
    assert least <= took[2] - took[10] <= (large + rest) * more


def test_who_shares_a_thin_link_at_the_broker_waits_for_the_others(
    simulate: Simulate, tmp_path: Path
) -> None:
    """Two devices at 10 Mbit/s behind 10 Mbit/s in all."""
    say = ("--strategy", "bsp", "--set", "stop.versions=5", "--set", "stop.samples=off")
    wide = simulate(written(tmp_path / "wide.json"), *say, folder="wide")
    thin = {"up_mbit": 10, "down_mbit": 10}
    narrow = simulate(written(tmp_path / "thin.json", shared=thin), *say, folder="thin")
    assert wide["digest"] == narrow["digest"], "only the time differs"
    assert narrow["seconds"] > 1.3 * wide["seconds"]


def test_an_outage_makes_a_worker_lost_and_it_returns(simulate: Simulate, tmp_path: Path) -> None:
    """Nothing passes its link meanwhile; the others go on without it."""
    devices = [{"name": "a"}, {"name": "b"}, {"name": "c", "outages": [[3, 12]]}]
    file = written(tmp_path / "d.json", devices=devices)
    seconds = ("--set", "stop.seconds=20", "--set", "stop.samples=off", *ENDLESS[2:])
    result = simulate(file, "--strategy", "fedavg", *seconds, "--set", "workers.lost=3")
    lost = [(time, e.worker) for time, e in entries(result) if isinstance(e, WorkerLost)]
    back = [(time, e.worker) for time, e in entries(result) if isinstance(e, WorkerBack)]
    assert [worker for _, worker in lost] == [worker for _, worker in back] == ["c"]
    # 3 s after its last heartbeat, which came up to 1 s before the outage.
    assert 5 * SECOND <= lost[0][0] <= 7 * SECOND
    assert 12 * SECOND <= back[0][0] <= 13 * SECOND
    rounds = {name: worker["rounds"] for name, worker in result["workers"].items()}
    assert 5 < rounds["c"] < rounds["a"] - 10


def test_what_goes_in_the_record_that_read_it_is_not_needed(
    simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a slow master scores, heartbeats come; the version's record has read them, and lets go
    of them. `verify` sees that they were read."""
    devices = [{"name": "a"}, {"name": "b", "speed": 0.2}, {"name": "c", "speed": 0.1}]
    slow = {"samples_per_second": 10}
    file = written(tmp_path / "d.json", devices=devices, master=slow, samples_per_second=100)
    stop = ("--set", "stop.versions=2", *ENDLESS, "--set", "size.first=64")
    result = simulate(file, "--strategy", "hermes-paper", *stop)
    trims = [e for _, e in entries(result) if isinstance(e, Trimmed)]
    assert {trim.topic for trim in trims} == {"from.a", "from.b", "from.c"}
    assert run(["verify", "--out", str(tmp_path / "out"), "--quiet"]) == 0, capsys.readouterr().err


def test_one_device_alone(simulate: Simulate) -> None:
    """A floor to compare with: the quickest."""
    result = simulate(EDGE, "--only", "fastest", "--set", "stop.samples=3000")
    assert list(result["workers"]) == ["device-01"]


def test_the_floors_fastest_alone_and_central(
    simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The quickest device trains alone: the first that is measured, on the file's links. At the
    master nothing travels, and no time goes by but its steps'."""
    common = ("--set", "stop.samples=4000", "--set", "round.steps=25")
    file = written(tmp_path / "d.json")
    alone = simulate(file, "--strategy", "fastest-alone", *common, folder="alone")
    workers = alone["workers"]
    assert (workers["quick"]["samples"], workers["slow"]["samples"]) == (4000, 0)
    assert workers["slow"]["final_shard"] == 0
    central = simulate(file, "--strategy", "central", *common, folder="central")
    assert central["workers"]["central"]["samples"] == 4000
    assert central["seconds"] == pytest.approx(4000 / 2000, rel=1e-3)
    assert central["seconds"] < alone["seconds"]
    assert central["bytes"]["update"] == {"sent": 0, "received": 0}
    for folder in ("alone", "central"):
        assert run(["verify", "--out", str(tmp_path / folder), "--quiet"]) == 0
    capsys.readouterr()
    both = ["--strategy", "central", "--only", "quick"]
    assert run(["simulate", DIGITS, "--devices", str(file), *both]) == 2
    assert "central trains on no device of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rate", "step", "seconds"),
    [(2000, None, 4000 / 2000), (None, 0.01, 125 * 0.01), (2000, 0.01, 4000 / 2000 + 125 * 0.01)],
)
def test_a_step_takes_what_its_samples_and_itself_take(
    rate: float | None, step: float | None, seconds: float, simulate: Simulate, tmp_path: Path
) -> None:
    """125 batches of 32, at the master's place, where nothing else takes time."""
    file = written(tmp_path / "d.json", samples_per_second=rate, step_seconds=step)
    central = ("--strategy", "central", "--set", "stop.samples=4000", "--set", "round.steps=25")
    assert simulate(file, *central)["seconds"] == pytest.approx(seconds, rel=1e-3)


def test_ctrl_c_writes_what_there_is(shell: Shell) -> None:
    """And says so by its exit code."""
    going = shell.start("simulate", DIGITS, "--devices", str(LAN), "--strategy", "bsp", *ENDLESS)
    wait_for(going, r"version \d")
    going.send_signal(signal.SIGINT)
    assert going.wait(60) == 130
    (folder,) = [p for p in (shell.folder / "runs").iterdir() if not p.is_symlink()]
    result = json.loads((folder / "result.json").read_bytes())
    assert (result["status"], result["reason"]) == ("stopped", "interrupted")
    assert (folder / "model.safetensors").exists()
    assert shell("verify").returncode == 0
    for command in ("resume", "stop"):
        done = shell(command, folder.name)
        assert done.returncode == 2
        assert "simulated" in done.stderr


def test_a_simulated_run_is_never_taken_for_a_real_one(shell: Shell) -> None:
    """Not at its end, not by status and runs, not on its page; `why` tells no release it had."""
    stop = ("--set", "stop.versions=2")
    done = shell("simulate", DIGITS, "--devices", str(LAN), "--run", "told", *stop)
    assert done.returncode == 0, done.stderr
    assert f"simulated   on the devices of {LAN}, in " in done.stdout
    assert " of virtual time, " in done.stdout
    assert ", virtual: it is simulated" in shell("status", "told").stdout
    assert " simulated " in shell("runs").stdout
    page = (shell.folder / "runs" / "told" / "report.html").read_text("utf-8")
    assert "virtual: it is simulated" in page
    assert "virtual: the run is simulated" in page
    why = " ".join(shell("why", "device-01", "--run", "told", "--last", "99").stdout.split())
    assert "It begins from version" in why
    assert "Hermes 0" not in page + why


LINK = {"latency_ms": 5, "up_mbit": 10, "down_mbit": 10}

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a link of 0": ({"links": {"default": {**LINK, "up_mbit": 0}}}, "links.default.up_mbit", "0"),
    "a speed of 0": ({"devices": [{"name": "a", "speed": 0}]}, "devices[0].speed", "it is 0"),
    "as good as no speed": ({"samples_per_second": 1e-300}, "samples_per_second", "1e-300"),
    "as good as no scoring": (
        {"master": {"samples_per_second": 1e-300}},
        "master.samples_per_second",
        "1e-300",
    ),
    "a step of hours": (
        {"samples_per_second": 0.5, "devices": [{"name": "a"}, {"name": "b", "speed": 1e-4}]},
        "devices[1].speed",
        "takes 2e+04 s",
    ),
    "a device twice": (
        {"devices": [{"name": "a"}, {"name": "a"}]},
        "devices[1].name",
        "'a' is there twice",
    ),
    "an unknown key": (
        {"devices": [{"name": "a", "sped": 1}]},
        "devices[0]",
        "unknown field `sped`",
    ),
    "a key that is nearly one": (
        {"devices": [{"name": "a", "sped": 1}]},
        "devices[0]",
        "Did you mean speed?",
    ),
    "an unknown link": (
        {"devices": [{"name": "a", "link": "wifi"}]},
        "devices[0].link",
        "there is no link 'wifi'",
    ),
    "no device": ({"devices": []}, "devices", "there is none"),
    "no speed": ({"samples_per_second": None}, "samples_per_second", "neither is given"),
    "no name": ({"devices": [{"name": "A b"}]}, "devices[0].name", "not a worker's name"),
    "an outage backwards": (
        {"devices": [{"name": "a", "outages": [[5, 5]]}]},
        "devices[0].outages[0]",
        "[5, 5]",
    ),
    "a device too small": (
        {"devices": [{"name": "a"}, {"name": "tiny", "memory_mb": 0.1}]},
        "devices[1].memory_mb",
        "tiny has 0.1 MB, and training takes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_file_and_key(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown
) -> None:
    changes, key, what = BAD[name]
    file = written(tmp_path / "devices.json", **changes)
    code = run(["simulate", DIGITS, "--devices", str(file), "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert code == 2
    assert f"{file}: {key}" in said
    assert what in said
    assert not (tmp_path / "runs").exists()
    shown(
        name,
        "hermes simulate JOB.py --devices devices.json",
        code,
        said.replace(str(file), "devices.json"),
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "it is not JSON as it must be"),
        ('{"devices": [], "devices": []}', "the key 'devices' stands twice"),
        ('{"samples_per_second": NaN}', "NaN is no number"),
        ("[]", "Expected `object`"),
    ],
)
def test_what_is_no_such_file_is_refused(
    text: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "devices.json"
    file.write_text(text)
    assert run(["simulate", DIGITS, "--devices", str(file), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert str(file) in said
    assert what in said


def test_a_file_or_a_device_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "none.json")
    assert run(["simulate", DIGITS, "--devices", nowhere, "--out", str(tmp_path)]) == 2
    assert f"{nowhere}: the file of devices cannot be read" in capsys.readouterr().err
    assert run(["simulate", DIGITS, "--devices", str(EDGE), "--only", "x"]) == 2
    assert "there is no device 'x'" in capsys.readouterr().err
