"""`hermes doctor`, `up` and `down`: the devices of a cluster, over SSH."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.status import print_json
from hermes.cli.trouble import INTERRUPTED, note, say_error, warn
from hermes.errors import CheckFailed, HermesError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hermes.cluster import doctor as doctor_module
    from hermes.cluster import down as down_module
    from hermes.cluster import up as up_module
    from hermes.cluster.conf import Cluster
    from hermes.cluster.crew import Outcome

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="[DIR]",
        envvar="HERMES_CLUSTER",
        show_default="here",
        help="The cluster's folder, which contains conf/.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        envvar="HERMES_CLUSTER_DRY_RUN",
        help="Say what would be done at each node, and do nothing.",
    ),
]
Purge = Annotated[
    bool,
    typer.Option(
        "--purge",
        envvar="HERMES_DOWN_PURGE",
        help="Leave nothing: on nodes what is installed, here secrets and the broker's records.",
    ),
]
Forget = Annotated[
    list[str] | None,
    typer.Option(
        "--forget",
        envvar="HERMES_DOWN_FORGET",
        metavar="NAME",
        help="Give up the place of a node that conf/ does not have any more, and that is gone for "
        "good: its user is taken away, and nothing else is done.",
    ),
]

MENDED = CheckFailed.exit_code
"""Exit code where something has to be mended."""


def doctor(
    folder: Folder = Path(), json_: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Look at every node of a cluster side by side, before anything is touched.

    SSH and host key, Python, disk, memory, clock, packages, whether the broker's address can be
    reached from there. Nothing is changed. Exit code 5 where something must be mended.
    """
    from hermes.cluster import doctor as module
    from hermes.cluster.ssh import Interrupted

    cluster = _with_ssh(folder)
    stop = threading.Event()
    names = [node.name for node in cluster.nodes]
    try:
        with _stoppable(stop), _board(names, quiet=quiet or json_) as board:
            report = module.examine(cluster, board, stop)
    except Interrupted:
        raise typer.Exit(INTERRUPTED) from None
    if json_:
        print_json(_told_report(report))
    else:
        _show_report(report, folder, quiet=quiet)
    if report.bad:
        raise typer.Exit(MENDED)


def up(
    folder: Folder = Path(),
    dry_run: DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring a cluster up: the broker here, Hermes and a worker at every node, over SSH.

    May be typed again at any time, while a run goes on, too: what is as it should be is left
    alone, nodes that are new in conf/ are added, those that are in it no more are stopped.
    """
    from hermes.cluster import up as module

    cluster = _with_ssh(folder)
    stop = threading.Event()
    names = module.names_of(cluster)
    with _stoppable(stop), _board(names, quiet=quiet or json_) as board:
        report = module.bring_up(cluster, board, stop, dry_run=dry_run)
    if json_:
        print_json(_told_up(report, dry_run=dry_run))
    elif dry_run:
        _print_plan([*report.nodes, *report.removed], module.BROKER)
    else:
        _say_up(report, cluster, quiet=quiet)
    error = report.error or report.still_in
    _leave([*report.nodes, *report.removed], error, stop, json_=json_)


def down(
    folder: Folder = Path(),
    purge: Purge = False,
    forget: Forget = None,
    dry_run: DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Take a cluster down: workers say bye, secrets leave the nodes, the broker stops.

    What is installed on nodes stays, and so do the broker's records; with --purge nothing stays
    but what runs have written.
    """
    from hermes import extra
    from hermes.cluster import down as module

    cluster = _load(folder)
    if forget:
        _give_up(cluster, forget, json_=json_, quiet=quiet)
        return
    extra.check()
    stop = threading.Event()
    names = module.names_of(cluster, purge=purge)
    with _stoppable(stop), _board(names, quiet=quiet or json_) as board:
        report = module.take_down(cluster, board, stop, purge=purge, dry_run=dry_run)
    if json_:
        print_json(_told_down(report, dry_run=dry_run))
    elif dry_run:
        _print_plan(report.nodes, "")
    else:
        _say_down(report, quiet=quiet)
    _leave(report.nodes, report.error, stop, json_=json_)


def _give_up(cluster: Cluster, names: Sequence[str], *, json_: bool, quiet: bool) -> None:
    from hermes.cluster import down as module

    places, error = module.give_up(cluster, names)
    if json_:
        told = [{"name": node.name, "host": node.host, "folder": node.folder} for node in places]
        print_json({"forgotten": told, "error": _told_error(error)})
    elif not quiet:
        for node in places:
            typer.echo(
                f"{node.name} at {node.host} is given up; whoever finds it: {node.folder} there "
                "has the cluster key"
            )
    if error is not None:
        if not json_:
            say_error(f"its user is taken from the broker by the next hermes up only: {error.what}")
        raise typer.Exit(error.exit_code)


# --- what is common -------------------------------------------------------------------------------


def _load(folder: Path) -> Cluster:
    from hermes.cluster.conf import load

    return load(folder.absolute())


def _with_ssh(folder: Path) -> Cluster:
    """As `_load`, where what SSH needs is installed. Raises `UsageError`."""
    from hermes import extra

    cluster = _load(folder)
    extra.check()
    return cluster


def _as_typed(folder: Path) -> str:
    """As a further word of a command: nothing, where the folder is the one we are in."""
    return "" if folder.absolute() == Path.cwd() else f" {folder}"


def _stoppable(stop: threading.Event) -> Any:
    """The first Ctrl-C lets every thread leave what it is at, the second leaves at once."""
    from hermes.runtime.interrupt import on_interrupt

    return on_interrupt(stop.set)


def _board(names: Sequence[str], *, quiet: bool) -> Any:
    from hermes.cluster.progress import Board

    return Board(names, None if quiet else _console())


def _console() -> Console:
    from hermes.cli.onlooker import Stderr

    return Stderr()


def _leave(
    outcomes: Iterable[Outcome],
    error: HermesError | None,
    stop: threading.Event,
    *,
    json_: bool,
) -> None:
    """The exit code: interrupted, the broker's, or that something has to be mended."""
    if stop.is_set():
        if not json_:
            note("interrupted; the same command goes on where this one was")
        raise typer.Exit(INTERRUPTED)
    if error is not None:
        raise typer.Exit(error.exit_code)
    if not all(one.well for one in outcomes):
        raise typer.Exit(MENDED)


def _told(outcome: Outcome) -> dict[str, Any]:
    error = outcome.error
    return {
        "name": outcome.node.name,
        "host": outcome.node.host,
        "state": outcome.state,
        "did": list(outcome.did),
        "commands": list(outcome.commands),
        "seconds": outcome.seconds,
        "warnings": list(outcome.warnings),
        "error": _told_error(error),
    }


def _told_error(error: HermesError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"what": error.what, "where": error.where, "remedy": error.remedy}


def _told_up(report: up_module.Report, *, dry_run: bool) -> dict[str, Any]:
    return {
        "broker": report.broker,
        "dry_run": dry_run,
        "nodes": [_told(one) for one in report.nodes],
        "removed": [_told(one) for one in report.removed],
        "error": _told_error(report.error or report.still_in),
    }


def _told_down(report: down_module.Report, *, dry_run: bool) -> dict[str, Any]:
    return {
        "broker": report.broker,
        "dry_run": dry_run,
        "nodes": [_told(one) for one in report.nodes],
        "left": list(report.left),
        "error": _told_error(report.error),
    }


def _told_report(report: doctor_module.Report) -> dict[str, Any]:
    def told(one: doctor_module.Examined) -> dict[str, Any]:
        return {"name": one.name, "findings": [finding._asdict() for finding in one.findings]}

    return {
        "fit": not report.bad,
        "here": told(report.here),
        "nodes": [told(one) for one in report.nodes],
    }


# --- for people -----------------------------------------------------------------------------------


def _show_report(report: doctor_module.Report, folder: Path, *, quiet: bool) -> None:
    from rich.text import Text

    from hermes.report.tables import output

    console = output()
    if not quiet:
        table = _findings(report.nodes)
        wide = console.options.update(max_width=WIDEST)
        if console.measure(table, options=wide).maximum <= console.width:
            console.print(table)
        else:  # a table that is cut tells nothing: not even which node it is
            for node in report.nodes:
                console.print(_paragraph(node))
        for finding in report.here.findings:
            line = Text(f"{report.here.name}: {finding.check}: {finding.text}")
            line.stylize(STYLES[finding.level])
            console.print(line, soft_wrap=True)
    every = [
        (one.name, finding) for one in (report.here, *report.nodes) for finding in one.findings
    ]
    for level, tell in (("note", warn), ("bad", say_error)):
        for name, finding in every:
            if finding.level == level and not (quiet and level == "note"):
                tell(f"{name}: {finding.what}\n  {finding.remedy}")
    if not report.bad and not quiet:
        typer.echo(
            f"fit, and up: hermes run JOB.py --cluster {folder}"
            if report.up
            else f"fit: hermes up{_as_typed(folder)}"
        )


WIDEST = 1000
"""Letters of a table that is measured."""

STYLES = {"fine": "", "note": "yellow", "bad": "bold red"}
"""Of findings, by level."""


def _findings(nodes: Sequence[doctor_module.Examined]) -> Table:
    """A line for each node, a column for each check."""
    from rich.table import Table
    from rich.text import Text

    checks = list(dict.fromkeys(one.check for node in nodes for one in node.findings))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("node", *checks):
        table.add_column(name, no_wrap=True)
    for node in nodes:
        cells = [node.of(check) for check in checks]
        table.add_row(
            node.name,
            *(Text(cell.text, STYLES[cell.level]) if cell else Text("") for cell in cells),
        )
    return table


def _paragraph(node: doctor_module.Examined) -> Text:
    """The same of a node, where there is no room for a table: `n1: ssh yes, python 3.11.2, ...`."""
    from rich.text import Text

    told = Text.assemble((node.name, "bold"), ": ")
    told.append(
        Text(", ").join(Text(f"{one.check} {one.text}", STYLES[one.level]) for one in node.findings)
    )
    return told


def _print_plan(outcomes: Sequence[Outcome], _broker: str) -> None:
    """What would be done, to read and to copy."""
    for outcome in outcomes:
        typer.echo(f"{outcome.node.name} ({outcome.node.host})")
        if outcome.error is not None:
            typer.echo(f"  cannot be looked at: {outcome.error.what}")
        elif not outcome.did:
            typer.echo("  nothing: all is as it should be")
        for what, command in zip(outcome.did, outcome.commands, strict=True):
            typer.echo(f"  {what}")
            for line in command.splitlines():
                typer.echo(f"      {line}")


def _say_up(report: up_module.Report, cluster: Cluster, *, quiet: bool) -> None:
    _say_errors([*report.nodes, *report.removed], report.error)
    if report.still_in is not None:
        say_error(str(report.still_in))
    for one in report.nodes:
        for text in one.warnings:
            warn(text)
    if quiet:
        return
    if report.shared:
        warn(
            "all nodes share one access: this broker does not let us make users, so that no node "
            "can be shut out alone"
        )
    states = ("up", "unchanged")
    ready = [one for one in report.nodes if one.state in states]
    still = sum(one.state == "unchanged" for one in ready)
    as_before = f" ({still} of them as before)" if still else ""
    typer.echo(
        f"{len(ready)} of {len(report.nodes)} workers up{as_before}, broker "
        f"{report.broker if report.error is None else 'down'}"
    )
    for one in report.removed:
        if one.well:
            typer.echo(
                f"{one.node.name} is stopped; what is installed there stays in {one.node.folder} "
                "until hermes down --purge"
            )
        elif one.error is not None:
            note(
                f"{one.node.name}: the next hermes up tries it again; if it is gone for good: "
                f"hermes down --forget {one.node.name}"
            )
    if not ready and report.error is None and cluster.master.broker == "apache":
        typer.echo(f"the broker goes on (hermes down{_as_typed(cluster.folder)} stops it)")
    if ready and report.error is None:
        typer.echo(f"train with: hermes run JOB.py --cluster {cluster.folder}")


def _say_down(report: down_module.Report, *, quiet: bool) -> None:
    _say_errors(report.nodes, report.error)
    if quiet:
        return
    well = [one for one in report.nodes if one.well]
    typer.echo(f"{len(well)} of {len(report.nodes)} nodes down")
    if report.broker:
        typer.echo(f"broker: {report.broker}")
    for text in report.left:
        typer.echo(f"left {text}")
    if report.removed is not None and report.error is None:
        here = f", here {' and '.join(report.removed)}" if report.removed else ""
        typer.echo(
            f"removed: all of Hermes on the nodes{here}; what runs "
            "have written stays, and any key file of hermes invite (rm it: it has the cluster key)"
        )


def _say_errors(outcomes: Iterable[Outcome], error: HermesError | None) -> None:
    """Why, of each that is not as it should be; the broker's own once."""
    if error is not None:
        say_error(str(error))
    for outcome in outcomes:
        if outcome.error is not None and (error is None or outcome.error.what != error.what):
            say_error(str(outcome.error))
