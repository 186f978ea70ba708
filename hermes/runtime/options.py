"""What is a master started with, and what does it tell whoever looks on?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from hermes.job import Job
from hermes.machine.state import MasterState
from hermes.messages import JobSource, LogLine
from hermes.policy.presets import Settings
from hermes.runtime.folder import RunFolder
from hermes.runtime.watch import OUTAGE


class MasterOptions(NamedTuple):
    """What a master is started with."""

    run: str
    source: JobSource
    job: Job
    settings: Settings
    seed: int
    expect: int
    key: bytes
    folder: RunFolder
    cache: Path
    ask: Callable[[], bool] | None = None
    """Asked before model and data are sent; False stops the run."""
    patience: float = OUTAGE
    """Seconds that the broker may be away."""


class Listener(Protocol):
    """Whoever shows how the run goes. Called from the master's thread only."""

    def uploading(self, sent: int, total: int) -> None:
        """Blocks of the dataset that are in the log."""

    def ready(self) -> None:
        """Workers may come."""

    def changed(self, state: MasterState, now: int) -> None:
        """The state after a turn; `now` in nanoseconds of run time."""

    def line(self, line: LogLine) -> None:
        """A line of the central log; may be called from another thread."""
