"""How is a job checked? As a master and a worker would begin, step by step; a mistake ends its own
step, and those that need what it would have given, and no other."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from hermes import codec
from hermes.blame import place_of
from hermes.checkup import elsewhere, memory, warnings
from hermes.checkup.costs import encoded_of, links_of, topics_of, upload_of
from hermes.checkup.elsewhere import Work
from hermes.checkup.facts import (
    Checkup,
    DataFacts,
    LearningFacts,
    LinkFacts,
    MemoryFacts,
    Mistake,
    ModelFacts,
    TimeFacts,
    TopicFacts,
)
from hermes.checkup.look import data_facts, learning_facts, model_facts, moved_only, time_facts
from hermes.data.blocks import encode_block
from hermes.data.prepare import Prepared
from hermes.errors import JobError, RunFailed, UsageError
from hermes.job import Job
from hermes.jobfile import check_travels
from hermes.leavings import check_leavings
from hermes.messages import JobSource
from hermes.policy.presets import Settings
from hermes.runtime.trying import (
    Trial,
    a_batch,
    difference,
    doubts,
    fit_trials,
    fresh_trainer,
    model_trials,
    prepared_data,
    shapes_of,
)
from hermes.train import Trainer
from hermes.train.fit import check_round_end, check_schedule

ALONE = (
    "A worker has nothing but the text of the job file: what data() or an earlier call has left, "
    "and files beside it, are not there."
)

WITH_WORKERS = (
    "the job gives no data (data=None): whether the workers' samples fit the model, and what a "
    "round costs, cannot be told here; each worker tries its own before it trains"
)

Result = TypeVar("Result")
Telling = Callable[[str], AbstractContextManager[object]]
"""Given what is done now; entered while it lasts."""


class Plan(NamedTuple):
    """What is to be checked: a job that was built, and the run that it is checked for."""

    source: JobSource
    job: Job
    settings: Settings
    seed: int
    workers: int
    device: str | None
    threads: int


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.mistakes: list[Mistake] = []
        self.warnings: list[str] = []
        self.model: ModelFacts | None = None
        self.data: DataFacts | None = None
        self.learning: LearningFacts | None = None
        self.time: TimeFacts | None = None
        self.memory: MemoryFacts | None = None
        self.topics: TopicFacts | None = None
        self.links: tuple[LinkFacts, ...] = ()

    def attempt(self, stage: str, function: Callable[[], Result]) -> Result | None:
        """What the function gives; None, and a mistake noted, where it raises `UsageError`."""
        try:
            return function()
        except UsageError as error:
            self.note(stage, error)
            return None

    def note(self, stage: str, error: UsageError) -> None:
        """A mistake; the same one twice is one."""
        found = Mistake(stage, error.what, error.where, error.remedy)
        if not any((one.what, one.where) == (found.what, found.where) for one in self.mistakes):
            self.mistakes.append(found)

    def checkup(self, job: str, strategy: str, workers: int, seed: int) -> Checkup:
        """All of it."""
        return Checkup(
            job=job,
            ok=not self.mistakes,
            mistakes=tuple(self.mistakes),
            warnings=tuple(self.warnings),
            strategy=strategy,
            workers=workers,
            seed=seed,
            seconds=round(time.monotonic() - self.started, 3),
            model=self.model,
            data=self.data,
            learning=self.learning,
            time=self.time,
            memory=self.memory,
            topics=self.topics,
            links=self.links,
        )


class Examination:
    """One check of a job that could be built."""

    def __init__(self, plan: Plan, found: Findings, telling: Telling) -> None:
        """What is found goes into `found`."""
        self._plan, self._found, self._telling = plan, found, telling
        self._prepared: Prepared | None = None
        self._central: Prepared | None = None
        """The master's own sets, where workers bring their data."""
        self._trainer: Trainer | None = None
        self._sound = True
        """Whether model and data fit: only then is there something to measure."""
        self._alone = True
        """Whether it stands alone, as far as its text tells."""
        self._known: frozenset[str] = frozenset()

    def run(self) -> None:
        """All steps. Raises `HermesError` for what is no mistake of the job's, such as a full
        disk."""
        source = self._plan.source
        leavings = partial(check_leavings, self._plan.job, source.text, source.name)
        self._alone &= self._try("worker", Trial("what data() leaves", leavings))
        self._look_at_data()
        self._known = frozenset(sys.modules)  # among them what data() alone needs
        before = memory.now()
        self._build()
        self._fit()
        self._doubt()
        worker = self._as_a_worker() if self._trainer is not None and self._alone else None
        if self._prepared is None or self._trainer is None or not self._sound:
            return
        self._found.attempt("fit", partial(self._measure, self._prepared, self._trainer))
        self._remember(self._prepared, before, worker)

    def _try(self, stage: str, trial: Trial) -> bool:
        """Whether it went well; else the mistake is noted."""
        count = len(self._found.mistakes)
        self._found.attempt(stage, trial.run)
        return len(self._found.mistakes) == count

    # --- steps ----------------------------------------------------------------------------------

    def _look_at_data(self) -> None:
        plan, found = self._plan, self._found
        if plan.job.data is None:
            self._central = found.attempt("data", self._prepare)
            found.warnings.append(WITH_WORKERS)
            return
        with self._telling("calling data(), and looking at all of it"):
            self._prepared = found.attempt("data", self._prepare)
            if self._prepared is None:
                return
            found.data = data_facts(self._prepared)
        found.warnings += self._prepared.oddities()
        found.warnings += warnings.of_data(found.data, plan.job.batch)

    def _prepare(self) -> Prepared:
        plan, place = self._plan, Path(tempfile.gettempdir())
        try:
            return prepared_data(plan.job, plan.settings, plan.seed, plan.workers, place)
        except RunFailed as error:
            remedy = error.remedy.replace("set another folder with --out", "set TMPDIR")
            raise RunFailed(error.what, where=error.where, remedy=remedy) from None

    def _build(self) -> None:
        plan, found = self._plan, self._found
        with self._telling("building the model"):
            self._trainer = found.attempt("model", lambda: fresh_trainer(plan.job, plan.seed))
            if self._trainer is None:
                return
            self._trainer.use_threads(plan.threads)
            for trial in model_trials(plan.job, plan.seed, self._trainer):
                self._sound &= self._try("model", trial)
            found.model = model_facts(self._trainer)

    def _fit(self) -> None:
        """A mistake in the schedule hides none of the model's."""
        prepared = self._prepared or self._central
        if prepared is None or self._trainer is None:
            return
        job = self._plan.job
        with self._telling("training one step, and evaluating"):
            if not self._try("fit", Trial("schedule", partial(check_schedule, job))):
                self._sound, job = False, replace(job, schedule=None)
            for trial in (*fit_trials(job, prepared, self._trainer), *self._round_end(prepared)):
                if not self._try("fit", trial):
                    self._sound = False
                    return

    def _round_end(self, prepared: Prepared) -> Iterator[Trial]:
        """Callbacks are called there that no step calls."""
        job, seed = self._plan.job, self._plan.seed
        batch = a_batch(prepared, job)
        if job.callbacks is not None and batch is not None:
            yield Trial("a round's end", lambda: check_round_end(fresh_trainer(job, seed), batch))

    def _doubt(self) -> None:
        """What will be regretted, and what does not travel."""
        plan, prepared = self._plan, self._prepared or self._central
        if self._trainer is None:
            return
        batch = None if prepared is None else a_batch(prepared, plan.job)
        self._found.warnings += doubts(self._trainer, batch, thorough=True)
        travels = partial(check_travels, plan.source.text, plan.source.name, self._known)
        self._alone &= self._try("worker", Trial("modules", travels))

    def _as_a_worker(self) -> int | None:
        """Bytes of memory that a worker takes."""
        plan, found, trainer = self._plan, self._found, self._trainer
        assert trainer is not None
        work = Work(plan.seed, plan.device, plan.threads, None, None, None)
        if self._prepared is not None and self._sound:
            batch = self._prepared.first(plan.job.batch)
            work.batch = codec.encode_tensors(dict(zip("xy", batch, strict=True)))
            work.block = encode_block(*self._prepared.first(self._prepared.block, "probe"))
            work.weights = codec.encode_tensors(trainer.weights())
        with self._telling("doing a worker's work, in a process of its own"):
            answer = found.attempt("worker", lambda: elsewhere.tried(plan.source, work))
        if answer is None:
            return None
        other = answer.shapes and difference(shapes_of(trainer.weights()), answer.shapes)
        if other:
            text = f"a worker builds another model than the master: there {other}"
            found.note("worker", JobError(text, where=place_of(plan.job.model), remedy=ALONE))
        elif answer.what:
            text = f"a worker cannot do it: {answer.what}"
            found.note("worker", JobError(text, where=answer.where, remedy=ALONE))
        elif answer.only_here:
            found.warnings.append(
                f"workers on other machines cannot do it, only those in this folder can: "
                f"{answer.only_here}. {ALONE}"
            )
        self._sound &= not answer.what and not other
        return answer.peak

    # --- numbers --------------------------------------------------------------------------------

    def _measure(self, prepared: Prepared, trainer: Trainer) -> None:
        plan, found = self._plan, self._found
        assert found.data is not None
        assert found.model is not None
        batch = prepared.first(plan.job.batch)
        with self._telling("training a few steps on one batch"):
            again = fresh_trainer(plan.job, plan.seed)
            again.load(trainer.weights())
            learning = learning_facts(plan.job, again, batch, found.data.classes)
            del again
        with self._telling("measuring steps and evaluations"):
            measured = time_facts(plan.job, plan.settings, prepared, trainer, plan.threads)
        with self._telling("counting bytes"):
            upload = upload_of(plan.source, prepared)
            encoded = encoded_of(trainer.weights(), plan.settings, trainer.buffers())
        topics = topics_of(upload, encoded, plan.settings, measured, plan.job.batch, plan.workers)
        links = links_of(topics, measured, upload.first_download(found.data))
        found.learning, found.time, found.topics, found.links = learning, measured, topics, links
        found.model = moved_only(found.model, trainer, learning.unmoved)
        found.warnings += warnings.of_learning(learning)
        found.warnings += warnings.of_time(measured, plan.settings)
        found.warnings += warnings.of_gate(plan.settings, measured)
        found.warnings += warnings.of_topics(topics, links)

    def _remember(self, prepared: Prepared, before: int | None, worker: int | None) -> None:
        """Memory, asked for last: then this process has done all that it does."""
        found = self._found
        assert found.model is not None
        block = prepared.block * prepared.bytes_each
        grant = prepared.first_size * prepared.bytes_each
        found.memory = memory.memory_facts(before, found.model.bytes, block, worker, grant)
        if found.memory is not None:
            found.warnings += warnings.of_memory(found.memory, self._plan.workers)
