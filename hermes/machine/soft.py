"""What does the master hold that the ledger does not? All of it, in one place. Pure.

None of it is lost knowledge: a restarted master starts with `Soft()` and asks again.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hermes.machine.events import Merge, UpdateScored
from hermes.values import Reason


class Soft(msgspec.Struct, frozen=True):
    """Last-heard times, and what is under way."""

    heard: Mapping[str, int] = {}
    """Run time of the last sign of life, by worker."""
    reading: frozenset[str] = frozenset()
    """Workers whose topic is being read to its end before they are declared lost."""
    asked: Mapping[str, tuple[int, int]] = {}
    """(number, run time) of the last request to send again, by worker."""
    refused: tuple[str, ...] = ()
    """Incarnations that were refused of late: their process is gone, whatever else it has sent."""
    now: int = 0
    """When the machine was last called."""
    lobby: bool = False
    """Whether the lobby is being read."""
    uploading: bool = False
    storing_first: bool = False
    scoring: bool = False
    scored: UpdateScored | None = None
    merge: Merge | None = None
    """The merge under way, with the reason of its closing."""
    merge_reason: Reason = Reason("")
    evaluating: bool = False
    finishing: bool = False
    finished: bool = False
