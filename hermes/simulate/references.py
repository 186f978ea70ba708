"""Who performs where tensors do not matter? References stand for them: a run costs milliseconds.

The digest of a version says what it was made of: the version before, and the updates in order.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from hermes.codec import digest_of
from hermes.errors import Defect
from hermes.machine.events import (
    Action,
    DataStored,
    Evaluate,
    EvaluationFinished,
    Event,
    FinalScored,
    Merge,
    MergeFailed,
    RestoreState,
    SaveState,
    Score,
    ScoreLast,
    SecureVersions,
    StateRestored,
    StateStored,
    StoreFirst,
    Train,
    UpdateScored,
    UploadData,
    VersionsSecured,
    VersionStored,
)
from hermes.messages import BlocksGranted, DataPublished, VersionPublished
from hermes.perform.bench import Trained
from hermes.transport import names, tensors
from hermes.transport.log import Log
from hermes.values import SECOND, Base, Birth, Payload, Reason

RUN = "schedule"

DAMAGED = 0.1 + 2 * 0.04
"""Of the draws 0.1 .. 2.1: one update in 25 cannot be read when it is merged."""


def reference(kind: str, number: int, of: str = "") -> Payload:
    """A payload that stands for tensors; `of` says what they were made of."""
    digest = digest_of(f"{kind}{number}{of}".encode())
    return Payload(f"{number:032x}", kind, 0, number, number, 1, 1000, digest)


def made_of(before: str, births: Iterable[Birth]) -> str:
    """What a version is made of: the digest of the one before, and these updates in order."""
    return f"{before} {[(birth.incarnation, birth.number) for birth in births]}"


def genuine(version: VersionPublished, before: VersionPublished | None) -> bool:
    """Whether a version's tensors hold exactly the updates that it names, in order, on top of the
    version before."""
    of = made_of(before.payload.digest, (part.birth for part in version.members)) if before else ""
    return version.payload.digest == reference("model", version.version, of).digest


class ReferenceHands:
    """The master's performer, with references for tensors."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _loss(self, *of: object) -> float:
        """Chance that is keyed by what it is for: who asks again is told the same."""
        return 0.1 + 2 * random.Random(f"{self._seed} {of}").random()  # noqa: S311  (no secret)

    def perform(self, action: Action, now: int) -> Event:
        """The outcome of an action, at once."""
        if isinstance(action, UploadData):
            counts = {"train": 12, "probe": 1, "validation": 1, "test": 1}
            samples = {"train": 95, "probe": 8, "validation": 8, "test": 8}
            return DataStored(
                DataPublished(
                    reference("data", 1), reference("data", 2), "", 8, counts, samples, 24, 8
                )
            )
        if isinstance(action, StoreFirst):
            return VersionStored(0, reference("model", 0))
        if isinstance(action, Score):
            birth, version = action.update.birth, action.version.version
            return UpdateScored(birth, version, 1.0, self._loss(birth, version))
        if isinstance(action, Merge):
            return self._merge(action)
        if isinstance(action, Evaluate):
            version = action.version.version
            return EvaluationFinished(version, self._loss(version), 0.5, now, SECOND // 50)
        if isinstance(action, ScoreLast):
            return FinalScored(action.version.version, 0.5, 0.5, 0.5, 0.5)
        if isinstance(action, SecureVersions):
            return VersionsSecured((), action.versions[0].version)
        if isinstance(action, RestoreState):
            return StateRestored(action.version.version, action.version.version)
        if isinstance(action, SaveState):
            version = action.version.version
            return StateStored(version, reference("state", version))
        raise Defect(f"nobody performs {type(action).__name__}")

    def _merge(self, action: Merge) -> Event:
        births = [part.update.birth for part in action.parts]
        if self._loss("damaged", births[-1]) < DAMAGED:
            return MergeFailed(action.version, births[-1], Reason("unreadable"))
        of = made_of(action.current.payload.digest, births)
        return VersionStored(action.version, reference("model", action.version, of))


class ReferenceBench:
    """The worker's performer, with references for tensors."""

    def __init__(self, log: Log, name: str, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._log, self._name = log, name
        self._stored = 1000 * seed
        self._generation = 0

    def fetch(self, grant: BlocksGranted) -> int:
        """Bytes of the blocks."""
        return grant.size * 100

    def load(self, version: VersionPublished) -> Base:
        """The base that the local model now has."""
        return Base(version.version, version.payload.digest)

    def train(self, action: Train) -> Trained:
        """A round of random losses."""
        samples = sum(part.stop - part.start for part in action.segments)
        steps = max(1, samples // action.batch)
        loss = self._random.uniform(0.1, 1.0)
        return Trained(steps, samples, loss, loss if action.probe else None)

    def move(self, generation: int) -> None:
        """What is stored from now on lies in this generation of the worker's topic."""
        self._generation = generation

    def store(self) -> Payload:
        """The local model, sent."""
        self._stored += 1
        short, generation = names.from_worker(self._name), self._generation
        topic, number = names.physical(RUN, short, generation), f"{self._stored:032x}"
        data = number.encode().ljust(1000)
        return tensors.send_payload(self._log, topic, short, generation, data, number)
