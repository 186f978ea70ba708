"""How many steps does each worker take before the next barrier? ZipLine's choice. Pure.

ElasticBSP (Zhao et al., ICDM 2019; arXiv 2001.01347): of each worker the next R ends of an interval
are predicted from its latest one, and one end is taken of each, so that the first and the last of
those taken lie as near each other as can be: there the barrier stands, and nobody waits long at it.
A worker's quota is how many intervals lie before its end. Of several choices that are as good the
earliest is taken.

Our reading: all begin a superstep together, on the version of the barrier before, so that an end is
`apart + i * interval` from there, where `apart` is what the worker's tensors take to come and go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hermes.values import Facts, Reason, Superstep


class Runner(NamedTuple):
    """What was measured of a worker; `interval` is None before its first round."""

    worker: str
    interval: float | None
    """Seconds of one unit of work: of `round.steps` optimiser steps; above 0."""
    apart: float = 0.0
    """Seconds that its tensors were under way, once each superstep."""


class _End(NamedTuple):
    """A predicted end; sorted by time, then by the order of the workers."""

    time: float
    place: int
    quota: int


def superstep(runners: Sequence[Runner], lookahead: int) -> Superstep:
    """The quotas of these workers, each 1 .. `lookahead`; all 1 ("unmeasured": one step each, as
    under bsp) until every one of them has finished a round."""
    facts: Facts = {"lookahead": lookahead, "workers": len(runners)}
    new = [runner.worker for runner in runners if runner.interval is None]
    if new or not runners:
        if new:
            facts["worker"] = new[0]
        quotas = dict.fromkeys((runner.worker for runner in runners), 1)
        return Superstep(quotas, Reason("unmeasured", facts))
    chosen = nearest(_ends(runners, lookahead), len(runners))
    times = [end.time for end in chosen]
    facts |= {"barrier": max(times), "spread": max(times) - min(times)}
    quotas = {r.worker: end.quota for r, end in zip(runners, chosen, strict=True)}
    return Superstep(quotas, Reason("zipline", facts))


def _ends(runners: Sequence[Runner], lookahead: int) -> list[_End]:
    return sorted(
        _End(runner.apart + quota * (runner.interval or 0.0), place, quota)
        for place, runner in enumerate(runners)
        for quota in range(1, lookahead + 1)
    )


def nearest(ends: Sequence[_End], workers: int) -> list[_End]:
    """One end of each worker, in their order, of the least spread; `ends` in order of time.

    One sweep: behind it each worker's latest end is kept, and the oldest of those is where a window
    begins that is moved on as soon as its first end is no longer its worker's latest.
    """
    latest: dict[int, _End] = {}
    best: list[_End] = []
    least, first = 0.0, 0
    for end in ends:
        latest[end.place] = end
        while latest[ends[first].place] is not ends[first]:
            first += 1
        if len(latest) == workers and (not best or end.time - ends[first].time < least):
            least, best = end.time - ends[first].time, [latest[i] for i in range(workers)]
    return best
