"""What does `scripts/schedules` do? It runs random schedules of faults, or takes rules out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hermes.cli.trouble import exit_code_of
from hermes.errors import CheckFailed, UsageError
from hermes.simulate import search, tell
from hermes.simulate.schedules import KINDS, STRATEGIES, draw
from hermes.simulate.without import CASES, HINTS

COMMAND = "./scripts/schedules"

LIMIT = 3000
"""Schedules in which a failure is looked for without a rule, after its hints."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def schedules(
    count: Annotated[int, typer.Option(min=1, help="How many schedules.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first one.")] = 0,
    processes: Annotated[int, typer.Option(min=0, help="0: as many as there are cores.")] = 0,
    without: Annotated[
        str | None, typer.Option(metavar="RULE", help='Take this rule out; "all": each in turn.')
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of every schedule; else it is drawn.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Only this schedule; it is told in full.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="With --without all: a Markdown table.")
    ] = False,
) -> None:
    """Run random schedules of faults through the machines, every invariant checked after each
    record. Exit codes: 0 all hold, 2 wrong usage, 5 one is broken, 130 interrupted."""
    _check(without, strategy)
    if without == "all":
        _each_rule(strategy, first, markdown)
    elif seed is not None:
        _one(seed, without, strategy)
    else:
        _many(range(first, first + count), processes or search.cores(), without, strategy)


def _check(without: str | None, strategy: str | None) -> None:
    if without is not None and without not in (*CASES, "all"):
        raise UsageError(
            f"there is no rule {without!r}", where="--without", remedy=f"Rules: {', '.join(CASES)}."
        )
    if strategy is not None and strategy not in STRATEGIES:
        raise UsageError(
            f"there is no strategy {strategy!r} here",
            where="--strategy",
            remedy=f"It is one of: {', '.join(STRATEGIES)}.",
        )


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _again(seed: int, without: str | None, strategy: str | None) -> str:
    parts = [COMMAND, f"--seed {seed}"]
    parts += [f"--without {without}"] if without else []
    parts += [f"--strategy {strategy}"] if strategy else []
    return " ".join(parts)


# --- one schedule -------------------------------------------------------------------------------


def _one(seed: int, without: str | None, strategy: str | None) -> None:
    """Run one schedule and tell it; raises `CheckFailed` if it breaks."""
    schedule = draw(seed, strategy)
    found = search.broken(schedule, without)
    if found is not None:
        _tell_broken(found, without, strategy)
        return
    _say(f"seed {seed}: {tell.heading(schedule)}", *(f"  {x}" for x in tell.script(schedule)))
    _say("Every invariant holds.")


def _tell_broken(found: search.Broken, without: str | None, strategy: str | None) -> None:
    """The story of a failure; always raises `CheckFailed`."""
    before, after = found.before, found.after
    if without:
        case = CASES[without]
        second = f" (and {case.second}, which stands behind it)" if case.second else ""
        _say(f"Without the rule {without}{second}: {case.instead}.")
    _say(
        f"seed {found.seed}: {tell.heading(before)}",
        f"  {len(before.script)} faults; shrunk to {len(after.script)}:",
        "",
        tell.heading(after),
        *(f"  {line}" for line in tell.script(after)),
        "",
    )
    if found.shrunk.driver is not None:
        _say("The ledger then:", *tell.story(found.shrunk.driver), "")
    raise CheckFailed(
        found.shrunk.what,
        where=f"seed {found.seed}",
        remedy=f"Run it again: {_again(found.seed, without, strategy)}",
    )


# --- many ---------------------------------------------------------------------------------------


@contextmanager
def _progress(total: int, what: str) -> Iterator[search.Progress]:
    """A bar on a terminal, else a line now and then; on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(total, what)
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


def _lines(total: int, what: str) -> search.Progress:
    done = 0

    def step(more: int) -> None:
        nonlocal done
        before, done = done, done + more
        if before * 10 // total != done * 10 // total:
            typer.echo(f"{what}: {done} of {total}", err=True)

    return step


def _many(seeds: range, processes: int, without: str | None, strategy: str | None) -> None:
    if without is None:
        _say(
            f"{len(seeds)} schedules, seeds {seeds.start} .. {seeds.stop - 1}, "
            f"{processes} processes"
        )
    tally = None
    with _progress(len(seeds), "schedules") as step:
        for hint in HINTS.get(without or "", ()) if not strategy else ():
            if search.run_chunk(strategy, without, range(hint, hint + 1)).broken is not None:
                return _one(hint, without, strategy)
        tally = search.search(seeds, processes, step, strategy=strategy, case=without)
    if tally.broken is not None:
        return _one(tally.broken, without, strategy)
    if without is None:
        _report(tally)
    else:
        _say(f"Without the rule {without} all {tally.schedules} schedules keep every invariant.")
    return None


def _report(tally: search.Tally) -> None:
    """What fired, what was written, what was checked."""
    rows = [("fault", "fired", "in schedules", "what")]
    names = [*KINDS, "join-late"]
    texts = {
        **{name: kind.text for name, kind in KINDS.items()},
        "join-late": "a worker comes late",
    }
    rows += [(n, str(tally.fired[n]), str(tally.met[n]), texts[n]) for n in names]
    fenced = str(tally.fired["fenced"]), str(tally.met["fenced"])
    rows.append(("(fenced)", *fenced, "a master found itself replaced, and stopped"))
    _say("", *tell.table(rows), "")
    entries = [("entry of the ledger", "count")]
    entries += [(name, str(count)) for name, count in tally.entries.most_common()]
    _say(*tell.table(entries), "")
    _say(
        f"{tally.schedules} schedules: every invariant holds after each of {tally.checks} records; "
        f"{tally.seconds:.1f} s ({1000 * tally.seconds / max(1, tally.schedules):.1f} ms each)"
    )


# --- each rule taken out ------------------------------------------------------------------------


def _each_rule(strategy: str | None, first: int, markdown: bool) -> None:
    """Each rule in turn; raises `CheckFailed` if one can be missed: here a failure is success."""
    rows = [("rule", "part", "without it", "what breaks", "seed", "faults")]
    missed = []
    with _progress(len(CASES), "rules") as step:
        for name, case in CASES.items():
            found = _breaking(name, strategy, first)
            step(1)
            if found is None:
                missed.append(name)
                continue
            label = f"{name}, {case.second}" if case.second else name
            faults = f"{len(found.before.script)} -> {len(found.after.script)}"
            row = (label, case.part, case.instead, found.shrunk.what, str(found.seed), faults)
            rows.append(row)
    _say(*(tell.markdown(rows) if markdown else tell.table(rows)))
    if missed:
        raise CheckFailed(
            f"no schedule breaks without {', '.join(missed)}",
            where=f"{LIMIT} schedules each",
            remedy=f"Look among others: {COMMAND} --without {missed[0]} --first {first + LIMIT}",
        )
    if not markdown:
        _say("", f"{len(CASES)} rules taken out in turn: each time an invariant broke.")


def _breaking(name: str, strategy: str | None, first: int) -> search.Broken | None:
    """The first schedule found that breaks without this rule, shrunk."""
    hints = () if strategy else HINTS.get(name, ())
    for seed in (*hints, *range(first, first + LIMIT)):
        if search.run_chunk(strategy, name, range(seed, seed + 1)).broken is not None:
            return search.broken(draw(seed, strategy), name)
    return None


def main(args: Sequence[str] | None = None) -> int:
    """One call; its exit code."""
    try:
        code = typer.main.get_command(app).main(args=args, prog_name=COMMAND, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt as error:
        return exit_code_of(error)
    except Exception as error:  # noqa: BLE001  (the boundary: what comes here is told, not raised)
        return exit_code_of(error)


if __name__ == "__main__":
    sys.exit(main())
