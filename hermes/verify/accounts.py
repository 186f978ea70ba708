"""What became of each update, and of each block? Accounts of a whole run. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    DataPublished,
    Entry,
    Rewound,
    RoundNoted,
    UpdateRejected,
    UpdateTaken,
    VersionPublished,
)
from hermes.values import Birth, BlockRange, Payload

Counts = npt.NDArray[np.int32]

APPLIED, REJECTED, UNDECIDED = "applied", "rejected", "undecided"


class Fate(NamedTuple):
    """What became of one update."""

    offset: int
    """Of the record that took it."""
    payload: Payload
    outcome: str = UNDECIDED
    version: int | None = None
    """The version that holds it (or held it, where that version was lost)."""
    why: str = ""
    """The code of the rejection."""


class Updates:
    """The account of updates."""

    def __init__(self) -> None:
        self.fates: dict[tuple[str, Birth], Fate] = {}
        self.stray: list[str] = []
        """Decisions about updates that were never taken."""

    def take(self, entry: Entry, offset: int) -> None:
        """One entry more."""
        if isinstance(entry, UpdateTaken):
            self.fates[entry.worker, entry.update.birth] = Fate(offset, entry.update.payload)
        elif isinstance(entry, UpdateRejected):
            why = entry.reason.code
            self._decide(entry.worker, entry.birth, outcome=REJECTED, why=why)
        elif isinstance(entry, VersionPublished):
            for part in entry.members:
                self._decide(part.worker, part.birth, outcome=APPLIED, version=entry.version)
        elif isinstance(entry, Rewound):
            for part in entry.lost:
                self._decide(part.worker, part.birth, outcome=REJECTED, why="version-lost")

    def _decide(self, worker: str, birth: Birth, **changes: Any) -> None:
        fate = self.fates.get((worker, birth))
        if fate is None:
            self.stray.append(f"update {birth.number} of {worker} ({birth.incarnation})")
        else:
            self.fates[worker, birth] = fate._replace(**changes)

    def table(self) -> dict[str, dict[str, Any]]:
        """By worker: pushed, applied, rejected, undecided, and the rejections by their reason."""
        found: dict[str, dict[str, Any]] = {}
        for (worker, _), fate in self.fates.items():
            row = found.setdefault(
                worker,
                {"pushed": 0, APPLIED: 0, REJECTED: 0, UNDECIDED: 0, "reasons": Counter()},
            )
            row["pushed"] += 1
            row[fate.outcome] += 1
            row["reasons"].update([fate.why] if fate.why else [])
        return {name: {**row, "reasons": dict(row["reasons"])} for name, row in found.items()}

    def undecided(self) -> list[tuple[str, Birth, Fate]]:
        """Those that wait."""
        return [(*key, fate) for key, fate in self.fates.items() if fate.outcome == UNDECIDED]


class Blocks:
    """The account of the train blocks; of each: granted = trained + returned + held."""

    def __init__(self) -> None:
        self.count = 0
        self.granted: Counts = np.zeros(0, np.int32)
        self.returned: Counts = np.zeros(0, np.int32)
        self.trained: dict[str, Counts] = {}
        """By worker: how often it trained each block."""
        self._held: dict[tuple[str, int], tuple[BlockRange, ...]] = {}

    def take(self, entry: Entry) -> None:
        """One entry more."""
        if isinstance(entry, DataPublished):
            self.count = entry.blocks["train"]
            self.granted = np.zeros(self.count, np.int32)
            self.returned = np.zeros(self.count, np.int32)
        elif isinstance(entry, BlocksGranted):
            self._held[entry.worker, entry.number] = entry.ranges
            self._add(self.granted, entry.ranges)
        elif isinstance(entry, RoundNoted):
            mine = self.trained.setdefault(entry.worker, np.zeros(self.count, np.int32))
            for number in entry.finished:
                self._add(mine, self._held.pop((entry.worker, number), ()))
        elif isinstance(entry, BlocksReturned):
            for number in entry.numbers:
                self._add(self.returned, self._held.pop((entry.worker, number), ()))

    def _add(self, counts: Counts, ranges: tuple[BlockRange, ...]) -> None:
        for part in ranges:
            np.add.at(counts, np.arange(part.first, part.last) % self.count, 1)

    def passes(self) -> Counts:
        """How often each block was trained, by anybody."""
        total: Counts = np.zeros(self.count, np.int32)
        for counts in self.trained.values():
            total += counts
        return total

    def held(self) -> Counts:
        """How often each block is granted and neither trained nor returned."""
        total: Counts = np.zeros(self.count, np.int32)
        for ranges in self._held.values():
            self._add(total, ranges)
        return total

    def unaccounted(self) -> list[int]:
        """Blocks whose numbers do not come out even."""
        left = self.granted - self.passes() - self.returned - self.held()
        return [int(index) for index in np.flatnonzero(left)]
