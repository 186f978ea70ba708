"""What is a decision, as it is told and recomputed? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hermes.report.why.recompute import Check
from hermes.values import Birth, Reason

MASTER = "master"
"""Whose decisions are about the run, not about one worker."""


class Decision(NamedTuple):
    """One decision: when, about whom, why, and whether it follows again from its facts."""

    worker: str
    """A worker's name; MASTER for what concerns the run."""
    kind: str
    """A key of `TELL`'s, such as "round", "merged", "resized", "kept"."""
    term: int
    n: int
    """Which record of the ledger: the n-th of this term's master."""
    at: int
    """Run time, nanoseconds."""
    version: int
    """The newest version then; -1 before the first."""
    reason: Reason
    details: Mapping[str, Any]
    """Numbers that belong to it beside the reason's facts."""
    check: Check


class Arrived(NamedTuple):
    """When an update was taken."""

    at: int
    version: int


def spelled(birth: Birth) -> str:
    """A birth as text: no two updates have the same."""
    return f"{birth.incarnation}/{birth.number}"
