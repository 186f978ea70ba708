"""Between which phases does a worker move, and why? Seen while schedules of faults run.

The machine itself is run, not read: whoever is told of a move was told by `worker.Hand.become`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from hermes.machine import worker
from hermes.machine.events import LedgerSeen, RoundFinished
from hermes.machine.reading import on_ledger
from hermes.report.machines.source import ENTRY_TYPES
from hermes.simulate.schedules import BRINGING, draw, run

SCHEDULES = 300
"""Schedules that are run: the first so many seeds."""

DUE = "due"
"""Cause of a move that no event brings: what is due was looked at (`worker._go_on`)."""


class Moved(NamedTuple):
    """A worker went from one phase to another."""

    before: str
    cause: str
    """An event, an entry of the ledger, or `DUE`."""
    after: str


def seen(schedules: int = SCHEDULES) -> Counter[Moved]:
    """Every move in these schedules, and how often it was made."""
    found: Counter[Moved] = Counter()
    with _watched(found):
        for seed in range(schedules):
            run(draw(seed))
        for seed in range(BRINGING, BRINGING + schedules // 10):
            run(draw(seed))
    return found


@contextmanager
def _watched(found: Counter[Moved]) -> Iterator[None]:
    plain = worker.Hand

    class Watched(plain):  # type: ignore[valid-type, misc]
        """A hand that tells of its moves."""

        def become(self, **changes: Any) -> None:
            before = self.state.phase
            super().become(**changes)
            if self.state.phase != before:
                found[Moved(before, _cause(sys._getframe(1)), self.state.phase)] += 1

    worker.Hand = Watched  # type: ignore[misc]
    try:
        yield
    finally:
        worker.Hand = plain  # type: ignore[misc]


def _cause(frame: FrameType | None) -> str:
    """Who asked: what is due, else the entry that is being looked at, else the event; with the
    gate's verdict on a round, and whether the ledger lost the reader."""
    while frame is not None:
        if frame.f_code is worker._go_on.__code__:
            return DUE
        entry = frame.f_locals.get("entry")
        if isinstance(entry, ENTRY_TYPES):
            return type(entry).__name__
        if frame.f_code is worker._on_round.__code__:
            verdict = frame.f_locals.get("verdict")  # none where the run has stopped meanwhile
            return f"{RoundFinished.__name__}: {verdict.push if verdict else 'stopped'}"
        if frame.f_code is on_ledger.__code__ and frame.f_locals.get("why"):
            return f"{LedgerSeen.__name__}: astray"
        if frame.f_code is worker.decide.__code__:
            return type(frame.f_locals["event"]).__name__
        frame = frame.f_back
    raise AssertionError("a move outside of decide")
