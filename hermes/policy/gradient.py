"""Has a worker's gradient changed so much that all should meet? SelSync's measure. Pure.

Tyagi & Swany, arXiv 2307.07950: with x the squared norm of the gradient of a round's last step and
e its exponentially weighted mean,

    e := e + smoothing * (x - e)        change = |e - e before| / e before        push iff >= delta

The first x is its own mean. Where the mean before is zero, or there is none, the change is not
defined: it counts as 0, which a delta of 0 is content with. What the source's text cuts off at a
window of 25 steps has a weight of 1.3 % together at its smoothing of 0.16; here nothing is cut off.

A gradient that is not finite is a veto: the step that it made is of no use, and says nothing.
"""

from __future__ import annotations

import math

from hermes.policy.verdict import GateSettings, GateState, Learned, Verdict
from hermes.values import Facts, Reason

MOST = 1e300
"""The most that a change is told as: JSON has no word for infinity."""


def gate(settings: GateSettings, state: GateState, loss: float, learned: Learned) -> Verdict:
    """Push iff the gradient's smoothed norm changed by so much."""
    if not math.isfinite(loss):
        return Verdict("veto", Reason("loss-not-finite", {"loss": str(loss)}), state)
    before, squared = state.smoothed, learned.gradient * learned.gradient
    if not math.isfinite(squared):
        facts: Facts = {"loss": loss, "gradient": str(learned.gradient)}
        return Verdict("veto", Reason("not-finite", facts), state)
    after = before + settings.smoothing * (squared - before) if before else squared
    change = min(abs(after - before) / before, MOST) if before else 0.0
    facts = {"loss": loss, "gradient": learned.gradient, "before": before, "smoothed": after}
    facts |= {"change": change, "delta": settings.delta}
    if change >= settings.delta:
        return Verdict("push", Reason("changed", facts), GateState((), 0, 0.0, after))
    return Verdict("quiet", Reason("steady", facts), GateState((), state.quiet + 1, 0.0, after))
