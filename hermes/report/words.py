"""How are decisions and numbers said to people? Short, with units. Pure."""

from __future__ import annotations

import string
from collections.abc import Sequence

from hermes.report.story import Resize
from hermes.values import Facts, Reason

BARS = "▁▂▃▄▅▆▇█"

SHOWN = {
    "first-loss": ("loss",),
    "no-spread": ("loss",),
    "below-threshold": ("z", "threshold", "loss"),
    "above-threshold": ("z", "threshold", "loss"),
    "drifted": ("score", "threshold", "drift"),
    "little-drift": ("score", "threshold", "drift"),
    "warming": ("score", "drift"),
    "every-round": ("score", "drift"),
    "worse": ("d", "se", "n"),
    "changed": ("change", "delta", "gradient"),
    "steady": ("change", "delta", "gradient"),
    "outlier": ("time", "median", "size"),
    "by-speed": ("speed", "size"),
    "not-quickest": ("quickest", "its", "speed"),
    "too-slow": ("quickest", "its", "speed"),
    "silent": ("silent", "limit"),
    "stuck": ("seconds", "limit"),
    "absurd-norm": ("norm", "limit"),
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


SAID = {
    "open": "pushed",
    "first-loss": "quiet: first loss, {loss}",
    "no-spread": "quiet: no spread in the losses",
    "below-threshold": "pushed: z {z} <= {threshold}",
    "above-threshold": "quiet: z {z} > {threshold}",
    "drifted": "pushed: score {score} >= {threshold}",
    "little-drift": "quiet: score {score} < {threshold}",
    "overdue": "pushed: {rounds} rounds",
    "every-round": "pushed: score {score}, and every round may push",
    "warming": "pushed: score {score}, one of the first",
    "changed": "flagged: change {change} >= {delta}",
    "steady": "quiet: change {change} < {delta}",
    "worse": "vetoed: worse by {d} on the probe, error {se}",
    "loss-not-finite": "vetoed: its loss is {loss}",
    "not-finite": "rejected: {tensor} is not finite",
    "absurd-norm": "rejected: norm {norm}, at most {limit}",
    "from-the-future": "rejected: from version {base}, of {newest}",
    "too-stale": "rejected: {staleness} versions old, {max_staleness} allowed",
    "silent": "lost: silent for {silent} s",
    "stuck": "lost: no progress for {seconds} s",
    "by-speed": "re-sized to {size}: {speed} samples/s",
    "outlier": "re-sized to {size}: round {time} s, median {median} s",
    "zipline": "ends {spread} s apart, at {barrier} s",
    "unmeasured": "{worker} not measured yet",
    "quickest": "trains alone: {speed} samples/s",
    "not-quickest": "waits: {quickest} trains alone, {its} samples/s",
    "too-slow": "rests: {speed} samples/s, {quickest} has {its}",
    "tried-again": "has work again: it is not measured yet",
    "nothing-fits": "re-sized to {size}: nothing fits the median",
    "admitted-again": "admitted again",
    "back": "heard again",
}
"""Code -> a decision about a worker, as a person says it; `{...}` stand for its facts."""


def decided(reason: Reason) -> str:
    """The last decision about a worker: `pushed: z -1.52 <= -1.3`."""
    pattern, facts = SAID.get(reason.code), reason.facts
    if pattern is None or any(name not in facts for name in _names(pattern)):
        return short(reason)
    return pattern.format_map({name: _shorter(facts[name]) for name in _names(pattern)})


def _names(pattern: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]


def _shorter(value: float | int | str | bool | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else number(value)


def counted(count_: int, noun: str) -> str:
    """`1 worker`, `2 workers`, `1 200 samples`."""
    return f"{count(count_)} {noun}" if count_ == 1 else f"{count(count_)} {noun}s"


def listed(names: Sequence[str], most: int = 3) -> str:
    """`worker-1, worker-2 and worker-3`; of many the first: `worker-1, worker-2 and 5 more`."""
    shown = list(names) if len(names) <= most else [*names[: most - 1]]
    rest = len(names) - len(shown)
    shown += [f"{rest} more"] if rest else []
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


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


def age(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `2 h`: how long ago, or for how long, in six places."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


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


def sparkline(values: Sequence[float], width: int = 24, *, zero: bool = False) -> str:
    """The course of a number as a line of blocks; the newest `width` parts of it. `zero`: amounts
    are drawn from 0 on, and not from the smallest."""
    if len(values) > width:
        step = len(values) / width
        values = [values[int((index + 1) * step) - 1] for index in range(width)]
    if not values:
        return ""
    low, high = 0.0 if zero else min(values), max(values)
    spread = (high - low) or 1.0
    return "".join(BARS[min(7, int((value - low) / spread * 7.999))] for value in values)
