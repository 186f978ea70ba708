"""What does a whole ledger say of what is to come? All of it, read before anything is made again.

A replay knows what the run did not know then: which payload an update will come to, which updates
a version will hold, when a worker's next round will begin. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from hermes.codec import decode
from hermes.errors import DecodeError, RunError
from hermes.machine.events import LedgerSeen
from hermes.machine.state import MasterState
from hermes.messages import (
    Forked,
    LedgerRecord,
    Rewound,
    Rotated,
    RoundNoted,
    RunOpened,
    StateReset,
    StateSaved,
    Update,
    UpdateTaken,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.perform.ledger import Void, read_record
from hermes.transport.log import Record

NEEDS_OTHERS = (Forked, Rewound, StateReset)
"""Entries after which a run goes on from what no record of it makes again."""


class Told(NamedTuple):
    """A record that counts."""

    offset: int
    record: LedgerRecord
    digest: bytes
    """SHA-256 of its bytes."""


class Noted(NamedTuple):
    """A round in the ledger."""

    offset: int
    entry: RoundNoted
    incarnation: str
    update: Update | None
    """What it pushed, if the ledger took that."""


class Story:
    """Reads the records of a ledger in order."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.sights: list[LedgerSeen] = []
        """Every record of a ledger, void ones too: what a worker reads."""
        self.opened: RunOpened | None = None
        self.rounds: list[Noted] = []
        self.after: dict[tuple[str, int], Noted] = {}
        """The round after this one, by incarnation and number."""
        self.versions: list[tuple[int, VersionPublished]] = []
        """With the offsets of their records."""
        self.saved: dict[int, StateSaved] = {}
        self.left_over: dict[str, list[Update]] = {}
        """By incarnation: updates of those before it that it sent again."""
        self.trims = True
        """Whether the broker could forget the first records of a topic."""
        self.state = MasterState()
        """The fold of all that was read."""
        self._last: dict[str, Noted] = {}
        self._speaks: dict[str, str] = {}
        """The incarnation in force, by worker."""

    def read(self, records: Iterable[Record]) -> Story:
        """All of them. Raises `RunError` for a run that cannot be replayed."""
        for raw in records:
            self._see(raw)
            found = read_record(self.state, raw)
            if not isinstance(found, Void):
                self.state, record = found
                self.told.append(Told(raw.offset, record, hashlib.sha256(raw.value).digest()))
                self._take(raw.offset, record)
        return self

    def _see(self, raw: Record) -> None:
        try:
            message = decode(raw.value)
        except DecodeError:
            return  # a worker skips it, too
        if isinstance(message, LedgerRecord):
            digest = hashlib.sha256(raw.value).digest()
            self.sights.append(LedgerSeen(message, raw.offset, digest))

    def _take(self, offset: int, record: LedgerRecord) -> None:
        entries = record.entries
        for place, entry in enumerate(entries):
            if isinstance(entry, NEEDS_OTHERS):
                raise RunError(
                    f"its ledger has {type(entry).__name__} at offset {offset}: it went on from "
                    "tensors that its own records do not make again",
                    where=f"run {self.opened.run}" if self.opened else "the ledger",
                    remedy="hermes verify looks at what it recorded.",
                )
            if isinstance(entry, RunOpened):
                self.opened = entry
            elif isinstance(entry, WorkerAdmitted):
                self._speaks[entry.worker] = entry.incarnation
            elif isinstance(entry, RoundNoted):
                following = entries[place + 1] if place + 1 < len(entries) else None
                self._noted(offset, entry, following)
            elif isinstance(entry, UpdateTaken):
                self._taken(entry)
            elif isinstance(entry, VersionPublished):
                self.versions.append((offset, entry))
            elif isinstance(entry, StateSaved):
                self.saved[entry.version] = entry
            elif isinstance(entry, Rotated):
                self.trims = False

    def _noted(self, offset: int, entry: RoundNoted, following: object) -> None:
        pushed = entry.verdict == "push" and isinstance(following, UpdateTaken)
        mine = following if pushed and isinstance(following, UpdateTaken) else None
        update = mine.update if mine is not None and mine.worker == entry.worker else None
        incarnation = update.birth.incarnation if update else self._speaks[entry.worker]
        noted = Noted(offset, entry, incarnation, update)
        self.rounds.append(noted)
        before = self._last.get(incarnation)
        if before is not None:
            self.after[incarnation, before.entry.round] = noted
        self._last[incarnation] = noted

    def _taken(self, entry: UpdateTaken) -> None:
        sender = self._speaks[entry.worker]
        if entry.update.birth.incarnation != sender:
            self.left_over.setdefault(sender, []).append(entry.update)

    def check(self) -> None:
        """Raise `RunError` where the rounds do not say how they came about."""
        run = f"run {self.opened.run}" if self.opened else "the ledger"
        if self.opened is None or not self.rounds:
            raise RunError(
                "it has no rounds that could be trained again",
                where=run,
                remedy="Replay a run that has trained.",
            )
        bare = next((noted for noted in self.rounds if not noted.entry.upon), None)
        if bare is not None:
            raise RunError(
                f"round {bare.entry.round} of {bare.entry.worker} does not say upon which records "
                "it began: an older Hermes has written it",
                where=run,
                remedy="hermes verify looks at what it recorded.",
            )
