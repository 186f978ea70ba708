"""`hermes why`: what was decided about a worker, and from which numbers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes.cli import options
from hermes.cli.seen import see
from hermes.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from hermes.cli.seen import Seen
    from hermes.report.why.view import Wanted

Worker = Annotated[
    str,
    typer.Argument(
        metavar="WORKER",
        show_default=False,
        help="A worker's name, or `master` for the run's own decisions.",
    ),
]
RunOf = Annotated[
    str | None,
    typer.Option(
        "--run", envvar="HERMES_RUN", metavar="ID", show_default="the newest", help="The run."
    ),
]
At = Annotated[
    str | None,
    typer.Option(
        "--at",
        envvar="HERMES_WHY_AT",
        metavar="vN",
        show_default=False,
        help="What was decided while this version was the newest.",
    ),
]
Last = Annotated[
    int | None,
    typer.Option(
        "--last",
        envvar="HERMES_WHY_LAST",
        metavar="K",
        min=1,
        show_default=False,
        help="The last K decisions.",
    ),
]
Round = Annotated[
    int | None,
    typer.Option(
        "--round",
        envvar="HERMES_WHY_ROUND",
        metavar="N",
        min=1,
        show_default=False,
        help="Its round N.",
    ),
]

TOLD = 3
"""Mismatches that the error names."""


def why(
    worker: Worker,
    run: RunOf = None,
    at: At = None,
    last: Last = None,
    round_: Round = None,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    json_: options.Json = False,
) -> None:
    """Why it pushed, stayed quiet, was re-sized, rejected or lost: each decision, with its numbers.

    From the ledger alone. Every decision is recomputed from the facts that were recorded; where one
    does not follow from them, the exit code is 5. Without --at, --last or --round: the last
    decision of each kind, and the last ten.
    """
    wanted = _wanted(at, last, round_)
    from hermes.report.why.decisions import Retelling
    from hermes.report.why.view import as_json, mismatches, page, refuse_unknown

    retelling = Retelling(worker)
    seen = see(run, out, broker, retelling.read)
    if seen.view.damage:
        raise CheckFailed(
            "its ledger is not what it was, and nothing that follows can be checked",
            where=f"run {seen.view.run}",
            remedy="Take the folder from a copy, or ask the broker, if it has the run: --broker",
        )
    refuse_unknown(retelling, worker, wanted, f"run {seen.view.run}")
    if json_:
        found = {"run": seen.view.run, "source": "live" if seen.view.live else "saved"}
        found |= {"place": seen.view.place, **as_json(retelling, worker, wanted)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
    else:
        from hermes.report.tables import output

        output().print(page(retelling, worker, wanted, _head(seen)))
    wrong = mismatches(retelling.decisions)
    if wrong:
        raise _mismatch(seen, wrong)


def _wanted(at: str | None, last: int | None, round_: int | None) -> Wanted:
    from hermes.report.why.view import Wanted

    given = {"--at": at, "--last": last, "--round": round_}
    named = [flag for flag, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} are given", remedy="Take one of them.")
    match = re.fullmatch(r"v?([0-9]{1,15})", at or "v0")
    if match is None:
        raise UsageError(f"{at!r} is no version", where="--at", remedy="For example: --at v12")
    return Wanted(int(match[1]) if at is not None else None, last, round_)


def _head(seen: Seen) -> str:
    view = seen.view
    place = f"live at {view.place}" if view.live else f"as saved in {view.place}"
    return f"{view.run} ({view.state.settings.strategy}; {place})"


def _mismatch(seen: Seen, wrong: list[str]) -> CheckFailed:
    rest = [f"and {len(wrong) - TOLD} more"] if len(wrong) > TOLD else []
    return CheckFailed(
        "what is recorded does not follow from what was recorded before it:\n  "
        + "\n  ".join([*wrong[:TOLD], *rest]),
        where=f"run {seen.view.run}",
        remedy="Somebody has changed the ledger, or another version of Hermes decided.",
    )
