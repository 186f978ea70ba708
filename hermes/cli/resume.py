"""`hermes resume`: go on with a run whose master is gone, or that had stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hermes.cli import options
from hermes.cli.connect import connected
from hermes.cli.train import conclude, job_talks_aside, see_through, see_through_here
from hermes.errors import BrokerUnreachable, RunError

if TYPE_CHECKING:
    from hermes.cli.prepare import Wishes
    from hermes.messages import JobSource
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.going_on import Known
    from hermes.runtime.master import MasterOptions
    from hermes.transport.kafka import KafkaLog

RunToResume = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        envvar="HERMES_RUN",
        show_default=False,
        help="Default: the one that was broken off; with several, say which.",
    ),
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        envvar="HERMES_RESUME_TAKE_OVER",
        help="Even if its master lives: that one is fenced and ends with exit code 4.",
    ),
]
Expected = Annotated[
    int | None,
    typer.Option(
        "--expect",
        envvar="HERMES_EXPECT",
        metavar="N",
        min=1,
        show_default="as before",
        help="Training starts when so many workers are there, if it had not started.",
    ),
]
LocalWorkers = Annotated[
    int,
    typer.Option(
        "--workers",
        envvar="HERMES_WORKERS",
        metavar="N",
        min=0,
        help="Worker processes to start on this machine, too, as hermes run does.",
    ),
]


class Going(NamedTuple):
    """Which run is gone on with, and how."""

    run: str
    broker: str
    out: Path
    key_file: Path | None
    threads: int | None
    device: str | None
    patience: float | None
    take_over: bool = False


def resume(
    run: RunToResume = None,
    set_: options.Set = None,
    take_over: TakeOver = False,
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
    """Go on with a run whose master is gone: with the same weights, from its log.

    Needs the run's broker and the cluster key, no job file; on any machine. Workers that wait go
    on by themselves. With --set stop.KEY=VALUE also a run that had stopped or finished.
    """
    options.checked_device(device)
    asked = options.limit_threads(threads)
    name, address = _which(run, out, broker)
    going = Going(name, address, out, key_file, asked, device, patience, take_over)
    with job_talks_aside():
        prepared = _prepared(going, typed(set_), expect or 0)
        result = led(going, prepared, workers, speeds, quiet=quiet)
    conclude(prepared.folder, result, json_=json_, quiet=quiet)


def lead_again(going: Going, wishes: Wishes, expect: int, *, json_: bool, quiet: bool) -> None:
    """`hermes master JOB.py --run ID` of a run that is there: the same job goes on."""
    from hermes.jobfile import load_source
    from hermes.messages import JobSource

    source = load_source(wishes.job)
    mine = JobSource(source.name, source.text, wishes.args)
    with job_talks_aside():
        if _has_data(going):
            asked = typed(list(wishes.set_))
            prepared = _prepared(going, asked, 0, mine)
        else:
            prepared = _from_the_start(wishes, expect)
        result = see_through(prepared, going.broker, going.patience, quiet=quiet)
    conclude(prepared.folder, result, json_=json_, quiet=quiet)


# --- which run ------------------------------------------------------------------------------------


def _which(run: str | None, out: Path, broker: str | None) -> tuple[str, str]:
    """Run and broker; never guesses between several."""
    from hermes.cli.seen import unfinished
    from hermes.runtime.folder import saved_runs
    from hermes.runtime.observe import is_running

    if run is None:
        folders = saved_runs(out)
        broken = [f.run for f in folders if not is_running(f.read_note()) and unfinished(f)]
        run = _only(broken, str((out / "runs").absolute()))
    return run, broker_of(run, out, broker)


def broker_of(run: str, out: Path, broker: str | None) -> str:
    """Where a run's records lie: as it was typed, or as the run's folder has it. Raises `RunError`
    where they are gone."""
    from hermes.runtime.folder import RunFolder
    from hermes.transport.names import checked_run

    note = RunFolder(out, checked_run(run)).read_note()
    if broker is None and note is not None and note.simulated:
        raise RunError(
            "it was simulated: there is no broker where it could go on",
            where=f"run {run}",
            remedy="Simulate it again: the same job, devices, settings and seed give the same run.",
        )
    if broker is None and note is not None and note.own_broker and not _answers(note.broker):
        raise RunError(
            "its broker was an embedded one of its own and ended with it: its records are gone",
            where=f"run {run}",
            remedy="What was saved lies in its folder. For runs that outlive their master: "
            "hermes broker start --kind apache, then --broker HOST:PORT.",
        )
    if broker is None and note is None and not _answers(options.DEFAULT_BROKER):
        raise RunError(
            f"there is no run {run!r}",
            where=str((out / "runs").absolute()),
            remedy="If another machine led it, name its broker: --broker HOST:PORT (hermes runs).",
        )
    return broker or (note.broker if note is not None else options.DEFAULT_BROKER)


def _only(broken: list[str], where: str) -> str:
    if len(broken) == 1:
        return broken[0]
    if not broken:
        raise RunError(
            "no run here was broken off",
            where=where,
            remedy="Name the run: hermes resume RUN (with --broker HOST:PORT, if another machine "
            "led it). See: hermes runs",
        )
    raise RunError(
        f"several runs were broken off: {', '.join(broken)}",
        where=where,
        remedy=f"Say which: hermes resume {broken[0]}",
    )


def _answers(broker: str) -> bool:
    from hermes.runtime.observe import answers

    return answers(broker)


# --- what it goes on with -------------------------------------------------------------------------


def typed(set_: list[str] | None) -> dict[str, Any]:
    """What --set says, but for what the variable has: that was for other runs."""
    from hermes.policy.presets import assignments

    texts = [text for text in set_ or [] if text not in os.environ.get("HERMES_SET", "").split()]
    return dict(assignments(tuple(texts), "--set").values)


def _has_data(going: Going) -> bool:
    from hermes.runtime.going_on import folded

    with connected(going.broker, going.patience) as log:
        try:
            return folded(log, going.run).data is not None
        except RunError:
            return False


def _from_the_start(wishes: Wishes, expect: int) -> MasterOptions:
    """A run whose master ended before its data was sent: the job is needed once more."""
    from hermes.cli.prepare import master_options
    from hermes.runtime.opening import Material

    return master_options(wishes, expect, again=True)._replace(begin=Material)


def _prepared(
    going: Going, asked: dict[str, Any], expect: int, source: JobSource | None = None
) -> MasterOptions:
    """The options of the master that goes on; `source`: the job that was typed, if one was. Raises
    what is wrong with that."""
    from hermes.broker.places import cache_folder
    from hermes.data.cache import BlockCache
    from hermes.runtime import going_on
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.keys import known_key

    folder = RunFolder(going.out, going.run)
    folder.check()
    cache = BlockCache(cache_folder() / "blocks", 1 << 30)
    key = known_key(going.key_file)
    with reached(going) as log:
        known = going_on.known_run(log, folder, cache, key)
        if source is not None:
            going_on.refuse_other_job(known, source)
        ending = going_on.untold(known.state, folder)
        change = going_on.changed(known.state, asked, "--set", expect, ending=ending)
        if not going.take_over:
            going_on.refuse_if_led(log, folder, known.state)
    before = options_of(going, known, folder, key)
    begin = going_on.Continuation(known._replace(change=change), before.job)
    return before._replace(settings=begin.settings(), begin=lambda _options: begin, again=True)


def reached(going: Going) -> KafkaLog:
    """A connection to the run's broker."""
    try:
        return connected(going.broker, going.patience)
    except BrokerUnreachable as error:
        raise BrokerUnreachable(
            error.what,
            where=error.where,
            remedy="The run's records lie at its broker: start that again, with the --kind, --port "
            "and --data that it had, or name it with --broker.",
        ) from None


def options_of(going: Going, known: Known, folder: RunFolder, key: bytes) -> MasterOptions:
    """The options that the master of a known run had, for one in this folder. Raises `JobError`."""
    from hermes.broker.places import cache_folder, state_folder
    from hermes.runtime.master import MasterOptions
    from hermes.runtime.trying import job_of
    from hermes.runtime.watch import OUTAGE

    opened = known.state.opened
    assert opened is not None
    return MasterOptions(
        run=folder.run,
        source=known.source,
        job=job_of(known.source, going.device),
        settings=known.state.settings,
        seed=opened.seed,
        expect=opened.expect,
        key=key,
        folder=folder,
        cache=cache_folder() / "blocks",
        patience=OUTAGE if going.patience is None else going.patience,
        threads=going.threads,
        names=state_folder() / "names",
    )


def led(
    going: Going, prepared: MasterOptions, workers: int, speeds: str | None, *, quiet: bool
) -> dict[str, Any]:
    """Lead the run to its end; with so many worker processes on this machine, as `hermes run` has
    them. Its result."""
    from hermes.cli.prepare import parse_speeds
    from hermes.runtime.keys import default_key_file
    from hermes.runtime.local import LocalOptions

    if not workers:
        return see_through(prepared, going.broker, going.patience, quiet=quiet)
    local = LocalOptions(
        master=prepared._replace(threads=going.threads or 1),
        broker=going.broker,
        workers=workers,
        speeds=parse_speeds(speeds),
        key_file=going.key_file or default_key_file(),
        threads=going.threads or 1,
        patience=going.patience,
        device=going.device,
    )
    return see_through_here(local, quiet=quiet)
