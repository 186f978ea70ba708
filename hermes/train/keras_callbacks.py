"""Which callbacks of Keras make sense on a worker, and when are they called?

A round is to them what an epoch is to `fit`: numbered from 0, its logs the means over its batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from hermes.blame import blame, call_user, kind_of, place_of
from hermes.errors import JobError
from hermes.job import Job
from hermes.train.keras_checks import has_schedule

SETS_RATE = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)

ELSEWHERE = {
    "EarlyStopping": "Job.stop stops a run: hermes.Stop(patience=...)",
    "TerminateOnNaN": "a version that diverges is refused by the master",
    "ModelCheckpoint": "the run's folder has model.safetensors and best.safetensors",
    "BackupAndRestore": "a run goes on after any crash by itself: hermes resume",
    "TensorBoard": "hermes export --format tensorboard",
    "CSVLogger": "hermes export --format csv",
    "ProgbarLogger": "hermes status --watch",
    "RemoteMonitor": "the broker's topics tell everything as it happens",
    "SwapEMAWeights": "only the weights that are trained travel",
}
"""Callbacks that are a run's, not a worker's, and what does their work."""


class Callbacks:
    """The job's callbacks on this worker."""

    def __init__(self, job: Job, model: Any) -> None:
        made = [] if job.callbacks is None else call_user("callbacks()", job.callbacks)
        where = place_of(job.callbacks) or job.place
        if not isinstance(made, list | tuple):
            raise JobError(
                f"callbacks() gave {kind_of(made)}", where=where, remedy="It gives a list."
            )
        for callback in made:
            _check(callback, where)
            _check_rate(job, model, callback, where)
        self._list: Any = None
        self._where = where
        if made:
            self._list = self._told(keras.callbacks.CallbackList, list(made), model=model)
        self._round = -1
        self._batch = 0
        self._sums: dict[str, float] = {}
        self._samples = 0

    def begin_round(self) -> None:
        """A round begins, and with it the one before has ended."""
        if self._list is None:
            return
        if self._round < 0:
            self._told(self._list.on_train_begin)
        elif self._samples:
            logs = {name: total / self._samples for name, total in self._sums.items()}
            self._told(self._list.on_epoch_end, self._round, logs)
        self._round += 1
        self._batch, self._samples, self._sums = 0, 0, {}
        self._told(self._list.on_epoch_begin, self._round)

    def before_batch(self) -> None:
        """A step is about to be trained; nothing in a trial, before the first round."""
        if self._list is not None and self._round >= 0:
            self._told(self._list.on_train_batch_begin, self._batch)

    def after_batch(self, logs: dict[str, Any], samples: int) -> None:
        """A step was trained on so many samples."""
        if self._list is None or self._round < 0:
            return
        self._told(self._list.on_train_batch_end, self._batch, logs)
        self._batch += 1
        self._samples += samples
        for name, value in logs.items():
            if np.size(value) == 1:
                self._sums[name] = self._sums.get(name, 0.0) + samples * float(value)

    def _told(self, what: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call the callbacks; what they raise becomes a `JobError`."""
        try:
            return what(*args, **named)
        except Exception as error:  # they are the job's own
            raise blame("a callback", error, self._where) from error


def _check_rate(job: Job, model: Any, callback: object, where: str) -> None:
    """Raise `JobError` for one of Keras that sets a rate which something else sets, too."""
    if not isinstance(callback, SETS_RATE):
        return
    other = "Job.schedule" if job.schedule is not None else ""
    if not other and has_schedule(model.optimizer):
        other = "the schedule of the compiled optimizer"
    if other:
        raise JobError(
            f"two set the learning rate: {other}, and the callback {type(callback).__name__}",
            where=where,
            remedy="Leave one of them.",
        )


def _check(callback: object, where: str) -> None:
    if not isinstance(callback, keras.callbacks.Callback):
        raise JobError(
            f"callbacks() gave {kind_of(callback)} among its callbacks",
            where=where,
            remedy="Each is a keras.callbacks.Callback, made.",
        )
    for kind in type(callback).__mro__:
        if kind.__module__.partition(".")[0] == "keras" and kind.__name__ in ELSEWHERE:
            raise JobError(
                f"the callback {kind.__name__} makes no sense on a worker",
                where=where,
                remedy=f"Leave it out: {ELSEWHERE[kind.__name__]}.",
            )
