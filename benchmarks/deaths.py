"""Is anything lost where processes die? One run on Apache Kafka with four workers; `kill -9` to
master, workers and broker at moments that are chance; a supervisor starts each again after 1 s.

Each kill is seen to have ended a living process. Then the run is stopped, `hermes verify` reads it,
and the workers' own journals of what they pushed are compared with the ledger.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NoReturn

from benchmarks import common
from tests.faults import schedule as faults
from tests.faults.books import Books, compare
from tests.faults.supervisor import Journal, Setting, Struck, Supervisor

JOB = Path(__file__).parents[1] / "examples" / "digits.py"
SETTINGS = {
    "hermes-paper": ("gate.alpha=-0.5", "size.first=64", "round.epochs=2"),
    "fedavgm": ("size.first=64", "round.steps=4"),
    "bsp": ("size.first=64",),
}
WORKERS = 4
BAR = 10.0
"""Seconds: of the median from a master's death to the next version."""

HEAD = ("from the death of", "to", "n", "min", "median", "p90", "max")


def measure(
    folder: Path, schedule: faults.Schedule, strategy: str
) -> tuple[Journal, Books, dict[str, object]]:
    """One run through the whole schedule; raises where anything does not hold."""
    setting = Setting(JOB, WORKERS, strategy, SETTINGS[strategy], step_seconds=0.05)
    link = any(fault.target == "link" for fault in schedule)
    with Supervisor(folder, setting, link=link) as run:
        run.go_through(schedule, patience=300)
        run.settle()
        run.stop()
        code, said = run.hermes("verify", "faults", "--out", str(folder), "--json", timeout=600)
        if code:
            raise SystemExit(f"hermes verify: {code}\n{said}")
        result = json.loads((folder / "runs" / "faults" / "result.json").read_text())
        books = compare(folder / "state" / "workers", "faults", run.watch.path)
    if books.wrong:
        raise SystemExit("\n".join(books.wrong))
    return run.journal, books, result


def rows(struck: Sequence[Struck]) -> list[list[object]]:
    """The distributions, a line each."""
    dead = [one for one in struck if one.fault.kind == "kill"]
    masters = [one for one in dead if one.fault.target == "master"]
    outages = [one for one in dead if one.fault.target == "broker"]
    there = [one for one in masters if not any(_overlap(one, away) for away in outages)]
    return [
        line("a master", "the next version", [one.recovered for one in masters]),
        line("a master, the broker there", "the next version", [one.recovered for one in there]),
        line("a master", "the next has claimed the run", [one.back for one in masters]),
        line(
            "a worker", "it is admitted again", [o.back for o in dead if "worker" in o.fault.target]
        ),
        line("the broker", "it answers", [o.back for o in dead if o.fault.target == "broker"]),
    ]


def _overlap(death: Struck, away: Struck) -> bool:
    """Whether the broker was away while the run had no version after this death."""
    ends = (death.at + (death.recovered or 0.0), away.at + (away.back or 0.0))
    return death.at <= ends[1] and away.at <= ends[0]


def line(who: str, to: str, seconds: Sequence[float | None]) -> list[object]:
    """One distribution."""
    known = sorted(one for one in seconds if one is not None)
    if not known:
        return [who, to, 0, *["-"] * 4]
    p90 = known[min(len(known) - 1, round(0.9 * len(known)))]
    found = (known[0], median(known), p90, known[-1])
    return [who, to, len(known), *(f"{one:.1f}" for one in found)]


def text_of(journal: Journal, books: Books, result: dict[str, object], seed: int) -> str:
    """The result, for the README."""
    kinds: dict[str, int] = {}
    for one in journal.struck:
        what = f"{one.fault.kind} of {one.fault.target.partition('-')[0]}"
        kinds[what] = kinds.get(what, 0) + 1
    each = ", ".join(f"{count} {what}" for what, count in sorted(kinds.items()))
    leading = sum(not one.leading for one in journal.struck)
    return "\n\n".join(
        [
            f"{len(journal.struck)} faults in {journal.seconds:.0f} s, each of a living process "
            f"({result['strategy']}, seed {seed}): {each}; {leading} of a master that had not "
            f"claimed the run yet. Processes that ended by themselves: {len(journal.ended)}.",
            common.table(HEAD, rows(journal.struck)),
            f"`hermes verify`: sound, {books.records} records of {books.terms} terms, "
            f"{result['version']} versions, {result['samples']} samples. The workers' journals: "
            f"{books.pushed} updates pushed = {books.applied} applied + {books.rejected} rejected "
            f"+ {books.undecided} undecided + {books.unsent} still in an outbox; lost, or twice: "
            f"**{len(books.wrong)}**.",
        ]
    )


def main() -> None:
    """Strike, and see."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pauses", type=int, default=0, help="of master and workers")
    parser.add_argument("--cuts", type=int, default=0, help="of a link between all and the broker")
    parser.add_argument("--strategy", choices=SETTINGS, default="hermes-paper")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=8.0, help="mean seconds between two")
    parser.add_argument("--schedule", type=Path, help="faults from this file instead")
    parser.add_argument("--keep", type=Path, help="the run's folder: it stays (must be new)")
    wishes = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    kills = faults.spread(wishes.kills, WORKERS)
    if wishes.schedule is not None:
        schedule = faults.load(wishes.schedule)
    else:
        schedule = faults.draw(
            wishes.seed, kills, wishes.pace, pauses=wishes.pauses, cuts=wishes.cuts
        )
    with common.scratch() as folder:
        if wishes.keep is not None:
            folder = wishes.keep
            folder.mkdir(parents=True)
        faults.save(schedule, folder / "schedule.json")
        journal, books, result = measure(folder, schedule, wishes.strategy)
    text = text_of(journal, books, result, wishes.seed)
    recovered = [one.recovered for one in journal.struck if one.recovered is not None]
    slow = bool(recovered) and median(recovered) >= BAR
    common.report("deaths", text, update=wishes.update and not slow)
    if slow:
        raise SystemExit(f"the median is above {BAR:g} s")


def _leave(_signal: int, _frame: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    main()
