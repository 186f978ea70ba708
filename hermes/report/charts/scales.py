"""Where does a number lie on an axis, and which numbers stand at the axis? Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

TIMES = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    180,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
)
"""Steps of an axis of time from a second on, in seconds."""

LOGARITHMIC = 20
"""An axis is logarithmic where its largest number is so many times its smallest."""


class Axis(NamedTuple):
    """What an axis shows, and from where to where."""

    label: str
    unit: str
    """"time" (seconds), "samples", "bytes", "rate" (samples/s) or "score"."""
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where the value lies: 0 at `low`, 1 at `high`."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers, within the axis."""
        steps = _log_ticks if self.log else _ticks
        near = 1e-9 * (self.low if self.log else self.high - self.low)
        return [v for v in steps(self, count) if self.low - near <= v <= self.high + near]

    def text(self, value: float) -> str:
        """A number on this axis, as it stands at a tick."""
        return TICK[self.unit](value)


def axis(
    label: str,
    unit: str,
    values: Sequence[float],
    *,
    zero: bool = False,
    may_be_log: bool = False,
) -> Axis:
    """An axis on which these values lie, with some room; `zero`: it begins there."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if may_be_log and low > 0 and high > LOGARITHMIC * low:
        return Axis(label, unit, low / 1.15, high * 1.15, log=True)
    if zero:
        return Axis(label, unit, 0.0, high if high > 0 else 1.0)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    floor = 0.0 if low >= 0 else -math.inf
    roof = 1.0 if unit == "score" and high <= 1 and label.startswith("accuracy") else math.inf
    return Axis(label, unit, max(low - room, floor), min(high + room, roof))


def _ticks(axis: Axis, count: int) -> list[float]:
    step = _step(axis.unit, (axis.high - axis.low) / max(count, 1))
    first = math.ceil(axis.low / step - 1e-9)
    last = math.floor(axis.high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _step(unit: str, least: float) -> float:
    """The round number at or above `least`."""
    if unit == "time" and least > 1:
        days = max(1, math.ceil(least / 86400)) * 86400
        return next((step for step in TIMES if step >= least), days)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= least * (1 - 1e-9))
    return max(step, 1.0) if unit == "samples" else step


def _log_ticks(axis: Axis, count: int) -> list[float]:
    first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    found: list[float] = []
    for parts, step in (((1, 2, 5), 1), ((1, 3), 1), *(((1,), step) for step in range(1, 99))):
        powers = range(first, last + 1, step)
        found = [10.0**power * part for power in powers for part in parts]
        if sum(axis.low <= value <= axis.high for value in found) <= count + 1:
            break
    return found


# --- in words -----------------------------------------------------------------------------------


def _time(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if seconds < 60:
        return f"{seconds:g} s"
    if seconds < 3600:
        minutes, rest = divmod(seconds, 60)
        return f"{minutes:g} min" if not rest else f"{minutes:g}:{rest:02g} min"
    hours, rest = divmod(seconds, 3600)
    return f"{hours:g} h" if not rest else f"{hours:g}:{rest / 60:02g} h"


def _amount(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def _bytes(value: float) -> str:
    return "0" if value == 0 else f"{_amount(value)}B".replace(" ", "\N{NO-BREAK SPACE}")


TICK: dict[str, Callable[[float], str]] = {
    "time": _time,
    "samples": _amount,
    "bytes": lambda value: _bytes(value) if value >= 1000 or value == 0 else f"{value:g} B",
    "rate": _amount,
    "score": lambda value: f"{value:.6g}",
}
"""Unit -> how a number stands at a tick."""


def rate(value: float) -> str:
    """A speed, as it is said in a sentence or a table."""
    number = f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"
    return f"{number} samples/s"


def in_order(names: Sequence[str]) -> list[str]:
    """Names as people count: worker-2 before worker-10."""
    return sorted(names, key=lambda name: [(int(n or 0), t) for t, n in _PARTS.findall(name)])


_PARTS = re.compile(r"([^0-9]*)([0-9]{0,18})")
