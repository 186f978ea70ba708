"""On what terms does a worker take part? What it is started with, and why it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hermes.data.own import Brought


class WorkerOptions(NamedTuple):
    """What a worker is started with."""

    run: str | None
    name: str
    key: bytes
    state: Path
    """Folder of the outbox."""
    cache: Path
    """Folder of the blocks."""
    speed: float | None = None
    """Emulated, against `step_seconds`; None: as fast as it goes."""
    step_seconds: float | None = None
    """Seconds of a step on a device of speed 1; None: measured before the first round."""
    patience: float = 600.0
    """Seconds to wait for the run."""
    outage: float = 600.0
    """Seconds that the broker may be away."""
    device: str | None = None
    """Beats the job's own; None: the job's."""
    threads: int | None = None
    """None: one where another worker has its name in `names`, else all cores (see `Share`)."""
    names: Path | None = None
    """Folder of the names that workers on this machine have claimed."""
    own: Brought | None = None
    """The data that it brings; None: it is granted the run's."""


class Farewell(NamedTuple):
    """Why a worker left: "done", "refused", "fenced", "interrupted", "unanswered" (no master took
    it in), "deserted" (the one that did is silent), "again"."""

    code: str
    reason: str
