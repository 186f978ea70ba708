"""A run whose data stay with its workers: as a user starts one, over a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, Shell

from hermes.broker.control import Child
from hermes.transport import names
from hermes.transport.kafka import KafkaLog

pytestmark = pytest.mark.broker

EXAMPLE = str(ROOT / "examples" / "resident.py")


def test_files_stay_where_they_are_and_the_run_stops_by_what_their_owners_say(
    shell: Shell, embedded: Child, tmp_path: Path
) -> None:
    """The example, with two files of unequal sizes: its accuracy is over both workers' validation
    samples, and no row of theirs is in any topic."""
    x, y = np.load(ROOT / "hermes" / "data" / "digits.npz").values()
    x = (x / np.float32(16)).astype(np.float32)
    for number, rows in ((1, slice(0, 600)), (2, slice(600, None))):
        np.savez(tmp_path / f"part{number}.npz", x=x[rows], y=y[rows].astype(np.int64))
    at = ("--broker", embedded.address, "--run", "resident")
    wanted = ("--strategy", "hermes", "--expect", "2", "--set", "stop.accuracy=0.85")
    wanted += ("--set", "stop.samples=off")  # a quick machine would be through with them before
    master = shell.start("master", EXAMPLE, *at, *wanted, "--json", "--quiet")
    workers = [
        shell.start(
            *("worker", *at, "--name", f"site-{number}"),
            *(
                "--data",
                str(tmp_path / f"part{number}.npz"),
                "--state",
                str(tmp_path / f"s{number}"),
            ),
        )
        for number in (1, 2)
    ]
    out, err = master.communicate(timeout=90)
    assert master.returncode == 0, err
    for worker in workers:
        _, said = worker.communicate(timeout=30)
        assert worker.returncode == 0, said
        assert "they stay here" in said
    found = json.loads(out)
    assert (found["status"], found["reason"]) == ("finished", "accuracy")
    assert found["accuracy"]["validation"] >= 0.85
    assert found["accuracy"]["test"] is None
    assert found["best"]["version"] is not None
    with KafkaLog(embedded.address) as log:
        everything = b""
        reader = log.reader()
        topics = log.topics(names.prefix_of("resident"))
        for topic, end in log.ends(topics).items():
            reader.follow(topic, 0)
            read = 0
            while read < end and (records := reader.poll(5.0)):
                everything += b"".join(record.value for record in records)
                read = records[-1].offset + 1
            reader.drop(topic)
        reader.close()
    assert len(everything) > 100_000
    assert not any(row.tobytes() in everything for row in x)
