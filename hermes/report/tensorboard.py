"""How does a run look in TensorBoard? Its curves as event files. Needs the package tensorboard.

One folder for the run's scores and one a worker, so that TensorBoard draws the workers' curves over
each other. Neither TensorFlow nor torch is needed.
"""

from __future__ import annotations

import datetime
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from hermes.report.series import Series

SUFFIX = ".hermes"
"""What our event files end with: those alone are ever replaced."""

REMEDY = "pip install 'hermes-edge[tensorboard]'"


class Scalar(NamedTuple):
    """A number in a curve."""

    folder: str
    tag: str
    step: int
    seconds: float
    value: float


def can_write() -> bool:
    """Whether the package is here."""
    return importlib.util.find_spec("tensorboard") is not None


def _without_tensorflow() -> None:
    """Have the package use its own stub, though TensorFlow may be installed: it looks for this
    module first. That takes seconds to load, and cannot be in one process with torch's compiler.
    """
    name = "tensorboard.compat.notf"
    sys.modules.setdefault(name, ModuleType(name))


def event_files(folder: Path) -> list[Path]:
    """The event files of ours below this folder."""
    return sorted(folder.glob(f"**/*tfevents*{SUFFIX}"))


def write_events(folder: Path, run: str, opened: str, series: Series) -> None:
    """Write the run's curves below `folder`; `opened` is the wall time (ISO 8601) of its start.
    Raises `OSError`."""
    _without_tensorflow()
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    begin = wall(opened)
    writers: dict[str, EventFileWriter] = {}
    try:
        for point in scalars(run, series):
            place = folder / point.folder
            if point.folder not in writers:
                writers[point.folder] = EventFileWriter(str(place), filename_suffix=SUFFIX)
            value = Summary.Value(tag=point.tag, simple_value=point.value)
            event = Event(wall_time=begin + point.seconds, step=point.step)
            event.summary.CopyFrom(Summary(value=[value]))
            writers[point.folder].add_event(event)
    finally:
        for writer in writers.values():
            writer.close()


def wall(opened: str) -> float:
    """Seconds since 1970 of an ISO 8601 time; 0 for text that is none."""
    try:
        return datetime.datetime.fromisoformat(opened.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def scalars(run: str, series: Series) -> Iterator[Scalar]:
    """All numbers: scores by version; a worker's by its how-manieth round or size."""
    for point in series.evaluations:
        named = {
            "validation/loss": point.loss,
            "validation/accuracy": point.accuracy,
            "test/loss": point.test_loss,
            "test/accuracy": point.test_accuracy,
            "run/samples": point.samples,
        }
        for tag, value in named.items():
            if value is not None:
                yield Scalar(run, tag, point.version, point.seconds, float(value))
    yield from _of_rounds(run, series)
    counts: dict[str, int] = {}
    for size in series.shards:
        step = counts[size.worker] = counts.get(size.worker, -1) + 1
        yield Scalar(f"{run}/{size.worker}", "shard/samples", step, size.seconds, size.samples)


def _of_rounds(run: str, series: Series) -> Iterator[Scalar]:
    counts: dict[str, int] = {}
    for done in series.rounds:
        step = counts[done.worker] = counts.get(done.worker, 0) + 1
        named = {
            "round/training_loss": done.training_loss,
            "round/probe_loss": done.probe_loss,
            "round/busy_seconds": done.busy_seconds,
            "round/waited_seconds": done.waited_seconds,
            "round/samples": done.samples,
            "gate/z": done.z,
            "gate/threshold": done.threshold,
            "gate/pushed": int(done.verdict == "push"),
        }
        for tag, value in named.items():
            if isinstance(value, int | float):
                yield Scalar(f"{run}/{done.worker}", tag, step, done.seconds, float(value))
