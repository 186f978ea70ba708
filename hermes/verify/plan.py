"""What is each version made of, where do its bytes lie, and what was let go of? As the ledger says.

All of the ledger is read before a tensor is: only its end tells what was trimmed, and where what
was lost lies now. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from hermes.machine.events import Part
from hermes.messages import (
    Contribution,
    DataPublished,
    Entry,
    Forked,
    Republished,
    Rewound,
    RunScored,
    StateReset,
    StateSaved,
    TailLost,
    Trimmed,
    Update,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
)
from hermes.values import Birth, Payload, Position
from hermes.verify.scores import Recorded

Key: TypeAlias = tuple[int, str]
"""A version: its number and digest."""


class Named(NamedTuple):
    """An update, and the offset of the record that took it."""

    worker: str
    update: Update
    offset: int


class Publish(NamedTuple):
    """A version that was published."""

    offset: int
    version: VersionPublished
    updates: tuple[Named, ...]

    @property
    def key(self) -> Key:
        return key_of(self.version)


class Save(NamedTuple):
    """What the master itself held was saved."""

    offset: int
    saved: StateSaved
    key: Key


class Reset(NamedTuple):
    """What the master itself held began anew."""

    key: Key


class Back(NamedTuple):
    """The run went on from an older version."""

    version: VersionPublished


Step: TypeAlias = Publish | Save | Reset | Back


def key_of(version: VersionPublished) -> Key:
    """Which version that is."""
    return version.version, version.payload.digest


class Plan:
    """Reads the entries of valid records in order."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.buffers: frozenset[str] = frozenset()
        self.brought = False
        """Whether the data stay with the workers: what they scored cannot be scored again."""
        self.forked: Forked | None = None
        self.lies: dict[str, Payload] = {}
        """Where the bytes of a version lie, by digest."""
        self.dropped: set[Key] = set()
        """Versions that were lost, as the ledger says."""
        self.returned: set[Key] = set()
        """Versions that the run went back to."""
        self.snapshots: dict[Key, Payload] = {}
        self.scores: dict[Key, list[Recorded]] = {}
        """What was measured of a version."""
        self.floors: dict[str, Position] = {}
        """What lies before may be gone, by topic."""
        self.tails: set[str] = set()
        """Topics that lost their end, as the ledger says."""
        self._waiting: dict[tuple[str, Birth], Named] = {}
        self._keys: dict[int, Key] = {}

    @property
    def versions(self) -> int:
        """How many were published."""
        return sum(isinstance(step, Publish) for step in self.steps)

    def take(self, entry: Entry, offset: int) -> None:
        """One entry more."""
        if isinstance(entry, DataPublished):
            self.buffers = frozenset(entry.buffers)
            self.brought = bool(entry.shares)
        elif isinstance(entry, Forked):
            self.forked = entry
        elif isinstance(entry, UpdateTaken):
            named = Named(entry.worker, entry.update, offset)
            self._waiting[entry.worker, entry.update.birth] = named
        elif isinstance(entry, UpdateRejected):
            self._waiting.pop((entry.worker, entry.birth), None)
        elif isinstance(entry, VersionPublished):
            self._published(entry, offset)
        elif isinstance(entry, StateSaved):
            key = self._key(entry.version)
            self.snapshots[key] = entry.payload
            self.steps.append(Save(offset, entry, key))
        elif isinstance(entry, StateReset):
            self.steps.append(Reset(self._key(entry.version)))
        elif isinstance(entry, Republished):
            self.lies[entry.payload.digest] = entry.payload
        elif isinstance(entry, Rewound):
            self._rewound(entry)
        elif isinstance(entry, Trimmed):
            self.trim(entry)
        elif isinstance(entry, VersionEvaluated):
            what = (offset, f"version {entry.version} evaluated")
            self._scored(entry.version, what, "validation", entry.loss, entry.accuracy)
        elif isinstance(entry, RunScored):
            at, what = entry.version, (offset, f"final scores of version {entry.version}")
            losses = (entry.validation_loss, entry.test_loss)
            self._scored(at, what, "validation", losses[0], entry.validation_accuracy)
            self._scored(at, what, "test", losses[1], entry.test_accuracy)
        elif isinstance(entry, TailLost):
            self.tails.add(entry.topic)

    def trim(self, entry: Trimmed) -> None:
        """More was let go of."""
        self.floors[entry.topic] = Position(entry.topic, entry.generation, entry.before)

    def parts(self, step: Publish) -> tuple[Part, ...]:
        """Its updates, with the weights that the version names, and where their bases lie."""
        return tuple(
            Part(
                named.worker,
                named.update,
                member.weight,
                self.lies.get(named.update.base.digest, step.version.payload),
            )
            for named, member in zip(step.updates, step.version.members, strict=True)
        )

    def _published(self, entry: VersionPublished, offset: int) -> None:
        updates = tuple(self._taken(part) for part in entry.members)
        self.steps.append(Publish(offset, entry, updates))
        self.lies[entry.payload.digest] = entry.payload
        self._keys[entry.version] = key_of(entry)

    def _scored(
        self,
        version: int,
        what: tuple[int, str],
        split: str,
        loss: float | None,
        accuracy: float | None,
    ) -> None:
        if self.brought and (split == "validation" or loss is None):
            return
        recorded = Recorded(*what, split, loss, accuracy, has_accuracy=True)
        self.scores.setdefault(self._key(version), []).append(recorded)

    def _key(self, version: int) -> Key:
        """Of the version that has this number now."""
        return self._keys.get(version, (version, ""))

    def _taken(self, part: Contribution) -> Named:
        return self._waiting.pop((part.worker, part.birth))  # else the fold had not let it pass

    def _rewound(self, entry: Rewound) -> None:
        self.dropped |= {self._keys.pop(number) for number in entry.dropped}
        self.returned.add(key_of(entry.version))
        self.lies[entry.version.payload.digest] = entry.version.payload
        self.steps.append(Back(entry.version))


def let_go(payload: Payload, floors: Mapping[str, Position]) -> bool:
    """Whether retention let go of it, or of a part of it."""
    floor = floors.get(payload.topic)
    return floor is not None and (payload.generation, payload.first) < (
        floor.generation,
        floor.offset,
    )
