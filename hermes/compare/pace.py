"""How long will the rest take? From cells that are done, and from the share of those under way."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from hermes.compare.cell import Order
from hermes.compare.pool import Running

SURE = 0.03
"""Share of a cell from which on its pace can be told."""


class Pace:
    """Real seconds that cells take."""

    def __init__(self, processes: int, expected: Mapping[str, float] | None = None) -> None:
        """`expected`: seconds of a cell by strategy, before any is known."""
        self._processes = processes
        self._expected = expected or {}
        self._took: dict[tuple[str, str], list[float]] = {}
        """By strategy and devices."""

    def note(self, strategy: str, devices: str, seconds: float) -> None:
        """A cell of this strategy on these devices took so long."""
        self._took.setdefault((strategy, devices), []).append(seconds)

    def left(self, running: Sequence[Running], waiting: Sequence[Order]) -> float | None:
        """Seconds until all are through; None where nothing is known yet."""
        known = {kind: statistics.fmean(times) for kind, times in self._took.items()}
        rest: list[float] = []
        unsure = []
        for one in running:
            kind = (one.order.strategy, one.order.devices)
            if one.part >= SURE:
                whole = one.seconds / one.part
                known.setdefault(kind, whole)
                rest.append(whole - one.seconds)
            else:
                unsure.append((kind, one.seconds))
        if not known and not self._expected:
            return None
        usual = statistics.fmean(known.values() or self._expected.values())
        scale = self._scale(known)

        def whole_of(strategy: str, devices: str) -> float:
            guess = self._expected.get(strategy)
            return known.get((strategy, devices), usual if guess is None else guess * scale)

        rest += [max(0.0, whole_of(*kind) - spent) for kind, spent in unsure]
        later = [whole_of(one.strategy, one.devices) for one in waiting]
        whole = sum(rest) + sum(later)
        return max(whole / self._processes, max([*rest, *later], default=0.0))

    def _scale(self, known: Mapping[tuple[str, str], float]) -> float:
        """How much longer than expected it takes."""
        pairs = [(took, self._expected.get(kind[0])) for kind, took in known.items()]
        sums = [sum(one) for one in zip(*((t, e) for t, e in pairs if e is not None), strict=True)]
        return sums[0] / sums[1] if sums else 1.0
