"""How much of a run stays at its broker? Pure.

The ledger and the data stay whole. Of versions the newest stay, and what somebody still needs
(protocol 13); what lies before the first of these in a topic may go.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from hermes.policy.ranges import Allowed, whole

ALL = "all"

KNOWN = 20
"""Newest versions that a master knows of at least where all are kept."""

LEAST = 64
"""Records that a topic may lose at least before a new generation of it is worth while."""


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run keeps at its broker beside its ledger and its data."""

    keep: str = "last:20"
    """`last:N`: the N newest versions, what they were made of, and what is in use; `all`."""
    snapshots: int = 10
    """Versions between two snapshots of what the master itself holds (momentum): a restart forms
    it again from the newest one. Never more than half of those that are kept."""


RANGES: dict[str, Allowed] = {
    "keep": Allowed("last:N with N >= 2, or all", lambda value: _count(value) is not None),
    "snapshots": whole(1),
}
"""What each of `RetentionSettings` may be."""


def _count(value: object) -> int | None:
    """Versions of `last:N`; 0 for `all`; None for what is neither."""
    if value == ALL:
        return 0
    match = re.fullmatch(r"last:(\d{1,9})", value) if isinstance(value, str) else None
    return int(match[1]) if match is not None and int(match[1]) >= 2 else None


def keeps_all(settings: RetentionSettings) -> bool:
    """Whether nothing is ever let go of."""
    return settings.keep == ALL


def versions(settings: RetentionSettings) -> int:
    """The newest versions that a master knows of, and that stay."""
    return _count(settings.keep) or max(KNOWN, 2 * settings.snapshots)


def stretch(settings: RetentionSettings) -> int:
    """Versions between two snapshots: of those known two such stretches must hold the updates."""
    return max(1, min(settings.snapshots, versions(settings) // 2))


class Fill(NamedTuple):
    """One generation of a topic, in records."""

    dead: int
    """Below the first that is needed."""
    alive: int
    """From there to the end."""


def worth_trimming(fill: Fill) -> bool:
    """Whether the first records are to go now: not one by one."""
    return fill.dead >= max(LEAST // 4, fill.alive // 4)


def worth_rotating(fill: Fill) -> bool:
    """Whether a new generation is to begin: an old one goes only as a whole."""
    return fill.dead >= max(LEAST, fill.alive)
