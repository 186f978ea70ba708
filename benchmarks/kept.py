"""Do topics stay flat? Thousands of versions of digits with `retention.keep=last:20` (the default),
two workers, on both brokers: bytes by topic as the master's beat has them, and the memory that is a
process's own (USS), at four places of the run. Kafka frees what was let go of a minute or two
later."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import common
from benchmarks.flat import name_of
from hermes.broker.control import Child, Kind
from hermes.runtime.join import runs_at
from hermes.runtime.observe import LiveRun, last_beat
from hermes.transport.kafka import KafkaLog

JOB = Path(__file__).parents[1] / "examples" / "digits.py"
RUN = "kept"
VERSIONS = 2000
PLACES = 4
SETTINGS = ("stop.samples=off", "stop.patience=off", "stop.accuracy=off")
LOOK = 1.0
"""Seconds between two looks."""


class Sample(NamedTuple):
    """What there is at a place of the run, in bytes."""

    version: int
    topics: dict[str, int]
    memory: dict[str, int]


def begun(broker: Child, folder: Path, versions: int) -> subprocess.Popen[bytes]:
    """The run, in processes of its own."""
    command = [sys.executable, "-m", "hermes", "run", str(JOB), "--quiet", "--strategy", "bsp"]
    command += ["--workers", "2", "--broker", broker.address, "--run", RUN, "--out", str(folder)]
    for setting in (*SETTINGS, f"stop.versions={versions}"):
        command += ["--set", setting]
    environment = {**os.environ, "HERMES_CONFIG": str(folder), "HERMES_CACHE": str(folder)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def samples(kind: Kind, versions: int) -> Iterator[Sample]:
    """One run, looked at at each place."""
    with common.broker(kind) as broker, common.scratch() as folder:
        process = begun(broker, folder, versions)
        marks = [versions * place // PLACES for place in range(1, PLACES + 1)]
        with KafkaLog(broker.address) as log:
            while process.poll() is None and RUN not in runs_at(log):
                time.sleep(LOOK)
            live = LiveRun(log, broker.address, RUN)
            while marks and process.poll() is None:
                newest = live.look().state.newest
                # The last place is taken a little before the end: then the run is over.
                there = newest is not None and newest.version >= min(marks[0], versions - 20)
                beat = last_beat(log, RUN) if there else None
                if newest is not None and beat is not None:
                    marks.pop(0)
                    yield Sample(newest.version, dict(beat.topics), memory(process.pid, broker.pid))
                time.sleep(LOOK)
        if process.wait(60):
            raise SystemExit(f"the run ended with code {process.returncode}")


def memory(run: int, broker: int) -> dict[str, int]:
    """USS by process."""
    root = psutil.Process(run)
    found = {"broker": psutil.Process(broker).memory_full_info().uss}
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has just ended
            found[name_of(process)] = process.memory_full_info().uss
    return found


def rows(kind: str, found: list[Sample]) -> list[list[str]]:
    """A line for each topic and process."""
    lines = []
    for topic in sorted(found[-1].topics):
        sizes = [sample.topics.get(topic, 0) for sample in found]
        lines.append([kind, f"`{topic}`", *(f"{size / 1e6:.2f} MB" for size in sizes)])
    for name in sorted(found[-1].memory):
        sizes = [sample.memory.get(name, 0) for sample in found]
        lines.append(
            [kind, f"memory of {name}", *(f"{size / (1 << 20):.1f} MiB" for size in sizes)]
        )
    return lines


def main() -> None:
    """Both brokers, one after the other."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--versions", type=int, default=VERSIONS)
    parser.add_argument("--only", choices=common.KINDS, help="one kind of broker")
    wishes = parser.parse_args()
    lines: list[list[str]] = []
    head = ["broker", "what", *(f"{part + 1}/{PLACES}" for part in range(PLACES))]
    for kind in common.KINDS:
        if wishes.only in (None, kind):
            found = list(samples(kind, wishes.versions))
            at = ", ".join(str(sample.version) for sample in found)
            print(f"{kind}: versions {at}", file=sys.stderr)
            lines += rows(kind, found)
    text = f"{wishes.versions} versions of 39 kB.\n\n{common.table(head, lines)}"
    common.report("kept", text, update=wishes.update and wishes.only is None)


if __name__ == "__main__":
    main()
