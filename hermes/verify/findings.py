"""What was found that does not hold, and where? Pure."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that does not follow."""

    kind: str
    """"chain", "fold", "story", "decision", "version", "update", "state", "scores", "account" or
    "file"."""
    offset: int
    """Of the record in the ledger; NOWHERE: it is no record's."""
    entry: str
    """Which entry of it, in words: "version 3"."""
    says: str
    """What is recorded."""
    follows: str
    """What follows, or is there."""

    @property
    def text(self) -> str:
        """In one line."""
        place = f"offset {self.offset}, {self.entry}" if self.offset >= 0 else self.entry
        return f"{place}: {self.says}; {self.follows}"


NOWHERE = -1


def update_called(number: int, worker: str, incarnation: str) -> str:
    """An update, for people: of an id that is chance the first characters tell it from others; a
    simulated worker's is its name and a count."""
    life = incarnation if incarnation.startswith(worker) else incarnation[:8]
    return f"update {number} of {worker} ({life})"


def in_order(findings: list[Finding]) -> list[Finding]:
    """The first record first; what is no record's last."""
    return sorted(findings, key=lambda one: (one.offset < 0, one.offset))
