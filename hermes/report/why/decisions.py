"""What was decided in a run, about whom, from which numbers? Each entry of the ledger, told. Pure.

The ledger is folded entry by entry, as the master folded it; each decision is recomputed as it is
met. What was *not* decided (a shard that keeps its size after a round) is a decision, too: it is
not in the ledger, and is had by asking the rule again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from hermes.machine import sizing, steps
from hermes.machine.apply import apply_entries
from hermes.machine.pools import largest
from hermes.machine.state import MasterState
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    DataPublished,
    Entry,
    LedgerRecord,
    MasterStarted,
    ResendAsked,
    RoundNoted,
    RunOpened,
    RunScored,
    RunStopped,
    ShardResized,
    StepClosed,
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
from hermes.policy import allocate, gate
from hermes.policy.gate import GateState
from hermes.report.why import of_log, recompute
from hermes.report.why.decided import MASTER, Arrived, Decision, spelled
from hermes.report.why.recompute import AGREES, DIFFERS, Check
from hermes.values import SECOND, Birth, Reason


class _Lived(NamedTuple):
    """What is known of one start of a worker's process."""

    gate: GateState
    round: int = 0
    whole: bool = True
    """Whether the ledger has all its rounds so far."""


class Retelling:
    """Reads valid ledger records in order; `decisions` are those about `about`, or all of them."""

    def __init__(self, about: str | None = None) -> None:
        self.about = about
        self.state = MasterState()
        self.decisions: list[Decision] = []
        self.refused: set[str] = set()
        """Names that were refused and never admitted, or admitted at another time."""
        self.versions: dict[int, int] = {}
        """Run time of each version."""
        self.members: dict[int, tuple[str, ...]] = {}
        """Workers in each version."""
        self.starts: dict[str, int] = {}
        """How often each worker's process was admitted."""
        self.arrived: dict[Birth, Arrived] = {}
        """Undecided updates."""
        self.started: int | None = None
        self.end = 0
        self._lived: dict[str, _Lived] = {}
        self._closings: list[recompute.Closing] = []
        self._answers: dict[str, allocate.Answer] = {}
        """What the size rule said after a round, until it is known whether that was recorded."""
        self._urgent: dict[Birth, Reason] = {}
        """Why an update must be refused in the record that takes it."""
        self._record: LedgerRecord | None = None

    def read(self, record: LedgerRecord) -> None:
        """Read one record more."""
        self._record, self.end = record, record.time
        self.state = replace(self.state, time=record.time)
        for entry in record.entries:
            self._tell(entry)
            self.state = apply_entries(self.state, (entry,))
            self._look_after(entry)
        self._settle_sizes(tuple(self._answers))
        self._settle_urgent()
        self.state = apply_entries(self.state, (), record.consumed)
        authority = replace(self.state.authority, term=record.term, nonce=record.nonce)
        self.state = replace(self.state, authority=authority)

    # --- one entry ------------------------------------------------------------------------------

    def _tell(self, entry: Entry) -> None:
        """What it decides, as the state before it shows."""
        worker = getattr(entry, "worker", MASTER)
        if isinstance(entry, RoundNoted):
            self._settle_sizes((worker,))
        if isinstance(entry, VersionPublished):
            self._version(entry)
        elif isinstance(entry, WorkerRefused):
            self.refused.add(worker)
        if isinstance(entry, UpdateTaken):
            known = self.state.newest.version if self.state.newest else -1
            self.arrived[entry.update.birth] = Arrived(self.state.time, known)
        tell = TELL.get(type(entry))
        if tell is not None and self._wanted(worker):
            tell(self, worker, entry)
        if isinstance(entry, UpdateRejected):
            self.arrived.pop(entry.birth, None)

    def _look_after(self, entry: Entry) -> None:
        """What it changes for those that follow."""
        if isinstance(entry, TrainingStarted):
            self.started = self.state.time
        elif isinstance(entry, WorkerAdmitted):
            self._begin(entry)
        elif isinstance(entry, RoundNoted) and self._wanted(entry.worker):
            self._answers[entry.worker] = sizing.sized(self.state, entry.worker)
        elif isinstance(entry, VersionPublished):
            self._closings = []
        closing = recompute.closing_of(self.state)
        if closing is not None and closing not in self._closings:
            self._closings.append(closing)

    def _wanted(self, worker: str) -> bool:
        return self.about is None or self.about == worker

    def _note(self, worker: str, kind: str, reason: Reason, check: Check, **details: Any) -> None:
        record = self._record
        assert record is not None
        version = self.state.newest.version if self.state.newest else -1
        term, n = record.term, record.n
        self.decisions.append(
            Decision(worker, kind, term, n, record.time, version, reason, details, check)
        )

    def _begin(self, entry: WorkerAdmitted) -> None:
        """A fresh start of a worker's process begins with a fresh gate."""
        name = f"{entry.worker} {entry.incarnation}"
        if name not in self._lived:
            self.starts[entry.worker] = self.starts.get(entry.worker, 0) + 1
            self._lived[name] = _Lived(gate.start(self.state.settings.gate))

    # --- rounds ---------------------------------------------------------------------------------

    def _round(self, worker: str, entry: RoundNoted) -> None:
        name = f"{worker} {self.state.members[worker].incarnation}"
        before = self._lived[name]
        whole = before.whole and entry.round == before.round + 1
        verdict = recompute.verdict_of(self.state, before.gate, entry)
        self._lived[name] = _Lived(verdict.state, entry.round, whole)
        check = recompute.round_noted(self.state, entry, verdict)
        if not whole:
            check = recompute.unsettled("not all rounds before it are in the ledger")
        loss = entry.reason.facts.get("loss")
        window = (*before.gate.window, loss)[-self.state.settings.gate.window :]
        self._note(
            worker,
            "round",
            entry.reason,
            check,
            verdict=entry.verdict,
            round=entry.round,
            start=self.starts[worker],
            base=entry.base,
            steps=entry.steps,
            samples=entry.samples,
            busy=entry.busy,
            waited=entry.waited,
            moved=entry.moved,
            training_loss=entry.loss,
            window=list(window) if self.state.settings.gate.rule == "zscore" else [],
            quiet=verdict.state.quiet,
            next_threshold=verdict.state.threshold,
            birth=self._pushed(worker, entry),
        )

    def _pushed(self, worker: str, entry: RoundNoted) -> str | None:
        """The birth of the update that this round pushed, as the same record has it."""
        assert self._record is not None
        after = self._record.entries[self._record.entries.index(entry) + 1 :]
        for other in after:
            if isinstance(other, RoundNoted) and other.worker == worker:
                return None
            if isinstance(other, UpdateTaken) and other.worker == worker:
                return spelled(other.update.birth)
        return None

    def _resized(self, worker: str, entry: ShardResized) -> None:
        answer, member = self._answers.pop(worker, None), self.state.members[worker]
        if answer is None or not member.size:  # who has no work may have some for others' rounds
            answer = sizing.sized(self.state, worker)
        check = recompute.resized(self.state, entry, answer)
        self._note(
            worker,
            "resized",
            entry.reason,
            check,
            before=member.size,
            before_batch=member.batch,
            size=entry.size,
            batch=entry.batch,
            rounds=len(member.timings),
            others=self._others(worker),
        )

    def _others(self, worker: str) -> list[float]:
        """Seconds of the latest rounds of the others alive, as the size rules look at them."""
        members = [self.state.members[name] for name in self.state.alive() if name != worker]
        last = [[busy for steps, busy in m.timings if steps > 0 and busy > 0] for m in members]
        return sorted(times[-1] / SECOND for times in last if times)

    def _settle_sizes(self, workers: tuple[str, ...]) -> None:
        """The rule was asked, and the ledger has no new size."""
        for worker in workers:
            answer = self._answers.pop(worker, None)
            if answer is None or self.state.settings.size.rule in ("fixed", "quota"):
                continue
            member = self.state.members[worker]
            recorded = {"size": member.size, "batch": member.batch}
            again = recompute.size_of(answer, member.size, member.batch)
            new = {key: again[key] for key in recorded}
            check = recompute.compare(recorded, new)
            if check.outcome == AGREES:
                check = check._replace(recomputed=again)
            others = self._others(worker)
            self._note(worker, "kept", answer.reason, check, others=others, **recorded)

    # --- updates --------------------------------------------------------------------------------

    def _taken(self, worker: str, entry: UpdateTaken) -> None:
        update, newest = entry.update, self.state.newest
        refusal = recompute.at_once(self.state, worker, update, 2**53)
        if refusal is not None:
            self._urgent[update.birth] = refusal
        self._note(
            worker,
            "taken",
            Reason("taken"),
            recompute.taken(self.state, worker, update.birth),
            birth=spelled(update.birth),
            base=update.base.version,
            samples=update.samples,
            rounds=update.rounds,
            staleness=newest.version - update.oldest if newest else 0,
            bytes=update.payload.length,
        )

    def _settle_urgent(self) -> None:
        """An update that a rule refuses as it comes is refused in the same record."""
        for birth, reason in self._urgent.items():
            pending = recompute.pending_of(self.state, birth)
            if pending is not None:
                check = Check(DIFFERS, {"code": None}, recompute.of(reason))
                self._note(pending.worker, "rejected", reason, check, birth=spelled(birth))
        self._urgent = {}

    def _rejected(self, worker: str, entry: UpdateRejected) -> None:
        check = recompute.rejected(self.state, entry)
        arrived = self.arrived.get(entry.birth)
        waited = self.state.time - arrived.at if arrived else 0
        self._note(
            worker, "rejected", entry.reason, check, birth=spelled(entry.birth), waited=waited
        )

    # --- versions -------------------------------------------------------------------------------

    def _version(self, entry: VersionPublished) -> None:
        check = recompute.published(self.state, entry, self._closings)
        before, total = self.state.newest, sum(part.weight for part in entry.members)
        arrivals = {
            part.worker: self.arrived.pop(part.birth, Arrived(self.state.time, -1))
            for part in entry.members
        }
        self.versions[entry.version] = self.state.time
        self.members[entry.version] = tuple(arrivals)
        common = {
            "merged_into": entry.version,
            "rule": entry.rule,
            "keep": entry.keep,
            "members": list(arrivals),
            "arrivals": {name: arrived.at for name, arrived in arrivals.items()},
            "total": total,
            "samples": entry.samples - (before.samples if before else 0),
            "all_samples": entry.samples,
        }
        if entry.outer is not None:
            common["outer"] = msgspec.structs.asdict(entry.outer)
        if entry.superstep is not None:
            planned = entry.superstep
            why = {"code": planned.reason.code, **planned.reason.facts}
            common["superstep"] = {"quotas": dict(planned.quotas), **why}
        if self._wanted(MASTER):
            weights: dict[str, float] = {}
            for part in entry.members:  # one worker may have several in it
                weights[part.worker] = weights.get(part.worker, 0.0) + part.weight
            self._note(MASTER, "version", entry.reason, check, weights=weights, **common)
        for part in entry.members:
            if self._wanted(part.worker):
                more = {"weight": part.weight, "own_samples": part.samples}
                birth = spelled(part.birth)
                self._note(
                    part.worker, "merged", entry.reason, check, birth=birth, **more, **common
                )

    def _step(self, worker: str, entry: StepClosed) -> None:
        check = recompute.step_closed(self.state, entry)
        votes = sorted((n, m.voted[0]) for n, m in self.state.members.items() if m.voted)
        flags = [name for name, verdict in votes if verdict == steps.FLAG]
        details = {"step": entry.step, "sync": entry.sync, "pushers": list(entry.pushers)}
        self._note(worker, "step", entry.reason, check, flags=flags, **details)

    # --- who comes and goes, and the run --------------------------------------------------------

    def _admitted(self, worker: str, entry: WorkerAdmitted) -> None:
        known = self.state.members.get(worker)
        code = "admitted"
        if known is not None:
            again = known.incarnation == entry.incarnation
            code = "admitted-by-new-master" if again else "admitted-again"
        check = recompute.admitted(self.state, entry)
        data = entry.data
        most = largest(data, entry.pool, entry.own)
        size = min(data.first_size if known is None else known.size, most)
        runs = None if entry.opened.virtual else entry.software  # simulated, it runs on nothing
        self._note(
            worker,
            "admitted",
            Reason(code),
            check,
            size=size,
            batch=data.batch if known is None else known.batch,
            train=most if entry.own is not None else data.samples["train"],
            own=entry.own.samples if entry.own is not None else None,
            expect=entry.opened.expect,
            first=self.state.settings.size.first,
            base=entry.version.version,
            pool=entry.pool,
            pool_size=most,
            started=entry.started,
            software=msgspec.structs.asdict(runs) if runs else None,
        )

    def _left(self, worker: str, entry: WorkerLeft) -> None:
        check = recompute.unsettled(recompute.OWN_WORD)
        self._note(worker, "left", Reason(entry.reason), check, unable=entry.unable)

    def _granted(self, worker: str, entry: BlocksGranted) -> None:
        check = recompute.granted(self.state, entry)
        details = {"grant": entry.number, "size": entry.size, "batch": entry.batch}
        details["pool"] = self.state.members[worker].pool
        self._note(worker, "granted", Reason("next-blocks"), check, **details)

    def _returned(self, worker: str, entry: BlocksReturned) -> None:
        check = recompute.returned(self.state, entry)
        self._note(worker, "returned", Reason(entry.reason), check, grants=list(entry.numbers))

    def _resend(self, worker: str, entry: ResendAsked) -> None:
        assert self._record is not None
        numbers = [c.number for c in self._record.consumed if c.incarnation == entry.incarnation]
        check = recompute.resend(self.state, entry, max(numbers, default=0))
        self._note(worker, "resend", Reason("gap", {"first": entry.first}), check)

    def _evaluated(self, worker: str, entry: VersionEvaluated) -> None:
        known, reason = self.state.evaluations.best, Reason("scores")
        best = entry.loss is not None and (known is None or entry.loss < known.loss)
        details = {"loss": entry.loss, "accuracy": entry.accuracy, "scored": entry.version}
        details |= {"n": entry.n, "workers": len(entry.workers)}
        check = recompute.evaluated(self.state, entry)
        self._note(worker, "evaluated", reason, check, best=best, cost=entry.cost, **details)

    def _scored(self, worker: str, entry: RunScored) -> None:
        details = {name: getattr(entry, name) for name in entry.__struct_fields__[1:]}
        check = recompute.unsettled(recompute.OF_A_MODEL)
        self._note(worker, "scored", Reason("scores"), check, scored=entry.version, **details)

    def _data(self, worker: str, entry: DataPublished) -> None:
        check = recompute.first_size(self.state, entry)
        details = {"samples": entry.samples, "size": entry.first_size, "batch": entry.batch}
        details["own"] = bool(entry.shares)
        self._note(worker, "data", Reason("uploaded"), check, **details)

    def _opened(self, worker: str, entry: RunOpened) -> None:
        check = recompute.unsettled(recompute.FROM_OUTSIDE)
        strategy = str(entry.settings.get("strategy", ""))
        self._note(worker, "opened", Reason("opened"), check, strategy=strategy, seed=entry.seed)


def _plain(kind: str, check: Callable[[MasterState, Any], Check]) -> Callable[..., None]:
    """For an entry whose reason says it all."""

    def tell(retelling: Retelling, worker: str, entry: Any) -> None:
        reason = getattr(entry, "reason", Reason(kind))
        status = {"status": entry.status} if isinstance(entry, RunStopped) else {}
        numbers = {"term": entry.term} if isinstance(entry, MasterStarted) else {}
        came = {"workers": entry.workers} if isinstance(entry, TrainingStarted) else {}
        found = check(retelling.state, entry)
        retelling._note(worker, kind, reason, found, **status, **numbers, **came)

    return tell


def _of_log(note: of_log.Note) -> Callable[..., None]:
    """For an entry about the run's own log."""

    def tell(retelling: Retelling, _worker: str, entry: Any) -> None:
        state = retelling.state
        if isinstance(entry, Trimmed):  # what the same record has read is not needed any more
            assert retelling._record is not None
            state = apply_entries(state, (), retelling._record.consumed)
        details, check = note.details(state, entry), note.check(state, entry)
        retelling._note(MASTER, note.kind, of_log.reason_of(entry, note.kind), check, **details)

    return tell


TELL: dict[type, Callable[[Retelling, str, Any], None]] = {
    MasterStarted: _plain("master", recompute.claimed),
    RunOpened: Retelling._opened,
    DataPublished: Retelling._data,
    WorkerAdmitted: Retelling._admitted,
    WorkerRefused: _plain("refused", recompute.refused_hello),
    TrainingStarted: _plain("training", recompute.training),
    BlocksGranted: Retelling._granted,
    BlocksReturned: Retelling._returned,
    RoundNoted: Retelling._round,
    UpdateTaken: Retelling._taken,
    UpdateRejected: Retelling._rejected,
    ShardResized: Retelling._resized,
    StepClosed: Retelling._step,
    VersionEvaluated: Retelling._evaluated,
    WorkerLost: _plain("lost", recompute.lost),
    WorkerBack: _plain("back", recompute.back),
    WorkerLeft: Retelling._left,
    ResendAsked: Retelling._resend,
    RunStopped: _plain("stopped", recompute.stopped),
    RunScored: Retelling._scored,
    **{kind: _of_log(note) for kind, note in of_log.NOTES.items()},
}
"""Entry -> how it is told; a version is told to each of its members (`Retelling._version`)."""
