"""How long did everything take in a run? Spans, out of its ledger alone. Pure.

Two clocks are there: the master's, in each record, and each worker's, in what it says of a round
(`busy`, `waited`, `moved`). They are never compared. What lies between them follows from a round
that waited for a version: of the time that the worker waited, the tensors took `moved`, the master
took what lies between its two records, and the rest is the way there and back.
"""

from __future__ import annotations

from typing import NamedTuple

from hermes.messages import (
    RoundNoted,
    RunStopped,
    TrainingStarted,
    VersionEvaluated,
    VersionPublished,
)
from hermes.replay.story import Story
from hermes.values import SECOND, Birth

SOON = 0.001
"""Seconds of grace in which a version counts as closed at once."""


class RoundSpan(NamedTuple):
    """One round; seconds."""

    worker: str
    steps: int
    busy: float


class Wait(NamedTuple):
    """Between two rounds, for the version that holds what the first one pushed; seconds."""

    worker: str
    moved: float
    """Tensors were under way: an update there, a version back."""
    way: float
    """Messages were: to the master, and from its record back."""


class Pause(NamedTuple):
    """Between two rounds, where nothing was waited for; seconds."""

    worker: str
    lasted: float


class Made(NamedTuple):
    """A version, from when the last was there that it waited for (one of its updates; of a quorum
    a quiet round, too), and its predecessor; seconds."""

    seconds: float
    scored: bool
    """Whether losses were measured for it."""


class Spans(NamedTuple):
    """Of one run."""

    started: float
    """Run time of the start of the training, seconds ..."""
    stopped: float
    """... and of the stop."""
    rounds: tuple[RoundSpan, ...]
    waits: tuple[Wait, ...]
    pauses: tuple[Pause, ...]
    versions: tuple[Made, ...]
    first: dict[str, float]
    """By worker: from the start of the training until its first round had begun, as far as the
    master can tell: with the way back in it."""
    evaluations: tuple[float, ...]
    """Run times at which scores began."""
    payload: int
    """Bytes of a version and of an update together, at the most."""
    validation: int
    """Samples on which losses are measured."""

    @property
    def seconds(self) -> float:
        """Of training."""
        return self.stopped - self.started


class _Times(NamedTuple):
    rounds: dict[tuple[str, int], float]
    """When a round was noted, by incarnation and number."""
    versions: dict[Birth, tuple[float, VersionPublished]]
    """When the version came that holds an update."""


def spans_of(story: Story) -> Spans:
    """What a ledger tells of them; 0 for the start and the stop where there is none."""
    started, stopped = _when(story, TrainingStarted), _when(story, RunStopped)
    times = _times(story)
    waits, pauses = _between(story, times)
    return Spans(
        started,
        stopped or (story.told[-1].record.time / SECOND if story.told else 0.0),
        tuple(
            RoundSpan(one.entry.worker, one.entry.steps, one.entry.busy / SECOND)
            for one in story.rounds
        ),
        waits,
        pauses,
        _made(story, times),
        _first(story, times, started),
        tuple(
            entry.started / SECOND
            for told in story.told
            for entry in told.record.entries
            if isinstance(entry, VersionEvaluated)
        ),
        _payload(story),
        _validation(story),
    )


def _when(story: Story, kind: type) -> float:
    for told in story.told:
        if any(isinstance(entry, kind) for entry in told.record.entries):
            return told.record.time / SECOND
    return 0.0


def _times(story: Story) -> _Times:
    noted = {one.offset: [] for one in story.rounds}  # type: dict[int, list[tuple[str, int]]]
    for one in story.rounds:
        noted[one.offset].append((one.incarnation, one.entry.round))
    rounds: dict[tuple[str, int], float] = {}
    versions: dict[Birth, tuple[float, VersionPublished]] = {}
    for told in story.told:
        now = told.record.time / SECOND
        rounds.update(dict.fromkeys(noted.get(told.offset, ()), now))
        for entry in told.record.entries:
            if isinstance(entry, VersionPublished):
                versions.update({part.birth: (now, entry) for part in entry.members})
    return _Times(rounds, versions)


def _between(story: Story, times: _Times) -> tuple[tuple[Wait, ...], tuple[Pause, ...]]:
    waits: list[Wait] = []
    pauses: list[Pause] = []
    for one in story.rounds:
        following = story.after.get((one.incarnation, one.entry.round))
        if following is None:
            continue
        after = following.entry
        waited, moved = after.waited / SECOND, after.moved / SECOND
        if one.update is None:
            if not moved and one.entry.verdict == "quiet":
                pauses.append(Pause(after.worker, waited))
            continue
        found = times.versions.get(one.update.birth)
        if found is None or after.base < found[1].version:
            continue  # it did not wait for that
        way = waited - moved - (found[0] - times.rounds[one.incarnation, one.entry.round])
        waits.append(Wait(after.worker, moved, max(0.0, way)))
    return tuple(waits), tuple(pauses)


def _made(story: Story, times: _Times) -> tuple[Made, ...]:
    taken = {
        one.update.birth: times.rounds[one.incarnation, one.entry.round]
        for one in story.rounds
        if one.update is not None
    }
    found: list[Made] = []
    before = heard = 0.0
    for told in story.told:
        now = told.record.time / SECOND
        for entry in told.record.entries:
            if isinstance(entry, RoundNoted):
                heard = now
            if not isinstance(entry, VersionPublished):
                continue
            last = [taken[part.birth] for part in entry.members if part.birth in taken]
            grace = entry.reason.facts.get("waited")
            quorum = entry.reason.code == "quorum"
            if last and not (isinstance(grace, int | float) and grace > SOON):
                begun = max(before, *last, heard if quorum else 0.0)
                found.append(Made(now - begun, "loss_worker" in entry.reason.facts))
            before = now
    return tuple(found)


def _first(story: Story, times: _Times, started: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in story.rounds:
        if one.entry.round == 1 and one.entry.worker not in found:
            noted = times.rounds[one.incarnation, 1]
            found[one.entry.worker] = max(0.0, noted - one.entry.busy / SECOND - started)
    return found


def _payload(story: Story) -> int:
    updates = [one.update.payload.length for one in story.rounds if one.update is not None]
    versions = [version.payload.length for _, version in story.versions]
    return max(updates, default=0) + max(versions, default=0)


def _validation(story: Story) -> int:
    data = story.state.data
    return data.samples["validation"] if data is not None else 0
