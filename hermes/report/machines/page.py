"""What does docs/machines.md say? Both machines, from their tables and from what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from hermes.machine import apply, duties, events, master, worker
from hermes.machine.events import Leave, LedgerSeen
from hermes.report.machines import master_picture, worker_picture
from hermes.report.machines.master_picture import Decider
from hermes.report.machines.moves import DUE, SCHEDULES, Moved
from hermes.report.machines.source import (
    Gives,
    called_in_order,
    changes,
    first_sentence,
    gives,
    moves,
    outcomes,
    table_of,
)
from hermes.report.machines.worker_picture import INSIDE, LAST, Arrow, Word

HEAD = """# The machines

Written by `scripts/machines-doc` from the tables in `hermes/machine/`: edit those.

A machine is given an event and returns what follows from it; it does nothing itself. What is listed
here is read off the source of each handler and of all functions of `hermes/machine/` that it calls:
what it *can* give. When it does, and why, is in the source, and in the rules that it asks
([protocol.md](protocol.md#rules)).

## The master

`master.decide(state, soft, now, event)`: the event's handler writes entries and asks for actions;
then, whatever happened, the standing duties look at the state as it will be and add what is due.
Entries change the state only once their record is acknowledged (`apply`); only then are the actions
performed. The outcome of an action (grey, behind the arrow) comes back as an event.

![The master: events and duties, entries, and actions](pictures/master.svg)

`MasterStarted` (dashed) is written by the process that starts a master, before its machine
decides.
"""

MASTER_EVENTS = """### Events

*consumes*: the input's position goes into the record, so that no other master takes it again.
"""

MASTER_DUTIES = """### Standing duties

After every event, in this order. Each looks and sees: so a restarted master needs no memory of what
it was about to do.
"""

MASTER_ENTRIES = """### Entries

`apply(state, record)` is used live and on replay; nothing else changes the state. *changes* names
fields of `MasterState`, and with `member.` those of one worker.
"""

WORKER = """## A worker

`worker.decide(state, now, event)` returns the state after the event, and actions. Then, whatever
happened, one who is idle looks at what is due (*due*): the version it is owed is loaded, then the
next round is trained.

![The worker: its phases, and what moves it from one to another](pictures/worker.svg)

### Events
"""

WORKER_ENTRIES = {
    "ANSWERS": """### Entries that a knocking worker looks for

Within `LedgerSeen`, until it is admitted.
""",
    "ENTRIES": """### Entries that a worker takes from the ledger

Within `LedgerSeen`, once admitted; the other entries do not concern it.
""",
}
"""By the name of the table in `machine.worker`."""

MOVES = f"""### Moves

Seen while the first {SCHEDULES} schedules of faults ran ([schedules.md](schedules.md)): how often a
worker went from one phase to another, and what moved it: an event, an entry of the ledger, or what
was due.
"""

UNSEEN = """### Moves that were not seen

The source can make these, too; none happened in the schedules above. (Nor did a veto, after which a
worker is idle: references, which stand for tensors there, have no loss that is not finite.)
"""

ACTIONS = """## Actions

What whoever performs is asked for, and the event that tells the outcome.
"""


RARE = 5
"""Moves seen less often are not in the picture."""


class Part(NamedTuple):
    """A row of a table of handlers."""

    kind: type
    table: str
    """The table that an event's handler goes on with; "" for an event itself."""
    gives: Gives


def parts_of(handlers: dict[type, Callable[..., Any]]) -> list[Part]:
    """Each handler of a table; below it, those of the tables that it goes on with."""
    found: list[Part] = []
    for kind, handler in handlers.items():
        given = gives(handler)
        found.append(Part(kind, "", given))
        for name in given.tables:
            inner = table_of(handler, name).items()
            found += [Part(it, name, gives(function)) for it, function in inner]
    return found


# --- the master ---------------------------------------------------------------------------------


def deciders() -> list[Decider]:
    """Events, what envelopes hold, and standing duties: with what each can give."""
    parts = parts_of(master.HANDLERS)
    found = [
        Decider(p.kind.__name__, "body" if p.table else "event", p.gives.entries, p.gives.actions)
        for p in parts
    ]
    for duty in called_in_order(duties.perform):
        given = gives(duty)
        found.append(Decider(duty.__name__.strip("_"), "duty", given.entries, given.actions))
    return found


def draw_master() -> str:
    """The picture of the master's machine."""
    some = deciders()
    asked = {name: outcomes(getattr(events, name)) for d in some for name in d.actions}
    return master_picture.draw(some, [entry.__name__ for entry in apply.APPLY], asked)


def _master() -> str:
    events_rows = [
        (
            f"{'… ' if part.table else ''}`{part.kind.__name__}`",
            first_sentence(part.kind),
            code(part.gives.rules),
            ", ".join(filter(None, [code(part.gives.entries), "*consumes*" * part.gives.consumes])),
            code(part.gives.actions),
        )
        for part in parts_of(master.HANDLERS)
    ]
    duty_rows = [
        (
            f"`{duty.__name__.strip('_')}`",
            first_sentence(duty),
            code(gives(duty).rules),
            code(gives(duty).entries),
            code(gives(duty).actions),
        )
        for duty in called_in_order(duties.perform)
    ]
    entry_rows = [
        (f"`{entry.__name__}`", first_sentence(entry), code(changes(function)))
        for entry, function in apply.APPLY.items()
    ]
    head = ("it means", "asks the rules", "may write", "may ask for")
    return "\n".join(
        [
            MASTER_EVENTS,
            table(("event", *head), events_rows),
            MASTER_DUTIES,
            table(("duty", *head), duty_rows),
            MASTER_ENTRIES,
            table(("entry", "it says", "changes"), entry_rows),
        ]
    )


# --- the worker ---------------------------------------------------------------------------------


def draw_worker(found: Counter[Moved]) -> str:
    """The picture of the worker's machine, from the moves that were seen (the rare ones are in the
    table alone)."""
    arrows: dict[tuple[str, str], list[Word]] = {}
    leaving: dict[str, Word] = {}
    for move in sorted(move for move, times in found.items() if times >= RARE):
        if move.after == LAST and move.before in INSIDE:
            leaving[move.cause] = _word(move)
        else:
            arrows.setdefault((move.before, move.after), []).append(_word(move))
    drawn = [Arrow(*ends, tuple(words)) for ends, words in arrows.items()]
    return worker_picture.draw(drawn, tuple(leaving.values()))


def _word(move: Moved) -> Word:
    if move.cause == DUE:
        asked = {it.phase: ", ".join(it.actions) for it in moves(worker._begin)}
        return Word(f"{DUE}: {asked.get(move.after, Leave.__name__)}", worker_picture.DUE)
    told = {entry.__name__ for entry in (*worker.ENTRIES, *worker.ANSWERS)}
    return Word(move.cause, worker_picture.ENTRY if move.cause in told else worker_picture.EVENT)


def can() -> set[tuple[str, str]]:
    """(event, entry or `DUE`; phase): what the source can begin."""
    found = {(DUE, phase) for phase in gives(worker._go_on).phases}
    for part in parts_of(worker.HANDLERS):
        found |= {(part.kind.__name__, phase) for phase in part.gives.phases}
    return found


def did(found: Iterable[Moved]) -> set[tuple[str, str]]:
    """The same, as it was seen. What an entry did, `LedgerSeen` did, where that can."""
    made = {(move.cause.partition(":")[0], move.after) for move in found}
    others = {event.__name__ for event in worker.HANDLERS} | {DUE}
    by_ledger = {(LedgerSeen.__name__, phase) for cause, phase in made if cause not in others}
    return made | (by_ledger & can())


def _worker(found: Counter[Moved]) -> str:
    parts = parts_of(worker.HANDLERS)
    head = ("it means", "asks the rules", "may ask for", "may begin")

    def row(name: str, kind: object, given: Gives) -> tuple[str, ...]:
        cells = (code(given.rules), code(given.actions), code(given.phases))
        return (name, first_sentence(kind), *cells)

    rows = [row(f"`{p.kind.__name__}`", p.kind, p.gives) for p in parts if not p.table]
    rows.append(row(f"*{DUE}*", worker._go_on, gives(worker._go_on)))
    inner = {
        name: [row(f"`{p.kind.__name__}`", p.kind, p.gives) for p in parts if p.table == name]
        for name in WORKER_ENTRIES
    }
    seen_rows = [
        (f"`{m.before}`", cause(m), f"`{m.after}`", str(n)) for m, n in sorted(found.items())
    ]
    rest = sorted(can() - did(found))
    return "\n".join(
        [
            WORKER,
            table(("event", *head), rows),
            *(
                f"{text}\n{table(('entry', *head), inner[name])}"
                for name, text in WORKER_ENTRIES.items()
            ),
            MOVES,
            table(("from", "by", "to", "times"), seen_rows),
            UNSEEN,
            table(("by", "begins"), [(code([by]), code([phase])) for by, phase in rest]),
        ]
    )


def cause(move: Moved) -> str:
    """What moved it, as the table says it."""
    return f"*{DUE}*" if move.cause == DUE else f"`{move.cause}`"


# --- the page -----------------------------------------------------------------------------------


def _actions() -> str:
    kinds = [it for it in vars(events).values() if isinstance(it, type) and it is not events.Action]
    rows = [
        (f"`{kind.__name__}`", said(kind), code(outcomes(kind)))
        for kind in kinds
        if issubclass(kind, events.Action)
    ]
    return f"{ACTIONS}\n{table(('action', 'it asks to', 'outcome'), rows)}"


def said(kind: type) -> str:
    """The first sentence of an action, without its outcome."""
    return first_sentence(kind).partition("; outcome")[0].rstrip(".") + "."


def code(names: Iterable[str]) -> str:
    """Names as code, with commas between."""
    return ", ".join(f"`{name}`" for name in names)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def document(found: Counter[Moved]) -> str:
    """The whole page."""
    return "\n".join([HEAD, _master(), _worker(found), _actions()])
