"""What is told while the cells of a comparison run?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes.compare.cell import Order
    from hermes.compare.outcome import Outcome
    from hermes.compare.pace import Pace
    from hermes.compare.pool import Running

PROGRESS = 10.0
"""Real seconds between two lines of how much is left, at least; ..."""
PART = 0.02
"""... or this part of it, where that is longer: a night's work takes no thousand lines."""
NEARLY = 1.0
"""Seconds left that are not told: nobody knows them so well."""


class Teller:
    """Says how much is left: first as soon as that is known, then as cells end and now and then."""

    def __init__(
        self,
        orders: list[Order],
        done: list[Outcome],
        pace: Pace,
        on: str,
        say: Callable[[str], None],
    ) -> None:
        self._waiting, self._all, self._say = list(orders), len(orders), say
        self._pace, self._through = pace, 0
        self._on, self._due = on, 0.0
        for one in done:
            self._pace.note(one.strategy, one.devices, one.real_seconds)

    def look(self, running: list[Running]) -> None:
        """What is under way."""
        begun = {one.order.path for one in running}
        self._waiting = [one for one in self._waiting if one.path not in begun]
        left = self._pace.left(running, self._waiting)
        if left is None or time.monotonic() < self._due or not (running or self._waiting):
            return
        from hermes.report.words import duration

        self._due = time.monotonic() + max(PROGRESS, PART * left.seconds)
        if left.seconds < NEARLY:  # what ends a cell, such as its last scores, is no part of it
            rest = "nearly through"
        else:
            rest = f"{'at most ' * left.at_most}about {duration(left.seconds)} left"
        self._say(f"{rest}; {self._through} of {self._all} done")

    def ended(self, order: Order, outcome: Outcome | None) -> None:
        """A cell is through."""
        from hermes.compare.score import accuracy_at_end
        from hermes.report.words import duration, score

        self._through += 1
        if outcome is None:
            return
        self._pace.note(order.strategy, order.devices, outcome.real_seconds)
        final = outcome.test_accuracy if self._on == "test" else accuracy_at_end(outcome)
        self._say(
            f"{self._through:4d} of {self._all}  {order.name}: {score(final)} on "
            f"{self._on} at the end ({duration(outcome.real_seconds)})"
        )
