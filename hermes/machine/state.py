"""What does the master know? All of it is a fold of the ledger; and what must always hold. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import msgspec

from hermes.errors import Defect
from hermes.machine.ledger import Authority
from hermes.messages import (
    BlocksGranted,
    DataPublished,
    Forked,
    Own,
    RunOpened,
    ScoreNoted,
    Software,
    StateSaved,
    StepClosed,
    Update,
    VersionPublished,
)
from hermes.policy.presets import Settings
from hermes.values import BlockRange, Position, Reason

TIMINGS_KEPT = 8
"""Rounds that the size rules look back on (design, part 6)."""


class Struct(msgspec.Struct, frozen=True):
    """Base of the state: frozen; a change makes a new one."""


class Member(Struct, frozen=True):
    """What the ledger says about one worker."""

    name: str
    incarnation: str
    status: str = "alive"
    """"alive", "lost" or "left"."""
    unable: bool = False
    """It left since it cannot train this job; `last` says why."""
    term: int = 0
    """The term under which it was last admitted."""
    taken: Mapping[str, int] = {}
    """Number of the last message taken, by incarnation (births and envelopes alike)."""
    grants: tuple[BlocksGranted, ...] = ()
    """Outstanding: neither finished nor returned."""
    next_grant: int = 1
    pool: int = -1
    """What its grants are taken from (`machine.pools`); -1: none of its own."""
    own: Own | None = None
    """The data that it brings ..."""
    walked: int = 0
    """... and the next place of its walk over them that was never granted, or was given back."""
    size: int = 0
    """Samples of the next grant."""
    batch: int = 0
    clock: int = 0
    """Finished rounds ..."""
    closed: int = 0
    """... and those whose outcome is known: worth no push, in a version, or rejected."""
    base: int = 0
    """Version that its local model last started from."""
    rounds: int = 0
    pushes: int = 0
    quiet: int = 0
    quiet_at: tuple[int, int] | None = None
    """If its last round brought no update: the newest version then, and the run time at which it
    was first said of that version."""
    vetoed: int = 0
    applied: int = 0
    rejected: int = 0
    samples: int = 0
    """Sample passes merged into the last version."""
    trained: int = 0
    """Sample passes trained, merged or not."""
    busy: int = 0
    waited: int = 0
    """Nanoseconds."""
    timings: tuple[tuple[int, int], ...] = ()
    """(steps, busy nanoseconds) of the last rounds, newest last."""
    moved: int = 0
    """Nanoseconds in which its tensors were under way before its last round."""
    last: Reason = Reason("admitted")
    """The last decision about this worker."""
    software: Software | None = None
    trainer: str = ""
    """Framework and device, once its first round is noted."""
    refusals: tuple[int, int] = (-1, 0)
    """A version, and how many of this worker's updates were rejected while it was the newest."""
    unusable: bool = False
    """What it brought last, a round or an update, was not finite, or absurd."""
    voted: tuple[str, int] | None = None
    """Where all step together: its verdict on the step that it took, and run time, once that is
    noted; None as long as the step is awaited of it ..."""
    owes: bool = False
    """... and whether it was asked to push, and has not yet."""
    absurd: int = 0
    """Its updates in a row, up to the last one looked at, whose norm was absurd."""


class Pending(Struct, frozen=True):
    """An update that is neither merged nor rejected."""

    worker: str
    update: Update
    taken: int = 0
    """Run time at which it was accepted."""


class Best(Struct, frozen=True):
    """The best version on validation, and for how many evaluations it has stood."""

    version: int
    loss: float
    accuracy: float | None
    since: int = 0


class Evaluations(Struct, frozen=True):
    """What is known of the evaluation grid."""

    count: int = 0
    last_version: int = -1
    last_loss: float | None = None
    last_accuracy: float | None = None
    last_started: int = 0
    last_cost: int = 0
    best: Best | None = None


class Asked(Struct, frozen=True):
    """Who is asked what a version is worth (`machine.scoring`), and the answers so far."""

    number: int
    version: int
    at: int
    """Run time."""
    workers: tuple[str, ...]
    """But for those that left since."""
    scores: tuple[ScoreNoted, ...] = ()


class MasterState(Struct, frozen=True):
    """The fold of a ledger."""

    authority: Authority = Authority()
    time: int = 0
    """Run time of the last record, nanoseconds."""
    opened: RunOpened | None = None
    settings: Settings = Settings()
    data: DataPublished | None = None
    started: int | None = None
    """Run time at which training started."""
    members: Mapping[str, Member] = {}
    versions: Mapping[int, VersionPublished] = {}
    """Those that are kept (protocol 13) ..."""
    recipes: Mapping[int, tuple[Pending, ...]] = {}
    """... and what each was made of, in order."""
    newest: VersionPublished | None = None
    step: StepClosed | None = None
    """The last one, where all step together."""
    pending: tuple[Pending, ...] = ()
    """In the order of their acceptance."""
    cursor: int = 0
    """Next block of the endless walk that was never granted; where there are pools: behind all that
    were."""
    cursors: tuple[int, ...] = ()
    """Of each pool, the next place of its walk that was never granted."""
    returned: tuple[BlockRange, ...] = ()
    """Blocks given back, to be granted first; in the order of the walk."""
    consumed: Mapping[str, Position] = {}
    """The last input position taken, by topic."""
    generations: Mapping[str, int] = {}
    """The generation that a topic goes on in; 0 where it never was rotated."""
    trimmed: Mapping[str, Position] = {}
    """What lies before this place of a topic may be gone."""
    snapshots: tuple[StateSaved, ...] = ()
    """The master's own tensors: the two newest, the newest first."""
    forked: Forked | None = None
    """Where the run came from."""
    evaluations: Evaluations = Evaluations()
    asked: Asked | None = None
    """Of the workers, and not all have answered."""
    questions: int = 0
    """That were ever asked."""
    resizes: int = 0
    unusable: int = 0
    """Rounds and updates in a row, of all workers, whose numbers were not finite, or absurd."""
    norms: tuple[float, ...] = ()
    """Of the last updates applied, as `policy.norm` remembers them."""
    stopped: Reason | None = None
    status: str = "running"
    scored: bool = False
    scores: Mapping[str, float | None] = {}

    def alive(self) -> list[str]:
        """Names of the workers alive, in order of name."""
        return sorted([n for n, member in self.members.items() if member.status == "alive"])

    def working(self) -> list[str]:
        """Those of them that have work: the others stand by, or another one trains alone."""
        return [name for name in self.alive() if self.members[name].size]


def check(state: MasterState) -> None:
    """Raise `Defect` if anything that must always hold does not."""
    _check_counts(state)
    _check_blocks(state)
    _check_versions(state)


def _check_counts(state: MasterState) -> None:
    undecided: dict[str, int] = {}
    for pending in state.pending:
        undecided[pending.worker] = undecided.get(pending.worker, 0) + 1
    for member in state.members.values():
        waiting = undecided.get(member.name, 0)
        if member.pushes != member.applied + member.rejected + waiting:
            raise Defect(
                f"pushed {member.pushes} is not applied {member.applied} + rejected "
                f"{member.rejected} + undecided {waiting}",
                where=member.name,
            )
        if member.status != "alive" and member.grants:
            raise Defect("holds blocks and is not alive", where=member.name)
    births = [(p.worker, p.update.birth) for p in state.pending]
    if len(births) != len(set(births)):
        raise Defect("an update waits twice")


def _check_blocks(state: MasterState) -> None:
    ranges = sorted(
        [(r.first, r.last) for m in state.members.values() for g in m.grants for r in g.ranges]
        + [(r.first, r.last) for r in state.returned]
    )
    for (_, last), (first, _) in itertools.pairwise(ranges):
        if first < last:
            raise Defect(f"block {first} of the walk is held twice")
    if ranges and ranges[-1][1] > state.cursor:
        raise Defect("a block was granted that the walk has not reached")
    _check_pools(state)
    _check_own(state)


def _check_own(state: MasterState) -> None:
    brought = state.data is not None and bool(state.data.shares)
    for member in state.members.values():
        if brought != (member.own is not None):
            raise Defect("brings data where none is asked for, or none", where=member.name)
        if member.own is None:
            continue
        ends = [0, *(grant.start + grant.size for grant in member.grants)]
        if any(g.start < end for g, end in zip(member.grants, ends, strict=False)):
            raise Defect("holds samples of its own twice", where=member.name)
        if ends[-1] > member.walked:
            raise Defect("was granted samples that its walk has not reached", where=member.name)


def _check_pools(state: MasterState) -> None:
    if state.data is None or not state.data.pools:
        return
    had = [member.pool for member in state.members.values() if member.pool >= 0]
    if len(had) != len(set(had)):
        raise Defect("two workers have one pool")
    if len(state.cursors) != len(state.data.pools):
        raise Defect(f"{len(state.cursors)} walks go over {len(state.data.pools)} pools")
    for member in state.members.values():
        if member.status == "alive" and member.pool < 0:
            raise Defect("has no pool and is alive", where=member.name)


def _check_versions(state: MasterState) -> None:
    if state.newest is None:
        return
    if max(state.versions) != state.newest.version:
        raise Defect("the newest version is not the last one published")
    if state.recipes.keys() != state.versions.keys():
        raise Defect("what a version was made of is not kept with it")
    if state.snapshots and not all(
        v in state.versions for v in range(state.snapshots[-1].version, state.newest.version + 1)
    ):
        raise Defect("a version since the older snapshot was dropped")
    merged = sum([member.samples for member in state.members.values()])
    merged += state.forked.samples if state.forked else 0
    if merged != state.newest.samples:
        raise Defect(f"the workers' samples are {merged}, the version's {state.newest.samples}")
    for pending in state.pending:
        if pending.update.base.version not in state.versions:
            raise Defect(f"version {pending.update.base.version} is a base and was dropped")
    if state.asked is not None and state.asked.version not in state.versions:
        raise Defect(f"version {state.asked.version} is to be scored and was dropped")
