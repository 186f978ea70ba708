"""What does the master hold that the ledger does not? All of it, in one place. Pure.

None of it is lost knowledge: a restarted master starts with `Soft()` and asks again.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hermes.machine.events import Merge, UpdateScored
from hermes.machine.settled import Settled
from hermes.policy.pace import Pace
from hermes.values import Position, Reason


class Soft(msgspec.Struct, frozen=True):
    """Last-heard times, and what is under way."""

    heard: Mapping[str, int] = {}
    """Run time of the last sign of life, by worker."""
    gaps: Mapping[str, Pace] = {}
    """Seconds between two signs of life, by worker."""
    since: int = 0
    """Run time since which nobody alive was silent, or stood still, at the latest look at all."""
    progress: Mapping[str, int] = {}
    """Run time up to which a worker is known to have got on, or to have had nothing to do."""
    steps: Mapping[str, int] = {}
    """Steps that a worker's heartbeats told of, the most of this incarnation."""
    rounds: Mapping[str, Pace] = {}
    """Seconds of a worker's whole rounds, the waiting in them included."""
    storing: frozenset[str] = frozenset()
    """Workers of whose next update chunks came by, and not yet the message that names them."""
    reading: frozenset[str] = frozenset()
    """Workers, silent or stuck, whose topic is being read to its end before they are lost."""
    asked: Mapping[str, tuple[int, int]] = {}
    """(number, run time) of the last request to send again, by worker."""
    repeats: int = 0
    """Messages that came again, as they may: after an outage, or since we asked for them."""
    refused: tuple[str, ...] = ()
    """Incarnations that were refused of late: their process is gone, whatever else it has sent."""
    settled: Settled = Settled()
    """What was looked at when nothing was due: as long as it is the very same, nothing is."""
    took: Mapping[str, int] = {}
    """Nanoseconds that a worker's last answer took, whether it came in time or not."""
    awake: int = 0
    """Run time since which every deadline counts: the master was away before, or not there."""
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
    doubted: bool = False
    """The version under way was asked for before an outage: what it stored may be gone."""
    securing: bool = False
    secured: bool = False
    """Whether the newest version's bytes were seen to be there, since the start or an outage."""
    state_of: int = -1
    """The version at which the performer has the master's own tensors in memory."""
    restoring: bool = False
    saving: bool = False
    trims: bool = True
    """Whether the broker can forget the first records of a topic."""
    adding: frozenset[str] = frozenset()
    """Topics of which a new generation is being made."""
    logs: Position | None = None
    """How far the central log was read."""
    tidied: tuple[int, int] = (-1, 0)
    """The version, and the place of the central log, at which retention was looked at last."""
    evaluating: bool = False
    """Whether a version is being evaluated: its outcome always comes, and the last scores wait."""
    finishing: bool = False
    finished: bool = False
