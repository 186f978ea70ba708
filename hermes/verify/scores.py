"""Are the losses that were recorded those of the models? Measured again, where that is asked for.

A loss comes of a reduction: it is compared to 1e-6, relative (protocol 11), never bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from hermes.train.protocol import Scores
from hermes.values import Tensors
from hermes.verify.findings import Finding

Judge: TypeAlias = Callable[[Tensors, str], Scores]
"""Loss and metric of a model on a split ("validation" or "test")."""

CLOSE = 1e-6


class Recorded(NamedTuple):
    """What the ledger says of a model on a split; None: not finite, or no metric."""

    offset: int
    what: str
    split: str
    loss: float | None
    accuracy: float | None = None
    has_accuracy: bool = False
    """Whether `accuracy` was recorded at all."""


class Measured:
    """Measures again."""

    def __init__(self, judge: Judge | None) -> None:
        self.count = 0
        """Scores that were compared."""
        self.found: list[Finding] = []
        self._judge = judge
        self._last: tuple[str, str, Scores] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything is measured."""
        return self._judge is not None

    def compare(self, recorded: Recorded, model: Tensors, digest: str) -> None:
        """Measure this model, which has this digest."""
        if self._judge is None:
            return
        if self._last is None or self._last[:2] != (digest, recorded.split):
            self._last = (digest, recorded.split, self._judge(model, recorded.split))
        scores = self._last[2]
        self._same(recorded, "loss", recorded.loss, scores.loss)
        if recorded.has_accuracy:
            self._same(recorded, "accuracy", recorded.accuracy, scores.accuracy)

    def _same(self, recorded: Recorded, name: str, said: float | None, found: float | None) -> None:
        self.count += 1
        if alike(said, found):
            return
        says = f"{name} {said} on {recorded.split} is recorded"
        finding = Finding("scores", recorded.offset, recorded.what, says, f"measured: {found}")
        self.found.append(finding)


def alike(said: float | None, found: float | None) -> bool:
    """Whether these are one score; what is not finite is recorded as None."""
    if found is not None and not math.isfinite(found):
        found = None
    if said is None or found is None:
        return said is found
    return math.isclose(said, found, rel_tol=CLOSE, abs_tol=CLOSE * CLOSE)
