"""Does a run hold, from its first record to the last? All parts of the answer, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from hermes.errors import BrokerRefused, CheckFailed, RunError
from hermes.machine.state import MasterState
from hermes.messages import PROTOCOL, LedgerRecord, Trimmed, VersionPublished
from hermes.perform.ledger import Void, read_record
from hermes.transport import names
from hermes.transport.log import Log, Record
from hermes.transport.upto import records_in
from hermes.values import Position
from hermes.verify.accounts import Blocks, Updates
from hermes.verify.chain import Chain, VoidRecord
from hermes.verify.decisions import Decisions
from hermes.verify.findings import NOWHERE, Finding, in_order, update_called
from hermes.verify.payloads import DAMAGED, LOST, Absent, Payloads
from hermes.verify.plan import Plan, Publish
from hermes.verify.scores import Judge
from hermes.verify.versions import Looked, Walk


class Told(Protocol):
    """Told how far it is: of what, how many are done, of how many (None: not known)."""

    def __call__(self, what: str, done: int, total: int | None, /) -> None: ...


class Source(NamedTuple):
    """Where a run is read from."""

    run: str
    place: str
    """For people."""
    kind: str
    """"live", "saved" or "exported"."""
    ledger: Callable[[int], Iterator[Record]]
    """The ledger's records from an offset on, up to its present end."""
    tensors: Log | None
    """The log that holds the tensors; None where there is none."""
    why: str = ""
    """Why there is none."""
    name: str = ""
    """For people, where its topics have another one."""

    @property
    def called(self) -> str:
        """What people call it."""
        return self.name or self.run


class Report(NamedTuple):
    """What was verified, and what does not hold."""

    source: Source
    state: MasterState
    """The fold of the ledger."""
    end: int
    """The offset after the last record that was read."""
    records: int
    """Those that count."""
    terms: list[int]
    voids: list[VoidRecord]
    decisions: Decisions
    versions: list[Looked]
    published: Mapping[int, VersionPublished]
    """As they are at the end: without those that were lost and done again."""
    states: list[str]
    norms: int
    scores: int
    """Losses and metrics that were measured again."""
    bytes: int
    """Of tensors, read and found to have their digest."""
    updates: Updates
    blocks: Blocks
    forked: str
    """The run that it was forked from; "" for none."""
    findings: list[Finding]
    """The first record first."""


def verify(
    source: Source,
    told: Told = lambda _what, _done, _total: None,
    judge: Callable[[MasterState], Judge] | None = None,
) -> Report:
    """Look at all of it; `judge` gives whoever measures scores again.

    Raises `RunError` for what is no ledger, or one that a newer program wrote; `BrokerError`;
    `CheckFailed` where the ledger's beginning is gone; what `judge` raises.
    """
    chain, decisions, plan, updates, blocks = Chain(), Decisions(), Plan(), Updates(), Blocks()
    for raw in _first_to_last(source):
        record = chain.take(raw)
        if record is not None:
            decisions.take(record, raw.offset)
            _account(record, raw.offset, plan, updates, blocks)
        if chain.records % 64 == 0:
            told("records", raw.offset + 1, None)
    found = chain.end()
    _refuse_unreadable(source, chain, found)
    payloads = Payloads(source.tensors, source.run, plan.floors, _later(source, chain, plan))
    scoring = judge(chain.state) if judge is not None else None
    walk = Walk(plan, payloads, lambda number: told("versions", number, plan.versions), scoring)
    try:
        walk.go()
        found += _undecided(updates, payloads)
    finally:
        payloads.close()
    found += [*decisions.found, *walk.found, *walk.measured.found]
    found += _books(chain.state, updates, blocks)
    found += _fork(plan)
    return Report(
        source,
        chain.state,
        chain.next,
        chain.records,
        chain.terms,
        chain.voids,
        decisions,
        walk.looked,
        _published(plan),
        walk.states,
        walk.norms,
        walk.measured.count,
        payloads.bytes,
        updates,
        blocks,
        plan.forked.parent if plan.forked else "",
        in_order(found),
    )


def _account(
    record: LedgerRecord, offset: int, plan: Plan, updates: Updates, blocks: Blocks
) -> None:
    for entry in record.entries:
        plan.take(entry, offset)
        updates.take(entry, offset)
        blocks.take(entry)


# --- reading ------------------------------------------------------------------------------------


def ledger_in(log: Log, run: str) -> Callable[[int], Iterator[Record]]:
    """The `ledger` of a source: the topic of this run."""
    topic = names.physical(run, names.LEDGER)

    def read(first: int) -> Iterator[Record]:
        return records_in(log, topic, first, log.ends([topic])[topic])

    return read


def _first_to_last(source: Source) -> Iterator[Record]:
    try:
        yield from source.ledger(0)
    except BrokerRefused as error:
        raise CheckFailed(
            f"the ledger's beginning is gone, and it is never trimmed: {error.what}",
            where=f"run {source.called}",
            remedy="Somebody, or the broker's own retention, has deleted it.",
        ) from None


def _refuse_unreadable(source: Source, chain: Chain, found: list[Finding]) -> None:
    """Raise `RunError` where there is nothing that could be verified."""
    where, voids = f"run {source.called}", chain.voids
    if chain.newer is not None and not found:
        raise RunError(
            f"from offset {chain.newer} on the ledger is written in protocol {chain.protocol}; "
            f"this program reads {PROTOCOL}",
            where=where,
            remedy="Take the version of Hermes that wrote it, or a newer one.",
        )
    if chain.records or found:
        return
    if not voids:
        raise RunError(
            "the ledger is empty",
            where=where,
            remedy="Its master ended before it wrote a record; there is nothing to verify.",
        )
    raise RunError(
        f"none of its {len(voids)} records is of a ledger; the first, at offset "
        f"{voids[0].offset}: {voids[0].why}",
        where=where,
        remedy="Is this the run that you mean?",
    )


def _later(source: Source, chain: Chain, plan: Plan) -> Callable[[], Mapping[str, Position]]:
    """What may be gone by now: a run that goes on lets go of more while it is verified."""
    state, place = chain.state, chain.next

    def again() -> Mapping[str, Position]:
        nonlocal state, place
        for raw in source.ledger(place):
            place = raw.offset + 1
            read = read_record(state, raw)
            if isinstance(read, Void):
                continue
            state, record = read
            for entry in record.entries:
                if isinstance(entry, Trimmed):
                    plan.trim(entry)
        return plan.floors

    return again


# --- what must come out even --------------------------------------------------------------------


def _undecided(updates: Updates, payloads: Payloads) -> list[Finding]:
    """What waits to be merged must be there."""
    found: list[Finding] = []
    for worker, birth, fate in updates.undecided():
        try:
            payloads.get(fate.payload)
        except Absent as error:
            if error.code in (LOST, DAMAGED):
                what = update_called(birth.number, worker, birth.incarnation)
                says = f"it is undecided, its bytes lie in {error.where}"
                follows = f"they are {error.code}: {error.what}"
                found.append(Finding("update", fate.offset, what, says, follows))
    return found


def _books(state: MasterState, updates: Updates, blocks: Blocks) -> list[Finding]:
    """The accounts, against the counts that the fold carries."""
    found = [
        Finding("account", NOWHERE, what, "it was decided", "it was never taken")
        for what in updates.stray
    ]
    table = updates.table()
    for name, member in sorted(state.members.items()):
        row = table.get(name, Counter())
        ours = tuple(row[key] for key in ("pushed", "applied", "rejected"))
        theirs = (member.pushes, member.applied, member.rejected)
        if ours != theirs:
            says = "pushed, applied, rejected are {}, {}, {} in the fold".format(*theirs)
            follows = "one by one they are {}, {}, {}".format(*ours)
            found.append(Finding("account", NOWHERE, f"updates of {name}", says, follows))
    uneven = blocks.unaccounted()
    if uneven:
        what = (
            f"block {uneven[0]} and {len(uneven) - 1} more" if uneven[1:] else f"block {uneven[0]}"
        )
        follows = "it was not trained, returned or held as often"
        found.append(Finding("account", NOWHERE, what, "it was granted", follows))
    return found


def _fork(plan: Plan) -> list[Finding]:
    """The first version of a fork is the one that it says."""
    first = next((step for step in plan.steps if isinstance(step, Publish)), None)
    forked = plan.forked
    if forked is None or first is None or first.key == (forked.version, forked.digest):
        return []
    says = f"forked from version {forked.version} ({forked.digest[:12]}) of {forked.parent}"
    follows = f"version {first.key[0]} ({first.key[1][:12]}) is its first"
    return [Finding("version", first.offset, "the fork", says, follows)]


def _published(plan: Plan) -> dict[int, VersionPublished]:
    """By number; one that was lost and made of other updates later is the later one."""
    return {step.version.version: step.version for step in plan.steps if isinstance(step, Publish)}
