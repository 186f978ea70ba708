"""What does an entry of the ledger change? The only place where the master's state changes. Pure.

`apply` is used live, after the acknowledgement, and on replay: the state is the fold of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from hermes.machine import pools
from hermes.machine.ledger import advance
from hermes.machine.state import (
    TIMINGS_KEPT,
    Asked,
    Best,
    Evaluations,
    MasterState,
    Member,
    Pending,
)
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Consumed,
    DataPublished,
    Entry,
    EvaluationAsked,
    Forked,
    LedgerRecord,
    MasterStarted,
    Republished,
    ResendAsked,
    Rewound,
    Rotated,
    RoundNoted,
    RunOpened,
    RunReopened,
    RunScored,
    RunStopped,
    ScoreNoted,
    ShardResized,
    StateReset,
    StateSaved,
    StepClosed,
    TailLost,
    TrainingStarted,
    Trimmed,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerLeft,
    WorkerLost,
    WorkerRefused,
)
from hermes.policy import norm, retention
from hermes.policy.presets import from_tree
from hermes.policy.sync import CONTINUE, steps_together
from hermes.values import Birth, BlockRange, Position, Reason

K = TypeVar("K")
V = TypeVar("V")


def apply(state: MasterState, record: LedgerRecord, offset: int, digest: bytes) -> MasterState:
    """The state after a valid record that lies at `offset`; `digest` is the SHA-256 of its bytes.

    The caller has asked `ledger.void` before.
    """
    state = replace(state, time=record.time)
    state = apply_entries(state, record.entries, record.consumed)
    return replace(state, authority=advance(state.authority, record, offset, digest))


def apply_entries(
    state: MasterState, entries: Iterable[Entry], consumed: Iterable[Consumed] = ()
) -> MasterState:
    """The state after these entries and input positions (the authority does not move)."""
    lost: set[str] = set()
    for entry in entries:
        state = APPLY[type(entry)](state, entry)
        if isinstance(entry, TailLost):
            lost.add(entry.topic)
    for position in consumed:
        state = _consume(state, position)
    # What was read before its end was lost leaves no place there, only the numbers taken.
    return _nowhere(state, lost) if lost else state


def _with(table: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    return {**table, key: value}


def _member(state: MasterState, name: str, **changes: Any) -> MasterState:
    member = replace(state.members[name], **changes)
    return replace(state, members=_with(state.members, name, member))


def _consume(state: MasterState, consumed: Consumed) -> MasterState:
    topic = consumed.position.topic
    state = replace(state, consumed=_with(state.consumed, topic, consumed.position))
    name = topic.removeprefix("from.")
    if name != topic and consumed.number:
        taken = state.members[name].taken
        if consumed.number > taken.get(consumed.incarnation, 0):
            state = _member(state, name, taken=_with(taken, consumed.incarnation, consumed.number))
    return state


def _noted(state: MasterState, _entry: Entry) -> MasterState:
    # What a claim says is the record's own term and nonce: `advance` puts them in force. Refusals
    # and requests to send again are for the worker that they name.
    return state


def _opened(state: MasterState, entry: RunOpened) -> MasterState:
    return replace(state, opened=entry, settings=from_tree(entry.settings))


def _data(state: MasterState, entry: DataPublished) -> MasterState:
    return replace(state, data=entry, cursors=state.cursors or pools.starts(entry))


def _admitted(state: MasterState, entry: WorkerAdmitted) -> MasterState:
    data, state = state.data, _let_go(state, entry)
    assert data is not None
    old = state.members.get(entry.worker)
    term = state.authority.term
    if old is None:
        member = Member(
            entry.worker,
            entry.incarnation,
            term=term,
            pool=entry.pool,
            own=entry.own,
            size=pools.first_size(data, entry.pool, entry.own),
            batch=data.batch,
            clock=slowest(state),
            closed=slowest_closed(state),
            base=entry.version.version,
        )
    elif old.incarnation == entry.incarnation:
        member = replace(old, term=term)
    else:
        same = old.pool == entry.pool  # else what it had was bounded by another one
        state = _unasked(state, entry.worker)
        member = replace(
            old,
            incarnation=entry.incarnation,
            status="alive",
            unable=False,
            term=term,
            pool=entry.pool,
            size=old.size if same else pools.first_size(data, entry.pool),
            batch=old.batch if same else data.batch,
            clock=max(old.clock, slowest(state)),
            closed=closed_at(state, entry.worker),
            base=entry.version.version,
            timings=(),
            moved=0,
            voted=None,
            owes=False,
            last=Reason("admitted-again"),
        )
    taken = {entry.incarnation: 0, **member.taken}
    member = replace(member, software=entry.software, taken=taken)
    return replace(state, members=_with(state.members, entry.worker, member))


def _let_go(state: MasterState, entry: WorkerAdmitted) -> MasterState:
    """Who had this worker's pool before, and has left, has it no more."""
    for name, member in state.members.items():
        if name != entry.worker and member.pool == entry.pool != pools.NONE:
            state = _member(state, name, pool=pools.NONE)
    return state


def slowest(state: MasterState) -> int:
    """The smallest clock of those alive: where one admitted or back starts."""
    return min((m.clock for m in state.members.values() if m.status == "alive"), default=0)


def slowest_closed(state: MasterState) -> int:
    """As `slowest`, of rounds whose outcome is known."""
    return min((m.closed for m in state.members.values() if m.status == "alive"), default=0)


def closed_at(state: MasterState, worker: str) -> int:
    """Where this worker stands once it is admitted."""
    member = state.members.get(worker)
    alive = member is not None and member.status == "alive"
    return member.closed if member is not None and alive else slowest_closed(state)


def _training(state: MasterState, _entry: TrainingStarted) -> MasterState:
    return replace(state, started=state.time)


def _granted(state: MasterState, entry: BlocksGranted) -> MasterState:
    member = state.members[entry.worker]
    if member.own is not None:
        grants = (*member.grants, entry)
        walked, number = entry.start + entry.size, entry.number + 1
        return _member(state, entry.worker, grants=grants, next_grant=number, walked=walked)
    taken = [index for block in entry.ranges for index in (block.first, block.last)]
    cursor = max(state.cursor, *taken)
    state = replace(state, cursor=cursor, returned=_without(state.returned, entry.ranges))
    state = _walked(state, entry, member.pool)
    return _member(state, entry.worker, grants=(*member.grants, entry), next_grant=entry.number + 1)


def _walked(state: MasterState, entry: BlocksGranted, pool: int) -> MasterState:
    """The walk over the worker's pool stands behind this grant."""
    if pool == pools.NONE:
        return state
    assert state.data is not None
    last = max(block.last for block in entry.ranges) - 1
    place = max(state.cursors[pool], pools.after(state.data, last))
    return replace(state, cursors=(*state.cursors[:pool], place, *state.cursors[pool + 1 :]))


def _without(
    pool: tuple[BlockRange, ...], ranges: tuple[BlockRange, ...]
) -> tuple[BlockRange, ...]:
    """The pool less the ranges (each of which lies in one range of the pool, or outside it)."""
    for taken in ranges:
        rest: list[BlockRange] = []
        for block in pool:
            if taken.last <= block.first or block.last <= taken.first:
                rest.append(block)
                continue
            if block.first < taken.first:
                rest.append(BlockRange(block.first, taken.first))
            if taken.last < block.last:
                rest.append(BlockRange(taken.last, block.last))
        pool = tuple(rest)
    return pool


def _returned(state: MasterState, entry: BlocksReturned) -> MasterState:
    member = state.members[entry.worker]
    if member.own is not None:  # nobody else walks there: all that it held was the walk's last
        starts = [grant.start for grant in member.grants if grant.number in entry.numbers]
        state = _member(state, entry.worker, walked=min(starts, default=member.walked))
        return _drop_grants(state, entry.worker, entry.numbers)
    back = [r for g in member.grants if g.number in entry.numbers for r in g.ranges]
    pool = tuple(sorted([*state.returned, *back], key=lambda block: block.first))
    state = replace(state, returned=pool)
    return _drop_grants(state, entry.worker, entry.numbers)


def _drop_grants(state: MasterState, worker: str, numbers: tuple[int, ...]) -> MasterState:
    return _member(state, worker, grants=_without_grants(state.members[worker], numbers))


def _without_grants(member: Member, numbers: tuple[int, ...]) -> tuple[BlocksGranted, ...]:
    """What it holds but for these."""
    return tuple([grant for grant in member.grants if grant.number not in numbers])


UNUSABLE = ("not-finite", "loss-not-finite", norm.ABSURD)
"""Why a round is vetoed, or an update rejected, whose numbers are NaN, infinite or on their way."""


def _unusable(state: MasterState, entry: RoundNoted) -> int:
    """After this round: a pushed one is counted once it is decided, and so is a flagged one."""
    if entry.verdict in ("push", "flag"):
        return state.unusable
    return state.unusable + 1 if entry.reason.code in UNUSABLE else 0


def _round(state: MasterState, entry: RoundNoted) -> MasterState:
    member = state.members[entry.worker]
    timings = member.timings
    # A pace is comparable only at one batch: rounds of grants cut before a re-sizing are not.
    if all(g.batch == member.batch for g in member.grants if g.number in entry.finished):
        timings = (*timings, (entry.steps, entry.busy))[-TIMINGS_KEPT:]
    pushed, unusable = entry.verdict == "push", entry.reason.code in UNUSABLE
    together = steps_together(state.settings.close) and not pushed
    return _member(
        replace(state, unusable=_unusable(state, entry)),
        entry.worker,
        grants=_without_grants(member, entry.finished),
        clock=member.clock + 1,
        closed=member.closed + (not pushed),
        base=entry.base,
        rounds=member.rounds + 1,
        quiet=member.quiet + (entry.verdict == "quiet"),
        quiet_at=None if pushed else _quiet_at(state, member),
        vetoed=member.vetoed + (entry.verdict == "veto"),
        trained=member.trained + entry.samples,
        busy=member.busy + entry.busy,
        waited=member.waited + entry.waited,
        timings=timings,
        moved=entry.moved,
        last=entry.reason,
        trainer=entry.trainer or member.trainer,
        unusable=member.unusable if pushed else unusable,
        voted=(entry.verdict, state.time) if together else None,
    )


def _quiet_at(state: MasterState, member: Member) -> tuple[int, int]:
    version = state.newest.version if state.newest is not None else -1
    known = member.quiet_at
    return known if known is not None and known[0] == version else (version, state.time)


def _taken(state: MasterState, entry: UpdateTaken) -> MasterState:
    member = state.members[entry.worker]
    birth = entry.update.birth
    # An update from the outbox of an incarnation before is known by its birth from now on.
    taken = dict(member.taken)
    taken[birth.incarnation] = max(taken.get(birth.incarnation, 0), birth.number)
    state = _member(state, entry.worker, pushes=member.pushes + 1, taken=taken, owes=False)
    pending = Pending(entry.worker, entry.update, state.time)
    return replace(state, pending=(*state.pending, pending))


def _rejected(state: MasterState, entry: UpdateRejected) -> MasterState:
    member = state.members[entry.worker]
    assert state.newest is not None
    newest, unusable = state.newest.version, entry.reason.code in UNUSABLE
    at, times = member.refusals
    state = _member(
        replace(state, unusable=state.unusable + unusable),
        entry.worker,
        rejected=member.rejected + 1,
        closed=member.closed + 1,
        base=_on(state, member, newest),
        last=entry.reason,
        refusals=(newest, times + 1 if at == newest else 1),
        unusable=unusable,
    )
    if entry.reason.code == norm.ABSURD:
        state = _absurd(state, entry.worker)
    return _decided(state, [(entry.worker, entry.birth)])


def _on(state: MasterState, member: Member, version: int) -> int:
    """The version that a worker is on at least, once one of its updates is decided."""
    return version if CONTINUE[state.settings.continue_.rule].waits else member.base


def _absurd(state: MasterState, worker: str) -> MasterState:
    """Where everybody alive is absurd again and again, the run has become another one (its learning
    rate was raised, say): its norms are learned anew. Some beside others never get there, nor does
    one that is gone, where nobody is alive. Whoever has no work has nothing to say to it."""
    state = _member(state, worker, absurd=state.members[worker].absurd + 1)
    if any(state.members[name].absurd < norm.INSISTED for name in {worker, *state.working()}):
        return state
    members = {name: replace(member, absurd=0) for name, member in state.members.items()}
    return replace(state, members=members, norms=())


def _decided(state: MasterState, births: list[tuple[str, Birth]]) -> MasterState:
    left = tuple(p for p in state.pending if (p.worker, p.update.birth) not in births)
    return replace(state, pending=left)


def _published(state: MasterState, entry: VersionPublished) -> MasterState:
    for part in entry.members:
        member = state.members[part.worker]
        state = _member(
            state,
            part.worker,
            applied=member.applied + 1,
            samples=member.samples + part.samples,
            closed=member.closed + 1,
            base=_on(state, member, entry.version),
            unusable=False,
            absurd=0,
        )
    norms = norm.remembered(state.norms, [part.norm for part in entry.members])
    births = [(part.worker, part.birth) for part in entry.members]
    waiting = {(p.worker, p.update.birth): p for p in state.pending}
    recipe = tuple(waiting[birth] for birth in births)
    state = _decided(state, births)
    versions = _with(state.versions, entry.version, entry)
    recipes = _with(state.recipes, entry.version, recipe)
    state = replace(state, versions=versions, recipes=recipes, newest=entry)
    return _keep(replace(state, norms=norms, unusable=0))


def _step_closed(state: MasterState, entry: StepClosed) -> MasterState:
    for name, member in state.members.items():
        if member.voted is not None:
            state = _member(state, name, voted=None, owes=name in entry.pushers)
    return replace(state, step=entry)


def _rests(state: MasterState, member: Member) -> bool:
    """Whether this worker takes the newest version before it trains again (`size.slowest`)."""
    return state.settings.size.slowest is not None and not (member.size or member.grants)


def _keep(state: MasterState) -> MasterState:
    """The newest versions, those that somebody still starts from, and all since the older
    snapshot of the master's own tensors (protocol 13)."""
    assert state.newest is not None
    in_use = {
        m.base for m in state.members.values() if m.status == "alive" and not _rests(state, m)
    }
    in_use |= {p.update.base.version for p in state.pending}
    in_use |= {state.asked.version} if state.asked is not None else set()
    oldest = state.newest.version - retention.versions(state.settings.retention)
    if state.snapshots:
        oldest = min(oldest, state.snapshots[-1].version - 1)
    if CONTINUE[state.settings.continue_.rule].rebases:  # onto which one, its next report tells
        oldest = min([oldest, *(version - 1 for version in in_use)])
    kept = {v: info for v, info in state.versions.items() if v > oldest or v in in_use}
    if len(kept) == len(state.versions):
        return state
    return replace(state, versions=kept, recipes={v: state.recipes[v] for v in kept})


def _resized(state: MasterState, entry: ShardResized) -> MasterState:
    member = state.members[entry.worker]
    timings = member.timings if entry.batch == member.batch else ()
    state = replace(state, resizes=state.resizes + 1)
    return _member(
        state,
        entry.worker,
        size=entry.size,
        batch=entry.batch,
        timings=timings,
        last=entry.reason,
    )


def _evaluated(state: MasterState, entry: VersionEvaluated) -> MasterState:
    before = state.evaluations
    if state.asked is not None:
        state = replace(state, asked=None)
        if not entry.n:  # nobody has answered: it is still to be scored
            later = replace(before, count=before.count + 1, last_started=entry.started)
            return replace(state, evaluations=later)
    known = _looked_at(before, entry.version, entry.loss, entry.accuracy)
    best = known.best
    if best is not None and best is before.best:
        best = replace(best, since=best.since + 1)
    count = before.count + 1
    last = replace(known, count=count, last_started=entry.started, last_cost=entry.cost, best=best)
    return replace(state, evaluations=last)


def _looked_at(
    known: Evaluations, version: int, loss: float | None, accuracy: float | None
) -> Evaluations:
    """These are the last scores on validation, and may be the best."""
    best = known.best
    if loss is not None and (best is None or loss < best.loss):
        best = Best(version, loss, accuracy)
    return replace(known, last_version=version, last_loss=loss, last_accuracy=accuracy, best=best)


def _asked(state: MasterState, entry: EvaluationAsked) -> MasterState:
    asked = Asked(entry.number, entry.version, state.time, entry.workers)
    return replace(state, asked=asked, questions=entry.number)


def _score_noted(state: MasterState, entry: ScoreNoted) -> MasterState:
    assert state.asked is not None
    return replace(state, asked=replace(state.asked, scores=(*state.asked.scores, entry)))


def _unasked(state: MasterState, worker: str) -> MasterState:
    """This worker's next incarnation does not know what the one before was asked."""
    asked = state.asked
    if asked is None or worker not in asked.workers:
        return state
    left = tuple(name for name in asked.workers if name != worker)
    return replace(state, asked=replace(asked, workers=left))


def _lost(state: MasterState, entry: WorkerLost) -> MasterState:
    return _member(state, entry.worker, status="lost", last=entry.reason)


def _back(state: MasterState, entry: WorkerBack) -> MasterState:
    clock, closed = max(state.members[entry.worker].clock, slowest(state)), slowest_closed(state)
    back = Reason("back")
    return _member(state, entry.worker, status="alive", clock=clock, closed=closed, last=back)


def _left(state: MasterState, entry: WorkerLeft) -> MasterState:
    return _member(
        _unasked(state, entry.worker),
        entry.worker,
        status="left",
        unable=entry.unable,
        last=Reason(entry.reason),
    )


def _stopped(state: MasterState, entry: RunStopped) -> MasterState:
    return replace(state, stopped=entry.reason, status=entry.status)


def _scored(state: MasterState, entry: RunScored) -> MasterState:
    scores = {
        "validation_loss": entry.validation_loss,
        "validation_accuracy": entry.validation_accuracy,
        "test_loss": entry.test_loss,
        "test_accuracy": entry.test_accuracy,
    }
    evaluations = _looked_at(
        state.evaluations, entry.version, entry.validation_loss, entry.validation_accuracy
    )
    return replace(state, scored=True, scores=scores, evaluations=evaluations)


def _reopened(state: MasterState, entry: RunReopened) -> MasterState:
    opened = state.opened
    if opened is not None and entry.expect:
        opened = replace(opened, expect=entry.expect)
    state = replace(state, opened=opened, settings=from_tree(entry.settings))
    return replace(state, stopped=None, status="running", scored=False, scores={}, asked=None)


def _forked(state: MasterState, entry: Forked) -> MasterState:
    return replace(state, forked=entry, cursor=entry.cursor, cursors=entry.cursors)


# --- repair and retention -----------------------------------------------------------------------


def _state_saved(state: MasterState, entry: StateSaved) -> MasterState:
    return replace(state, snapshots=(entry, *state.snapshots)[:2])


def _state_reset(state: MasterState, _entry: StateReset) -> MasterState:
    # What was saved before leads nowhere: the versions after it will not follow from it.
    return replace(state, snapshots=())


def _republished(state: MasterState, entry: Republished) -> MasterState:
    before = state.versions[entry.version]
    if entry.payload.digest != before.payload.digest:
        raise ValueError("a version is published again with other bytes")
    version = replace(before, payload=entry.payload)
    state = replace(state, versions=_with(state.versions, entry.version, version))
    assert state.newest is not None
    return replace(state, newest=version) if entry.version == state.newest.version else state


def _rewound(state: MasterState, entry: Rewound) -> MasterState:
    for part in entry.lost:
        member = state.members[part.worker]
        state = _member(
            state,
            part.worker,
            applied=member.applied - 1,
            rejected=member.rejected + 1,
            samples=member.samples - part.samples,
            last=Reason("rewound", {"to": entry.version.version}),
        )
    last, known = entry.version.version, state.evaluations
    best = known.best if known.best is None or known.best.version <= last else None
    seen = min(known.last_version, last)
    asked = state.asked if state.asked is None or state.asked.version <= last else None
    return replace(
        state,
        asked=asked,
        versions={v: info for v, info in state.versions.items() if v <= last},
        recipes={v: parts for v, parts in state.recipes.items() if v <= last},
        newest=entry.version,
        evaluations=replace(known, best=best, last_version=seen),
        snapshots=tuple(one for one in state.snapshots if one.version <= last),
    )


def _tail_lost(state: MasterState, entry: TailLost) -> MasterState:
    # What was let go of by places that are gone was not: others lie there now.
    gone = state.trimmed.get(entry.topic)
    if gone is not None:
        start = Position(entry.topic, gone.generation, 0)
        state = replace(state, trimmed=_with(state.trimmed, entry.topic, start))
    return _nowhere(state, {entry.topic})


def _nowhere(state: MasterState, lost: set[str]) -> MasterState:
    """These topics are read from their starts."""
    return replace(state, consumed={t: p for t, p in state.consumed.items() if t not in lost})


def _trimmed(state: MasterState, entry: Trimmed) -> MasterState:
    place = Position(entry.topic, entry.generation, entry.before)
    return replace(state, trimmed=_with(state.trimmed, entry.topic, place))


def _rotated(state: MasterState, entry: Rotated) -> MasterState:
    return replace(state, generations=_with(state.generations, entry.topic, entry.generation))


APPLY: dict[type, Callable[[MasterState, Any], MasterState]] = {
    MasterStarted: _noted,
    RunOpened: _opened,
    DataPublished: _data,
    WorkerAdmitted: _admitted,
    WorkerRefused: _noted,
    TrainingStarted: _training,
    BlocksGranted: _granted,
    BlocksReturned: _returned,
    RoundNoted: _round,
    UpdateTaken: _taken,
    UpdateRejected: _rejected,
    VersionPublished: _published,
    StepClosed: _step_closed,
    ShardResized: _resized,
    VersionEvaluated: _evaluated,
    WorkerLost: _lost,
    WorkerBack: _back,
    WorkerLeft: _left,
    ResendAsked: _noted,
    RunStopped: _stopped,
    RunScored: _scored,
    EvaluationAsked: _asked,
    ScoreNoted: _score_noted,
    RunReopened: _reopened,
    Forked: _forked,
    StateSaved: _state_saved,
    StateReset: _state_reset,
    Republished: _republished,
    Rewound: _rewound,
    TailLost: _tail_lost,
    Trimmed: _trimmed,
    Rotated: _rotated,
}
"""Entry -> what it does. A test asserts that every entry is here."""
