"""`hermes simulate`: a run under virtual time, with real training, on the devices of a file."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.trouble import interrupted_with, note, warn

if TYPE_CHECKING:
    from hermes.cli.prepare import Wishes
    from hermes.cli.simulated import SimulatedFolder
    from hermes.data.prepare import Prepared
    from hermes.job import Job
    from hermes.policy.presets import Settings
    from hermes.runtime.folder import RunFolder
    from hermes.simulate.devices import Loaded
    from hermes.simulate.driver import Driver
    from hermes.simulate.modelled import ModelledRun

Devices = Annotated[
    Path,
    typer.Option(
        "--devices",
        envvar="HERMES_DEVICES",
        metavar="FILE",
        show_default=False,
        help="Devices and links, as in conf/devices/edge12.json.",
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        envvar="HERMES_SIMULATE_ONLY",
        metavar="fastest|NAME",
        show_default="all of them",
        help="One device alone, as a floor to compare with.",
    ),
]
Processes = Annotated[
    int,
    options.number_of(
        "HERMES_SIMULATE_PROCESSES",
        0,
        "one for each core, where that is quicker",
        "Processes that train, ahead of virtual time; 1: this one. The result is the same.",
    ),
]
KeepLog = Annotated[
    bool,
    typer.Option(
        "--keep-log",
        envvar="HERMES_SIMULATE_KEEP_LOG",
        help="Keep all topics, tensors too, in runs/<run>/topics: for hermes verify.",
    ),
]

PROGRESS = 3.0
"""Real seconds between two lines of progress."""


def simulate(
    job: options.Job,
    devices: Devices,
    args: options.Args = None,
    only: Only = None,
    strategy: options.Strategy = None,
    set_: options.Set = None,
    seed: options.Seed = 0,
    out: options.Out = Path(),
    run: options.RunId = None,
    threads: options.Threads = None,
    device: options.Device = None,
    processes: Processes = 0,
    keep_log: KeepLog = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a job under virtual time: the same decisions, real training, modelled devices.

    Needs no broker. The same job, file, settings and seed give the same ledger and model, bit for
    bit. The first Ctrl-C stops the run and writes its results, the second leaves at once.
    """
    options.checked_device(device)
    options.limit_threads(threads)
    from hermes.cli.prepare import Wishes
    from hermes.cli.train import conclude, job_talks_aside
    from hermes.simulate.devices import load

    loaded = load(devices)
    wishes = Wishes(
        job, tuple(args or ()), strategy, tuple(set_ or ()), seed, out, run, None, False, device
    )
    made: list[RunFolder] = []
    with interrupted_with(lambda: _left(made)):
        with job_talks_aside(), tempfile.TemporaryDirectory(prefix="hermes-simulate-") as work:
            folder, modelled = _prepared(wishes, loaded, only, threads or 1, Path(work))
            crew = processes or _processes(modelled)
            with contextlib.closing(modelled):
                driver = modelled.driver(crew)
                made.append(folder)
                result = _see_through(folder, modelled, driver, keep_log=keep_log, quiet=quiet)
        conclude(folder, result, json_=json_, quiet=quiet)


def _left(made: list[RunFolder]) -> str:
    """What Ctrl-C has left of it, where it did not end with its results."""
    if not made or not made[0].path.exists():
        return "interrupted: nothing was run"
    return f"interrupted: what there is of the run, some of it unfinished, lies in {made[0].path}"


# --- before anything is run -----------------------------------------------------------------------


def _prepared(
    wishes: Wishes, loaded: Loaded, only: str | None, threads: int, work: Path
) -> tuple[RunFolder, ModelledRun]:
    """All that a run needs, tried. Raises `JobError`, `SettingError`, `UsageError`, `RunError`."""
    from hermes.cli.prepare import check_expected, new_folder, new_run_id, settings_of
    from hermes.jobfile import build, load_source
    from hermes.keras_backend import backend_now
    from hermes.messages import JobSource
    from hermes.simulate.devices import taking_part
    from hermes.simulate.modelled import ModelledRun

    source = load_source(wishes.job)
    job = build(source.text, source.name, wishes.args).on(wishes.device)
    settings = settings_of(wishes, job)
    loaded = taking_part(loaded, settings.strategy, only)
    check_expected(len(loaded.world.devices), settings)
    folder = new_folder(wishes.run or new_run_id(wishes.job), wishes.out)
    made = ModelledRun(job, settings, wishes.seed, work, loaded)
    made.source = JobSource(source.name, source.text, wishes.args, backend_now())
    made.threads = threads
    if settings.data.resident:
        prepared, parts = made.divided()
        most = min(prepared.first_size, max(part.size for part in parts.values()))
        _fit(job, wishes.seed, loaded, prepared, most)
    else:
        made.prepared = tried(job, settings, wishes.seed, loaded, work)
    return folder, made


def tried(job: Job, settings: Settings, seed: int, loaded: Loaded, work: Path) -> Prepared:
    """The job's data, once model and data were seen to fit each other, and the devices."""
    from hermes.runtime.trying import prepared_data

    prepared = prepared_data(job, settings, seed, len(loaded.world.devices), work)
    _fit(job, seed, loaded, prepared, prepared.first_size)
    return prepared


def _fit(job: Job, seed: int, loaded: Loaded, prepared: Prepared, shard: int) -> None:
    """See that model, data and devices fit each other; `shard`: samples of the first."""
    from hermes.runtime.trying import fit_trials, fresh_trainer, model_trials
    from hermes.simulate.devices import check_memory

    trainer = fresh_trainer(job, seed)
    for trial in model_trials(job, seed, trainer):
        trial.run()
    model = sum(tensor.nbytes for tensor in trainer.weights().values())
    check_memory(loaded, model, shard * prepared.bytes_each)
    for trial in fit_trials(job, prepared, trainer):
        trial.run()
    for oddity in prepared.oddities():
        warn(oddity)


def _processes(run: ModelledRun) -> int:
    """How many train: each core has one, unless the training is soon done, or is not the CPU's.
    What is measured here decides how long the run takes, and nothing else."""
    from hermes.simulate.search import cores
    from hermes.simulate.worth import quicker

    if run.settings.data.resident:
        return 1
    many = min(cores(), len(run.loaded.world.devices))
    return many if many > 1 and quicker(run) else 1


# --- the run --------------------------------------------------------------------------------------


def _see_through(
    folder: RunFolder, modelled: ModelledRun, driver: Driver, *, keep_log: bool, quiet: bool
) -> dict[str, Any]:
    """Drive it to its end; its result."""
    from hermes.cli.simulated import SimulatedFolder
    from hermes.runtime.interrupt import on_interrupt
    from hermes.simulate.modelled import drive

    with contextlib.closing(SimulatedFolder(folder, modelled, driver, warn)) as written:
        wanted: list[bool] = []
        with on_interrupt(lambda: wanted.append(True)):
            stopped_at = drive(driver, wanted, _teller(written, quiet=quiet))
            result = written.conclude(stopped_at)
            if keep_log:
                _keep(driver, folder, result)
    return result


def _teller(written: SimulatedFolder, *, quiet: bool) -> Callable[[], None]:
    """Prints a line of progress now and then."""
    from hermes.cli.lines import progress_line

    due = time.monotonic() + PROGRESS

    def tell() -> None:
        nonlocal due
        if quiet or time.monotonic() < due:
            return
        due = time.monotonic() + PROGRESS
        state = written.state
        note(f"{progress_line(state, state.time)}  ({written.real_seconds:.0f} s here)")

    return tell


def _keep(driver: Driver, folder: RunFolder, result: dict[str, Any]) -> None:
    """All topics, as files."""
    from importlib.metadata import version

    from hermes.runtime.exported import export_log
    from hermes.runtime.results import rewrite
    from hermes.simulate.local import RUN

    done = export_log(driver.log, RUN, folder.topics, version("hermes-edge"))
    result["paths"]["topics"] = str(done.folder)
    rewrite(folder, result)
