"""How is a schedule told to people, and what it came to? Faults with their times, the last entries
of the ledger, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hermes.machine.events import LedgerSeen
from hermes.machine.ledger import Authority, advance, starts_master
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Entry,
    MasterStarted,
    ResendAsked,
    RoundNoted,
    RunStopped,
    ShardResized,
    StepClosed,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
)
from hermes.simulate.driver import Driver, sight
from hermes.simulate.faults import records_of
from hermes.simulate.schedules import KINDS, MASTER_KINDS, WORKER_KINDS, Fault, Schedule
from hermes.values import SECOND

LAST = 14
"""Records of the ledger that the story of a failure ends with."""


def seconds(time: int) -> str:
    """Run time in seconds."""
    return f"{time / SECOND:.3f}".rstrip("0").rstrip(".") + " s"


def heading(schedule: Schedule) -> str:
    """Who takes part."""
    who = []
    for index, (speed, at) in enumerate(zip(schedule.speeds, schedule.joins, strict=True)):
        late = f", from {seconds(at)} on" if at else ""
        who.append(f"worker-{index + 1} (speed {speed:g}{late})")
    kept = f", the last {schedule.keep} versions kept" if schedule.keep else ""
    kept += "" if schedule.trims else ", topics rotated"
    kept += ", workers bring their data" if schedule.resident else ""
    return f"{schedule.strategy} up to version {schedule.versions}{kept}: {', '.join(who)}"


def script(schedule: Schedule) -> list[str]:
    """What goes wrong, one line each, in the order of time as far as it is known."""
    return [fault_line(fault) for fault in sorted(schedule.script, key=_place)]


def _place(fault: Fault) -> tuple[bool, str, int]:
    counts = KINDS[fault.kind].counts
    return counts != "time", counts, fault.at


def fault_line(fault: Fault) -> str:
    """One fault: when or at which append, message, ..., and what."""
    counts, text = KINDS[fault.kind]
    lasts = f" {seconds(fault.lasts)}" if fault.lasts else ""
    if fault.kind == "tail":
        return f"at {seconds(fault.at)}: {text} {fault.who} ({fault.lasts})"
    if counts == "end":
        return f"in the end: {text} ({fault.at})"
    if counts == "topic":
        return f"topic {fault.who}: {text}{lasts}"
    if counts != "time":
        return f"{counts} {fault.at}: {text}{lasts}"
    if fault.kind in WORKER_KINDS and fault.kind != "clone":
        return f"at {seconds(fault.at)}: {fault.who} {text}{lasts}"
    return f"at {seconds(fault.at)}: {text}{lasts if fault.kind in MASTER_KINDS else ''}" + (
        f" {fault.who}" if fault.who else ""
    )


def story(driver: Driver, last: int = LAST) -> Iterator[str]:
    """The last records of the ledger, void ones marked, as any reader judges them."""
    place, raws = Authority(), records_of(driver.log, driver.topic)
    if len(raws) > last:
        yield f"... {len(raws) - last} records before"
    for index, raw in enumerate(raws):
        seen = sight(raw)
        why = driver.rules.void(place, seen.record)
        if not why:
            place = advance(place, seen.record, seen.offset, seen.digest)
        if index >= len(raws) - last:
            yield record_line(seen, why)


def record_line(seen: LedgerSeen, why: str) -> str:
    """One record of the ledger; `why` says why it does not count, if it does not."""
    record = seen.record
    words = ", ".join(entry_words(entry) for entry in record.entries)
    place = f"term {record.term}" + ("" if starts_master(record) else f" n {record.n}")
    mark = f"VOID ({why}) " if why else ""
    return f"{seen.offset:4d}  {seconds(record.time):>9}  {place:12}  {mark}{words}"


def entry_words(entry: Entry) -> str:
    """An entry in a few words."""
    name, who = type(entry).__name__, getattr(entry, "worker", "")
    facts: dict[type, object] = {}
    if isinstance(entry, MasterStarted):
        facts[MasterStarted] = f"nonce ...{entry.nonce[-2:]}"
    elif isinstance(entry, (BlocksGranted, BlocksReturned)):
        facts[type(entry)] = _blocks(entry)
    elif isinstance(entry, RoundNoted):
        facts[RoundNoted] = f"round {entry.round} {entry.verdict}"
    elif isinstance(entry, UpdateTaken):
        facts[UpdateTaken] = (
            f"update {entry.update.birth.number} of {entry.update.birth.incarnation}"
        )
    elif isinstance(entry, UpdateRejected):
        facts[UpdateRejected] = f"update {entry.birth.number}: {entry.reason.code}"
    elif isinstance(entry, VersionPublished):
        facts[VersionPublished] = f"version {entry.version} of {len(entry.members)}"
    elif isinstance(entry, VersionEvaluated):
        facts[VersionEvaluated] = f"version {entry.version}"
    elif isinstance(entry, StepClosed):
        facts[StepClosed] = f"step {entry.step} {entry.reason.code}"
    elif isinstance(entry, ShardResized):
        facts[ShardResized] = f"{entry.size} samples"
    elif isinstance(entry, ResendAsked):
        facts[ResendAsked] = f"from {entry.first} on"
    elif isinstance(entry, RunStopped):
        facts[RunStopped] = f"{entry.status}: {entry.reason.code}"
    return " ".join(str(word) for word in (name, who, facts.get(type(entry), "")) if word)


def _blocks(entry: BlocksGranted | BlocksReturned) -> str:
    if isinstance(entry, BlocksReturned):
        return f"grants {', '.join(map(str, entry.numbers))}"
    spans = (f"{part.first}..{part.last - 1}" for part in entry.ranges)
    return f"grant {entry.number} blocks {', '.join(spans)}"


def table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as they need; numbers to the right."""
    lines = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if cell[:1].isdigit() and index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def markdown(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table; the first row is its head."""
    for index, line in enumerate(rows):
        yield f"| {' | '.join(line)} |"
        if not index:
            yield f"|{' --- |' * len(line)}"
