"""Which samples does a worker's next round train? Pure.

Either one grant is one round of `round.epochs` passes, or a round is `round.steps` batches and
batches run on across grants, each grant passed once (protocol 9a); a version may name a quota of
such rounds, which are then one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hermes.machine.events import Segment
from hermes.messages import BlocksGranted, VersionPublished
from hermes.policy import gate
from hermes.policy.presets import Settings

HELD_OUT = 0.15
"""Share of a grant that `gate.probe=fresh15` holds out (paper.md 1.2)."""


class Plan(NamedTuple):
    """A round: what it trains, which grants it uses up, where the next one begins."""

    segments: tuple[Segment, ...]
    batch: int
    joined: bool
    finished: tuple[int, ...]
    offset: int
    """Samples of the first grant left that this round has used."""


def probe_of(settings: Settings) -> str:
    """Which probe a round ends with: "" where the gate does not look at a loss."""
    return settings.gate.probe if gate.looks_at_loss(settings.gate) else ""


def quota_of(newest: VersionPublished | None, worker: str) -> int:
    """How many times `round.steps` steps this worker's rounds on this version have."""
    if newest is None or newest.superstep is None:
        return 1
    return newest.superstep.quotas.get(worker, 1)


def plan(
    settings: Settings, grants: Sequence[BlocksGranted], offset: int, quota: int = 1
) -> Plan | None:
    """The next round out of these grants, `offset` samples into the first; None if there is not
    enough for one. `quota` counts where a round has a fixed number of steps."""
    if not grants:
        return None
    if settings.round.steps is None:
        return _whole_grant(settings, grants[0])
    return _steps(settings.round.steps * quota, grants, offset)


def _whole_grant(settings: Settings, grant: BlocksGranted) -> Plan:
    held_out = int(grant.size * HELD_OUT) if probe_of(settings) == "fresh15" else 0
    size = grant.size - held_out
    passes = range(settings.round.epochs)
    segments = tuple(Segment(grant.number, pass_, 0, size, size) for pass_ in passes)
    return Plan(segments, grant.batch, False, (grant.number,), 0)


def _steps(steps: int, grants: Sequence[BlocksGranted], offset: int) -> Plan | None:
    batch = grants[0].batch
    need = steps * batch
    segments: list[Segment] = []
    finished: list[int] = []
    for grant in grants:
        take = min(need, grant.size - offset)
        segments.append(Segment(grant.number, 0, offset, offset + take, grant.size))
        need -= take
        offset += take
        if offset == grant.size:
            finished.append(grant.number)
            offset = 0
        if not need:
            return Plan(tuple(segments), batch, True, tuple(finished), offset)
    return None
