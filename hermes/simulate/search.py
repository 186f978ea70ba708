"""How do many schedules go? Over all cores, in the order of their seeds, up to the first that
breaks.

Also the search for a schedule that breaks without a rule. The processes are ours: they are gone
when the search is, however it ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

from hermes.simulate.driver import Driver
from hermes.simulate.failing import BREAKS, Failure, failure_of
from hermes.simulate.schedules import Schedule, draw, run
from hermes.simulate.shrink import shrink
from hermes.simulate.without import failure_without

CHUNK = 20
"""Schedules that a process runs before it reports."""

Progress = Callable[[int], None]
"""Called with the number of schedules that are through since the last call."""


class Tally:
    """What came of many schedules."""

    def __init__(self) -> None:
        self.schedules = 0
        self.checks = 0
        """Records after which every invariant was looked at."""
        self.fired: Counter[str] = Counter()
        self.entries: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        """In how many schedules each kind of fault fired."""
        self.seconds = 0.0
        self.broken: int | None = None
        """Seed of the first schedule that broke."""

    def note(self, driver: Driver) -> None:
        """One schedule that kept every invariant."""
        self.schedules += 1
        self.checks += driver.watch.checks
        fired = Counter(driver.fired)
        late = sum(at > 0 for at in driver.setup.joins.values())
        if late:
            fired["join-late"] = late
        self.fired += fired
        self.met.update(fired.keys())
        for record in driver.watch.records:
            self.entries.update(type(entry).__name__ for entry in record.entries)

    def add(self, other: Tally) -> None:
        """What came of others."""
        self.schedules += other.schedules
        self.checks += other.checks
        self.fired += other.fired
        self.entries += other.entries
        self.met += other.met
        if self.broken is None:
            self.broken = other.broken


def run_chunk(strategy: str | None, case: str | None, seeds: range) -> Tally:
    """Run these seeds, up to the first that breaks."""
    tally = Tally()
    for seed in seeds:
        schedule = draw(seed, strategy)
        if case is None:
            try:
                tally.note(run(schedule))
                continue
            except BREAKS:
                pass
        elif failure_without(case, schedule) is None:
            tally.schedules += 1
            continue
        tally.broken = seed
        break
    return tally


def search(
    seeds: range,
    processes: int,
    progress: Progress,
    *,
    strategy: str | None = None,
    case: str | None = None,
) -> Tally:
    """Run the schedules of these seeds; stops after the first that breaks."""
    tally, began = Tally(), time.monotonic()
    chunks = [seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK)]
    with closing(_in_order(partial(run_chunk, strategy, case), chunks, processes)) as results:
        for result in results:
            tally.add(result)
            progress(result.schedules)
            if tally.broken is not None:
                break
    tally.seconds = time.monotonic() - began
    return tally


def _in_order(
    work: Callable[[range], Tally], chunks: list[range], processes: int
) -> Generator[Tally, None, None]:
    """The chunks' results in order, over so many processes."""
    if processes <= 1 or len(chunks) <= 1:
        yield from map(work, chunks)
        return
    # Or one of them is interrupted before it is deaf, or told to end before it would.
    with _held_back(signal.SIGINT, signal.SIGTERM):
        pool = multiprocessing.Pool(processes, _deaf_to_interrupts)
    with pool:  # leaves by terminate()
        yield from pool.imap(work, chunks)


@contextlib.contextmanager
def _held_back(*signals: signal.Signals) -> Iterator[None]:
    """These wait, for this thread and for the processes that it starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _deaf_to_interrupts() -> None:
    """Ctrl-C goes to all of a terminal's processes; the first one ends the others: by SIGTERM, with
    which it may do what it likes itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])


def cores() -> int:
    """Processes that can run at once."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


# --- what broke, made small ---------------------------------------------------------------------


class Broken(NamedTuple):
    """A schedule that breaks, and the least of it that still does."""

    seed: int
    failure: Failure
    before: Schedule
    after: Schedule
    shrunk: Failure
    """How the small one breaks."""


def broken(schedule: Schedule, case: str | None = None) -> Broken | None:
    """The failure of this schedule, shrunk; None if it keeps every invariant. With a case: as it
    breaks without that rule."""

    def look(candidate: Schedule) -> Failure | None:
        return failure_of(candidate) if case is None else failure_without(case, candidate)

    failure = look(schedule)
    if failure is None:
        return None

    def fails(candidate: Schedule) -> bool:
        found = look(candidate)
        return found is not None and found.kind == failure.kind

    small = shrink(schedule, fails)
    return Broken(schedule.seed, failure, schedule, small, look(small) or failure)
