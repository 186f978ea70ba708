"""`hermes run --cluster` and `hermes wait`: a run whose workers `hermes up` has started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hermes.cli import options
from hermes.cli.status import print_json
from hermes.cli.trouble import note, warn
from hermes.errors import RunError, RunFailed, UsageError

if TYPE_CHECKING:
    from hermes.cli.prepare import Wishes
    from hermes.cluster.conf import Cluster, Node
    from hermes.runtime.folder import RunFolder

ClusterFolder = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        envvar="HERMES_CLUSTER",
        metavar="DIR",
        show_default="this machine",
        help="Train on the workers of this cluster, which hermes up has started.",
    ),
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        "-d",
        envvar="HERMES_DETACH",
        help="With --cluster: return once the run has begun; hermes wait RUN waits for its end.",
    ),
]

LOOK = 0.2
"""Seconds between two looks at a process."""

BEGINNING = 120.0
"""Seconds that a detached master may take until its run is there."""


class Led(NamedTuple):
    """How a run on a cluster is led."""

    threads: int | None
    patience: float | None
    detach: bool
    json_: bool
    quiet: bool


def run_on(folder: Path, wishes: Wishes, led: Led) -> None:
    """Lead a run on this cluster; or, detached, see that somebody does."""
    from hermes.cluster import entrance
    from hermes.cluster.conf import load

    cluster = load(folder.absolute())
    _see_that_it_is_up(cluster)
    os.environ["HERMES_ACCESS"] = str(entrance.access_path(cluster))
    wishes = wishes._replace(
        key_file=wishes.key_file or entrance.cluster_key_file(cluster),
        strategy=wishes.strategy or cluster.settings.strategy,
        conf=cluster.layers(),
        out=cluster.out if wishes.out == Path() else wishes.out,
    )
    if led.detach:
        _detached(cluster, wishes, led)
        return
    ready = _ready(cluster, quiet=led.quiet)
    _lead(cluster, wishes, led, len(ready))


def _see_that_it_is_up(cluster: Cluster) -> None:
    from hermes.cluster import entrance
    from hermes.cluster.brought import Notes

    if not Notes(cluster).now.nodes or not entrance.access_path(cluster).exists():
        raise RunError(
            "this cluster is not up", where=str(cluster.folder), remedy="Bring it up: hermes up"
        )


def _ready(cluster: Cluster, *, quiet: bool) -> list[Node]:
    """The nodes whose workers run just now."""
    from hermes.cluster.crew import running_on

    found = running_on(cluster, threading.Event())
    ready = [node for node, why in found if why is None]
    for node, why in found:
        if why is not None:
            warn(f"{node.name} does not take part now: {why}. It may join later: hermes up")
    if not ready:
        raise RunError(
            "no worker of this cluster runs",
            where=str(cluster.folder),
            remedy="Bring them up: hermes up",
        )
    if not quiet:
        note(f"{len(ready)} of {len(found)} workers are there")
    return ready


def _lead(cluster: Cluster, wishes: Wishes, led: Led, expect: int) -> None:
    from hermes.broker.places import state_folder
    from hermes.cli.prepare import master_options
    from hermes.cli.train import conclude, job_talks_aside, see_through
    from hermes.cluster import entrance

    with job_talks_aside():
        prepared = master_options(wishes, expect)
    prepared = prepared._replace(threads=led.threads, names=state_folder() / "names")
    if led.patience is not None:
        prepared = prepared._replace(patience=led.patience)

    def greeting() -> str:
        return (
            f"run {prepared.run}: waiting for {expect} workers\n"
            f"central log: {prepared.folder.central_log}"
        )

    broker = entrance.told(cluster)
    with job_talks_aside():
        result = see_through(prepared, broker, led.patience, quiet=led.quiet, greeting=greeting)
    conclude(prepared.folder, result, json_=led.json_, quiet=led.quiet)


# --- in the background ----------------------------------------------------------------------------


def _detached(cluster: Cluster, wishes: Wishes, led: Led) -> None:
    """Start the master as a process of its own; returns once its run is there."""
    from hermes.broker.places import state_folder
    from hermes.cli.prepare import new_folder, new_run_id

    folder = new_folder(wishes.run or new_run_id(wishes.job), wishes.out)
    output = state_folder() / "detached" / f"{folder.run}.log"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as into:
            process = subprocess.Popen(
                _command(cluster, wishes._replace(run=folder.run), led),
                stdin=subprocess.DEVNULL,
                stdout=into,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise RunFailed(
            f"the master cannot be started: {error.strerror or error}",
            where=str(error.filename or output),
            remedy="Make room there, or choose another folder with HERMES_STATE.",
        ) from None
    _wait_for_its_beginning(process, folder, output)
    process.returncode = 0  # it is not ours to wait for: no ResourceWarning for a daemon
    if led.json_:
        print_json({"run": folder.run, "pid": process.pid, "output": str(output)})
    elif not led.quiet:
        typer.echo(f"run {folder.run} goes on in the background")
        typer.echo(f"look at it:       hermes status {folder.run} --watch --out {wishes.out}")
        typer.echo(f"wait for its end: hermes wait {folder.run} --out {wishes.out}")
        typer.echo(f"central log:      {folder.central_log}")


def _command(cluster: Cluster, wishes: Wishes, led: Led) -> list[str]:
    """The same command, without -d."""
    told = [sys.executable, "-m", "hermes", "run", wishes.job, "--cluster", str(cluster.folder)]
    told += ["--run", str(wishes.run), "--seed", str(wishes.seed), "--out", str(wishes.out)]
    flags = {
        "--strategy": wishes.strategy,
        "--key-file": wishes.key_file,
        "--device": wishes.device,
        "--threads": led.threads,
        "--patience": led.patience,
    }
    for flag, value in flags.items():
        told += [flag, str(value)] if value is not None else []
    for setting in wishes.set_:
        told += ["--set", setting]
    return [*told, *(["--", *wishes.args] if wishes.args else [])]


def _wait_for_its_beginning(
    process: subprocess.Popen[bytes], folder: RunFolder, output: Path
) -> None:
    until = time.monotonic() + BEGINNING
    while folder.read_note() is None:
        code = process.poll()
        if code is not None:
            sys.stderr.write(output.read_text("utf-8", "replace"))
            raise typer.Exit(code)
        if time.monotonic() > until:
            process.terminate()
            raise RunFailed(
                f"the run has not begun within {BEGINNING:g} s",
                where=f"run {folder.run}",
                remedy=f"What its master said is in {output}",
            )
        time.sleep(LOOK)


# --- wait -----------------------------------------------------------------------------------------


def wait(
    run: options.Run = None,
    out: options.Out = Path(),
    cluster: ClusterFolder = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Wait until a run of this machine is over, and end as its master did: with its exit code.

    Ctrl-C ends the waiting; the run goes on.
    """
    from hermes.runtime.folder import find_run

    if cluster is not None and out == Path():
        from hermes.cluster.conf import load

        out = load(cluster.absolute()).out
    folder = find_run(out, run)
    _wait_for_master(folder)
    _tell_end(folder, json_=json_, quiet=quiet)


def _wait_for_master(folder: RunFolder) -> None:
    from hermes.broker.process import identity

    note_ = folder.read_note()
    if note_ is None:
        raise RunError(
            "this run has no master that is known here",
            where=f"run {folder.run}",
            remedy="Wait on the machine that leads it.",
        )
    while identity(note_.pid) == note_.born:
        time.sleep(LOOK)
        again = folder.read_note()
        if again is not None:  # somebody goes on with it
            note_ = again


def _tell_end(folder: RunFolder, *, json_: bool, quiet: bool) -> None:
    import msgspec

    from hermes.cli.train import leave_with, story_of

    try:
        result = msgspec.json.decode(folder.result.read_bytes(), type=dict)
    except (OSError, msgspec.DecodeError):
        raise RunFailed(
            "its master has ended without a result",
            where=f"run {folder.run}",
            remedy=f"Go on with it: hermes resume {folder.run}",
        ) from None
    if json_:
        print_json(result)
    elif not quiet:
        from hermes.report.tables import output, result_view

        output().print(result_view(result, story_of(folder)), soft_wrap=True)
    leave_with(result)


def refuse_both(**given: object) -> None:
    """Raise `UsageError` where a flag says what the cluster's folder says."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise UsageError(
                f"with --cluster this says what {_says(name)} says",
                where=f"--{name.replace('_', '-')}",
                remedy="Leave it out.",
            )


def _says(name: str) -> str:
    return "conf/config.json" if name in ("workers", "speeds") else "conf/master.json"
