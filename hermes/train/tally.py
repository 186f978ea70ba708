"""How do the scores of batches become those of all samples? As means over samples, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from hermes.errors import Defect, JobError
from hermes.train.protocol import Scores

Metric: TypeAlias = float | tuple[float, float]
"""Of a batch: its mean; or a sum and what it is to be divided by, both added up over batches."""


class Tally:
    """Batches that were scored so far."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._metrics: list[float] = []
        self._weights: list[float] = []
        self._samples = 0

    def add(self, samples: int, loss: float, metric: Metric | None) -> None:
        """A batch of so many samples, and its scores; None: the job has no metric."""
        self._samples += samples
        self._losses.append(samples * loss)
        if metric is not None:
            sum_, weight = metric if isinstance(metric, tuple) else (samples * metric, samples)
            self._metrics.append(sum_)
            self._weights.append(weight)

    def scores(self) -> Scores:
        """The means over all samples; raises `Defect` where there were none."""
        if self._samples == 0:
            raise Defect("an evaluation without samples")
        loss, metric, value = _sum(self._losses), None, None
        if self._metrics:
            metric, weight = _sum(self._metrics), _sum(self._weights)
            value = metric / weight if weight else math.nan
            if weight != self._samples:  # what is put together with other samples' counts these
                metric = value * self._samples
        return Scores(loss / self._samples, value, self._samples, loss, metric)


def measured(metric: Callable[[Any, Any], Any], outputs: Any, labels: Any) -> Metric:
    """What a job's own metric says of a batch. Raises `JobError` where it is no such thing."""
    found = metric(outputs, labels)
    if not isinstance(found, tuple | list):
        return float(found)
    if len(found) != 2:
        raise JobError(
            f"the metric gave {len(found)} values",
            remedy="It gives the batch's mean, or a pair: a sum and what it is to be divided by, "
            "such as (right among the rare, the rare).",
        )
    return float(found[0]), float(found[1])


def _sum(values: list[float]) -> float:
    """`math.fsum`, which raises where infinities meet: then nothing can be said."""
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan
