"""`hermes demo`, `hermes run` and `hermes master`: a training, from its beginning to its end."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hermes.cli import on_cluster, options
from hermes.cli.connect import advertised, at_flag, connected
from hermes.cli.prepare import Wishes, master_options, parse_speeds
from hermes.cli.trouble import INTERRUPTED, note, warn
from hermes.errors import UsageError

if TYPE_CHECKING:
    from hermes.report.story import Story
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.local import LocalOptions
    from hermes.runtime.master import MasterOptions

DEMO_JOB = Path(__file__).with_name("demo.job.py")
"""In the repository a link to examples/digits.py, in an installed package a copy of it. (The dot in
its name: it is a job, no module of ours.)"""

DEMO_SPEEDS = "1,1,0.5,0.1"

WORKERS = 4
"""By default: the size rule of the paper needs four to tell an outlier."""

SHORT = 4
"""Exit code of a run that failed, or was stopped at its storage limit."""


def demo(
    workers: options.Workers = None,
    speeds: options.Speeds = DEMO_SPEEDS,
    strategy: options.Strategy = None,
    set_: options.Set = None,
    seed: options.Seed = 0,
    out: options.Out = Path(),
    broker: options.Broker = None,
    run: options.RunId = None,
    key_file: options.KeyFile = None,
    threads: options.Threads = None,
    device: options.Device = None,
    patience: options.Patience = None,
    ask: options.Ask = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train digits on four emulated workers of unequal speed, with nothing to set up.

    Starts an embedded broker, a master and the workers; ends with a table, a picture and where
    things lie. Everything can be changed as for `hermes run`.
    """
    options.checked_device(device)
    wishes = Wishes(
        str(DEMO_JOB), (), strategy, tuple(set_ or ()), seed, out, run, key_file, ask, device
    )
    if workers is not None and speeds == DEMO_SPEEDS:
        speeds = None  # the demo's own speeds are for the demo's own four
    _run(wishes, workers, speeds, broker, threads, patience, json_=json_, quiet=quiet, name="demo")


def run(
    job: options.Job,
    args: options.Args = None,
    workers: options.Workers = None,
    speeds: options.Speeds = None,
    strategy: options.Strategy = None,
    set_: options.Set = None,
    seed: options.Seed = 0,
    out: options.Out = Path(),
    broker: options.Broker = None,
    run: options.RunId = None,
    key_file: options.KeyFile = None,
    access: options.Access = None,
    insecure: options.Insecure = False,
    threads: options.Threads = None,
    device: options.Device = None,
    patience: options.Patience = None,
    cluster: on_cluster.ClusterFolder = None,
    detach: on_cluster.Detach = False,
    ask: options.Ask = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a job on this machine: broker, master and worker processes. With --cluster, on the
    workers of a cluster that is up.

    The first Ctrl-C stops the run and writes its results, the second leaves at once.
    """
    options.use_access(access, insecure=insecure)
    options.checked_device(device)
    wishes = Wishes(
        job, tuple(args or ()), strategy, tuple(set_ or ()), seed, out, run, key_file, ask, device
    )
    if cluster is not None:
        on_cluster.refuse_both(workers=workers, speeds=speeds, broker=broker)
        led = on_cluster.Led(options.limit_threads(threads), patience, detach, json_, quiet)
        on_cluster.run_on(cluster, wishes, led)
        return
    if detach:
        raise UsageError(
            "a run in the background needs workers that stay",
            where="--detach",
            remedy="Name a cluster that is up: --cluster DIR",
        )
    _run(wishes, workers, speeds, broker, threads, patience, json_=json_, quiet=quiet)


def _run(
    wishes: Wishes,
    workers: int | None,
    speeds: str | None,
    broker: str | None,
    threads: int | None,
    patience: float | None,
    *,
    json_: bool,
    quiet: bool,
    name: str | None = None,
) -> None:
    options.limit_threads(threads)
    from hermes.policy.presets import PRESETS
    from hermes.runtime.keys import default_key_file
    from hermes.runtime.local import LocalOptions, check_local
    from hermes.transport.address import parse_address

    emulated = parse_speeds(speeds)
    if broker is not None:
        with at_flag("--broker"):
            parse_address(broker)
    most = PRESETS.get(wishes.strategy or "", {}).get("workers.max", WORKERS)
    usual = len(emulated) if emulated else min(WORKERS, most)
    count = usual if workers is None else workers
    _check_count(count)
    if name is not None and wishes.run is None:
        from hermes.cli.prepare import new_run_id

        wishes = wishes._replace(run=new_run_id(name))
    _say_what_begins(wishes, quiet=quiet)
    with job_talks_aside():
        prepared = master_options(wishes, count)
    _refuse_brought(prepared)
    local = LocalOptions(
        master=prepared._replace(threads=threads or 1),
        broker=broker,
        workers=count,
        speeds=emulated,
        key_file=wishes.key_file or default_key_file(),
        threads=threads or 1,
        patience=patience,
        device=wishes.device,
    )
    check_local(local)
    if broker is not None:
        connected(broker, patience).close()
    with job_talks_aside():
        result = see_through_here(local, quiet=quiet)
    conclude(local.master.folder, result, json_=json_, quiet=quiet)


def _refuse_brought(prepared: MasterOptions) -> None:
    """Workers that this command starts would have nothing to bring."""
    if prepared.job.data is None:
        raise UsageError(
            "the job gives no data (data=None): each worker brings its own",
            where=prepared.source.name,
            remedy="hermes master JOB.py, and for each worker: hermes worker --data FILE.npz "
            "(examples/resident.py shows all of it on one machine).",
        )


def see_through_here(local: LocalOptions, *, quiet: bool) -> dict[str, Any]:
    """Lead a run whose workers are processes of this machine, to its end; its result."""
    from hermes.cli.display import show
    from hermes.runtime.local import run_locally, worker_names

    expected = tuple(worker_names(local.workers))
    dead = local.master.folder.dead_workers
    with show(quiet=quiet, expected=expected, dead=dead) as listener:
        return run_locally(local, listener)


def _say_what_begins(wishes: Wishes, *, quiet: bool) -> None:
    """To a person who waits: a framework may take seconds to load."""
    if not quiet and sys.stderr.isatty():
        note(f"trying {Path(wishes.job).name} ...")


def job_talks_aside() -> contextlib.AbstractContextManager[object]:
    """What the job itself prints is no result: it goes to stderr."""
    return contextlib.redirect_stdout(sys.stderr)


def _check_count(count: int) -> None:
    if count < 1:
        raise UsageError(f"{count} workers", where="--workers", remedy="At least 1: --workers N")


def master(
    job: options.Job,
    args: options.Args = None,
    expect: options.Expect = 1,
    strategy: options.Strategy = None,
    set_: options.Set = None,
    seed: options.Seed = 0,
    out: options.Out = Path(),
    broker: options.BrokerOfPieces = None,
    run: options.RunId = None,
    key_file: options.KeyFile = None,
    access: options.Access = None,
    insecure: options.Insecure = False,
    threads: options.Threads = None,
    device: options.Device = None,
    patience: options.Patience = None,
    ask: options.Ask = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """The master of a run whose workers are started elsewhere, with `hermes worker`.

    Sends model and data, waits for the expected workers, and ends with the results. The first
    Ctrl-C stops the run and writes its results, the second leaves at once.
    """
    options.use_access(access, insecure=insecure)
    options.checked_device(device)
    asked = options.limit_threads(threads)
    from hermes.broker.places import state_folder

    wishes = Wishes(
        job, tuple(args or ()), strategy, tuple(set_ or ()), seed, out, run, key_file, ask, device
    )
    address = broker or options.DEFAULT_BROKER
    if run is not None and is_there(address, run, patience):
        from hermes.cli.resume import Going, lead_again

        going = Going(run, address, out, key_file, asked, device, patience)
        lead_again(going, wishes, expect, json_=json_, quiet=quiet)
        return
    _say_what_begins(wishes, quiet=quiet)
    with job_talks_aside():
        prepared = master_options(wishes, expect)
    prepared = prepared._replace(threads=asked, names=state_folder() / "names")
    if patience is not None:
        prepared = prepared._replace(patience=patience)
    with job_talks_aside():
        result = see_through(prepared, address, patience, quiet=quiet)
    conclude(prepared.folder, result, json_=json_, quiet=quiet)


def is_there(broker: str, run: str, patience: float | None) -> bool:
    """Whether this broker has a run of this name."""
    from hermes.transport import names

    with connected(broker, patience) as log:
        topic = names.physical(names.checked_run(run), names.LEDGER)
        return topic in log.topics(topic)


def see_through(
    prepared: MasterOptions,
    broker: str,
    patience: float | None,
    *,
    quiet: bool,
    greeting: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Lead a run whose workers are started elsewhere, to its end; its result. `greeting`: what to
    say once workers may come, by default how they join."""
    from hermes.cli.display import show
    from hermes.runtime.folder import note_of
    from hermes.runtime.interrupt import on_interrupt
    from hermes.runtime.master import MasterProcess

    with (
        connected(broker, patience, master=True) as log,
        show(quiet=quiet, greeting=greeting or _greeting(prepared, broker)) as listener,
    ):
        process = MasterProcess(log, prepared, listener)
        with on_interrupt(process.interrupt, log.abandon):
            process.prepare()
            prepared.folder.take_note(note_of(prepared.run, broker))
            return process.run()


def _greeting(prepared: MasterOptions, broker: str) -> Callable[[], str]:
    """The line to copy to the workers' machines, and how to look on from here."""
    from hermes.cli.access import invitation
    from hermes.cli.joining import Token, certificate, ways_in
    from hermes.report.words import counted
    from hermes.runtime.keys import fingerprint
    from hermes.transport.access import access_to

    def text() -> str:
        address, ours = advertised(broker), access_to(broker)
        key = fingerprint(prepared.key)
        token = Token(address, prepared.run, key, certificate(ours))
        if prepared.again:
            head = " goes on. Workers that wait for it come by themselves; others join with:"
        else:
            head = f": waiting for {counted(prepared.expect, 'worker')}. On each:"
        invite = invitation(broker, prepared.run, prepared.key)
        lines = [f"run {prepared.run}{head}", *ways_in(token, ours, invite)]
        lines.append(f"central log: {prepared.folder.central_log}")
        return "\n".join(lines)

    return text


# --- the end ------------------------------------------------------------------------------------


def conclude(folder: RunFolder, result: dict[str, Any], *, json_: bool, quiet: bool) -> None:
    """Picture, table or JSON, and the exit code."""
    story = story_of(folder)
    _draw(folder, result, story)
    if json_:
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
    elif not quiet:
        from hermes.report.tables import output, result_view

        output().print(result_view(result, story), soft_wrap=True)
    leave_with(result)


def leave_with(result: dict[str, Any]) -> None:
    """End with the run's exit code, and say why it ended short."""
    if result["reason"] == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if result["reason"] == "storage":
        from hermes.cli.storage import stopped_short
        from hermes.cli.trouble import tell

        tell(stopped_short(result))
        raise typer.Exit(SHORT)
    if result["status"] == "failed":
        from hermes.cli.endings import short
        from hermes.cli.trouble import tell

        tell(short(result))
        raise typer.Exit(SHORT)


def story_of(folder: RunFolder) -> Story:
    """What its saved ledger tells."""
    from hermes.report.story import MOST, Story
    from hermes.runtime.observe import saved

    story = Story(MOST)
    saved(folder, story.read)
    return story


def _draw(folder: RunFolder, result: dict[str, Any], story: Story) -> None:
    """The picture, where there is something to see; a run never fails for want of matplotlib."""
    from hermes.errors import RunFailed
    from hermes.report import picture
    from hermes.report.scores import is_measured
    from hermes.runtime.results import rewrite

    if not story.points:
        return
    if not picture.can_draw():
        note(picture.REMEDY)
        return
    value, loss = result["accuracy"]["test"], result["loss"]["test"]
    title = f"{result['run']}: {result['strategy']}, test "
    if is_measured(loss, value):
        title += result["metric"] or "metric"
        title += f" {value:.3f}" if value is not None else " unknown"
    else:
        title += f"loss {loss:.3f}"
    try:
        picture.draw(story, title, folder.picture)
        result["paths"]["picture"] = str(folder.picture)
        rewrite(folder, result)
    except RunFailed as error:
        warn(str(error))
    except Exception as error:  # noqa: BLE001  (a library that is broken here is no fault of the run)
        warn(f"no picture was drawn: {type(error).__name__}: {error}")
