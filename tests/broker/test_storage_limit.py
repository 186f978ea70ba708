"""Is a run held to its storage limit at real brokers, through the commands, and cleaned away?"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from commands import DIGITS, Shell

from hermes.broker import apache as apache_module
from hermes.broker.control import Child
from hermes.runtime.storage import OVERHEAD, Meter
from hermes.transport.held import Held
from hermes.transport.kafka import KafkaLog
from hermes.transport.log import Log

pytestmark = pytest.mark.broker

LIMIT = ("--set", "storage.max=3MB", "--set", "stop.samples=off", "--set", "stop.patience=off")


@pytest.fixture(params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> Child:
    return request.getfixturevalue(request.param)


def test_a_bad_end_at_the_limit_saves_the_model(
    shell: Shell, broker: Child, shown: Callable[..., None]
) -> None:
    run = f"limit-{uuid4().hex[:8]}"
    args = ("run", DIGITS, "--broker", broker.address, "--run", run, "--workers", "2", *LIMIT)
    done = shell(*args)
    shown(f"a run at its storage limit ({broker.kind})", "hermes run digits.py", 4, done.stderr)
    assert done.returncode == 4, done.stderr
    of = "memory" if broker.kind == "embedded" else "disk"
    assert f"The limit is 3.0 MB of the broker's {of} (storage.max)" in done.stderr
    assert "are used; in about" in done.stderr
    assert f"of the broker's {of} are used; its model, version" in done.stderr
    assert "--set storage.max=6MB" in done.stderr
    result = json.loads((shell.folder / "runs" / run / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("stopped", "storage")
    updates = result["updates"]
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]
    assert Path(result["paths"]["model"]).exists()
    used = result["storage"]["used"]
    assert 2_700_000 <= used < 4_000_000, "the count between two answers of the broker is a guess"
    told = json.loads(shell("status", run, "--json").stdout)
    assert told["storage"]["limit"] == 3_000_000
    with KafkaLog(broker.address) as log:
        held = log.held(f"hermes.{run}.")
        if held is not None:
            assert held.free is not None
            assert held.bytes == pytest.approx(used, rel=0.1)
        clean_away(shell, broker, run, log)


def clean_away(shell: Shell, broker: Child, run: str, log: KafkaLog) -> None:
    """All of it, with its numbers first."""
    seen = shell("clean", run, "--dry-run")
    assert seen.returncode == 0, seen.stderr
    assert f"at the broker {broker.address}, 8 topics" in seen.stdout
    assert len(log.topics(f"hermes.{run}.")) == 8
    done = shell("clean", run, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(topic["records"] for topic in found["topics"] if topic["name"].endswith("ledger"))
    if broker.kind == "apache":
        assert sum(topic["bytes"] for topic in found["topics"]) > 2_800_000, (
            "what the last seconds brought is counted"
        )
    assert found["blocks"]["count"] > 0
    assert log.topics(f"hermes.{run}.") == []
    assert list((shell.folder / "runs").iterdir()) == []
    assert list((shell.folder / "cache" / "blocks").iterdir()) == []
    assert shell("clean", run, "--yes").returncode == 2, "it is not known any more"


def test_a_bad_fit_is_told_before_anything_is_sent(
    shell: Shell, shown: Callable[..., None]
) -> None:
    done = shell("run", DIGITS, "--run", "small", "--set", "storage.max=100kB")
    shown("data that do not fit", "hermes run digits.py", done.returncode, done.stderr)
    assert done.returncode == 4, done.stderr
    assert "enough for not even the data" in done.stderr
    assert "data and first model take" in done.stderr
    result = json.loads((shell.folder / "runs" / "small" / "result.json").read_text())
    assert result["bytes"]["data"]["sent"] == 0


def test_by_default_a_run_may_have_a_fifth_of_the_free_disk(shell: Shell, apache: Child) -> None:
    run = f"auto-{uuid4().hex[:8]}"
    args = ("run", DIGITS, "--broker", apache.address, "--run", run, "--workers", "1")
    done = shell(*args, "--set", "stop.versions=1", "--json")
    assert done.returncode == 0, done.stderr
    storage = json.loads(done.stdout)["storage"]
    with KafkaLog(apache.address) as log:
        held = log.held("")
    assert held is not None
    assert held.free is not None
    assert storage["limit"] == pytest.approx(held.free / 5, rel=0.1)
    assert storage["of"] == "disk"
    assert storage["expected_per_hour"] > 0


def test_what_is_counted_is_what_apache_kafka_holds(apache: Child) -> None:
    """So that the count may stand for what the embedded broker does not say."""
    run = f"count-{uuid4().hex[:8]}"
    with KafkaLog(apache.address) as log:
        meter = Meter(log, run)
        topic = f"hermes.{run}.model"
        log.create([topic])
        for size in (100, 10_000, 500_000):
            for _ in range(20):
                log.append(topic, b"x" * size).offset()
                meter.appended(topic, size)
        counted = meter.used()
        held = log.held(f"hermes.{run}.")
        log.delete([topic])
    assert held is not None
    assert held.bytes <= counted <= held.bytes + 60 * OVERHEAD


def test_clean_of_a_live_run_is_refused_by_its_beats_alone(
    shell: Shell, embedded: Child, tmp_path: Path
) -> None:
    """From a machine that has no file of it."""
    run = f"alive-{uuid4().hex[:8]}"
    place = ("--broker", embedded.address, "--run", run)
    process = subprocess.Popen(
        [sys.executable, "-m", "hermes", "master", DIGITS, *place, "--quiet"],
        cwd=tmp_path,
        env=shell.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with KafkaLog(embedded.address) as log:
            while not log.topics(f"hermes.{run}.model"):
                assert process.poll() is None
            elsewhere = Shell(tmp_path / "elsewhere")
            elsewhere.folder.mkdir()
            done = elsewhere("clean", run, "--yes", "--broker", embedded.address)
            assert done.returncode == 2, done.stdout
            assert "its master is heard" in done.stderr
            assert log.topics(f"hermes.{run}.model")
    finally:
        process.terminate()
        assert process.wait(30) in (0, 130)
    done = shell("clean", run, "--yes", "--quiet", "--broker", embedded.address)
    assert done.returncode == 0, done.stderr


def test_the_output_of_apache_kafka_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apache_module, "OUTPUT_SIZE", 100)
    with Child("apache") as child:
        end = time.monotonic() + 20  # it takes whoever comes before it says that it is up
        while not list(child.log.parent.glob("broker.log.*")):
            assert time.monotonic() < end, "a line is more than 100 bytes"
            time.sleep(0.05)
        for path in child.log.parent.glob("broker.log*"):
            assert path.stat().st_size < 10_000


def test_what_a_log_says_that_it_holds(log: Log, topic: str) -> None:
    """On every kind: nothing at all, or at least the values."""
    log.append(topic, b"x" * 1000).offset()
    held = log.held(topic)
    if held is not None:
        assert 1000 <= held.topics[topic] < 1200
        assert log.held("hermes.nobody.") == Held({}, held.free)
    else:
        assert isinstance(log, KafkaLog)
        assert log.embedded
