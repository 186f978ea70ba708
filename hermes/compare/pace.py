"""How long will the rest take? From cells that are done, and from the share of those under way."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from hermes.compare.cell import Order
from hermes.compare.pool import Running

SURE = 0.03
"""Share of a cell from which on its pace can be told."""


class Pace:
    """Real seconds that cells take."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
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
        if not known:
            return None
        usual = statistics.fmean(known.values())
        rest += [max(0.0, known.get(kind, usual) - spent) for kind, spent in unsure]
        later = [known.get((one.strategy, one.devices), usual) for one in waiting]
        whole = sum(rest) + sum(later)
        return max(whole / self._processes, max([*rest, *later], default=0.0))
