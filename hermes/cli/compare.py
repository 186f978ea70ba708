"""`hermes compare`: strategies x devices x seeds, simulated, to one target."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.trouble import INTERRUPTED, note, say_error, warn

if TYPE_CHECKING:
    from hermes.compare.cell import Order
    from hermes.compare.matrix import Cell, Matrix
    from hermes.compare.outcome import Outcome
    from hermes.compare.page import Told
    from hermes.compare.pool import Running
    from hermes.job import Job
    from hermes.messages import JobSource

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.json", show_default=False, help="As conf/compare/digits.json: what to run."
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        envvar="HERMES_PROCESSES",
        metavar="N",
        min=0,
        show_default="as many as there are cores",
        help="Cells that run at once, each with one thread.",
    ),
]

PROGRESS = 10.0
"""Real seconds between two lines of how much is left."""

SHORT = 4
"""Exit code where cells have failed."""


def compare(
    file: File,
    processes: Processes = 0,
    out: options.Out = Path(),
    device: options.Device = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare strategies on simulated devices: time, bytes, samples and pushes to a target.

    Cells that are there already are not run again. Ctrl-C ends it; the same command goes on.
    Writes compare.json, compare.csv and compare.html.
    """
    options.checked_device(device)
    options.limit_threads(1)
    from hermes.cli.train import job_talks_aside
    from hermes.compare.matrix import load_matrix
    from hermes.runtime.folder import check_place

    matrix = load_matrix(file)
    folder = (out / "compare" / matrix.name).absolute()
    check_place(folder / "cells", "the comparison's folder cannot be made", "--out DIR")
    with job_talks_aside():
        cells, source = _checked(matrix, device)
    work = Work(matrix, cells, source, device, folder, quiet=quiet)
    work.run(processes or _cores())
    result = work.conclude()
    if json_:
        sys.stdout.write(json.dumps(result) + "\n")
    elif not quiet:
        _show(work.told(), result)
    if work.interrupted:
        _say_how_to_go_on(work, file, out)
        raise typer.Exit(INTERRUPTED)
    if work.failed:
        say_error(f"{len(work.failed)} of {len(cells)} cells failed; the same command tries again")
        raise typer.Exit(SHORT)


def _cores() -> int:
    from hermes.simulate.search import cores

    return cores()


def _say_how_to_go_on(work: Work, file: Path, out: Path) -> None:
    where = f" --out {out}" if out != Path() else ""
    note(
        f"{len(work.outcomes)} of {len(work.cells)} cells are done. "
        f"To go on: hermes compare {file}{where}"
    )


# --- before anything is run -----------------------------------------------------------------------


def _checked(matrix: Matrix, device: str | None) -> tuple[list[Cell], JobSource]:
    """All cells, tried as far as can be without running them. Raises `JobError`, `SettingError`,
    `UsageError`."""
    from hermes.compare.matrix import cells_of
    from hermes.jobfile import build, load_source
    from hermes.messages import JobSource
    from hermes.policy.presets import Layer

    read = load_source(matrix.job)
    job = build(read.text, read.name, matrix.args).on(device)
    _check_metric(matrix, job)
    # What a job says of its own end counts for nothing here.
    said = {key: value for key, value in job.settings().items() if not key.startswith("stop.")}
    cells, odd = cells_of(matrix, Layer(job.place or str(matrix.job), said, typed=False))
    for text in odd:
        warn(text)
    with tempfile.TemporaryDirectory(prefix="hermes-compare-") as work:
        _try(job, cells, Path(work))
    return cells, JobSource(matrix.job_name, read.text, matrix.args)


def _check_metric(matrix: Matrix, job: Job) -> None:
    from hermes.errors import SettingError

    if job.metric is None:
        raise SettingError(
            f"it is {matrix.target:g}, and this job measures none: its metric is None",
            where=f"{matrix.file}: target.accuracy",
            remedy='Give the job metric="accuracy".',
        )


def _try(job: Job, cells: list[Cell], work: Path) -> None:
    """The job's model and data with the first cell, and the devices' memory with all of them."""
    from hermes.cli.simulate import tried
    from hermes.policy.allocate import first_size
    from hermes.runtime.trying import fresh_trainer
    from hermes.simulate.devices import check_memory

    first = cells[0]
    prepared = tried(job, first.settings, first.seed, first.loaded, work)
    model = sum(t.nbytes for t in fresh_trainer(job, first.seed).weights().values())
    for cell in cells:
        expected, train = len(cell.loaded.world.devices), prepared.samples["train"]
        shard = first_size(cell.settings.size, train, expected) * prepared.bytes_each
        check_memory(cell.loaded, model, shard)


# --- the cells ------------------------------------------------------------------------------------


class Work:
    """A comparison, from what is there of it to its end."""

    def __init__(
        self,
        matrix: Matrix,
        cells: list[Cell],
        source: JobSource,
        device: str | None,
        folder: Path,
        *,
        quiet: bool,
    ) -> None:
        from hermes.compare.cell import order_of
        from hermes.compare.outcome import read_outcome

        self.matrix, self.cells, self.folder = matrix, cells, folder
        self.outcomes: list[Outcome] = []
        self.failed: list[tuple[str, str]] = []
        self.interrupted = False
        self._quiet, self._source = quiet, source
        self._orders: list[Order] = []
        """Of what is still to be run."""
        self._reused: list[Outcome] = []
        for cell in cells:
            path = folder / "cells" / f"{cell.key}.json"
            order = order_of(cell, source, matrix.job, device, path)
            known = read_outcome(path, order.digest())
            if known is None:
                self._orders.append(order)
            else:
                self._reused.append(known)
        self.outcomes += self._reused

    def run(self, processes: int) -> None:
        """What is missing, over so many processes; told as it goes."""
        from hermes.compare.pool import run_all
        from hermes.runtime.interrupt import on_interrupt

        self._make_folder()
        self._say_what_is_there()
        wanted: list[bool] = []
        teller = Teller(self._orders, self._reused, processes, self._say)
        ends = run_all(self._orders, processes, lambda: bool(wanted), teller.look)
        with on_interrupt(lambda: wanted.append(True)), contextlib.closing(ends):
            for ended in ends:
                self._take(ended.order, ended.error)
                teller.ended(ended.order, None if ended.error else self.outcomes[-1])
        self.interrupted = bool(wanted)

    def _take(self, order: Order, error: str) -> None:
        from hermes.compare.outcome import read_outcome

        path = Path(order.path)
        known = None if error else read_outcome(path, order.digest())
        if known is None:
            said = error or "its outcome cannot be read"
            self.failed.append((path.stem, said))
            say_error(f"cell {path.stem}: {said}")
            return
        self.outcomes.append(known)
        if known.status == "failed":
            warn(f"cell {path.stem}: the run ended short ({known.reason}); what it reached counts")

    def _make_folder(self) -> None:
        from hermes.errors import UsageError

        try:
            (self.folder / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the comparison's folder cannot be made: {error.strerror or error}",
                where=str(self.folder),
                remedy="Choose another place with --out DIR.",
            ) from None

    def _say_what_is_there(self) -> None:
        from hermes.compare.cell import code_digest
        from hermes.report.words import counted

        there = f", {len(self._reused)} are there already" if self._reused else ""
        self._say(f"{self.matrix.name}: {counted(len(self.cells), 'cell')}{there}")
        now = code_digest()
        other = sum(one.code != now for one in self._reused)
        if other:
            warn(
                f"{counted(other, 'cell')} that are there were run by another state of Hermes's "
                f"source, of the same version; to run them again, remove {self.folder / 'cells'}"
            )

    def _say(self, text: str) -> None:
        if not self._quiet:
            note(text)

    # --- what comes of it -------------------------------------------------------------------------

    def told(self) -> Told:
        """What a person is told."""
        from hermes.compare.page import Told
        from hermes.compare.score import rows
        from hermes.report import words
        from hermes.runtime.logs import utc_now

        matrix, limit = self.matrix, self.matrix.limit
        limits = [words.counted(limit.samples, "sample")] if limit.samples else []
        limits += [f"{limit.seconds:g} s of virtual time"] if limit.seconds else []
        names = (list(matrix.contenders), list(matrix.worlds))
        worlds = iter(matrix.worlds.values())
        return Told(
            matrix.name,
            self._source.name,
            matrix.target,
            matrix.baseline,
            " or ".join(limits),
            next(worlds).world.evaluate_seconds,
            matrix.seeds,
            rows(self.outcomes, *names, matrix.baseline, matrix.target),
            self.failed,
            len(self.cells),
            utc_now(),
        )

    def conclude(self) -> dict[str, Any]:
        """Write compare.json, compare.csv and compare.html; the first of them."""
        from hermes.compare.page import page

        known = self.told()
        paths = {kind: str(self.folder / f"compare.{kind}") for kind in ("json", "csv", "html")}
        result = self._result(known) | {"paths": paths}
        self._write("compare.json", json.dumps(result, indent=2, allow_nan=False))
        self._write("compare.csv", _csv(self._table()))
        self._write("compare.html", page(known))
        return result

    def _result(self, known: Told) -> dict[str, Any]:
        from importlib.metadata import version

        from hermes.compare.page import claim
        from hermes.compare.score import ENOUGH, told

        worlds = self.matrix.worlds.items()
        return {
            "name": self.matrix.name,
            "file": {"file": self.matrix.file, "digest": self.matrix.digest},
            "job": self._source.name,
            "args": list(self.matrix.args),
            "devices": {name: {"file": w.file, "digest": w.digest} for name, w in worlds},
            "hermes": version("hermes-edge"),
            "target": {"test_accuracy": known.target},
            "grid": known.grid,
            "limit": {
                "samples": self.matrix.limit.samples,
                "seconds": self.matrix.limit.seconds,
            },
            "baseline": known.baseline,
            "seeds": list(known.seeds),
            "interval_claimed": len(known.seeds) >= ENOUGH,
            "claim": claim(len(known.seeds)),
            "complete": len(self.outcomes) == len(self.cells),
            "written": known.written,
            "strategies": [told(row) for row in known.rows],
            "cells": list(self._table()),
            "failed": [{"cell": cell, "error": error} for cell, error in self.failed],
        }

    def _table(self) -> Iterable[dict[str, Any]]:
        """One row a cell, in the order of the matrix."""
        from hermes.compare.score import MEASURES, plain, reached

        known = {(o.strategy, o.devices, o.seed): o for o in self.outcomes}
        for cell in self.cells:
            outcome = known.get((cell.strategy, cell.devices, cell.seed))
            if outcome is None:
                continue
            got = reached(outcome, self.matrix.target)
            yield {
                "strategy": cell.strategy,
                "devices": cell.devices,
                "seed": cell.seed,
                "reached": got.ever,
                **{f"{m}_to_target": plain(getattr(got, m)) for m in MEASURES},
                "status": outcome.status,
                "reason": outcome.reason,
                "test_accuracy_at_end": outcome.test_accuracy,
                "seconds": outcome.seconds,
                "samples": outcome.samples,
                "trained": outcome.trained,
                "pushes": outcome.pushes,
                "version": outcome.version,
                "training_seconds": round(outcome.spent.training, 3),
                "transfer_seconds": round(outcome.spent.transfer, 3),
                "waiting_seconds": round(outcome.spent.waiting, 3),
                "model_digest": outcome.model_digest,
                "ledger_digest": outcome.ledger_digest,
                "real_seconds": outcome.real_seconds,
            }

    def _write(self, name: str, text: str) -> None:
        from hermes.errors import RunFailed
        from hermes.runtime.at_once import write_at_once

        try:
            write_at_once(self.folder / name, text.encode("utf-8", "replace"))
        except OSError as error:
            raise RunFailed(
                f"this file cannot be written: {error.strerror or error}",
                where=str(self.folder / name),
                remedy="Make room there, or choose another place with --out DIR.",
            ) from None


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    """What is infinite is empty."""
    known, text = list(rows), io.StringIO()
    writer = csv.DictWriter(text, list(known[0]) if known else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(known)
    return text.getvalue()


class Teller:
    """Says how much is left: first as soon as that is known, then as cells end and now and then."""

    def __init__(self, orders: list[Order], done: list[Outcome], processes: int, say: Any) -> None:
        from hermes.compare.pace import Pace

        self._waiting, self._all, self._say = list(orders), len(orders), say
        self._pace, self._through = Pace(processes), 0
        self._due = 0.0
        for one in done:
            self._pace.note(one.strategy, one.devices, one.real_seconds)

    def look(self, running: list[Running]) -> None:
        """What is under way."""
        begun = {one.order.path for one in running}
        self._waiting = [one for one in self._waiting if one.path not in begun]
        left = self._pace.left(running, self._waiting)
        if left is None or time.monotonic() < self._due or not running:
            return
        from hermes.report.words import duration

        self._due = time.monotonic() + PROGRESS
        self._say(f"about {duration(left)} left; {self._through} of {self._all} done")

    def ended(self, order: Order, outcome: Outcome | None) -> None:
        """A cell is through."""
        from hermes.report.words import duration, score

        self._through += 1
        if outcome is None:
            return
        self._pace.note(order.strategy, order.devices, outcome.real_seconds)
        self._say(
            f"{self._through:4d} of {self._all}  {Path(order.path).stem}: "
            f"{score(outcome.test_accuracy)} on test at the end ({duration(outcome.real_seconds)})"
        )


# --- the end --------------------------------------------------------------------------------------


def _show(told: Told, result: dict[str, Any]) -> None:
    from hermes.compare.page import claim, table
    from hermes.report.tables import output, plain_table

    console = output()
    for devices in dict.fromkeys(row.devices for row in told.rows):
        known = table([row for row in told.rows if row.devices == devices])
        shown = plain_table(*known.columns)
        for row in known.rows:
            shown.add_row(*row)
        console.print(f"{devices}, to {told.target:g} on test", style="bold")
        console.print(shown, soft_wrap=True)
    console.print(f"Ratios: {told.baseline}'s number / a strategy's own, paired by seed.")
    console.print(claim(len(told.seeds)))
    console.print(result["paths"]["html"], soft_wrap=True)
