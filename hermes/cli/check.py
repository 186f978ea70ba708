"""`hermes check`: the job alone, before anything is started: what a user runs first."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from hermes.cli import options
from hermes.cli.prepare import Wishes, settled
from hermes.cli.trouble import USAGE, note, say_error, warn

if TYPE_CHECKING:
    from hermes.checkup.examine import Findings
    from hermes.checkup.facts import Checkup
    from hermes.job import Job
    from hermes.policy.presets import Settings

WORKERS = 4
"""As many as `hermes run` starts by default."""

SLOW = 1.0
"""Seconds after which a person is told what is being done."""


def check(
    job: options.Job,
    args: options.Args = None,
    workers: options.Workers = None,
    strategy: options.Strategy = None,
    set_: options.Set = None,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    device: options.Device = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Try a job without a broker: model, data, one step, and what a run of it would cost.

    Does what a master and a worker do before a run, and goes on after a mistake, so that one call
    shows them all. Exit code 2 with any mistake.
    """
    threads = options.limit_threads(threads) or 1
    from hermes.checkup.examine import Findings

    wishes = Wishes(
        job, tuple(args or ()), strategy, tuple(set_ or ()), seed, Path(), None, None, False, device
    )
    found = Findings()
    asked = Asked(wishes, WORKERS if workers is None else workers, threads)
    with contextlib.redirect_stdout(sys.stderr):  # what the job itself prints is no result
        used = _examine(asked, found, quiet=quiet or json_)
    result = found.checkup(job, used, asked.workers, seed)
    if json_:
        import msgspec

        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        sys.stdout.flush()
    else:
        _show(result)
    if not result.ok:
        raise typer.Exit(USAGE)


class Asked(NamedTuple):
    """What was typed."""

    wishes: Wishes
    workers: int
    threads: int


def _examine(asked: Asked, found: Findings, *, quiet: bool) -> str:
    """Check all that can be checked; the strategy's name."""
    from hermes.checkup.examine import Examination, Plan
    from hermes.jobfile import build, load_source
    from hermes.keras_backend import backend_now
    from hermes.messages import JobSource
    from hermes.policy.presets import DEFAULT_STRATEGY

    wishes = asked.wishes
    device = found.attempt("device", lambda: options.checked_device(wishes.device))
    found.attempt("settings", lambda: _check_workers(asked.workers))
    source = found.attempt("job", lambda: load_source(wishes.job))
    telling = _silent if quiet else _telling
    job = None
    if source is not None:
        with telling("reading the job"):
            job = found.attempt(
                "job", lambda: build(source.text, source.name, wishes.args).on(device)
            )
    settings = _settings(wishes, job, found)
    if source is not None and job is not None and asked.workers > 0:
        travels = JobSource(source.name, source.text, wishes.args, backend_now())
        plan = Plan(travels, job, settings, wishes.seed, asked.workers, device, asked.threads)
        Examination(plan, found, telling).run()
    return settings.strategy if job is not None else wishes.strategy or DEFAULT_STRATEGY


def _check_workers(workers: int) -> None:
    from hermes.errors import UsageError

    if workers < 1:
        raise UsageError(f"{workers} workers", where="--workers", remedy="At least 1: --workers N")


def _settings(wishes: Wishes, job: Job | None, found: Findings) -> Settings:
    """Those in force, as far as they are sound: of the others each is told, and left out."""
    from hermes.errors import UsageError
    from hermes.policy.presets import Settings

    if job is None:
        return Settings()
    try:
        settings, odd = settled(wishes, job)
    except UsageError as error:
        wishes = _without_mistakes(wishes, job, found)
        try:
            settings, odd = settled(wishes, job)
        except UsageError as left:  # they do not go together, or are the job's own
            found.note("settings", error)
            found.note("settings", left)
            return Settings()
    found.warnings += odd
    return settings


def _without_mistakes(wishes: Wishes, job: Job, found: Findings) -> Wishes:
    """What was typed, each setting tried alone."""

    def sound(alone: Wishes) -> bool:
        count = len(found.mistakes)
        found.attempt("settings", lambda: settled(alone, job))
        return len(found.mistakes) == count

    if not sound(wishes._replace(set_=())):
        wishes = wishes._replace(strategy=None)
    good = [text for text in wishes.set_ if sound(wishes._replace(set_=(text,)))]
    return wishes._replace(set_=tuple(good))


# --- what is seen -------------------------------------------------------------------------------


@contextlib.contextmanager
def _silent(doing: str) -> Iterator[None]:
    del doing
    yield


@contextlib.contextmanager
def _telling(doing: str) -> Iterator[None]:
    """On a terminal while it lasts; else a line, where it takes long."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(f"{doing} ..."):
            yield
        return
    timer = threading.Timer(SLOW, note, (f"{doing} ...",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _show(checkup: Checkup) -> None:
    """Facts on stdout; the verdict, first and last, and warnings and mistakes on stderr."""
    from hermes.checkup.view import view
    from hermes.report.tables import output

    below = ", told below" if checkup.mistakes or checkup.warnings else ""
    note(f"{checkup.job}: {_verdict(checkup)}{below}")
    output().print(view(checkup), soft_wrap=True)
    sys.stdout.flush()
    note("")
    for text in checkup.warnings:
        warn(text)
    for mistake in checkup.mistakes:
        say_error(str(mistake))
    note(f"checked in {checkup.seconds:.1f} s: {_verdict(checkup)}")


def _verdict(checkup: Checkup) -> str:
    mistakes, odd = len(checkup.mistakes), len(checkup.warnings)
    told = f"{odd} warning{'s' * (odd != 1)}"
    if checkup.ok:
        return f"no mistake, {told}"
    return f"{mistakes} mistake{'s' * (mistakes != 1)}, {told}"
