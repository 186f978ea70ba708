"""`hermes export --format log`: all of a run's topics, as files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hermes.cli.connect import BRIEF, connected
from hermes.cli.export import Wish, Written, shown
from hermes.cli.seen import live_log
from hermes.errors import RunError, UsageError

if TYPE_CHECKING:
    from hermes.runtime.exported import Progress
    from hermes.transport.log import Log


def export_log(
    wish: Wish, run: str | None, out: Path, broker: str | None, *, quiet: bool
) -> tuple[str, Written]:
    """Write the log; which run it was, and what was written. Raises `RunError`, `UsageError`,
    `BrokerError`."""
    from importlib.metadata import version

    from hermes.runtime.exported import export_log as write

    with _log_of(run, out, broker) as (log, name):
        folder = _place(wish, name)
        with _progress(quiet) as told:
            done = write(log, name, folder, version("hermes-edge"), told)
    topics = done.contents.topics
    about = {
        "records": sum(one.records for one in topics.values()),
        "topics": {name: one.records for name, one in topics.items()},
    }
    size = sum(one.bytes for one in topics.values())
    return name, Written(done.folder, size, None, f"hermes verify {shown(done.folder)}", about)


def _place(wish: Wish, run: str) -> Path:
    from hermes.transport.filed import is_exported

    folder = Path(wish.to or f"{run}-log").absolute()
    if not folder.exists():
        return folder
    if folder.is_dir() and is_exported(folder):
        if not wish.force:
            raise UsageError(
                "an exported log is there already",
                where=str(folder),
                remedy="Name another folder with --to, or replace it with --force.",
            )
        return folder
    raise UsageError(
        "a log is written into a folder of its own, and this is something else",
        where=str(folder),
        remedy="Name a folder that is not there yet with --to.",
    )


@contextlib.contextmanager
def _log_of(run: str | None, out: Path, broker: str | None) -> Iterator[tuple[Log, str]]:
    """The run's broker, and the run's id."""
    from hermes.runtime.folder import find_run
    from hermes.runtime.join import ledger_of
    from hermes.runtime.observe import newest_at

    if broker is not None:
        with connected(broker, first=BRIEF) as log:
            name = run or newest_at(log, broker)
            ledger_of(log, name)
            yield log, name
        return
    folder = find_run(out, run)
    note = folder.read_note()
    where = note.broker if note is not None else ""
    with live_log(where) if where else contextlib.nullcontext() as there:
        if there is None:
            raise RunError(
                f"the broker that has its log is gone{f': {where}' if where else ''}",
                where=f"run {folder.run}",
                remedy="Its ledger alone is in its folder: hermes verify "
                f"{folder.run}. Name another broker with --broker.",
            )
        ledger_of(there, folder.run)
        yield there, folder.run


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A count on stderr, for a person."""
    if quiet or not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("exporting: {task.completed:.0f} records"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done: bar.update(task, completed=done)
