"""What is a run scored by, and how is that said? Loss, and the metric under its name. Pure."""

from __future__ import annotations

from hermes.messages import DataPublished
from hermes.report.words import score

ACCURACY = "accuracy"

NAMES = {"": ACCURACY, "custom": "metric"}
"""What `DataPublished.metric` is called; all else by its own name."""


def metric_of(data: DataPublished | None) -> str:
    """What the run's metric is called: "accuracy"; "metric" where it is a function of the job's."""
    name = "" if data is None else data.metric
    return NAMES.get(name, name)


def is_measured(loss: float | None, value: float | None) -> bool:
    """False where there is a loss and no metric: then the job has none."""
    return value is not None or loss is None


def in_words(loss: float | None, value: float | None, metric: str, between: str = ", ") -> str:
    """`loss 0.2340, accuracy 0.9510`; the loss alone where there is no metric."""
    text = f"loss {score(loss)}"
    return f"{text}{between}{metric} {score(value)}" if is_measured(loss, value) else text
