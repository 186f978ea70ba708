"""How long will the rest take? From cells that are done, and from the share of those under way.

A cell that ends at a target may do so at any moment: its share is that of its limit, which is all
that is known of it until one like it has ended.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
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
    expected: dict[Kind, float]
    """Seconds by what was expected, where none has ended."""

    @property
    def usual(self) -> float | None:
        """Seconds of a cell of a kind of which nothing is known; None where nothing is at all."""
        numbers = next((part.values() for part in self if part), None)
        return None if numbers is None else statistics.fmean(numbers)

    def whole(self, kind: Kind, usual: float) -> Left:
        """Of a cell of which nothing is seen."""
        for part in (self.took, self.expected):
            if kind in part:
                return Left(part[kind])
        return Left(self.limits.get(kind, usual), kind in self.limits)

    def rest(self, one: Running, usual: float) -> Left:
        """Of one under way: what it shows of itself, or what others like it took."""
        if one.part < SURE:
            whole = self.whole(_kind(one.order), usual)
            return Left(max(0.0, whole.seconds - one.seconds), whole.at_most)
        limit = _whole(one)
        if one.order.until is None:
            return Left(limit - one.seconds)
        whole = self.whole(_kind(one.order), usual)
        if whole.seconds <= one.seconds:  # it takes longer than those before it
            return Left(limit - one.seconds, at_most=True)
        return Left(min(whole.seconds, limit) - one.seconds, whole.at_most)


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
        kinds = {_kind(order) for order in (*(one.order for one in running), *waiting)}
        known = self._known(running, kinds)
        usual = known.usual
        if usual is None:
            return None
        rest = [known.rest(one, usual) for one in running]
        rest += [known.whole(_kind(one), usual) for one in waiting]
        guessed = any(not any(kind in part for part in known) for kind in kinds)
        seconds = [one.seconds for one in rest]
        return Left(
            max(sum(seconds) / self._processes, max(seconds, default=0.0)),
            any(one.at_most for one in rest) and not guessed,
        )

    def _known(self, running: Sequence[Running], kinds: Collection[Kind]) -> _Known:
        took = {kind: statistics.fmean(times) for kind, times in self._took.items()}
        limits: dict[Kind, float] = {}
        for one in running:
            kind = _kind(one.order)
            if kind in self._took or one.part < SURE:
                continue
            seen = took if one.order.until is None else limits
            seen[kind] = max(seen.get(kind, 0.0), _whole(one))
        scale, expected = self._scale(took), self._expected
        scaled = {kind: expected[kind[0]] * scale for kind in kinds if kind[0] in expected}
        return _Known(took, limits, scaled)

    def _scale(self, took: Mapping[Kind, float]) -> float:
        """How much longer than expected it takes."""
        pairs = [
            (t, self._expected[kind[0]]) for kind, t in took.items() if kind[0] in self._expected
        ]
        return sum(t for t, _ in pairs) / sum(e for _, e in pairs) if pairs else 1.0


def _whole(one: Running) -> float:
    """Seconds of one under way at its pace, to its limit."""
    return one.setup + (one.seconds - one.setup) / one.part


def _kind(order: Order) -> Kind:
    return order.strategy, order.devices
