"""What do a user's words mean? A job, settings, a key and a folder; checked before anything is
started."""

from __future__ import annotations

import os
import re
import secrets
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hermes.cli.connect import at_flag
from hermes.cli.trouble import note, warn
from hermes.errors import RunError, SettingError, UsageError

if TYPE_CHECKING:
    from hermes.job import Job
    from hermes.policy.presets import Layer, Settings
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.master import MasterOptions

ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Of a run id's random part: without characters that are mistaken for one another."""


class Wishes(NamedTuple):
    """What was typed for a run."""

    job: str
    args: tuple[str, ...]
    strategy: str | None
    set_: tuple[str, ...]
    seed: int
    out: Path
    run: str | None
    key_file: Path | None
    ask: bool
    device: str | None = None
    conf: tuple[Layer, ...] = ()
    """Settings of a cluster's files; over the job's, under the environment's."""


def master_options(wishes: Wishes, expect: int, *, again: bool = False) -> MasterOptions:
    """The options of a master; `again`: the run's folder may be there. Raises `JobError`,
    `SettingError`, `UsageError`, `RunError`."""
    from hermes.broker.places import cache_folder
    from hermes.jobfile import build, load_source
    from hermes.keras_backend import backend_now
    from hermes.messages import JobSource
    from hermes.runtime.folder import check_place
    from hermes.runtime.keys import cluster_key
    from hermes.runtime.master import MasterOptions

    if expect < 1:
        raise UsageError(
            f"{expect} workers are expected", where="--expect", remedy="At least 1: --expect N"
        )
    source = load_source(wishes.job)
    job = build(source.text, source.name, wishes.args).on(wishes.device)
    settings = settings_of(wishes, job)
    check_expected(expect, settings)
    folder = new_folder(wishes.run or new_run_id(wishes.job), wishes.out, again=again)
    cache = cache_folder() / "blocks"
    check_place(cache, "the cache of blocks cannot be used", "HERMES_CACHE=DIR")
    return MasterOptions(
        run=folder.run,
        source=JobSource(source.name, source.text, wishes.args, backend_now()),
        job=job,
        settings=settings,
        seed=wishes.seed,
        expect=expect,
        key=cluster_key(wishes.key_file),
        folder=folder,
        cache=cache,
        ask=confirm if wishes.ask else None,
    )


def new_folder(run: str, out: Path, *, again: bool = False) -> RunFolder:
    """The folder of a run that is to begin; `again`: it may be there. Makes nothing. Raises
    `UsageError`, `RunError`."""
    from hermes.runtime.folder import RunFolder

    folder = RunFolder(out, check_run_id(run))
    folder.check()
    if folder.path.exists() and not again:
        raise RunError(
            f"there is a run {run!r} already",
            where=str(folder.path),
            remedy="Choose another id with --run, or another folder with --out; to go on with "
            f"it: hermes resume {run}",
        )
    return folder


def check_run_id(run: str) -> str:
    """The id, if a run may be called so. Raises `UsageError`."""
    from hermes.runtime.folder import LATEST
    from hermes.transport.names import checked_run

    with at_flag("--run"):
        checked_run(run)
    if run == LATEST:
        raise UsageError(
            f"{run!r} is no run id: runs/{LATEST} points at the newest run",
            where="--run",
            remedy="Choose another id.",
        )
    return run


def settings_of(wishes: Wishes, job: Job) -> Settings:
    """The settings in force: default, job, environment, flag. Warnings go to stderr."""
    settings, odd = settled(wishes, job)
    for text in odd:
        warn(text)
    return settings


def settled(wishes: Wishes, job: Job) -> tuple[Settings, list[str]]:
    """The settings in force, and what is odd about them. Raises `SettingError`."""
    from hermes.policy.presets import DEFAULT_STRATEGY, resolve, warnings

    layers = [job_layer(job, wishes.job), *wishes.conf, *typed_layers(wishes.set_)]
    settings = resolve(wishes.strategy or DEFAULT_STRATEGY, layers)
    check_metric(settings, job, layers)
    odd = warnings(settings, layers)
    if all(value is None for value in _values(settings.stop)):
        odd.append("no stopping rule is set: the run goes on until it is stopped (hermes stop)")
    return settings, odd


def job_layer(job: Job, name: str) -> Layer:
    """What a job asks for."""
    from hermes.policy.presets import Layer

    return Layer(job.place or name, job.settings(), typed=False)


def typed_layers(set_: tuple[str, ...]) -> tuple[Layer, Layer]:
    """What the environment asks for, then the flags. Raises `SettingError`."""
    from hermes.policy.presets import assignments

    environment = tuple(os.environ.get("HERMES_SET", "").split())
    typed = set_ if set_ != environment else ()  # the parser reads it, too
    return assignments(environment, "HERMES_SET"), assignments(typed, "--set")


def check_metric(settings: Settings, job: Job, layers: list[Layer]) -> None:
    """Raise `SettingError` where the run is to stop by what the job does not measure."""
    if settings.stop.accuracy is not None and job.metric is None:
        said = [layer.where for layer in layers if layer.values.get("stop.accuracy") is not None]
        raise SettingError(
            f"stop.accuracy is {settings.stop.accuracy:g}, and this job measures none: its metric "
            "is None",
            where=said[-1] if said else "",
            remedy='Give the job metric="accuracy", or stop by another rule, such as stop.loss.',
        )


def check_expected(expect: int, settings: Settings) -> None:
    """Raise `SettingError` where more are expected than may take part."""
    if expect > settings.workers.max:
        raise SettingError(
            f"{expect} workers are expected, and workers.max={settings.workers.max} admits fewer: "
            "the run would never start",
            where="workers.max",
            remedy=f"--set workers.max={expect}, or fewer workers.",
        )


def _values(struct: object) -> list[object]:
    return [getattr(struct, name) for name in getattr(struct, "__struct_fields__", ())]


def new_run_id(job: str) -> str:
    """A run id: the job's name, the date and time here, four random characters."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(job).stem.lower()).strip("-")[:24] or "run"
    now = datetime.now(timezone.utc).astimezone()
    return f"{stem}-{now:%m%d-%H%M}-{''.join(secrets.choice(ALPHABET) for _ in range(4))}"


def parse_speeds(text: str | None) -> tuple[float, ...] | None:
    """`1,1,0.5,0.1` as numbers. Raises `UsageError`."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{text!r} is no list of speeds",
            where="--speeds",
            remedy="Numbers with commas between, one a worker: --speeds 1,1,0.5,0.1",
        ) from None


def confirm() -> bool:
    """Ask at the terminal; only a y is a yes."""
    sys.stderr.write("Send model and data to the broker? [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        note("")
    return answer.strip().lower() in ("y", "yes")
