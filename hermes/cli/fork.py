"""`hermes fork`: begin a run where another one stood, under other settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hermes.cli import options
from hermes.cli.resume import Going, LocalWorkers, broker_of, led, options_of, reached, typed
from hermes.cli.train import conclude, job_talks_aside
from hermes.cli.trouble import note, warn
from hermes.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes.job import Job
    from hermes.policy.presets import Settings
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.forking import Fork, Parent
    from hermes.runtime.master import MasterOptions
    from hermes.transport.kafka import KafkaLog

RunToFork = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        envvar="HERMES_RUN",
        show_default=False,
        help="Running, stopped or finished. Default: the only one; with several, say which.",
    ),
]
At = Annotated[
    str,
    typer.Option(
        "--at",
        envvar="HERMES_FORK_AT",
        metavar="vN|last|best",
        show_default=False,
        help="The version that it begins with.",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        envvar="HERMES_FORK_STRATEGY",
        metavar="NAME",
        show_default="the parent's",
        help="Another one: its gate, close, continue, merge, size and round.",
    ),
]
Child = Annotated[
    str | None,
    typer.Option(
        "--run",
        envvar="HERMES_FORK_RUN",
        metavar="ID",
        show_default="RUN-f1, RUN-f2, ...",
        help="The new run's id: 1 to 40 of a-z, 0-9 and -.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        envvar="HERMES_FORK_SEED",
        metavar="S",
        min=0,
        max=2**53,
        show_default="the parent's",
        help="Of all chance from here on; the data stays split as it was.",
    ),
]
Expected = Annotated[
    int | None,
    typer.Option(
        "--expect",
        envvar="HERMES_EXPECT",
        metavar="N",
        min=1,
        show_default="--workers, else as the parent",
        help="Training starts when so many workers are there; later ones join.",
    ),
]


def fork(
    at: At,
    run: RunToFork = None,
    set_: options.Set = None,
    strategy: Strategy = None,
    child: Child = None,
    seed: Seed = None,
    expect: Expected = None,
    workers: LocalWorkers = 0,
    speeds: options.Speeds = None,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    key_file: options.KeyFile = None,
    threads: options.Threads = None,
    device: options.Device = None,
    patience: options.Patience = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Begin a run where another one stood at a version, under other settings; the other goes on.

    The new run reads the data of the first, and leads workers of its own. stop.samples and
    stop.versions count on from where the first stood; seconds and patience begin anew.
    """
    options.checked_device(device)
    asked = options.limit_threads(threads)
    parent = _which(run, out)
    address = broker_of(parent, out, broker)
    going = Going(parent, address, out, key_file, asked, device, patience)
    if speeds is not None and not workers:
        workers = len(speeds.split(","))
    wish = Wish(at, typed(set_), strategy, child, seed, expect or workers)
    with job_talks_aside():
        prepared, told = _prepared(going, wish)
        if not quiet:
            note(told)
        result = led(going, prepared, workers, speeds, quiet=quiet)
    conclude(prepared.folder, result, json_=json_, quiet=quiet)


class Wish(NamedTuple):
    """What was typed of the new run."""

    at: str
    asked: dict[str, Any]
    strategy: str | None
    child: str | None
    seed: int | None
    expect: int
    """0: nothing was said."""


def _which(run: str | None, out: Path) -> str:
    """The run to fork; never guesses between several."""
    from hermes.runtime.folder import saved_runs

    if run is not None:
        return run
    found = [folder.run for folder in saved_runs(out)]
    if len(found) == 1:
        return found[0]
    where = str((out / "runs").absolute())
    if not found:
        raise RunError(
            "there is no run here",
            where=where,
            remedy="Name the run and its broker: hermes fork RUN --at last --broker HOST:PORT",
        )
    raise RunError(
        f"there are several runs: {', '.join(found[:5])}{', ...' if found[5:] else ''}",
        where=where,
        remedy=f"Say which: hermes fork {found[0]} --at ...",
    )


def _prepared(going: Going, wish: Wish) -> tuple[MasterOptions, str]:
    """The options of the new run's master, and what is told of it. Raises what is wrong."""
    from functools import partial

    from hermes.broker.places import cache_folder
    from hermes.cli.prepare import check_expected
    from hermes.runtime import forking
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.keys import known_key

    key, cache = known_key(going.key_file), cache_folder() / "blocks"
    folder = RunFolder(going.out, going.run)
    with reached(going) as log:
        parent = forking.parent_run(log, folder, cache, key)
        child = _child(log, going, wish.child)
        before = options_of(going, parent.known, child, key)
        resettle = _resettled(before.job, wish)
        made = forking.fork(log, folder, parent, wish.at, resettle, wish.seed)
    expect = wish.expect or before.expect
    check_expected(expect, made.settings)
    made.data(expect)  # raises where it does not fit
    prepared = before._replace(
        settings=made.settings,
        seed=made.seed,
        expect=expect,
        begin=partial(forking.Inheritance, made),
    )
    _warn_of_broker(folder)
    return prepared, _told(parent, child, made)


def _child(log: KafkaLog, going: Going, wanted: str | None) -> RunFolder:
    """The folder of the new run, whose name is free."""
    from hermes.cli.prepare import check_run_id
    from hermes.runtime import forking
    from hermes.runtime.folder import RunFolder

    if wanted is not None:
        check_run_id(wanted)
    child = RunFolder(going.out, wanted or forking.child_id(log, going.out, going.run))
    child.check()
    forking.refuse_taken(log, child)
    return child


def _resettled(job: Job, wish: Wish) -> Callable[[Settings], Settings]:
    """Makes the new run's settings of the parent's; warns of what is odd."""
    from hermes.cli.prepare import check_metric
    from hermes.policy.presets import Layer, warnings
    from hermes.runtime.forking import ASKED, child_settings

    layers = [Layer(ASKED, wish.asked)]

    def resettle(parent: Settings) -> Settings:
        settings = child_settings(parent, job, wish.strategy, wish.asked)
        check_metric(settings, job, layers)
        for text in warnings(settings, layers):
            warn(text)
        return settings

    return resettle


def _warn_of_broker(folder: RunFolder) -> None:
    found = folder.read_note()
    if found is not None and found.own_broker:
        warn(
            f"the broker of {folder.run} is an embedded one of its own: when that run ends, the "
            "broker ends, and this run with it"
        )


def _told(parent: Parent, child: RunFolder, made: Fork) -> str:
    from hermes.policy.ranges import shown
    from hermes.runtime.forking import changes

    found = changes(made.at.state.settings, made.settings)
    settings = ", ".join(f"{key}={shown(value)}" for key, value in found.items())
    version = made.at.version.version
    return (
        f"{child.run} begins where {parent.run} stood at version {version}"
        f"{f', with {settings}' if settings else ', with nothing changed'}"
    )
