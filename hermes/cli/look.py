"""`hermes runs`, `logs` and `stop`: look at runs, or end one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.connect import BRIEF, connected
from hermes.cli.seen import unfinished
from hermes.cli.status import print_json
from hermes.cli.trouble import note
from hermes.errors import HermesError, RunError

if TYPE_CHECKING:
    from hermes.machine.state import MasterState
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.observe import View

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")]

STOP_PATIENCE = 10.0
"""Seconds in which a master that lives has stopped its run."""


# --- runs ---------------------------------------------------------------------------------------


def runs(
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    json_: options.Json = False,
) -> None:
    """List runs: those in the folder, and with --broker those that it holds."""
    rows = {row["run"]: row for row in map(_saved_row, _folders(out))}
    if broker is not None:
        for row in _live_rows(broker):
            rows[row["run"]] = {**rows.get(row["run"], {}), **row}
    if json_:
        print_json({"runs": list(rows.values())})
        return
    if not rows:
        note(f"no run in {(out / 'runs').absolute()}")
        return
    from hermes.report.tables import output

    output().print(_runs_table(list(rows.values())), soft_wrap=True)


def _folders(out: Path) -> list[RunFolder]:
    from hermes.runtime.folder import saved_runs

    return saved_runs(out)


def _saved_row(folder: RunFolder) -> dict[str, Any]:
    from hermes.runtime.observe import is_running, saved

    row: dict[str, Any] = {"run": folder.run, "folder": str(folder.path)}
    try:
        state = saved(folder).state
    except HermesError:
        return {**row, "status": "unreadable"}
    return {**row, **_row_of(state, lives=is_running(folder.read_note()))}


def _live_rows(broker: str) -> list[dict[str, Any]]:
    from hermes.runtime.join import runs_at
    from hermes.runtime.observe import LiveRun, beating

    with connected(broker, first=BRIEF) as log:
        states = {run: LiveRun(log, broker, run).look().state for run in runs_at(log)}
        unfinished = [run for run, state in states.items() if state.stopped is None]
        alive = beating(log, unfinished) if unfinished else set()
        return [
            {"run": run, "broker": broker, **_row_of(state, lives=run in alive)}
            for run, state in states.items()
        ]


def _row_of(state: MasterState, *, lives: bool) -> dict[str, Any]:
    from hermes.runtime.lineage import origin

    known, newest = state.evaluations, state.newest
    return {
        "status": state.status if state.stopped or lives else "broken off",
        "strategy": state.settings.strategy,
        "opened": state.opened.opened if state.opened else None,
        "simulated": state.opened is not None and state.opened.virtual,
        "version": newest.version if newest else None,
        "samples": newest.samples if newest else 0,
        "accuracy": {
            "validation": state.scores.get("validation_accuracy", known.last_accuracy),
            "test": state.scores.get("test_accuracy"),
        },
        "forked": origin(state),
    }


def _runs_table(rows: list[dict[str, Any]]) -> object:
    from hermes.report.tables import plain_table
    from hermes.report.words import count, score

    forks = ("from",) if any(row.get("forked") for row in rows) else ()
    table = plain_table(
        "run",
        *forks,
        "status",
        "strategy",
        "opened (UTC)",
        "version",
        "samples",
        "validation",
        "test",
        left=4 + len(forks),
    )
    for row in sorted(rows, key=lambda row: row.get("opened") or "", reverse=True):
        accuracy = row.get("accuracy", {})
        date = "simulated" if row.get("simulated") else row.get("opened") or "-"
        version = row.get("version")
        table.add_row(
            row["run"],
            *(_from(row) for _ in forks),
            row["status"],
            row.get("strategy", "-"),
            date[:19].replace("T", " "),
            "-" if version is None else str(version),
            count(row.get("samples")),
            score(accuracy.get("validation")),
            score(accuracy.get("test")),
        )
    return table


def _from(row: dict[str, Any]) -> str:
    """Where a run was forked from."""
    forked = row.get("forked")
    return f"{forked['parent']} v{forked['version']}" if forked else "-"


# --- logs ---------------------------------------------------------------------------------------


def logs(
    run: options.Run = None,
    follow: Follow = False,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    json_: options.Json = False,
) -> None:
    """Print a run's central log: the file on this machine, or with --broker the `logs` topic."""
    lines = _topic_lines(run, broker, follow) if broker else _file_lines(run, out, follow)
    try:
        for line in lines:
            sys.stdout.write((json.dumps(_line_json(line)) if json_ else line) + "\n")
            sys.stdout.flush()
    except BrokenPipeError:  # `hermes logs | head`
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115, PTH123  (nothing is left to flush)


def _topic_lines(run: str | None, broker: str, follow: bool) -> Iterator[str]:
    from hermes.runtime.logs import as_text
    from hermes.runtime.observe import LiveRun, log_lines, newest_at

    with connected(broker, first=BRIEF) as log:
        live = LiveRun(log, broker, run or newest_at(log, broker))
        for line in log_lines(log, live, follow=follow):
            yield as_text(line)


def _file_lines(run: str | None, out: Path, follow: bool) -> Iterator[str]:
    from hermes.runtime.folder import find_run
    from hermes.runtime.observe import file_lines

    return file_lines(find_run(out, run), follow=follow)


def _line_json(line: str) -> dict[str, str]:
    parts = line.split(None, 3)
    if line.startswith(" ") or len(parts) < 4:
        return {"text": line.strip()}
    return dict(zip(("at", "source", "level", "text"), parts, strict=True))


# --- stop ---------------------------------------------------------------------------------------


def stop(
    run: options.RunToStop = None,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    key_file: options.KeyFile = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask a run's master to stop; it writes its results. Waits until the ledger says so."""
    from hermes.runtime.keys import cluster_key
    from hermes.runtime.observe import LiveRun, refuse_other_key, request_stop, wait_for_stop

    name, address = _which(run, out, broker)
    key = cluster_key(key_file)
    with connected(address, first=BRIEF) as log:
        live = LiveRun(log, address, name)
        view = live.look()
        already = view.state.stopped is not None
        if not already:
            refuse_other_key(view.state, name, key)
            request_stop(log, name, key, "hermes stop")
            stopped = wait_for_stop(live, STOP_PATIENCE)
            if stopped is None:
                raise RunError(
                    f"the master of {name!r} has not answered within {STOP_PATIENCE:g} s",
                    where=address,
                    remedy="Does it live (hermes status)? Has it another cluster key (--key-file)?",
                )
            view = stopped
    _tell_stopped(view, already=already, json_=json_, quiet=quiet)


def _tell_stopped(view: View, *, already: bool, json_: bool, quiet: bool) -> None:
    state = view.state
    assert state.stopped is not None
    if json_:
        stopped = {"code": state.stopped.code, "facts": state.stopped.facts}
        told = {"run": view.run, "status": state.status, "stop": stopped, "already": already}
        print_json(told)
    elif not quiet:
        version = state.newest.version if state.newest else "none"
        before = " already, before we asked" if already else ""
        typer.echo(f"run {view.run} has {state.status}{before}; its last version is {version}")


def _which(run: str | None, out: Path, broker: str | None) -> tuple[str, str]:
    """Run and broker. Never guesses between several that run."""
    if broker is not None:
        return (run, broker) if run else (_only(_open_at(broker), broker), broker)
    from hermes.runtime.folder import find_run, saved_runs
    from hermes.runtime.observe import is_running

    place = str((out / "runs").absolute())
    if run is None:
        alive = [f.run for f in saved_runs(out) if is_running(f.read_note()) and unfinished(f)]
        run = _only(alive, place)
    remembered = find_run(out, run).read_note()
    if remembered is None:
        raise RunError(
            f"nothing says where the run {run!r} goes on",
            where=place,
            remedy="Name its broker: --broker HOST:PORT",
        )
    if remembered.simulated:
        raise RunError(
            "it is simulated: it has no broker, and nobody else can be told",
            where=f"run {run}",
            remedy=f"Ctrl-C where it goes on, or: kill -INT {remembered.pid}"
            if is_running(remembered)
            else "It is over: hermes status",
        )
    return run, remembered.broker


def _open_at(broker: str) -> list[str]:
    from hermes.runtime.join import is_open, runs_at
    from hermes.runtime.observe import beating

    with connected(broker, first=BRIEF) as log:
        unfinished = [run for run in runs_at(log) if is_open(log, run)]
        return sorted(beating(log, unfinished)) if unfinished else []


def _only(alive: list[str], where: str) -> str:
    if len(alive) == 1:
        return alive[0]
    if not alive:
        raise RunError("no run is under way", where=where, remedy="See: hermes runs")
    raise RunError(
        f"several runs are under way: {', '.join(alive)}",
        where=where,
        remedy=f"Say which: hermes stop {alive[0]}",
    )
