"""How do the scores of batches become those of all samples? As means over samples, in float64."""

from __future__ import annotations

import math

from hermes.errors import Defect
from hermes.train.protocol import Scores


class Tally:
    """Batches that were scored so far."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._metrics: list[float] = []
        self._samples = 0

    def add(self, samples: int, loss: float, metric: float | None) -> None:
        """A batch of so many samples, and its means; None: the job has no metric."""
        self._samples += samples
        self._losses.append(samples * loss)
        if metric is not None:
            self._metrics.append(samples * metric)

    def scores(self) -> Scores:
        """The means over all samples; raises `Defect` where there were none."""
        if self._samples == 0:
            raise Defect("an evaluation without samples")
        loss, metric = _sum(self._losses), _sum(self._metrics) if self._metrics else None
        accuracy = None if metric is None else metric / self._samples
        return Scores(loss / self._samples, accuracy, self._samples, loss, metric)


def _sum(values: list[float]) -> float:
    """`math.fsum`, which raises where infinities meet: then nothing can be said."""
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan
