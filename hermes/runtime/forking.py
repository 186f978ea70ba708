"""How does a run begin where another one stood? From that one's topics, under settings of its own.

The child begins with a copy of the version, and of what the parent's master held beside it, in
topics of its own; its data stays where the parent has it (protocol 14). The parent is only read: it
may have stopped, finished, or be under way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from hermes.data.cache import BlockCache
from hermes.errors import Defect, JobError, RunError, SettingError, UsageError
from hermes.job import Job
from hermes.machine.events import Opened
from hermes.machine.repair import stateful
from hermes.machine.state import Evaluations, MasterState
from hermes.messages import DataPublished, Forked
from hermes.perform.store import Store
from hermes.policy import presets
from hermes.policy.allocate import first_size
from hermes.policy.idle import refuse_idle
from hermes.policy.presets import Layer, Settings, resettled, resolve, to_tree
from hermes.runtime.folder import RunFolder
from hermes.runtime.going_on import Known, known_run, refuse_reached
from hermes.runtime.heritage import Course, Heritage, Standing, heritage, spans, standing, there
from hermes.runtime.opening import refuse_known_run, run_opened
from hermes.runtime.options import MasterOptions
from hermes.runtime.storage import Meter, StorageWatch, first_rounds, watch_over
from hermes.runtime.trying import difference, fresh_trainer, shapes_of
from hermes.train import Batch
from hermes.transport import names
from hermes.transport.log import Log
from hermes.values import Tensors

OF_STRATEGY = ("gate", "close", "continue", "merge", "size", "round")
"""Sections of the settings that a strategy's name stands for."""

FIXED = {
    "split": "the data was split when it was sent",
    "batch": "it is the job's, and the data was sent with it",
    "data": "the data was divided when it was sent",
}
"""What the parent's data has settled for all that are forked from it, and why."""

FIRST = "size.first"
"""Part of what the data was cut for: another strategy keeps it, too."""

ASKED = "--set"
"""Where the changes come from."""


class Parent(NamedTuple):
    """The run that is forked."""

    run: str
    known: Known
    course: Course
    kept: list[int]
    """Numbers of the versions that its broker has."""


class Fork(NamedTuple):
    """What a child begins with."""

    parent: Parent
    at: Standing
    settings: Settings
    seed: int
    heritage: Heritage

    def data(self, expect: int) -> DataPublished:
        """The parent's data, in shards for so many workers. Raises `SettingError` where those are
        smaller than its blocks."""
        found = self.at.state.data
        assert found is not None
        if found.pools and len(found.pools) < expect:
            raise SettingError(
                f"the parent's data was divided into {len(found.pools)} pools, one a worker",
                where=f"{expect} workers expected",
                remedy="Expect fewer, or begin a run of its own: hermes run JOB.py",
            )
        size = first_size(self.settings.size, found.samples["train"], expect)
        if size < found.block:
            raise SettingError(
                f"a first shard would have {size} samples, and the data was cut into blocks of "
                f"{found.block}: of each block the others would never be trained",
                where=f"size.first={self.settings.size.first}, {expect} workers expected",
                remedy=f"Expect fewer workers, or --set size.first={found.block} or more; or begin "
                "a run of its own: hermes run JOB.py",
            )
        return replace(found, run=found.run or self.parent.run, first_size=size)


# --- the parent ----------------------------------------------------------------------------------


def parent_run(log: Log, folder: RunFolder, cache: Path, key: bytes) -> Parent:
    """A run as it is now, to fork from it. Raises `RunError`, `Unverified`, `BrokerError`."""
    course = Course()
    known = known_run(log, folder, BlockCache(cache, 1 << 30), key, course.take)
    if known.state.data is not None and known.state.data.shares:
        raise RunError(
            "its data stay with its workers: a fork would have none to read",
            where=f"run {folder.run}",
            remedy="Take its model instead: hermes export, and a job with init=FILE.safetensors.",
        )
    if not course.versions:
        raise RunError(
            "it has no version yet",
            where=f"run {folder.run}",
            remedy="Wait until its first weights are stored: hermes status.",
        )
    return Parent(folder.run, known, course, there(log, folder.run, course))


def version_at(parent: Parent, at: str) -> int:
    """The number of the version that `at` means: "v120", "120", "last", "best". Raises `RunError`
    for one that never was, `UsageError` for what is none of these."""
    where, versions = f"run {parent.run}", parent.course.versions
    if at == "last":
        return max(versions)
    if at == "best":
        best = parent.known.state.evaluations.best
        if best is None:
            raise RunError(
                "none of its versions was evaluated yet", where=where, remedy="Take --at last."
            )
        return best.version
    match = re.fullmatch(r"v?(\d{1,12})", at)
    if match is None:
        raise UsageError(
            f"{at!r} is no version", where="--at", remedy="It is vN (such as v120), last or best."
        )
    number = int(match[1])
    if number not in versions:
        raise RunError(
            f"there is no version {number}: the run has versions {spans(versions)}",
            where=where,
            remedy="Take one of these, or --at last, or --at best.",
        )
    return number


def child_id(log: Log, out: Path, parent: str) -> str:
    """The first of PARENT-f1, PARENT-f2, ... that is free at the broker and under `out`."""
    taken = {name.run for topic in log.topics("hermes.") if (name := names.parse(topic))}
    for number in count(1):
        end = f"-f{number}"
        run = parent[: 40 - len(end)].rstrip("-") + end
        if run not in taken and not RunFolder(out, run).path.exists():
            return run
    raise AssertionError  # count() does not end


# --- its settings --------------------------------------------------------------------------------


def child_settings(
    parent: Settings, job: Job, strategy: str | None, asked: Mapping[str, Any]
) -> Settings:
    """The parent's settings with those asked for in their place; with `strategy`, what a strategy
    stands for is that one's (and the job's), not the parent's. Raises `SettingError`."""
    for key in asked:
        _refuse_fixed(key)
    if strategy is None:
        settings = resettled(parent, asked, ASKED)
        refuse_idle(settings, {key: ASKED for key, value in asked.items() if value is not None})
        return settings
    stays = {
        key: value
        for key, value in flat(parent).items()
        if key == FIRST or key.partition(".")[0] not in (*OF_STRATEGY, "strategy")
    }
    own = Layer(job.place or "the job", job.settings(), typed=False)
    return resolve(strategy, [own, stays, Layer(ASKED, asked)])


def _refuse_fixed(key: str) -> None:
    for fixed, why in FIXED.items():
        if key == fixed or key.startswith(f"{fixed}."):
            raise SettingError(
                f"{key} cannot change in a fork: {why}, and a fork reads its parent's data",
                where=ASKED,
                remedy="Leave it out, or begin a run of its own: hermes run JOB.py",
            )


def flat(settings: Settings) -> dict[str, Any]:
    """Settings by dotted key."""
    tree = to_tree(settings)
    found: dict[str, Any] = {"strategy": tree["strategy"]}
    for key in presets.known_keys():
        section, _, last = key.partition(".")
        if last:
            found[key] = tree[section][last]
    return found


def changes(parent: Settings, child: Settings) -> dict[str, Any]:
    """What is another one in the child, by dotted key."""
    before = flat(parent)
    return {key: value for key, value in flat(child).items() if value != before[key]}


def refuse_at_once(parent: Parent, at: Standing, settings: Settings) -> None:
    """Raise `RunError` where the child would stop as soon as it trains."""
    version = at.version
    loss, accuracy = parent.course.scores.get(version.version, (None, None))
    scores = Evaluations(last_loss=loss, last_accuracy=accuracy)
    begun = MasterState(settings=settings, newest=version, started=0, evaluations=scores)
    hint = "Samples and versions count on from the parent's. "
    refuse_reached(begun, f"a fork at version {version.version}", parent.run, hint)


# --- the child -----------------------------------------------------------------------------------


def fork(
    log: Log,
    folder: RunFolder,
    parent: Parent,
    at: str,
    resettle: Callable[[Settings], Settings],
    seed: int | None = None,
) -> Fork:
    """All that a child begins with, its tensors among it; `folder` is the parent's, `resettle`
    makes the child's settings of the parent's. Raises `RunError`, `SettingError`, `BrokerError`."""
    number = version_at(parent, at)
    stood = standing(log, parent.run, parent.course, number)
    settings = resettle(stood.state.settings)
    refuse_at_once(parent, stood, settings)
    assert stood.state.opened is not None
    seed = stood.state.opened.seed if seed is None else seed
    found = heritage(log, stood, folder, parent.kept, momentum=stateful(settings.merge))
    return Fork(parent, stood, settings, seed, found)


def refuse_taken(log: Log, child: RunFolder) -> None:
    """Raise `RunError` where there is such a run already, here or at the broker."""
    if child.path.exists():
        raise RunError(
            f"there is a run {child.run!r} already",
            where=str(child.path),
            remedy="Choose another id with --run, or another folder with --out.",
        )
    refuse_known_run(log, child.run)


class Inheritance:
    """What the master of a fork begins with."""

    def __init__(self, fork: Fork, options: MasterOptions) -> None:
        self._fork, self._options = fork, options
        self._framework = ""

    def tried(self) -> Batch | None:
        """A first batch, once the job's model was seen to be the one that is inherited. Raises
        `JobError`."""
        job = self._options.job
        trainer = fresh_trainer(job, self._fork.seed)
        self._framework = trainer.framework
        theirs, ours = shapes_of(self._fork.heritage.model), shapes_of(trainer.weights())
        found = difference(theirs, ours)
        if found:
            raise JobError(
                f"model() gives another model here than where {self._fork.parent.run} began: "
                f"{found}",
                where=job.place,
                remedy="Is it another version of the framework, or does the model depend on this "
                "machine?",
            )
        return self._fork.parent.known.batch

    @property
    def model_bytes(self) -> int:
        """Of a version."""
        return self._fork.heritage.bytes

    def opened(self, *, trims: bool) -> Opened:
        """What the machine is told at first: with the first entries of the ledger."""
        run, data = run_opened(self._options, self._framework), self._data()
        return Opened(run, forked=self._forked(), data=data, trims=trims)

    def _forked(self) -> Forked:
        at, fork = self._fork.at, self._fork
        state, version = at.state, at.version
        return Forked(
            parent=fork.parent.run,
            version=version.version,
            offset=state.authority.offset,
            chain=state.authority.chain,
            digest=version.payload.digest,
            samples=version.samples,
            cursor=state.cursor,
            cursors=state.cursors,
            changes=changes(state.settings, fork.settings),
        )

    def storage(self, meter: Meter, steps: tuple[float, ...]) -> StorageWatch:
        """Whoever holds the run to its limit; `steps`: seconds of a step, by worker."""
        settings, data = self._options.settings, self._data()
        rounds = first_rounds(settings, data.first_size, data.batch, steps)
        return watch_over(meter, settings, self.model_bytes, rounds, self.model_bytes)

    def _data(self) -> DataPublished:
        return self._fork.data(self._options.expect)

    def oddities(self) -> list[str]:
        """None that the parent has not told."""
        return []

    def send_data(self, store: Store, sent: Callable[[int, int], None]) -> DataPublished:
        """It lies with the parent: nobody asks."""
        del store, sent
        raise Defect("a fork reads its parent's data")

    def take_weights(self) -> Tensors:
        """The parent's version."""
        return self._fork.heritage.take_model()

    def take_state(self) -> Tensors:
        """The parent's momentum there."""
        return self._fork.heritage.take_moments()
