"""Uploads and topics that are not what they should be, and masters and brokers that are gone."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands import Shell, Shown, wait_for
from test_runtime import KEY, Cluster

from hermes.broker.control import Child
from hermes.perform.upload import Signer
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.py")


# --- an altered job (e) -------------------------------------------------------------------------


ALTERS = """
import sys
from hermes.transport import kafka
first, last = int(sys.argv.pop(1)), int(sys.argv.pop(1))
poll = kafka.KafkaReader.poll

def alter(record):
    if not record.topic.endswith(".data") or not first <= record.offset <= last:
        return record
    return record._replace(value=record.value[:-1] + bytes([record.value[-1] ^ 1]))

kafka.KafkaReader.poll = lambda *args, **more: [alter(r) for r in poll(*args, **more)]
from hermes.cli.entry import main
main(sys.argv[1:])
"""
"""A worker to which the broker gives other bytes than were sent, at these offsets of `data`."""

FORGERIES = {
    "signature": "the job is not signed with this machine's cluster key; nothing of it was run",
    "job": "its bytes are not the job that was signed",
    "manifest": "its bytes are not the job that was signed",
    "block": "a block's bytes are not the data that was signed; it is not used",
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_bad_upload(
    shell: Shell, shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """The worker ends with exit 2 and runs nothing of it; the master's log says why."""
    if kind == "signature":
        monkeypatch.setattr(Signer, "upload", lambda *_: "0" * 64)
    key = tmp_path / "good.key"
    key.write_text(KEY.hex())
    key.chmod(0o600)
    with Child("embedded") as broker:
        cluster = Cluster(broker.address, "r", tmp_path / "out")
        cluster.start_master("bsp", 1, stop__samples=100)
        assert cluster.watcher.is_ready.wait(30)
        data = names.physical("r", names.DATA)
        with KafkaLog(broker.address) as log:
            end = log.ends([data])[data]
        places = {"signature": (end, end), "job": (0, 0), "manifest": (end - 1, end - 1)}
        first, last = places.get(kind, (1, end - 2))
        done = subprocess.run(
            [
                *(sys.executable, "-c", ALTERS, str(first), str(last), "worker", "--run", "r"),
                *("--broker", broker.address, "--name", "w", "--key-file", str(key)),
            ],
            capture_output=True,
            text=True,
            env=shell.environment,
            timeout=60,
            check=False,
        )
        log_file = tmp_path / "out/runs/r/central.log"
        end_at = time.monotonic() + 10
        while FORGERIES[kind] not in log_file.read_text() and time.monotonic() < end_at:
            time.sleep(0.05)
        assert cluster.master is not None
        cluster.master.interrupt()
        cluster.threads[0].join(30)
    assert done.returncode == 2, done.stderr
    told = done.stderr[done.stderr.index("error:") :]
    assert FORGERIES[kind] in told
    assert told.strip().splitlines()[1].startswith("  ")
    assert FORGERIES[kind] in log_file.read_text()
    shown(f"An altered upload: its {kind}", "hermes worker", 2, told)


# --- topics that are there already (d) ----------------------------------------------------------


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child("apache", data=tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


WRONG = {
    "retention": ({"retention.ms": "1000"}, "retention.ms=1000 (wanted: retention.ms=-1)"),
    "compaction": (
        {"cleanup.policy": "compact"},
        "cleanup.policy=compact (wanted: cleanup.policy=delete)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_bad_settings_of_a_topic(apache: Child, shell: Shell, shown: Shown, kind: str) -> None:
    """Refused: topic, key, what was found, what is wanted, and the command that sets it."""
    settings, words = WRONG[kind]
    topic = names.physical(kind, names.MODEL)
    with KafkaLog(apache.address) as log:
        log.create([topic], settings)
    done = shell("master", DIGITS, "--broker", apache.address, "--run", kind)
    assert done.returncode == 3
    assert f"error: {topic}: the topic exists already, with other settings" in done.stderr
    assert words in done.stderr
    key = next(iter(settings))
    tool = f"kafka-configs.sh --bootstrap-server {apache.address} --alter --topic {topic}"
    assert f"{tool} --add-config {key}=" in done.stderr
    shown(f"A topic with other settings: {kind}", "hermes master", 3, done.stderr)


def test_bad_partitions_of_a_topic(apache: Child, shell: Shell, shown: Shown) -> None:
    """Three partitions cannot be made one: another run id, or delete it."""
    from kafka import KafkaAdminClient

    topic = names.physical("parts", names.LOBBY)
    admin = KafkaAdminClient(bootstrap_servers=apache.address)
    admin.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}})
    admin.close()
    done = shell("master", DIGITS, "--broker", apache.address, "--run", "parts")
    assert done.returncode == 3
    assert "partitions=3 (wanted: partitions=1)" in done.stderr
    assert f"kafka-topics.sh --bootstrap-server {apache.address} --delete --topic {topic}" in (
        done.stderr
    )
    shown("A topic of three partitions", "hermes master", 3, done.stderr)


def test_bad_records_of_somebody_else(apache: Child, shell: Shell, shown: Shown) -> None:
    """A topic of this run's name without a ledger, with records in it: nothing is written to it."""
    topic = names.physical("other", names.DATA)
    with KafkaLog(apache.address) as log:
        log.create([topic])
        log.append(topic, b"somebody else's").offset()
        done = shell("master", DIGITS, "--broker", apache.address, "--run", "other")
        assert log.ends([topic])[topic] == 1
        assert log.topics(names.prefix_of("other")) == [topic]
    assert done.returncode == 2
    assert f"error: {topic}: the topic exists already and holds 1 records" in done.stderr
    assert "Choose another id with --run" in done.stderr
    assert "kafka-topics.sh --bootstrap-server" in done.stderr
    shown("A topic with somebody else's records", "hermes master --run other", 2, done.stderr)


# --- a worker whose master, or broker, is gone (g) ----------------------------------------------


def cpu(pid: int) -> float:
    """Seconds of processor time that this process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_a_bad_time_for_workers_costs_nothing(shell: Shell, shown: Shown) -> None:
    """Broker and master are killed: workers in training, waiting for their run, and knocking use
    little of a core meanwhile, and SIGTERM ends each within seconds."""
    with Child("embedded") as broker:
        at = ("--broker", broker.address)
        endless = ("--set", "stop.samples=off", "--set", "stop.patience=off")
        master = shell.start("master", DIGITS, *at, "--run", "r", "--expect", "2", *endless)
        workers = [
            shell.start("worker", *at, "--run", run, "--name", f"w{i}", "--state", f"s{i}")
            for i, run in enumerate(("r", "r", "none"))
        ]
        for worker, all_well in zip(workers, ("push", "push", "waiting for run none"), strict=True):
            wait_for(worker, all_well)
        broker.kill()
        master.kill()
        master.communicate()
        time.sleep(2.5)
        before = [cpu(worker.pid) for worker in workers]
        time.sleep(2.0)
        used = [(cpu(worker.pid) - was) / 2.0 for worker, was in zip(workers, before, strict=True)]
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        began = time.monotonic()
        told = [worker.communicate(timeout=30)[1] for worker in workers]
        assert time.monotonic() - began < 10
    assert max(used) < 0.2, used
    assert [worker.returncode for worker in workers] == [130] * 3, told
    for name, text in zip(("w0", "w1"), told[:2], strict=True):
        assert f"{name}: nobody could be told that it leaves: the broker has not answered" in text
    shown("SIGTERM while broker and master are gone", "hermes worker, SIGTERM", 130, told[0])


def test_a_bad_end_of_a_master_is_told(shell: Shell, shown: Shown) -> None:
    """The master is killed, the broker lives: a worker that it had admitted says so, and leaves
    after its patience with exit 4."""
    with Child("embedded") as broker:
        at = ("--broker", broker.address)
        endless = ("--set", "stop.samples=off", "--set", "stop.patience=off")
        master = shell.start("master", DIGITS, *at, "--run", "r", *endless)
        worker = shell.start("worker", *at, "--run", "r", "--name", "w", "--patience", "14")
        wait_for(worker, r"push \(")
        master.kill()
        master.communicate()
        text = worker.communicate(timeout=60)[1]
    assert worker.returncode == 4, text
    assert re.search(
        r"w: the master of r has not been heard for 1\d s; waiting for it, up to 14 s", text
    )
    assert "error: run r: the master of r has not been heard for 1" in text
    assert "Is its process alive" in text
    shown("A master that has died", "hermes worker --patience 14", 4, text[text.index("w: the") :])
