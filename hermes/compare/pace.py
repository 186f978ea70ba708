"""How long will the rest take? From cells that are done, and from the share of those under way.

A cell that ends at a target may do so at any moment: its share is of its limit. Until one of its
kind is through, what is left is told as what it is at most.
"""

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
                if one.order.until is not None:
                    whole = min(whole, known.get(kind, whole))
                known.setdefault(kind, whole)
                rest.append(max(0.0, whole - one.seconds))
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

    def at_most(self, running: Sequence[Running], waiting: Sequence[Order]) -> bool:
        """Whether what is left is a bound: some end at a target, and none like them has ended."""
        orders = [*(one.order for one in running), *waiting]
        open_ended = [one for one in orders if one.until is not None]
        return any(
            (one.strategy, one.devices) not in self._took and one.strategy not in self._expected
            for one in open_ended
        )

    def _scale(self, known: Mapping[tuple[str, str], float]) -> float:
        """How much longer than expected it takes."""
        pairs = [(took, self._expected.get(kind[0])) for kind, took in known.items()]
        sums = [sum(one) for one in zip(*((t, e) for t, e in pairs if e is not None), strict=True)]
        return sums[0] / sums[1] if sums else 1.0
