"""Do a decision's numbers give that decision again? The same rules, the same facts. Pure.

Each function is given the ledger's fold up to just before an entry, and the entry; it calls the
very functions that the master and the worker decided with. What comes of a reduction (a loss) or
from outside (a word, a silence) is an input: recorded, and not to be had from the ledger again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from hermes.machine import alone, closing, grid, merging, rules, scoring, steps, stopping
from hermes.machine.admission import admission
from hermes.machine.draft import Draft
from hermes.machine.master import refused
from hermes.machine.pools import pool_for
from hermes.machine.soft import Soft
from hermes.machine.state import MasterState, Pending
from hermes.machine.walk import next_grant
from hermes.machine.worker import told
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    DataPublished,
    Forked,
    MasterStarted,
    ResendAsked,
    RoundNoted,
    RunStopped,
    ShardResized,
    StepClosed,
    TrainingStarted,
    Update,
    UpdateRejected,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerLost,
    WorkerRefused,
)
from hermes.policy import allocate, gate, norm, own, pace, sync, weigh
from hermes.policy.gate import GateState, Verdict
from hermes.policy.paired import Paired
from hermes.policy.sync import Close
from hermes.values import SECOND, Birth, Outer, Position, Reason, Superstep

AGREES, DIFFERS, OPEN = "agrees", "differs", "not recomputable"

Numbers = Mapping[str, Any]

CLOSE_TO = 1e-9
"""Relative: another release of NumPy may round the last digit of a quartile otherwise."""

OF_TENSORS = "it was read off the update's tensors, which are not in the ledger"
OF_A_MODEL = "a loss is measured on tensors: it is recorded, and is what others follow from"
OWN_WORD = "it is what the worker itself said"
FROM_OUTSIDE = "it came from outside the run's rules"


class Check(NamedTuple):
    """What came of recomputing a decision."""

    outcome: str
    """AGREES, DIFFERS or OPEN."""
    recorded: Numbers = MappingProxyType({})
    recomputed: Numbers = MappingProxyType({})
    why: str = ""
    """OPEN: why it cannot be."""

    @property
    def differing(self) -> list[str]:
        """Names of the facts that are not the recorded ones."""
        names = [*self.recorded, *(name for name in self.recomputed if name not in self.recorded)]
        return [n for n in names if not same(self.recorded.get(n), self.recomputed.get(n))]


def same(one: object, other: object) -> bool:
    """Whether two facts are one: fractions to nine digits, all else exactly."""
    numbers = (int, float)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    if isinstance(one, numbers) and isinstance(other, numbers):
        return math.isclose(one, other, rel_tol=CLOSE_TO, abs_tol=1e-12)
    return type(one) is type(other) and one == other


def compare(recorded: Numbers, recomputed: Numbers) -> Check:
    """Whether these facts are one and the same."""
    check = Check(AGREES, recorded, recomputed)
    return check._replace(outcome=DIFFERS) if check.differing else check


def unsettled(why: str) -> Check:
    """It cannot be recomputed."""
    return Check(OPEN, why=why)


def of(reason: Reason | None) -> Numbers:
    """A reason as facts, its code among them."""
    return {"code": None} if reason is None else {"code": reason.code, **reason.facts}


def as_float(value: object) -> float:
    """A loss, which travels as text where it is not finite."""
    return float(value) if isinstance(value, int | float | str) else math.nan


# --- rounds -------------------------------------------------------------------------------------


def verdict_of(state: MasterState, known: GateState, entry: RoundNoted) -> Verdict:
    """What the gate says to this round's loss."""
    # An open gate notes no loss where it is not finite, and looks at none.
    facts = entry.reason.facts
    samples = facts.get("samples")
    samples = samples if isinstance(samples, int) else 0
    gradient = as_float(facts.get("gradient"))
    learned = gate.Learned(as_float(facts.get("drift")), samples, _paired(facts), gradient)
    return gate.decide(state.settings.gate, known, as_float(facts.get("loss")), learned)


def _paired(facts: Numbers) -> Paired | None:
    """The test of a push, as the round noted it."""
    n = facts.get("n")
    if "d" not in facts or not isinstance(n, int):
        return None
    return Paired(as_float(facts["d"]), as_float(facts.get("se")), n)


def round_noted(state: MasterState, entry: RoundNoted, verdict: Verdict) -> Check:
    """The gate's verdict."""
    recorded = {"verdict": entry.verdict, **of(entry.reason)}
    said = told(verdict.push, together=sync.steps_together(state.settings.close))
    return compare(recorded, {"verdict": said, **of(verdict.reason)})


def resized(state: MasterState, entry: ShardResized, answer: allocate.Answer) -> Check:
    """A new size, where the rule's answer after the round was this one."""
    before = state.members[entry.worker]
    return compare(
        {"size": entry.size, "batch": entry.batch, **of(entry.reason)},
        size_of(answer, before.size, before.batch),
    )


def size_of(answer: allocate.Answer, size: int, batch: int) -> Numbers:
    """What is in force after this answer, and why."""
    if isinstance(answer, allocate.Sizing):
        size, batch = answer.size, answer.batch
    return {**of(answer.reason), "size": size, "batch": batch}


# --- updates ------------------------------------------------------------------------------------


def at_once(state: MasterState, worker: str, update: Update, offset: int) -> Reason | None:
    """Why an update whose message lies at `offset` is refused as it comes; None if it is not."""
    draft = Draft(rules.PROTOCOL_RULES, state, Soft(), state.time)
    topic = f"from.{worker}"
    return refused(draft, worker, update, Position(topic, state.generations.get(topic, 0), offset))


def taken(state: MasterState, worker: str, birth: Birth) -> Check:
    """An update is taken once: its birth was not known."""
    fresh = rules.unborn(state.members[worker], birth)
    return compare({"fresh": True}, {"fresh": fresh})


def pending_of(state: MasterState, birth: Birth) -> Pending | None:
    """The undecided update of this birth."""
    return next((p for p in state.pending if p.update.birth == birth), None)


def rejected(state: MasterState, entry: UpdateRejected) -> Check:
    """An update's rejection, where it follows from what the ledger knows of it."""
    reason, pending = entry.reason, pending_of(state, entry.birth)
    if pending is None:
        return compare({"waits": True}, {"waits": False})
    if reason.code in ("unknown-base", "from-the-future", "malformed"):
        offset = int(as_float(reason.facts.get("before", 2**53)))
        return compare(of(reason), of(at_once(state, entry.worker, pending.update, offset)))
    if reason.code == "wrong-codec" and pending.update.codec != state.settings.codec.up:
        return compare(of(reason), of(at_once(state, entry.worker, pending.update, 2**53)))
    if reason.code == "too-stale":
        assert state.newest is not None
        staleness = state.newest.version - pending.update.oldest
        return compare(of(reason), of(weigh.check_staleness(state.settings.merge, staleness)))
    if reason.code == norm.ABSURD:
        return compare(of(reason), of(_beyond(state, as_float(reason.facts.get("norm")))))
    if reason.code == alone.NOT_QUICKEST:
        return compare(of(reason), of(alone.refusal(state, entry.worker)))
    if "loss_global" in reason.facts:
        return compare(of(reason), of(_weighed(reason)))
    return unsettled(OF_TENSORS)


def _beyond(state: MasterState, length: float) -> Reason | None:
    """Why an update of this norm is refused now; the norm itself is an input."""
    limit = merging.limit_in_force(state)
    return norm.judge(length, limit) if limit is not None else None


def _weighed(reason: Reason) -> Reason | None:
    losses = [as_float(reason.facts.get(name)) for name in ("loss_global", "loss_worker")]
    answer = weigh.loss_weights(*losses)
    return answer if isinstance(answer, Reason) else None


# --- versions -----------------------------------------------------------------------------------


class Closing(NamedTuple):
    """An answer of the close rule at some moment: these updates, in this order, each with a weight
    (none, where those are made of losses)."""

    births: tuple[Birth, ...]
    reason: Reason
    weights: tuple[float, ...]
    outer: Outer | None


def closing_of(state: MasterState) -> Closing | None:
    """The updates that the close rule would make a version of now; None while it waits. Of a quorum
    the ledger does not say how long it is there: enough is taken for granted."""
    if state.newest is None or state.started is None or not state.pending:
        return None
    answer = closing.answer(state, None)
    if not isinstance(answer, Close):
        return None
    members = [state.pending[index] for index in answer.members]
    births = tuple(pending.update.birth for pending in members)
    if state.settings.merge.rule == "interpolate":
        return Closing(births, answer.reason, (), None)
    weights = tuple(closing.weights(state, members))
    if not any(weights):  # all are of no samples, and about to be refused
        return None
    return Closing(births, answer.reason, weights, closing.outer(state, members))


def published(state: MasterState, entry: VersionPublished, closings: Sequence[Closing]) -> Check:
    """A version's members, weights and counts. `closings`: the answers of the close rule since the
    version before; it was made at one of those moments, of which several may have had the same
    updates, and more workers alive, or fewer."""
    if state.newest is None and state.forked is not None:
        return _inherited(state.forked, entry)
    if not entry.members or state.newest is None:
        number = 0 if state.newest is None else state.newest.version + 1
        return compare({"version": entry.version}, {"version": number})
    births = tuple(part.birth for part in entry.members)
    fitting = [moment for moment in closings if moment.births == births]
    updates = [pending for birth in births if (pending := pending_of(state, birth)) is not None]
    if not fitting or len(updates) < len(births):
        return compare({"closed": True}, {"closed": False})
    checks = [_made(state, entry, updates, moment) for moment in fitting]
    return next((check for check in checks if check.outcome == AGREES), checks[0])


def _made(
    state: MasterState, entry: VersionPublished, members: list[Pending], moment: Closing
) -> Check:
    """A version, if it was made at that moment."""
    assert state.newest is not None
    losses = {k: v for k, v in entry.reason.facts.items() if k in ("loss_global", "loss_worker")}
    keep, weights = _weights(moment, losses)
    rule = state.settings.merge.rule
    samples = state.newest.samples + sum(pending.update.samples for pending in members)
    recomputed = _version_facts(state.newest.version + 1, rule, keep, weights, samples)
    recomputed = {**recomputed, **_step_facts(moment.outer)}
    recorded = _version_facts(
        entry.version, entry.rule, entry.keep, [m.weight for m in entry.members], entry.samples
    )
    recorded = {**recorded, **_step_facts(entry.outer)}
    recorded = {**recorded, **_quota_facts(entry.superstep)}
    recomputed = {**recomputed, **_quota_facts(closing.superstep(state))}
    beyond = sum(_beyond(state, part.norm) is not None for part in entry.members)
    recorded, recomputed = {**recorded, "absurd norms": 0}, {**recomputed, "absurd norms": beyond}
    why = _since_when(moment.reason, entry.reason)
    return compare({**recorded, **of(entry.reason)}, {**recomputed, **of(why), **losses})


def _since_when(again: Reason, recorded: Reason) -> Reason:
    """How long a quorum was there only the master knew: it is taken, if it was long enough."""
    if "waited" not in again.facts:
        return again
    waited = Reason(again.code, {**again.facts, "waited": recorded.facts.get("waited")})
    return waited if sync.may_close(waited) else _at_least(again)


def _at_least(reason: Reason) -> Reason:
    return Reason(reason.code, {**reason.facts, "waited": reason.facts.get("grace")})


def _inherited(forked: Forked, entry: VersionPublished) -> Check:
    """A fork begins with its parent's version: the same bytes."""
    recorded = {"version": entry.version, "samples": entry.samples, "digest": entry.payload.digest}
    theirs = {"version": forked.version, "samples": forked.samples, "digest": forked.digest}
    return compare(recorded, theirs)


def _version_facts(
    version: int, rule: str, keep: float, weights: Sequence[float], samples: int
) -> Numbers:
    numbered = {f"weight {index}": weight for index, weight in enumerate(weights, 1)}
    facts = {"version": version, "rule": rule, "keep": keep, "samples": samples}
    return {**facts, **numbered}


def _step_facts(outer: Outer | None) -> Numbers:
    return {} if outer is None else msgspec.structs.asdict(outer)


def _quota_facts(planned: Superstep | None) -> Numbers:
    if planned is None:
        return {}
    quotas = {f"quota {name}": quota for name, quota in planned.quotas.items()}
    return {**quotas, "planned": planned.reason.code, **planned.reason.facts}


def _weights(moment: Closing, losses: Numbers) -> tuple[float, Sequence[float]]:
    if moment.weights:
        return 0.0, moment.weights
    found = weigh.loss_weights(
        as_float(losses.get("loss_global")), as_float(losses.get("loss_worker"))
    )
    return (math.nan, [math.nan]) if isinstance(found, Reason) else (found[0], [found[1]])


def step_closed(state: MasterState, entry: StepClosed) -> Check:
    """Everybody had taken its step, and these were the flags."""
    return compare(_step(entry), _step(steps.closed(state)))


def _step(entry: StepClosed | None) -> Numbers:
    if entry is None:
        return {"closed": False}
    known = {"closed": True, "step": entry.step, "version": entry.version, "sync": entry.sync}
    return {**known, "pushers": ", ".join(entry.pushers), **of(entry.reason)}


def evaluated(state: MasterState, entry: VersionEvaluated) -> Check:
    """An evaluation stands on its grid; its scores are inputs, or the sums of the workers'."""
    if state.asked is not None:
        again = scoring.merged(state) if entry.n else entry
        return compare(_sums(entry), _sums(again))
    due = grid.next_evaluation(state)
    return compare({"on the grid": True}, {"on the grid": entry.started >= due})


def _sums(entry: VersionEvaluated) -> Numbers:
    scores = {"loss": entry.loss, "accuracy": entry.accuracy}
    return {**scores, "samples": entry.n, "workers": ", ".join(entry.workers)}


# --- who comes and goes -------------------------------------------------------------------------


def admitted(state: MasterState, entry: WorkerAdmitted) -> Check:
    """What a worker was told as it was admitted."""
    who = (entry.worker, entry.incarnation, entry.hello, entry.software, entry.own)
    told = admission(state, *who)
    return compare(_told(entry), _told(told))


def _told(entry: WorkerAdmitted) -> Numbers:
    data = entry.data
    return {
        "version": entry.version.version,
        "digest": entry.version.payload.digest,
        "started": entry.started,
        "size": data.first_size,
        "batch": data.batch,
        "pool": entry.pool,
    }


def first_size(state: MasterState, data: DataPublished) -> Check:
    """The size of everybody's first shard."""
    assert state.opened is not None
    train, expect = data.samples["train"], state.opened.expect
    if data.shares:  # of what each of them brings
        return compare({"size": data.first_size}, {"size": state.settings.size.first})
    size = allocate.first_size(state.settings.size, train, expect)
    return compare({"size": data.first_size}, {"size": size})


def refused_hello(state: MasterState, entry: WorkerRefused) -> Check:
    """Why a hello was refused, as far as the ledger shows it."""
    assert state.opened is not None
    facts, member = entry.reason.facts, state.members.get(entry.worker)
    ours = state.opened.software.hermes
    other = facts.get("worker") != ours or (
        facts.get("worker_protocol") != facts.get("master_protocol")
    )
    limit = state.settings.workers.max
    holds: dict[str, bool] = {
        "bad-name": rules.NAME.fullmatch(entry.worker) is None,
        "other-version": other and facts.get("master") == ours,
        "too-many": member is None and len(state.members) >= limit == facts.get("limit"),
        "name-taken": member is not None and member.status == "alive",
        "run-stopped": state.stopped is not None,
        "no-pool": state.data is not None and pool_for(state, entry.worker) is None,
        "data-granted": not scoring.brought(state),
        "no-data": scoring.brought(state),
        "too-few-samples": scoring.brought(state) and as_float(facts.get("samples")) < own.FEWEST,
    }
    code = entry.reason.code
    if code not in holds:
        return unsettled(FROM_OUTSIDE)
    return compare({code: True}, {code: holds[code]})


def granted(state: MasterState, entry: BlocksGranted) -> Check:
    """A grant: the next blocks of the walk, what was returned first."""
    again = next_grant(state, entry.worker, *rules.free(state, entry.worker))
    return compare(_grant_facts(entry), _grant_facts(again))


def _grant_facts(entry: BlocksGranted) -> Numbers:
    blocks = ", ".join(f"{r.first}..{r.last - 1}" for r in entry.ranges)
    place = {"blocks": blocks} if entry.start < 0 else {"from place": entry.start}
    return {"grant": entry.number, **place, "size": entry.size, "batch": entry.batch}


def returned(state: MasterState, entry: BlocksReturned) -> Check:
    """All that a worker held goes back."""
    held = rules.release(state.members[entry.worker], entry.reason)
    numbers = [] if held is None else list(held.numbers)
    return compare({"grants": list(entry.numbers)}, {"grants": numbers})


def lost(state: MasterState, entry: WorkerLost) -> Check:
    """A silence, or a life without progress, which only the master heard, beyond the limit; the
    limit follows from the pace that it had learned."""
    settings, facts = state.settings.workers, entry.reason.facts
    alive = state.members[entry.worker].status == "alive"
    median, spread = (as_float(facts.get(name, 0.0)) for name in ("median", "spread"))
    limit = pace.limit(median, spread, settings.lost, settings.longest)
    # The facts are rounded to a millisecond.
    if entry.reason.code == "stuck":
        limit = limit if "median" in facts else settings.longest
        stood = as_float(facts.get("seconds"))
        beyond = rules.stuck(0, int((stood + 0.0005) * SECOND) + 1, limit)
        alive = alive and all(pending.worker != entry.worker for pending in state.pending)
    else:
        silence = as_float(facts.get("silent"))
        beyond = rules.silent(0, int((silence + 0.0005) * SECOND) + 1, limit)
    recomputed = {"lost": beyond and alive, "limit": limit}
    return compare({"lost": True, "limit": facts.get("limit")}, recomputed)


def back(state: MasterState, entry: WorkerBack) -> Check:
    """Whoever was lost is back with its next message, or its next progress."""
    was_lost = rules.comes_back(state.members[entry.worker], True)
    return compare({"was lost": True}, {"was lost": was_lost})


def resend(state: MasterState, entry: ResendAsked, last: int) -> Check:
    """The first number that is missing; `last`: the last one that this record consumes."""
    first = state.members[entry.worker].taken.get(entry.incarnation, 0) + 1
    # Within a record numbers are consumed one by one, and it names only the last of them.
    wanted = entry.first if first <= entry.first <= max(first, last + 1) else first
    return compare({"from": entry.first}, {"from": wanted})


# --- the run ------------------------------------------------------------------------------------


def claimed(state: MasterState, entry: MasterStarted) -> Check:
    """A master's term is the next."""
    return compare({"term": entry.term}, {"term": state.authority.term + 1})


def training(state: MasterState, entry: TrainingStarted) -> Check:
    """As many workers as are expected are there."""
    assert state.opened is not None
    came = len(state.alive()) + sum(member.unable for member in state.members.values())
    recomputed = {"workers": len(state.alive()), "enough": came >= state.opened.expect}
    return compare({"workers": entry.workers, "enough": True}, recomputed)


def stopped(state: MasterState, entry: RunStopped) -> Check:
    """The stopping rule that held; or that all who came could not train, or brought only NaN."""
    reason = entry.reason
    rule = STOPS.get(reason.code)
    if rule is None:
        return unsettled(FROM_OUTSIDE)
    recorded = {**of(reason), "status": entry.status}
    return compare(recorded, {**of(rule(state, reason)), "status": entry.status})


def _rule(state: MasterState, _reason: Reason) -> Reason | None:
    return None if state.started is None else stopping.stopping_rule(state, state.time)


def _seconds(state: MasterState, reason: Reason) -> Reason | None:
    """Other events may have come into the same record later: its own time is no later than that."""
    if state.started is None:
        return None
    seconds = as_float(reason.facts.get("seconds"))
    now = state.started + int((seconds + 0.0005) * SECOND)
    held = stopping.stopping_rule(state, min(now, state.time))
    if held is None or held.code != "seconds":
        return held
    return Reason("seconds", {**held.facts, "seconds": seconds})


def _of_the_model(_state: MasterState, reason: Reason) -> Reason | None:
    found = _weighed(reason)
    return None if found is None else Reason(f"global-{found.code}", found.facts)


STOPS: dict[str, Callable[[MasterState, Reason], Reason | None]] = {
    **dict.fromkeys(("accuracy", "loss", "patience", "samples", "versions"), _rule),
    "seconds": _seconds,
    "diverged": lambda state, _reason: stopping.diverged(state),
    "no-worker-can-train": lambda state, _reason: stopping.nobody_can(state),
    **dict.fromkeys(
        ("global-loss-zero", "global-loss-negative", "global-loss-not-finite"), _of_the_model
    ),
}
"""Code -> what says it again."""
