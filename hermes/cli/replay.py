"""`hermes replay`: do the same machines, with real training, do again what a run recorded?"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hermes.cli import options
from hermes.cli.verify import Opened, RunOrPath, opened_run
from hermes.errors import CheckFailed, RunError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hermes.replay.run import Progress, Replayed


def replay(
    run: RunOrPath = None,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    key_file: options.KeyFile = None,
    threads: options.Threads = None,
    device: options.Device = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a run again from its ledger, its job and its data, and compare every bit.

    Given are how long rounds took, when workers acted and who was heard; each gate's verdict, each
    update, version and decision has to come out the same. Takes the run's data, and no other of its
    tensors. Runs the job's code. Exit code 5, with the first difference, where there is one.
    """
    options.checked_device(device)
    options.limit_threads(threads)
    from hermes.cli.train import job_talks_aside
    from hermes.replay.run import replay as replay_
    from hermes.runtime.keys import known_key
    from hermes.runtime.sources import training

    began = time.monotonic()
    with (
        job_talks_aside(),
        _progress(quiet or json_) as told,
        opened_run(run, out, broker, lambda _what, _done, _total: None) as opened,
        _real(opened),
        training(opened.source, known_key(key_file), device, threads or 1) as material,
    ):
        found = replay_(opened.source, material, told)
    seconds = time.monotonic() - began
    if json_:
        sys.stdout.write(json.dumps(as_json(found, seconds)) + "\n")
        sys.stdout.flush()
    elif quiet:
        typer.echo(summary(found))
    else:
        from hermes.report.tables import output

        output().print(page(found, seconds), soft_wrap=True)
    if found.finding is not None:
        raise CheckFailed(
            f"what was done again is not what is recorded; first:\n  {found.finding.text}",
            where=f"run {found.run}",
            remedy="Other versions of Hermes or of the framework, another processor or --threads "
            "round otherwise. Where none of that is so: hermes verify, and report it.",
        )


@contextlib.contextmanager
def _real(opened: Opened) -> Iterator[None]:
    """Refuses a run that was simulated: nobody's key has signed its job."""
    note = opened.folder.read_note() if opened.folder is not None else None
    if note is not None and note.simulated:
        raise RunError(
            "it was simulated, and its job is not signed: there is nothing that a replay may run",
            where=f"run {opened.source.called}",
            remedy="Simulate it again: the same job, devices, settings and seed give the same "
            "ledger_digest in result.json. What was recorded: hermes verify.",
        )
    yield


def summary(found: Replayed) -> str:
    """`the same, bit for bit: 120 rounds, 40 versions, 160 payloads`."""
    from hermes.report.words import counted

    head = "the same, bit for bit" if found.finding is None else "the same up to a difference"
    done = counted(found.rounds, "round"), counted(found.versions, "version")
    return f"{head}: {', '.join(done)}, {counted(found.payloads, 'payload')}"


def page(found: Replayed, seconds: float) -> RenderableType:
    """What it shows."""
    from rich.console import Group
    from rich.text import Text

    from hermes.report.tables import fact_lines
    from hermes.report.words import count, counted

    decided = ", ".join(f"{kind} {count(n)}" for kind, n in found.decided.most_common())
    given = ", ".join(f"{kind} {count(n)}" for kind, n in found.given.most_common())
    lines = {
        "run": found.run,
        "trained": f"{counted(found.rounds, 'round')} of {counted(found.workers, 'worker')}, "
        f"{counted(found.steps, 'step')}, in {seconds:.1f} s",
        "decided": f"{counted(found.records, 'record')}: {decided}",
        "given": given or "nothing beside what was heard, and how long it took",
        "payloads": f"{count(found.payloads)} have the digest that the ledger names",
        "digest": found.digest,
    }
    if found.foreign:
        lines["taken as they lie"] = counted(found.foreign, "update")
    style = "green" if found.finding is None else "red"
    return Group(*fact_lines(lines), Text(), Text(summary(found), style=style))


def as_json(found: Replayed, seconds: float) -> dict[str, Any]:
    """All of it."""
    told = found._asdict()
    finding = found.finding
    return {
        **told,
        "same": finding is None,
        "finding": None if finding is None else {**finding._asdict(), "text": finding.text},
        "seconds": round(seconds, 3),
    }


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A bar on stderr, for a person."""
    if quiet or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("replaying rounds", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)
