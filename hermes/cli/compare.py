"""`hermes compare`: strategies x devices x seeds, simulated, to one target."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes.cli import options
from hermes.cli.trouble import INTERRUPTED, interrupted_with, note, say_error

if TYPE_CHECKING:
    from hermes.cli.cells import Work
    from hermes.compare.matrix import Matrix

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.json", show_default=False, help="As conf/compare/digits.json: what to run."
    ),
]
Processes = Annotated[
    int,
    options.number_of(
        "HERMES_PROCESSES",
        0,
        "as many as there are cores",
        "Cells that run at once, each with one thread.",
    ),
]
Search = Annotated[
    bool,
    typer.Option(
        "--search",
        envvar="HERMES_COMPARE_SEARCH",
        help="Choose settings first: run the trials of the file's `search`, on its seeds, and "
        "write a file to compare, with the best of each strategy.",
    ),
]

SHORT = 4
"""Exit code where cells have failed."""


def compare(
    file: File,
    search: Search = False,
    processes: Processes = 0,
    out: options.OutCompare = Path(),
    device: options.Device = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare strategies on simulated devices: time, bytes, samples and pushes to a target.

    Cells that are there already are not run again. Ctrl-C ends it; the same command goes on.
    Writes compare.json, compare.csv and compare.html.
    """
    options.checked_device(device)
    options.limit_threads(1)
    from hermes.cli import searched
    from hermes.cli.compared import conclude, show, told
    from hermes.compare.matrix import load_matrix
    from hermes.compare.tuning import matrix_of, trials_of

    matrix = load_matrix(file)
    folder = (out / "compare" / matrix.name).absolute()
    trials = trials_of(matrix) if search else []
    if search:
        work = prepared(matrix_of(matrix, trials), folder / "search", device, quiet=quiet)
        work.on = "validation"
    else:
        work = prepared(matrix, folder, device, quiet=quiet)
    work.run(processes or cores())
    result = searched.conclude(matrix, trials, work, folder) if search else conclude(work)
    if json_:
        sys.stdout.write(json.dumps(result) + "\n")
    elif search and not quiet:
        searched.show(result)
    elif not quiet:
        show(told(work), result)
    end(work, f"hermes compare {file}{' --search' if search else ''}", out)


def prepared(matrix: Matrix, folder: Path, device: str | None, *, quiet: bool) -> Work:
    """A matrix whose cells were checked, in its folder; nothing is run or written yet. Raises
    `JobError`, `SettingError`, `UsageError`."""
    from hermes.cli.cells import Work, checked
    from hermes.cli.train import job_talks_aside
    from hermes.runtime.folder import check_place

    check_place(folder / "cells", "the comparison's folder cannot be made", "--out DIR")
    with interrupted_with(lambda: "interrupted: no cell was begun"), job_talks_aside():
        cells, source = checked(matrix, device)
    return Work(matrix, cells, source, device, folder, quiet=quiet)


def cores() -> int:
    """That this process may use."""
    from hermes.simulate.search import cores

    return cores()


def end(work: Work, command: str, out: Path) -> None:
    """Leave with the exit code of what became of the cells."""
    if work.interrupted:
        where = f" --out {out}" if out != Path() else ""
        note(
            f"{len(work.outcomes)} of {len(work.cells)} cells are done. To go on: {command}{where}"
        )
        raise typer.Exit(INTERRUPTED)
    if work.failed:
        failed = f"{len(work.failed)} of {len(work.cells)} cells failed"
        say_error(f"{failed}; the same command tries again")
        raise typer.Exit(SHORT)
