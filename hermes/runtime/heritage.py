"""What did a run hold at one of its versions? The model, and what its master held beside it.

Read from the run's own topics, to which nothing is ever written here: it may be under way
meanwhile. A model that its broker has let go of may still lie in the run's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from hermes.codec import decode_tensors, digest_of
from hermes.coded import published
from hermes.errors import DecodeError, Defect, RunError
from hermes.machine.events import Recipe, RestoreState
from hermes.machine.repair import recipes, stateful
from hermes.machine.state import MasterState
from hermes.messages import (
    Forked,
    LedgerRecord,
    Republished,
    Rewound,
    RunScored,
    Trimmed,
    VersionEvaluated,
    VersionPublished,
)
from hermes.perform.ledger import Ledger
from hermes.perform.moments import Moments
from hermes.perform.remake import GONE
from hermes.perform.store import Store
from hermes.runtime.folder import RunFolder
from hermes.transport import names
from hermes.transport.log import Log, Record
from hermes.values import Payload, Tensors


class Published(NamedTuple):
    """A version that counts."""

    offset: int
    """Of the record that published it."""
    payload: Payload
    """Where its bytes lie now."""


class Course:
    """The versions of a run, as its ledger has them; watches a fold."""

    def __init__(self) -> None:
        self.versions: dict[int, Published] = {}
        self.scores: dict[int, tuple[float | None, float | None]] = {}
        """Loss and accuracy on validation, where they were measured."""
        self.floor = (0, 0)
        """Generation and offset of its topic `model` before which retention let go of it."""

    def take(self, raw: Record, record: LedgerRecord, _state: MasterState) -> None:
        """One record that counts."""
        for entry in record.entries:
            if isinstance(entry, VersionPublished):
                self.versions[entry.version] = Published(raw.offset, entry.payload)
            elif isinstance(entry, Republished):
                known = self.versions[entry.version]
                self.versions[entry.version] = known._replace(payload=entry.payload)
            elif isinstance(entry, Rewound):
                for number in entry.dropped:
                    self.versions.pop(number, None)
                    self.scores.pop(number, None)
            elif isinstance(entry, VersionEvaluated):
                self.scores[entry.version] = (entry.loss, entry.accuracy)
            elif isinstance(entry, RunScored):
                self.scores[entry.version] = (entry.validation_loss, entry.validation_accuracy)
            elif isinstance(entry, Trimmed) and entry.topic == names.MODEL:
                self.floor = (entry.generation, entry.before)


class Standing(NamedTuple):
    """A run as it stood right after one of its versions."""

    run: str
    state: MasterState
    """The fold of its ledger, up to and including the record that published the version."""
    version: VersionPublished
    """Its bytes lie where they are now."""
    lies: Mapping[str, Payload]
    """Where the bytes of each version are now, by digest."""
    let_go: bool
    """Whether retention has let go of this one."""


class Heritage:
    """What a fork begins with. Each is let go of once it was taken."""

    def __init__(self, model: Tensors, moments: Tensors) -> None:
        self._model: Tensors | None = model
        self._moments: Tensors = moments
        self.bytes = sum(tensor.nbytes for tensor in model.values())
        """Of the model."""

    @property
    def model(self) -> Tensors:
        """The model; not to be changed."""
        if self._model is None:
            raise Defect("the inherited model was taken before")
        return self._model

    def take_model(self) -> Tensors:
        """The model; asked for once."""
        model, self._model = self.model, None
        return model

    def take_moments(self) -> Tensors:
        """The momentum, empty for none; asked for once."""
        moments, self._moments = self._moments, {}
        return moments


# --- as it stood ----------------------------------------------------------------------------------


def standing(log: Log, run: str, course: Course, number: int) -> Standing:
    """The run right after a version of its course."""
    at = course.versions[number]
    state = _folded_to(log, run, at.offset)
    newest = state.newest
    if newest is None or newest.version != number:
        raise Defect(f"the ledger holds another version than {number} there", where=f"run {run}")
    lies = {one.payload.digest: one.payload for one in course.versions.values()}
    let_go = (at.payload.generation, at.payload.first) < course.floor
    return Standing(run, state, replace(newest, payload=at.payload), lies, let_go)


def _folded_to(log: Log, run: str, offset: int) -> MasterState:
    ledger = Ledger(log, names.physical(run, names.LEDGER))
    ledger.fold(offset + 1)
    return ledger.state


def standing_again(log: Log, forked: Forked) -> Standing:
    """The parent as a fork's first record has it. Raises `RunError` where it is gone, or has become
    another run."""
    parent = forked.parent
    topic = names.physical(parent, names.LEDGER)
    if topic not in log.topics(topic):
        raise _orphaned(forked, f"{parent} is not at this broker any more", log.place)
    course = Course()
    Ledger(log, topic, watcher=course.take).fold()
    published = course.versions.get(forked.version)
    if published is None or published.payload.digest != forked.digest:
        raise _orphaned(forked, f"{parent} has no such version {forked.version} any more", topic)
    found = standing(log, parent, course, forked.version)
    if found.state.authority.chain != forked.chain:
        raise _orphaned(forked, f"the ledger of {parent} is another one than it was", topic)
    return found


def heritage_again(log: Log, forked: Forked, out: Path, *, momentum: bool) -> Heritage:
    """What a fork begins with that had not stored it yet. Raises `RunError` where that is gone."""
    at = standing_again(log, forked)
    try:
        return heritage(log, at, RunFolder(out, at.run), (), momentum=momentum)
    except RunError as error:
        why = error.what.partition(";")[0]
        raise _orphaned(forked, f"there {why}", f"run {at.run}") from None


def _orphaned(forked: Forked, why: str, where: str) -> RunError:
    return RunError(
        f"it had not stored its first version, which it has from {forked.parent}, and {why}",
        where=where,
        remedy="Nothing is lost but its beginning: hermes clean it, and fork again.",
    )


# --- what it held ---------------------------------------------------------------------------------


def heritage(
    log: Log, at: Standing, folder: RunFolder, kept: Iterable[int], *, momentum: bool = True
) -> Heritage:
    """The model there and, where it is asked for and there is one, the momentum. `kept`: numbers of
    versions that are at the broker, for people. Raises `RunError` where one of them is gone."""
    store = Store(log, at.run)
    try:
        model = decode_tensors(_bytes_of(store, at, folder, kept))
        wanted = momentum and stateful(at.state.settings.merge)
        return Heritage(model, _moments(store, at) if wanted else {})
    finally:
        store.close()


def there(log: Log, run: str, course: Course) -> list[int]:
    """Numbers of the versions whose bytes the broker has, in order."""
    generations = {one.payload.generation for one in course.versions.values()}
    found: dict[int, tuple[int, int]] = {}
    for generation in generations:
        topic = names.physical(run, names.MODEL, generation)
        if topic in log.topics(topic):
            found[generation] = (log.starts([topic])[topic], log.ends([topic])[topic])

    def lies(payload: Payload) -> bool:
        start, end = found.get(payload.generation, (0, 0))
        return start <= payload.first and payload.last < end

    return sorted(n for n, one in course.versions.items() if lies(one.payload))


def spans(numbers: Iterable[int]) -> str:
    """Numbers in order, for people: `0, 3 .. 7`; `none`."""
    ordered = sorted(numbers)
    if not ordered:
        return "none"
    breaks = [i for i, (one, two) in enumerate(pairwise(ordered), 1) if two != one + 1]
    parts = [ordered[i:j] for i, j in pairwise([0, *breaks, len(ordered)])]
    return ", ".join(str(p[0]) if p[0] == p[-1] else f"{p[0]} .. {p[-1]}" for p in parts)


def _bytes_of(
    store: Store, at: Standing, folder: RunFolder, kept: Iterable[int]
) -> bytes | bytearray:
    number, payload = at.version.version, at.version.payload
    try:
        if store.reaches(payload):
            return store.get(payload)
        why = "the broker has lost it"
    except GONE as error:
        why = error.what
    if at.let_go:
        why = "retention has let go of it"
    for path in (folder.best, folder.model):
        try:
            data = published(path.read_bytes(), at.version.codec)
        except (OSError, DecodeError):
            continue
        if digest_of(data) == payload.digest:
            return data
    raise RunError(
        f"version {number} cannot be had: {why}; its broker has {spans(set(kept) - {number})}",
        where=f"run {at.run}",
        remedy="Take one of these, or --at last. (--set retention.keep=all keeps every version of "
        "a run.)",
    )


def _moments(store: Store, at: Standing) -> Tensors:
    """The momentum at that version, from a snapshot or from one and the updates since, as a master
    that is started again has it."""
    state = at.state
    first = state.snapshots[-1].version if state.snapshots else -1
    known = tuple(_where(at, state.versions[number]) for number in sorted(state.versions))
    made = tuple(_recipe(at, one) for one in recipes(state, first))
    moments = Moments(store, state.data.buffers if state.data is not None else ())
    found = moments.restore(RestoreState(at.version, state.snapshots, made, known))
    if found.lost:
        raise RunError(
            f"the momentum at version {at.version.version} cannot be had: {found.lost}",
            where=f"run {at.run}",
            remedy="Take a newer version, such as --at last; or a merge without momentum, such as "
            "--set merge.rule=mean-by-samples.",
        )
    return moments.at(at.version)


def _where(at: Standing, version: VersionPublished) -> VersionPublished:
    return replace(version, payload=at.lies.get(version.payload.digest, version.payload))


def _recipe(at: Standing, recipe: Recipe) -> Recipe:
    parts = tuple(replace(p, base=at.lies.get(p.base.digest, p.base)) for p in recipe.parts)
    return replace(recipe, version=_where(at, recipe.version), parts=parts)
