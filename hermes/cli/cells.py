"""How are the cells of a comparison checked, and run?"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hermes.cli.trouble import note, say_error, warn
from hermes.errors import JobError

if TYPE_CHECKING:
    from hermes.compare.cell import Order
    from hermes.compare.matrix import Cell, Matrix
    from hermes.compare.outcome import Outcome
    from hermes.job import Job
    from hermes.messages import JobSource

# --- before anything is run -----------------------------------------------------------------------


def checked(matrix: Matrix, device: str | None) -> tuple[list[Cell], JobSource]:
    """All cells, tried as far as can be without running them. Raises `JobError`, `SettingError`,
    `UsageError`."""
    from hermes.compare.matrix import cells_of
    from hermes.jobfile import build, load_source
    from hermes.keras_backend import backend_now
    from hermes.messages import JobSource
    from hermes.policy.presets import Layer

    _check_granted(matrix)
    try:
        read = load_source(matrix.job)
    except JobError as error:
        raise JobError(
            f"{error.where}: {error.what}", where=f"{matrix.file}: job", remedy=error.remedy
        ) from None
    jobs: dict[tuple[str, ...], Job] = {}
    layers: dict[tuple[str, ...], Layer] = {}
    for name in matrix.contenders:
        args = matrix.args_of(name)
        if args in jobs:
            continue
        with _blaming(matrix, name):
            job = jobs[args] = build(read.text, read.name, args).on(device)
        _check_job(matrix, job)
        # What a job says of its own end counts for nothing here.
        said = {key: value for key, value in job.settings().items() if not key.startswith("stop.")}
        layers[args] = Layer(job.place or str(matrix.job), said, typed=False)
    cells, odd = cells_of(matrix, layers)
    for text in odd:
        warn(text)
    with tempfile.TemporaryDirectory(prefix="hermes-compare-") as work:
        _try(matrix, jobs, cells, Path(work))
    return cells, JobSource(matrix.job_name, read.text, matrix.args, backend_now())


@contextlib.contextmanager
def _blaming(matrix: Matrix, name: str) -> Iterator[None]:
    """Says with which arguments the job failed, and where they stand."""
    try:
        yield
    except JobError as error:
        keys = [f"{matrix.place(name)}.args"] if matrix.contenders[name].args else []
        keys += ["args"] if matrix.args else []
        if not keys:
            raise
        place = f" ({error.where})" if error.where else ""
        raise JobError(
            f"with {' '.join(matrix.args_of(name))}: {error.what}{place}",
            where=f"{matrix.file}: {' and '.join(keys)}",
            remedy=error.remedy,
        ) from error


def _check_granted(matrix: Matrix) -> None:
    """No cell may leave the data with its workers: a comparison has none to give each of them."""
    from hermes.errors import SettingError

    said = {f"{matrix.place(name)}.set": one.set for name, one in matrix.contenders.items()}
    for key, values in {"set": matrix.common, **said}.items():
        if values.get("data.resident") is True:
            raise SettingError(
                "data.resident is set, and the cells of a comparison grant their data",
                where=f"{matrix.file}: {key}",
                remedy="Leave it out; hermes simulate divides a job's data among its devices.",
            )


def _check_job(matrix: Matrix, job: Job) -> None:
    from hermes.errors import SettingError

    if job.data is None:
        raise JobError(
            "this job has no data of its own (data=None), and the cells of a comparison grant it",
            where=f"{matrix.file}: job",
            remedy="Give it data, which the cells grant and score by.",
        )
    if job.metric is None:
        raise SettingError(
            f"it is {matrix.target:g}, and this job measures none: its metric is None",
            where=f"{matrix.file}: target.accuracy",
            remedy='Give the job metric="accuracy".',
        )


def _try(
    matrix: Matrix, jobs: Mapping[tuple[str, ...], Job], cells: list[Cell], work: Path
) -> None:
    """The job's model and data with the first cell; model, optimiser and the devices' memory with
    all of them."""
    from hermes.cli.simulate import tried
    from hermes.policy.allocate import first_size
    from hermes.runtime.trying import fresh_trainer
    from hermes.simulate.devices import check_memory

    first = cells[0]
    with _blaming(matrix, first.strategy):
        prepared = tried(jobs[first.args], first.settings, first.seed, first.loaded, work)
    models: dict[tuple[str, ...], int] = {}
    for cell in cells:
        if cell.args not in models:
            with _blaming(matrix, cell.strategy):
                trainer = fresh_trainer(jobs[cell.args], cell.seed)
            models[cell.args] = sum(t.nbytes for t in trainer.weights().values())
        expected, train = len(cell.loaded.world.devices), prepared.samples["train"]
        shard = first_size(cell.settings.size, train, expected) * prepared.bytes_each
        check_memory(cell.loaded, models[cell.args], shard)


# --- running them ---------------------------------------------------------------------------------


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
        self.on = "test"
        """Which accuracy is told as cells end."""
        self._quiet, self.source = quiet, source
        self._orders: list[Order] = []
        """Of what is still to be run."""
        self._reused: list[Outcome] = []
        for cell in cells:
            order = order_of(cell, source, matrix.job, device, folder / "cells")
            known = read_outcome(Path(order.path), order.digest())
            if known is None:
                self._orders.append(order)
            else:
                self._reused.append(known)
        self.outcomes += self._reused

    def run(self, processes: int, expected: Mapping[str, float] | None = None) -> None:
        """What is missing, over so many processes; told as it goes. `expected`: seconds of a cell
        by strategy, to tell how long it takes before anything is known."""
        from hermes.cli.teller import Teller
        from hermes.compare.pace import Pace
        from hermes.compare.pool import run_all
        from hermes.runtime.interrupt import on_interrupt

        self._make_folder()
        self._say_what_is_there()
        wanted: list[bool] = []
        pace = Pace(processes, expected)
        teller = Teller(self._orders, self._reused, pace, self.on, self._say)
        teller.look([])
        ends = run_all(self._orders, processes, lambda: bool(wanted), teller.look)
        with on_interrupt(lambda: wanted.append(True)), contextlib.closing(ends):
            for ended in ends:
                self._take(ended.order, ended.error)
                teller.ended(ended.order, None if ended.error else self.outcomes[-1])
        self.interrupted = bool(wanted)

    def _take(self, order: Order, error: str) -> None:
        from hermes.compare.outcome import read_outcome

        known = None if error else read_outcome(Path(order.path), order.digest())
        if known is None:
            said = error or (
                "its outcome cannot be read, or is of another state of Hermes's source: was that "
                "changed meanwhile?"
            )
            self.failed.append((order.name, said))
            say_error(f"cell {order.name}: {said}")
            return
        self.outcomes.append(known)
        if known.status == "failed":
            warn(f"cell {order.name}: the run ended short ({known.reason}); what it reached counts")

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

        count = len(self._reused)
        there = f", {count} {'is' if count == 1 else 'are'} there already" if count else ""
        self._say(f"{self.matrix.name}: {counted(len(self.cells), 'cell')}{there}")
        now = code_digest()
        other = sum(one.code != now for one in self._reused)
        if other:
            warn(
                f"of those, {other} by another state of Hermes's source, of the same version; to "
                f"run them again, remove {self.folder / 'cells'}"
            )

    def _say(self, text: str) -> None:
        if not self._quiet:
            note(text)
