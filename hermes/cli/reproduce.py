"""`hermes reproduce`: the paper's setting as far as it is known, and what of its claim holds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.compare import Processes, cores, end, prepared
from hermes.errors import JobError

if TYPE_CHECKING:
    from hermes.compare.matrix import Matrix
    from hermes.compare.page import Told
    from hermes.compare.verdict import Finding

SEEDS = (1, 2, 3, 4, 5, 6)
HARDER, LONG = 0.97, 50_000.0
"""Of the full form: its seeds, its target, and virtual seconds at most."""

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="MNIST.npz",
        show_default=False,
        help="x_train, y_train, x_test, y_test, as ~/.keras/datasets/mnist.npz holds them.",
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        envvar="HERMES_REPRODUCE_FULL",
        help=f"Six seeds, to {HARDER:g} instead of 0.95: hours, instead of half an hour.",
    ),
]

OWN = ("hermes", "hermes-paper", "hermes-paper-fresh15")
"""Whose figures are asked for; the others of the file are the baselines."""

SHORT_FORM = Path(__file__).parents[1] / "compare" / "reproduce.json"


def reproduce(
    data: Data = None,
    full: Full = False,
    processes: Processes = 0,
    out: options.OutCompare = Path(),
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put the published claim to the test: 13.22 times faster, 62.1 % less communication.

    The setting is the paper's as far as it is known: MNIST, 12 devices, alpha -1.3, beta 0.1,
    lambda 5, window 10. Says which figure is met against which baseline, and which is not. Ctrl-C
    ends it; the same command goes on.
    """
    options.limit_threads(1)
    from hermes.cli.compared import conclude, show, told, write
    from hermes.compare import verdict

    matrix = matrix_of(data, full=full)
    try:
        work = prepared(matrix, (out / "compare" / matrix.name).absolute(), None, quiet=quiet)
    except JobError as error:  # the job is ours: what is wrong is the file
        cause = error.__cause__ if isinstance(error.__cause__, JobError) else error
        what = cause.what.removeprefix(f"{matrix.args[0]}: ")
        raise JobError(what, where=str(data), remedy=cause.remedy) from None
    many = processes or cores()
    work.run(many, expected(full=full))
    known = told(work)
    found = verdict.findings(known.rows, OWN, known.seeds)
    said = known._replace(first=verdict.section(found, OWN, known.target))
    result = {**conclude(work, said), **_verdict(found, known)}
    write(work.folder, "reproduce.json", json.dumps(result, indent=2, allow_nan=False))
    if json_:
        sys.stdout.write(json.dumps(result) + "\n")
    elif not quiet:
        show(known, result)
        _show(found, known)
    end(work, f"hermes reproduce {data}{' --full' if full else ''}", out)


def matrix_of(data: Path | None, *, full: bool) -> Matrix:
    """What is run. Raises `UsageError` where there is no such data."""
    from msgspec.structs import replace

    from hermes.compare.matrix import load_matrix
    from hermes.errors import UsageError

    if data is None or not data.is_file():
        raise UsageError(
            "the paper's setting needs MNIST, which does not come with Hermes"
            if data is None
            else "there is no such file",
            where="" if data is None else str(data),
            remedy="hermes reproduce mnist.npz; Keras keeps one as ~/.keras/datasets/mnist.npz, "
            "and the top of examples/mnist.py says how to make one.",
        )
    matrix = load_matrix(SHORT_FORM)._replace(args=(str(data.absolute()),))
    if not full:
        return matrix
    longer = replace(matrix.limit, seconds=LONG)
    return matrix._replace(file="reproduce-full.json", seeds=SEEDS, target=HARDER, limit=longer)


# --- how long it will take ------------------------------------------------------------------------

STEPS = 300
"""Of the model that are timed."""

STEP = 0.00045
"""Seconds of one where `TOOK` was measured."""

TOOK = {
    "hermes": 24.0,
    "hermes-paper": 26.0,
    "hermes-paper-fresh15": 26.0,
    "fastest-alone": 10.0,
    "bsp-rounds": 26.0,
    "asp-rounds": 27.0,
    "asp": 350.0,
    "bsp": 140.0,
}
"""Seconds of a core that a cell of the short form took there."""

LONGER = 3.0
"""Times longer that one of the full form takes, by a guess; what is seen corrects it."""


def expected(*, full: bool) -> dict[str, float]:
    """Seconds of a cell, by strategy, on this machine: told before the first has begun."""
    scale = (LONGER if full else 1.0) * _step() / STEP
    return {name: seconds * scale for name, seconds in TOOK.items()}


def _step() -> float:
    """Seconds of one optimiser step of the job's model, here and now."""
    import numpy as np

    from hermes import nn
    from hermes.compare.paper_job import BATCH, RATE, model

    net, loss, stream = model(), nn.CrossEntropy(), np.random.default_rng(0)
    net.initialise(stream)
    optimizer = nn.SGD(net.parameters(), lr=RATE)
    x = stream.integers(0, 256, (BATCH, 28, 28), np.uint8)
    y = stream.integers(0, 10, BATCH)
    began = time.perf_counter()
    for _ in range(STEPS):
        loss.forward(net.forward(x), y)
        net.backward(loss.backward())
        optimizer.step()
    return (time.perf_counter() - began) / STEPS


# --- what it comes to -----------------------------------------------------------------------------


def _verdict(found: list[Finding], known: Told) -> dict[str, Any]:
    from hermes.compare import verdict

    return {
        "published": {"times_faster": verdict.FASTER, "communication_saved": verdict.LESS},
        "verdict": verdict.sentences(found, OWN, known.target),
        "findings": verdict.told(found),
        "caveats": list(verdict.CAVEATS),
    }


def _show(found: list[Finding], known: Told) -> None:
    from hermes.compare import verdict
    from hermes.report.tables import output, plain_table

    console = output()
    known_rows = verdict.table(found)
    shown = plain_table(*known_rows.columns)
    for row in known_rows.rows:
        shown.add_row(*row)
    console.print(shown, soft_wrap=True)
    console.print(verdict.READ, soft_wrap=True)
    for text in verdict.sentences(found, OWN, known.target):
        console.print(text, soft_wrap=True)
    console.print("What this cannot say:", style="bold")
    for text in verdict.CAVEATS:
        console.print(f"- {text}", soft_wrap=True, highlight=False)
