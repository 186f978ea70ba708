"""Who performs where tensors do not matter? References stand for them: a run costs milliseconds.

The digest of a version says what it was made of: the version before, and the updates in order.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from hermes.codec import digest_of
from hermes.errors import Defect
from hermes.machine.events import (
    Action,
    DataStored,
    Evaluate,
    EvaluationFinished,
    Event,
    FinalScored,
    LoadVersion,
    Merge,
    MergeFailed,
    Recipe,
    RestoreState,
    SaveState,
    Score,
    ScoreLast,
    ScoreVersion,
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
from hermes.messages import BlocksGranted, DataPublished, Own, VersionPublished
from hermes.perform.bench import Trained
from hermes.perform.sums import NO_SUMS, Sums
from hermes.policy.own import cut
from hermes.policy.paired import Paired
from hermes.simulate.driver import Work
from hermes.simulate.faults import FaultyLog
from hermes.transport import names, tensors
from hermes.values import SECOND, Base, Birth, Payload, Reason

RUN = "schedule"

DAMAGED = 0.1 + 2 * 0.04
"""Of the draws 0.1 .. 2.1: one update in 25 cannot be read when it is merged."""


def reference(kind: str, number: int, of: str = "") -> Payload:
    """A payload that stands for tensors; `of` says what they were made of."""
    digest = digest_of(f"{kind}{number}{of}".encode())
    return Payload(f"{number:032x}", kind, 0, number, number, 1, 1000, digest)


SHARES = (0.6, 0.1, 0.3)
"""Of train, probe and validation, where workers bring their data."""

KIND = "x float32 (8, 8), y int64 ()"

GRANTED = DataPublished(
    reference("data", 1),
    reference("data", 2),
    "",
    8,
    {"train": 12, "probe": 1, "validation": 1, "test": 1},
    {"train": 95, "probe": 8, "validation": 8, "test": 8},
    24,
    8,
)


def brought(*, central: bool) -> DataPublished:
    """The upload where workers bring their data; `central`: the master has a validation and a test
    set of its own."""
    count, samples = int(central), 8 * central
    return replace(
        GRANTED,
        blocks={"train": 0, "probe": 0, "validation": count, "test": count},
        samples={"train": 0, "probe": 0, "validation": samples, "test": samples},
        shares=SHARES,
        kind=KIND if central else "",
        metric="accuracy",
    )


def own_of(worker: str) -> Own:
    """What this worker brings: the more, the higher its number."""
    return Own(40 + 25 * int(worker[-1]), KIND, worker)


def made_of(before: str, births: Iterable[Birth]) -> str:
    """What a version is made of: the digest of the one before, and these updates in order."""
    return f"{before} {[(birth.incarnation, birth.number) for birth in births]}"


def genuine(version: VersionPublished, before: VersionPublished | None) -> bool:
    """Whether a version's tensors hold exactly the updates that it names, in order, on top of the
    version before."""
    of = made_of(before.payload.digest, (part.birth for part in version.members)) if before else ""
    return version.payload.digest == reference("model", version.version, of).digest


DAMAGED_STEPS = 0.1 + 0.9 * 0.04
"""Of the draws 0.1 .. 1.0, likewise: the gradient of one step in 25 is not finite."""


class Shelf:
    """Where references lie: chunks in the log, as tensors would."""

    def __init__(self, log: FaultyLog, chunks: int, numbers: Iterator[int]) -> None:
        """`numbers`: by which payloads are told apart, in all of the run."""
        self._log, self._chunks, self._numbers = log, chunks, numbers

    def put(self, short: str, like: Payload) -> Payload:
        """Store a reference; the payload says where it lies."""
        generation = self._log.generations.get(short, 0)
        return self.put_in(short, generation, like)

    def put_in(self, short: str, generation: int, like: Payload) -> Payload:
        """As `put`, in this generation of the topic."""
        name, topic = f"{next(self._numbers):032x}", names.physical(RUN, short, generation)
        size = -(-like.length // self._chunks)
        data = bytes(like.length)
        sent = tensors.send_payload(
            self._log, topic, short, generation, data, name, chunk_size=size
        )
        return replace(sent, digest=like.digest)

    def holds(self, payload: Payload) -> bool:
        """Whether all of it is there."""
        topic = names.physical(RUN, payload.topic, payload.generation)
        return self._log.holds(topic, payload)


class ReferenceHands:
    """The master's performer, with references for tensors."""

    def __init__(self, seed: int, shelf: Shelf, data: DataPublished | None = None) -> None:
        self._seed, self._shelf, self._data = seed, shelf, data or GRANTED
        self._held: set[str] = set()
        """Digests of the versions that this master has in memory: the last two that it made."""

    def _loss(self, *of: object) -> float:
        """Chance that is keyed by what it is for: who asks again is told the same."""
        return 0.1 + 2 * random.Random(f"{self._seed} {of}").random()  # noqa: S311  (no secret)

    def perform(self, action: Action, now: int) -> Event:
        """The outcome of an action, at once."""
        if isinstance(action, UploadData):
            return DataStored(self._data)
        if isinstance(action, StoreFirst):
            return VersionStored(0, self._model(reference("model", 0)))
        if isinstance(action, Score):
            birth, version = action.update.birth, action.version.version
            return UpdateScored(birth, version, 1.0, self._loss(birth, version))
        if isinstance(action, Merge):
            return self._merge(action)
        if isinstance(action, Evaluate):
            version = action.version.version
            loss, n = self._loss(version), self._data.samples["validation"]
            sums = (loss * n, n / 2, n)
            return EvaluationFinished(version, loss, 0.5, now, SECOND // 50, *sums)
        if isinstance(action, ScoreLast):
            return FinalScored(action.version.version, 0.5, 0.5, 0.5, 0.5)
        if isinstance(action, SecureVersions):
            return self._secure(action)
        if isinstance(action, RestoreState):
            return self._restore(action)
        if isinstance(action, SaveState):
            version = action.version.version
            return StateStored(version, self._shelf.put("state", reference("state", version)))
        raise Defect(f"nobody performs {type(action).__name__}")

    def _merge(self, action: Merge) -> Event:
        births = [part.update.birth for part in action.parts]
        if self._loss("damaged", births[-1]) < DAMAGED:
            return MergeFailed(action.version, births[-1], Reason("unreadable"))
        for part in action.parts:
            if not self._shelf.holds(part.update.payload):
                return MergeFailed(action.version, part.update.birth, Reason("unreadable"))
        of = made_of(action.current.payload.digest, births)
        made = self._model(reference("model", action.version, of))
        self._held &= {action.current.payload.digest, made.digest}
        return VersionStored(action.version, made)

    def _model(self, like: Payload) -> Payload:
        self._held.add(like.digest)
        return self._shelf.put("model", like)

    # --- what may be missing ----------------------------------------------------------------------

    def _secure(self, action: SecureVersions) -> VersionsSecured:
        """As `perform.secure` does: the newest version from memory; else from an older one, and
        the updates since."""
        newest = action.versions[0]
        if self._shelf.holds(newest.payload):
            return VersionsSecured((), newest.version, asked=newest.version)
        if newest.payload.digest in self._held:
            again = ((newest.version, self._model(newest.payload)),)
            return VersionsSecured(again, newest.version, "lost", newest.version)
        there = [one.version for one in action.versions if self._shelf.holds(one.payload)]
        if not there:
            return VersionsSecured((), -1, "lost", newest.version)
        made = self._again(there[0], action.recipes)
        return VersionsSecured(tuple(made), there[0] + len(made), "lost", newest.version)

    def _again(self, version: int, recipes: Iterable[Recipe]) -> list[tuple[int, Payload]]:
        """The versions after this one, as far as all that they were made of is there."""
        made: list[tuple[int, Payload]] = []
        for recipe in recipes:
            if recipe.version.version != version + 1 + len(made):
                continue
            if not all(self._shelf.holds(part.update.payload) for part in recipe.parts):
                break
            made.append((recipe.version.version, self._model(recipe.version.payload)))
        return made

    def _restore(self, action: RestoreState) -> StateRestored:
        """As `perform.moments` does: from the newest snapshot that leads to the version."""
        last = action.version.version
        recipes = {recipe.version.version: recipe for recipe in action.recipes}
        first = min((one.version for one in action.versions), default=0)
        origins: list[tuple[int, Payload | None]]
        origins = [(one.version, one.payload) for one in action.snapshots if one.version <= last]
        if first == 0:
            origins.append((0, None))
        for version, payload in origins:
            needed = [recipes.get(number) for number in range(version + 1, last + 1)]
            if payload is not None and not self._shelf.holds(payload):
                continue
            if all(one is not None and self._whole(one) for one in needed):
                return StateRestored(last, version)
        return StateRestored(last, last, "lost")

    def _whole(self, recipe: Recipe) -> bool:
        return all(self._shelf.holds(part.update.payload) for part in recipe.parts)


class ReferenceBench:
    """The worker's performer, with references for tensors."""

    def __init__(self, name: str, seed: int, shelf: Shelf, own: Own | None = None) -> None:
        self._validates = cut(own.samples, SHARES).validation if own is not None else 0
        self._random = random.Random(seed)  # noqa: S311
        self._short, self._shelf = names.from_worker(name), shelf
        self._generation = 0

    def fetch(self, grant: BlocksGranted) -> int:
        """Bytes of the blocks."""
        return grant.size * 100

    def load(self, action: LoadVersion) -> Base | None:
        """The base that the local model now has; None where the version's bytes are gone."""
        version = action.version
        if not self._shelf.holds(version.payload):
            return None
        return Base(version.version, version.payload.digest)

    def work(self, action: Train) -> Work:
        """Whole batches."""
        samples = sum(part.stop - part.start for part in action.segments)
        return Work(max(1, samples // action.batch), samples)

    def train(self, action: Train, due: int) -> Callable[[], Trained]:
        """A round of random losses."""
        del due
        loss = self._random.uniform(0.1, 1.0)
        drift = loss if action.drift else 0.0
        done = Trained(*self.work(action), loss, loss if action.probe else None, drift)
        if action.gradient:  # of one step in 25 it is not finite, and the step is vetoed
            norm = self._random.uniform(0.1, 1.0)
            done = done._replace(gradient=norm if norm > DAMAGED_STEPS else math.nan)
        if action.gate is not None:
            done = done._replace(paired=Paired(self._random.uniform(-0.2, 0.6), 0.1, 64))
        return lambda: done

    def score(self, action: ScoreVersion) -> Sums:
        """Random sums; none of a version whose bytes are gone."""
        if not self._shelf.holds(action.version.payload):
            return NO_SUMS
        n = self._validates
        return Sums(self._random.uniform(0.1, 2.0) * n, float(self._random.randint(0, n)), n)

    def pack(self) -> None:
        """Nothing is sent yet."""

    def drop(self, number: int) -> None:
        """Nothing is held."""

    def move(self, generation: int) -> None:
        """What is stored from now on lies in this generation of the worker's topic."""
        self._generation = generation

    def store(self) -> Payload:
        """The local model, sent."""
        return self._shelf.put_in(self._short, self._generation, reference("update", 0))
