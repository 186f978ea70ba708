"""What is known of a cell once it has run? The form of its file; pure but for reading one."""

from __future__ import annotations

from pathlib import Path

import msgspec

FORMAT = 2
"""Of what a cell's file holds, and of what it means."""


class Point(msgspec.Struct, frozen=True, array_like=True):
    """The newest version at a point of the grid, where it is another one than at the point
    before."""

    seconds: float
    """Virtual, since the run began: a multiple of the grid."""
    version: int
    samples: int
    """Sample passes merged into it."""
    trained: int
    """Sample passes trained by then, whether or not they were merged."""
    pushes: int
    """Updates pushed by then."""
    bytes: int
    """Of models and updates that all workers have sent and received by then, with headers."""
    test_accuracy: float | None
    test_loss: float | None
    validation_accuracy: float | None
    calls: int | None = None
    """Reports of rounds, updates pushed and versions fetched by then, by all workers."""


class Spent(msgspec.Struct, frozen=True):
    """Seconds of virtual time in the rounds of all workers."""

    training: float = 0.0
    transfer: float = 0.0
    waiting: float = 0.0
    """For others, and for the master."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that has run."""

    digest: str
    """Of all that it depends on."""
    code: str
    """SHA-256 of Hermes's own source, as it was."""
    strategy: str
    devices: str
    seed: int
    settings: dict[str, object]
    args: tuple[str, ...] = ()
    """Of the job."""
    status: str
    reason: str
    grid: float
    seconds: float
    """Virtual, since the run began, at the stop."""
    version: int
    samples: int
    trained: int
    pushes: int
    test_accuracy: float | None
    """Of the last version."""
    points: tuple[Point, ...]
    spent: Spent
    model_digest: str | None
    ledger_digest: str
    real_seconds: float


def read_outcome(path: Path, digest: str) -> Outcome | None:
    """What a file tells of the cell with this digest; None where it does not."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Outcome)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.digest == digest else None
