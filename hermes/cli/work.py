"""`hermes worker`: one device that takes part."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes.cli import options
from hermes.cli.connect import at_flag, connected
from hermes.cli.trouble import INTERRUPTED, note
from hermes.errors import Fenced, RunError, UsageError

if TYPE_CHECKING:
    from hermes.cli.joining import Ticket
    from hermes.data.own import Brought
    from hermes.runtime.worker import Farewell, WorkerOptions

Name = Annotated[
    str | None,
    typer.Option(
        envvar="HERMES_NAME",
        metavar="NAME",
        show_default="this host's name",
        help="1 to 40 of a-z, 0-9 and -; each worker of a run has its own.",
    ),
]
Join = Annotated[
    str | None,
    typer.Option(
        envvar="HERMES_JOIN",
        metavar="TOKEN",
        show_default=False,
        help="What the master printed: its broker, its run and its key's fingerprint.",
    ),
]
RunToServe = Annotated[
    str | None,
    typer.Option(
        "--run",
        envvar="HERMES_RUN",
        metavar="ID",
        show_default="run after run",
        help="The run to take part in.",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        envvar="HERMES_SPEED",
        metavar="S",
        show_default="as fast as it goes",
        help="Emulate a device of this speed; 1 is this machine.",
    ),
]
StepSeconds = Annotated[
    float | None,
    typer.Option(
        envvar="HERMES_STEP_SECONDS",
        metavar="T",
        show_default="measured",
        help="Seconds of a step at speed 1.",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default="$HERMES_STATE, else ~/.local/state/hermes",
        help="What the worker's next start needs lies in DIR/workers.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default="$HERMES_CACHE/blocks, else ~/.cache/hermes/blocks",
        help="Blocks of data that were fetched.",
    ),
]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="HERMES_DATA",
        metavar="FILE.npz",
        show_default="the run's data are granted",
        help="Arrays x and y that stay here, for a job with data=None.",
    ),
]

MOST = 1000.0
"""Of a speed, and of the seconds of a step."""

PATIENCE = 600.0
"""Seconds that a worker waits for its run."""


def worker(
    broker: options.BrokerOfPieces = None,
    run: RunToServe = None,
    name: Name = None,
    join: Join = None,
    data: Data = None,
    key_file: options.KeyFile = None,
    access: options.Access = None,
    insecure: options.Insecure = False,
    speed: Speed = None,
    step_seconds: StepSeconds = None,
    threads: options.Threads = None,
    device: options.Device = None,
    patience: options.Patience = None,
    state: State = None,
    cache: Cache = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """A worker: waits for its run, trains what it is granted, pushes when its gate says so.

    With --data it trains on a file of its own, of which no sample leaves this machine. Without
    --run it serves run after run until it is stopped. Ctrl-C: it says bye and leaves. Runs nothing
    that is not signed with its cluster key.
    """
    options.checked_device(device)
    asked = options.limit_threads(threads)
    options.use_access(access, insecure=insecure)
    from hermes.cli.joining import ticket_of
    from hermes.runtime.worker import WorkerOptions
    from hermes.transport.names import checked_run, checked_worker

    ticket = ticket_of(join, broker, run, key_file, options.DEFAULT_BROKER)
    with at_flag("--name"):
        name = checked_worker(name or ticket.name or _host_name())
    with at_flag("--run"):
        run = checked_run(run) if run else None
    _check_range("--speed", speed)
    _check_range("--step-seconds", step_seconds)
    home, cache = _places(state, cache)
    run = ticket.run
    own = _brought(data, name, quiet=quiet)
    wanted = WorkerOptions(
        run=checked_run(run) if run else None,
        name=name,
        key=ticket.key,
        state=home / "workers",
        cache=cache,
        speed=speed,
        step_seconds=step_seconds,
        patience=PATIENCE if patience is None else patience,
        outage=PATIENCE if patience is None else patience,
        device=device,
        threads=asked,
        names=home / "names",
        own=own,
    )
    _leave(_serve(wanted, ticket, patience, quiet=quiet), name, run, json_=json_)


def _places(state: Path | None, cache: Path | None) -> tuple[Path, Path]:
    """The folders of its outbox and of its blocks. Raises `UsageError` for what cannot be used."""
    from hermes.broker.places import cache_folder, state_folder
    from hermes.runtime.folder import check_place

    home, blocks = state or state_folder(), cache or cache_folder() / "blocks"
    check_place(home / "workers", "the worker's outbox cannot be kept there", "--state DIR")
    check_place(blocks, "the cache of blocks cannot be used", "--cache DIR")
    return home, blocks


def _brought(data: Path | None, name: str, *, quiet: bool) -> Brought | None:
    """What this worker brings, read and checked."""
    if data is None:
        return None
    from hermes.data.own import kind_of, read_file

    own = read_file(data)
    if not quiet:
        note(f"{name}: brings {own.samples.size} samples ({kind_of(own.samples)}); they stay here")
    return own


def _check_range(flag: str, value: float | None) -> None:
    if value is not None and not 0 < value <= MOST:
        raise UsageError(
            f"{value:g} is out of range",
            where=flag,
            remedy=f"It is a number above 0, at most {MOST:g}.",
        )


def _serve(
    wanted: WorkerOptions, ticket: Ticket, patience: float | None, *, quiet: bool
) -> Farewell:
    """Take part, until there is no more to do, or Ctrl-C."""
    from hermes.runtime.interrupt import on_interrupt
    from hermes.runtime.outbox import claimed
    from hermes.runtime.worker import WorkerProcess

    def say(text: str) -> None:
        if not quiet:
            note(f"{wanted.name}: {text}")

    assert wanted.names is not None
    with (
        connected(ticket.broker, patience, access=ticket.access) as log,
        claimed(wanted.names, ticket.broker, wanted.run, wanted.name),
    ):
        process = WorkerProcess(log, wanted, say)
        say(f"at {ticket.broker}, waiting for {f'run {wanted.run}' if wanted.run else 'a run'}")
        with (
            on_interrupt(process.interrupt, log.abandon),
            contextlib.redirect_stdout(sys.stderr),  # what the job itself prints is no result
        ):
            return process.run()


def _host_name() -> str:
    """This host's name, as a worker's name."""
    host = socket.gethostname().partition(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", host).strip("-")[:40] or "worker"


def _leave(farewell: Farewell, name: str, run: str | None, *, json_: bool) -> None:
    """Say why, and leave with its exit code."""
    if json_:
        told = {"worker": name, "run": run, "code": farewell.code, "reason": farewell.reason}
        sys.stdout.write(json.dumps(told) + "\n")
    if farewell.code == "refused":
        raise RunError(
            f"the master refuses this worker: {farewell.reason}",
            where=name,
            remedy=REMEDIES.get(farewell.reason.split()[0], "See the run's central log."),
        )
    if farewell.code == "fenced":
        raise Fenced(f"this worker was fenced: {farewell.reason}", where=name)
    if farewell.code == "interrupted":
        raise typer.Exit(INTERRUPTED)


REMEDIES = {
    "name-taken": "Another worker of this name is alive: choose another --name.",
    "run-stopped": "The run is over; leave --run out to wait for the next one.",
    "other-version": "Install the master's version of hermes-edge here.",
    "too-many": "The run has as many workers as workers.max allows.",
    "no-pool": "Each pool of the data has its worker: wait until one leaves, or begin a run with "
    "more of them (data.pools).",
    "data-granted": "The run grants its own data: leave --data out.",
    "no-data": "In this run each worker brings its own data: --data FILE.npz.",
    "too-few-samples": "Bring more samples.",
    "other-samples": "All workers of a run bring samples of one type and shape: x and y as the "
    "others have them.",
    "other-data": "A worker that comes back brings the data that it had: take another --name for "
    "other data.",
}
"""The master's reason -> what to do."""
