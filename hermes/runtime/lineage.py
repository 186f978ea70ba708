"""Which runs were forked from which? As their ledgers' first records say, here and at a broker.

A fork reads the data of the run that it comes from: that one must outlast it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from hermes.codec import decode
from hermes.errors import DecodeError, HermesError, NoSuchTopic, RunError
from hermes.machine.state import MasterState
from hermes.messages import DataPublished, Forked, LedgerRecord, RunOpened
from hermes.runtime.archive import read_archive
from hermes.runtime.folder import saved_runs
from hermes.runtime.join import runs_at
from hermes.transport import names
from hermes.transport.log import Log, Record
from hermes.transport.upto import records_in

FIRST = 64
"""Records in which a run is opened: claims of masters that were quicker lie before, at most."""


class Child(NamedTuple):
    """A run that was forked from another one."""

    run: str
    parents: frozenset[str]
    """The run that it was forked from, and the one whose data it reads."""


def origin(state: MasterState) -> dict[str, Any] | None:
    """Where a run was forked from, as JSON; None for one that was not. `samples`: those of the
    parent, which the run's own number of samples counts, too."""
    forked = state.forked
    if forked is None:
        return None
    return {"parent": forked.parent, "version": forked.version, "samples": forked.samples}


def children(out: Path, log: Log | None) -> list[Child]:
    """The forks that are known under `out`, and at the broker where one is given."""
    found = {child.run: child for child in (*_here(out), *(_at(log) if log is not None else ()))}
    return [found[run] for run in sorted(found)]


def descendants(run: str, known: Iterable[Child]) -> list[str]:
    """The runs that come from this one, in an order in which they can be removed."""
    known = list(known)
    order: list[str] = []
    seen = {run}

    def visit(parent: str) -> None:
        for child in known:
            if parent in child.parents and child.run not in seen:
                seen.add(child.run)
                visit(child.run)
                order.append(child.run)

    visit(run)
    return order


def refuse_parent(out: Path, run: str, log: Log | None) -> None:
    """Raise `RunError` where other runs come from this one: they read its data."""
    found = descendants(run, children(out, log))
    if not found:
        return
    raise RunError(
        f"forked from it, and in need of its data: {', '.join(found)}",
        where=f"run {run}",
        remedy="Clean what comes from it first, in this order: "
        + ", ".join(f"hermes clean {one}" for one in (*found, run)),
    )


# --- reading --------------------------------------------------------------------------------------


def _here(out: Path) -> Iterator[Child]:
    for folder in saved_runs(out):
        with contextlib.suppress(HermesError):
            child = _child(folder.run, read_archive(folder.ledger))
            if child is not None:
                yield child


def _at(log: Log) -> Iterator[Child]:
    for run in runs_at(log):
        with contextlib.suppress(NoSuchTopic):  # it is being removed
            child = _child(run, _records(log, run))
            if child is not None:
                yield child


def _records(log: Log, run: str) -> Iterator[Record]:
    """Of its ledger; a silence is not its end: else what a fork reads would be deleted."""
    topic = names.physical(run, names.LEDGER)
    return records_in(log, topic, log.starts([topic])[topic], log.ends([topic])[topic])


def _child(run: str, records: Iterable[Record]) -> Child | None:
    """What a ledger that begins with these records says of where the run comes from."""
    for record in islice(records, FIRST):
        try:
            message = decode(record.value)
        except DecodeError:
            continue
        entries = message.entries if isinstance(message, LedgerRecord) else ()
        if any(isinstance(entry, RunOpened) for entry in entries):
            parents = {entry.parent for entry in entries if isinstance(entry, Forked)}
            parents |= {e.run for e in entries if isinstance(e, DataPublished) and e.run}
            return Child(run, frozenset(parents)) if parents else None
    return None
