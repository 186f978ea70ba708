"""How long will the rest take? From cells that are done, and from the share of those under way.

A cell that ends at a target may do so at any moment: its share is that of its limit, which is all
that is known of it until one like it has ended.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from hermes.compare.cell import Order
from hermes.compare.pool import Running

SURE = 0.03
"""Share of a cell from which on its pace can be told."""

Kind: TypeAlias = tuple[str, str]
"""Cells of one take about as long: the strategy, and the devices."""


class Left(NamedTuple):
    """What is not done yet."""

    seconds: float
    """Real ones."""
    at_most: bool = False
    """Whether some of it is what limits allow: it may well be less."""


class _Known(NamedTuple):
    """What can be said of a kind."""

    took: dict[Kind, float]
    """Seconds: the mean of those that have ended, or told by one under way that ends at its
    limit."""
    limits: dict[Kind, float]
    """Seconds at most: told by those under way that end at a target, where none has ended."""


class Pace:
    """Real seconds that cells take."""

    def __init__(self, processes: int, expected: Mapping[str, float] | None = None) -> None:
        """`expected`: seconds of a cell by strategy, before any is known."""
        self._processes = processes
        self._expected = expected or {}
        self._took: dict[Kind, list[float]] = {}

    def note(self, strategy: str, devices: str, seconds: float) -> None:
        """A cell of this strategy on these devices took so long."""
        self._took.setdefault((strategy, devices), []).append(seconds)

    def left(self, running: Sequence[Running], waiting: Sequence[Order]) -> Left | None:
        """Until all are through; None where nothing is known yet."""
        known = self._known(running)
        numbers = [*known.took.values()] or [*known.limits.values()] or [*self._expected.values()]
        if not numbers:
            return None
        usual, scale = statistics.fmean(numbers), self._scale(known.took)
        at_most = False

        def whole_of(kind: Kind) -> float:
            """Seconds of a cell of which nothing is seen."""
            nonlocal at_most
            if kind in known.took:
                return known.took[kind]
            if kind[0] in self._expected:
                return self._expected[kind[0]] * scale
            at_most = at_most or kind in known.limits
            return known.limits.get(kind, usual)

        def rest_of(one: Running) -> float:
            """Seconds of one under way: what it shows of itself, or what others like it took."""
            nonlocal at_most
            kind, sure = _kind(one.order), one.part >= SURE
            limit = one.seconds / one.part if sure else float("inf")
            if sure and one.order.until is None:
                return limit - one.seconds
            whole = whole_of(kind)
            if whole <= one.seconds and sure:  # it takes longer than those before it
                at_most = True
                return limit - one.seconds
            return max(0.0, min(whole, limit) - one.seconds)

        rest = [rest_of(one) for one in running]
        later = [whole_of(_kind(one)) for one in waiting]
        whole = sum(rest) + sum(later)
        seconds = max(whole / self._processes, max([*rest, *later], default=0.0))
        return Left(seconds, at_most and not self._guessed(running, waiting, known))

    def _known(self, running: Sequence[Running]) -> _Known:
        took = {kind: statistics.fmean(times) for kind, times in self._took.items()}
        limits: dict[Kind, float] = {}
        for one in running:
            kind = _kind(one.order)
            if kind in self._took or one.part < SURE:
                continue
            seen = took if one.order.until is None else limits
            seen[kind] = max(seen.get(kind, 0.0), one.seconds / one.part)
        return _Known(took, limits)

    def _guessed(self, running: Sequence[Running], waiting: Sequence[Order], known: _Known) -> bool:
        """Whether some are of a kind of which nothing is known."""
        kinds = {_kind(order) for order in (*(one.order for one in running), *waiting)}
        return any(
            kind not in known.took and kind not in known.limits and kind[0] not in self._expected
            for kind in kinds
        )

    def _scale(self, took: Mapping[Kind, float]) -> float:
        """How much longer than expected it takes."""
        pairs = [(seconds, self._expected.get(kind[0])) for kind, seconds in took.items()]
        sums = [sum(one) for one in zip(*((t, e) for t, e in pairs if e is not None), strict=True)]
        return sums[0] / sums[1] if sums else 1.0


def _kind(order: Order) -> Kind:
    return order.strategy, order.devices
