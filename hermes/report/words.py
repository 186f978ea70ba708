"""How are decisions and numbers said to people? Short, with units. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hermes.report.story import Resize
from hermes.values import Facts, Reason

BARS = "▁▂▃▄▅▆▇█"

SHOWN = {
    "first-loss": ("loss",),
    "no-spread": ("loss",),
    "below-threshold": ("z", "threshold", "loss"),
    "above-threshold": ("z", "threshold", "loss"),
    "outlier": ("time", "median", "size"),
    "by-speed": ("speed", "size"),
    "silent": ("silent", "limit"),
    "requested": ("by",),
}
"""Code -> the facts that a short text shows; of other codes, the first three."""


def number(value: float | int | str | bool | None) -> str:
    """A fact's value, four digits at most."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def short(reason: Reason) -> str:
    """A decision in one line: `below-threshold (z -1.52, threshold -1.3)`."""
    keys = SHOWN.get(reason.code, tuple(reason.facts)[:3])
    facts = [f"{key} {number(reason.facts[key])}" for key in keys if key in reason.facts]
    return f"{reason.code} ({', '.join(facts)})" if facts else reason.code


def resize_line(resize: Resize) -> str:
    """`worker-4: 314 -> 32 samples: ...` with the numbers that it came from."""
    change = f"{resize.worker}: {resize.before} -> {resize.after} samples"
    return f"{change}: {_why(resize.reason)}"


def _why(reason: Reason) -> str:
    facts = reason.facts
    if reason.code == "outlier":
        return (
            f"its round took {_seconds(facts, 'time')}, the others' {_seconds(facts, 'q1')} .. "
            f"{_seconds(facts, 'q3')} (Q1 .. Q3), median {_seconds(facts, 'median')}"
        )
    if reason.code == "by-speed":
        return f"{number(facts.get('speed'))} samples/s; all shards together {facts.get('total')}"
    return short(reason)


def _seconds(facts: Facts, key: str) -> str:
    value = facts.get(key)
    return duration(value) if isinstance(value, int | float) else "?"


def duration(seconds: float) -> str:
    """`42 ms`, `3.2 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def size(count: float) -> str:
    """Bytes: `512 B`, `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def count(value: int | None) -> str:
    """A whole number, thousands apart."""
    return "-" if value is None else f"{value:,}".replace(",", " ")


def score(value: float | None) -> str:
    """A loss or accuracy."""
    return "-" if value is None else f"{value:.4f}"


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """The course of a number as a line of blocks; the newest `width` parts of it."""
    if len(values) > width:
        step = len(values) / width
        values = [values[int((index + 1) * step) - 1] for index in range(width)]
    if not values:
        return ""
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    return "".join(BARS[min(7, int((value - low) / spread * 7.999))] for value in values)
