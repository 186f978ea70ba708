"""`hermes verify`: does all that a run's ledger says follow from what is there?"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hermes.cli import options
from hermes.cli.connect import BRIEF, connected
from hermes.cli.seen import live_log
from hermes.errors import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes.machine.state import MasterState
    from hermes.runtime.folder import RunFolder
    from hermes.transport.filed import FiledLog
    from hermes.verify.findings import Finding
    from hermes.verify.run import Report, Source, Told
    from hermes.verify.scores import Judge

RunOrPath = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN|DIR]",
        envvar="HERMES_RUN",
        show_default="the newest",
        help="A run, or a folder that `hermes export --format log` wrote.",
    ),
]

Scores = Annotated[
    bool,
    typer.Option(
        "--scores",
        envvar="HERMES_VERIFY_SCORES",
        help="Measure recorded losses again, too: runs the job's model on the run's data.",
    ),
]

TOLD = 3
"""Findings that the error names."""


class Opened(NamedTuple):
    """A run that can be verified."""

    source: Source
    folder: RunFolder | None = None
    files: FiledLog | None = None


def verify(
    run: RunOrPath = None,
    scores: Scores = False,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    key_file: options.KeyFile = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read a run from its first record to the last, and compute all of it again.

    The ledger's chain and its story, every decision from its recorded numbers, every version from
    the updates that it names, bit for bit; what became of each update and each block. Says what
    retention made impossible to recompute. Live, saved or exported; nothing is written. Exit code
    5, with the first record that does not follow, where something does not.
    """
    from hermes.verify.run import verify as verify_
    from hermes.verify.view import as_json, page, summary

    with _progress(quiet or json_) as told, opened_run(run, out, broker, told) as opened:
        with _judge(opened, key_file) if scores else contextlib.nullcontext() as judge:
            report = verify_(opened.source, told, judge)
        report, notes = _with_files(opened, report)
    if json_:
        sys.stdout.write(json.dumps(as_json(report, notes)) + "\n")
        sys.stdout.flush()
    elif quiet:
        typer.echo(summary(report))
    else:
        from hermes.report.tables import output

        output().print(page(report, notes), soft_wrap=True)
    if report.findings:
        raise _mismatch(report)


def _judge(
    opened: Opened, key_file: Path | None
) -> contextlib.AbstractContextManager[Callable[[MasterState], Judge]]:
    from hermes.runtime.keys import known_key
    from hermes.runtime.sources import judging

    return judging(opened.source, known_key(key_file))


def _mismatch(report: Report) -> CheckFailed:
    found = [
        *report.findings[:TOLD],
        *[one for one in report.findings[TOLD:] if one.kind == "file"][:TOLD],
    ]
    left = len(report.findings) - len(found)
    rest = [f"and {left} more"] if left else []
    return CheckFailed(
        "what is recorded does not hold; first:\n  "
        + "\n  ".join([*(one.text for one in found), *rest]),
        where=f"run {report.source.called}",
        remedy="Somebody, or something, has changed or lost what the run had written; all of it: "
        "hermes verify --json",
    )


def _with_files(opened: Opened, report: Report) -> tuple[Report, list[str]]:
    """With what the files beside the ledger say."""
    from hermes.runtime.sources import of_files, of_folder
    from hermes.verify.findings import in_order

    found: list[Finding] = []
    notes: list[str] = []
    if opened.folder is not None and opened.source.kind == "saved":
        found, notes = of_folder(opened.folder, report)
    if opened.files is not None:
        damaged = of_files(opened.files)
        found = [*found, *damaged]
        if not damaged:
            notes = [*notes, "the files are those that were exported, by their digests"]
    return report._replace(findings=in_order([*report.findings, *found])), notes


# --- finding the run ----------------------------------------------------------------------------


@contextlib.contextmanager
def opened_run(run: str | None, out: Path, broker: str | None, told: Told) -> Iterator[Opened]:
    """Raises `RunError` for a run that is not there, `BrokerError`."""
    from hermes.runtime.observe import newest_at
    from hermes.runtime.sources import at_broker
    from hermes.transport.filed import is_exported

    if run is not None and (Path(run) / "log" / "ledger.records").is_file():  # a run's own folder
        place = Path(run).resolve()
        run, out = place.name, place.parent.parent
    if run is not None and (is_exported(Path(run)) or "/" in run):
        yield _exported(Path(run), told)
    elif broker is not None:
        with connected(broker, first=BRIEF) as log:
            yield Opened(at_broker(log, run or newest_at(log, broker)))
    else:
        with _on_this_machine(run, out) as opened:
            yield opened


def _exported(path: Path, told: Told) -> Opened:
    from hermes.runtime.sources import in_files
    from hermes.transport.filed import FiledLog

    done = 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        told("bytes", done, None)

    log = FiledLog(path, read)
    return Opened(in_files(log), files=log)


def _simulated(folder: RunFolder) -> Opened:
    """A run that had no broker: its tensors are in its folder, if they were kept."""
    from hermes.runtime.sources import in_folder
    from hermes.transport.filed import FiledLog, is_exported

    if not is_exported(folder.topics):
        why = "it was simulated, and its topics were not kept (--keep-log)"
        return Opened(in_folder(folder, None, why), folder)
    log = FiledLog(folder.topics)
    source = in_folder(folder, log, "")._replace(run=log.index.run, name=folder.run)
    return Opened(source, folder, log)


@contextlib.contextmanager
def _on_this_machine(run: str | None, out: Path) -> Iterator[Opened]:
    """A run that goes on is read at its broker; else its folder's ledger, with the broker's
    tensors, if that answers."""
    from hermes.runtime.folder import find_run
    from hermes.runtime.join import runs_at
    from hermes.runtime.observe import is_running
    from hermes.runtime.sources import at_broker, in_folder

    folder = find_run(out, run)
    note = folder.read_note()
    if note is None:
        yield Opened(in_folder(folder, None, "nothing says where its broker was"), folder)
        return
    if note.simulated:
        yield _simulated(folder)
        return
    with live_log(note.broker) as log:
        if log is None:
            yield Opened(in_folder(folder, None, f"the broker at {note.broker} is gone"), folder)
        elif folder.run not in runs_at(log):
            why = f"the broker at {note.broker} has no such run any more"
            yield Opened(in_folder(folder, None, why), folder)
        elif is_running(note):
            yield Opened(at_broker(log, folder.run), folder)
        else:
            yield Opened(in_folder(folder, log, ""), folder)


# --- progress -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Told]:
    """A bar on stderr, for a person."""
    if quiet or not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("verifying {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )
