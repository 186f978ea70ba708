"""Which workers are so slow that they are better left out? Pure.

What a worker adds is its part of all measured speed; what it costs does not shrink with that: a
model there and back for each version, on links that others need, and one more update to average
with. So the best time may be that of the quickest alone (Tyurin and Richtarik, arXiv 2305.12387:
the optimum is over the m quickest of n workers). Whoever is left out has no shard, is not waited
for, and stands by: it is back where those that are quicker slow down, or are lost.
"""

from __future__ import annotations

from collections.abc import Mapping

from hermes.values import Facts, Reason

TOO_SLOW = "too-slow"
"""Why a worker has no work."""

TRIED_AGAIN = "tried-again"
"""Why one that had none has some: it is another process, of which nothing is known."""

TRIED = 3
"""Rounds that are measured before a worker may be left out: the first of a device is often slow."""

BACK = 1.1
"""How many times the least speed a worker that rests must have to be back, at most as fast as the
quickest: its speed is that of its last rounds, and the quickest's goes up and down with its
jitter."""


def resting(
    slowest: float | None, speeds: Mapping[str, float | None], working: Mapping[str, bool]
) -> dict[str, Reason]:
    """Who has no work, and why. `speeds`: samples a second of those alive, None as long as too
    little is measured (they have some); `working`: whether they have work now; `slowest`: the share
    of the quickest's speed from which on a worker has work, None: all do."""
    known = {name: speed for name, speed in speeds.items() if speed is not None}
    if slowest is None or not known:
        return {}
    quickest = min(known, key=lambda name: (-known[name], name))
    found = {}
    for name, speed in known.items():
        share = slowest if working[name] else min(1.0, slowest * BACK)
        if speed < share * known[quickest]:
            facts: Facts = {"speed": speed, "quickest": quickest, "its": known[quickest]}
            found[name] = Reason(TOO_SLOW, {**facts, "slowest": slowest})
    return found
