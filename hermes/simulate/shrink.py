"""What is the least that still goes wrong? A schedule made smaller while the same thing breaks.

Delta debugging: halves, quarters, ... and single faults are taken out; then workers and versions;
then what is left is made simpler (earlier, shorter, rounder). Pure: what breaks is asked of the
caller, and the order in which things are tried is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hermes.simulate.schedules import KINDS, Fault, Schedule
from hermes.values import SECOND

Fails = Callable[[Schedule], bool]
"""Whether a schedule still breaks in the same way."""

TRIES = 600
"""Schedules that are run to make one smaller, at most."""


def shrink(schedule: Schedule, fails: Fails, tries: int = TRIES) -> Schedule:
    """The smallest schedule found that still fails; `schedule` itself does, or it is returned."""
    left = tries
    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in candidates(schedule):
            left -= 1
            if fails(candidate):
                schedule, smaller = candidate, True
                break
            if left <= 0:
                break
    return schedule


def candidates(schedule: Schedule) -> Iterator[Schedule]:
    """Schedules that are smaller than this one, the boldest first."""
    yield from _fewer_faults(schedule)
    yield from _fewer_workers(schedule)
    yield from _fewer_versions(schedule)
    yield from _plainer_workers(schedule)
    yield from _plainer_faults(schedule)
    yield from _plainer_storage(schedule)


def size(schedule: Schedule) -> tuple[int, ...]:
    """How large it is: grows with each thing that a candidate makes smaller."""
    return (
        len(schedule.script),
        len(schedule.speeds),
        schedule.versions,
        bool(schedule.keep) + (not schedule.trims),
        sum(speed != 1.0 for speed in schedule.speeds) + sum(at > 0 for at in schedule.joins),
        sum(fault.at + fault.lasts for fault in schedule.script),
    )


def _fewer_faults(schedule: Schedule) -> Iterator[Schedule]:
    script = schedule.script
    length = len(script)
    while length:
        for first in range(0, len(script), length):
            yield schedule._replace(script=script[:first] + script[first + length :])
        length = length // 2


def _fewer_workers(schedule: Schedule) -> Iterator[Schedule]:
    """Without each worker in turn; those after it take the names before theirs."""
    if len(schedule.speeds) == 1:
        return
    for gone in reversed(range(len(schedule.speeds))):
        script = [_renamed(fault, gone) for fault in schedule.script]
        yield schedule._replace(
            speeds=schedule.speeds[:gone] + schedule.speeds[gone + 1 :],
            joins=schedule.joins[:gone] + schedule.joins[gone + 1 :],
            script=tuple(fault for fault in script if fault is not None),
        )


def _renamed(fault: Fault, gone: int) -> Fault | None:
    """The fault where worker number `gone` (from 0) is not there; None if it was his."""
    head, found, number = fault.who.rpartition("worker-")
    if not found or int(number) <= gone:
        return fault
    return (
        None if int(number) == gone + 1 else fault._replace(who=f"{head}worker-{int(number) - 1}")
    )


def _fewer_versions(schedule: Schedule) -> Iterator[Schedule]:
    for versions in range(1, schedule.versions):
        yield schedule._replace(versions=versions)


def _plainer_workers(schedule: Schedule) -> Iterator[Schedule]:
    """Fast, and there from the start."""
    for index, speed in enumerate(schedule.speeds):
        if speed != 1.0:
            speeds = (*schedule.speeds[:index], 1.0, *schedule.speeds[index + 1 :])
            yield schedule._replace(speeds=speeds)
    for index, at in enumerate(schedule.joins):
        if at:
            joins = (*schedule.joins[:index], 0, *schedule.joins[index + 1 :])
            yield schedule._replace(joins=joins)


def _plainer_storage(schedule: Schedule) -> Iterator[Schedule]:
    """Where nothing is let go of, or where the broker can trim."""
    if schedule.keep:
        yield schedule._replace(keep=0, trims=True)
    if not schedule.trims:
        yield schedule._replace(trims=True)


def _plainer_faults(schedule: Schedule) -> Iterator[Schedule]:
    script = schedule.script
    for index, fault in enumerate(script):
        for plainer in _plainer(fault):
            yield schedule._replace(script=(*script[:index], plainer, *script[index + 1 :]))


def _plainer(fault: Fault) -> Iterator[Fault]:
    """Earlier, then shorter: nothing, a half, and what is round."""
    time = KINDS[fault.kind].counts == "time"
    for at in _less(fault.at, SECOND if time else 0):
        yield fault._replace(at=at)
    for lasts in _less(fault.lasts, SECOND):
        if lasts:
            yield fault._replace(lasts=lasts)


def _less(value: int, unit: int) -> list[int]:
    """Smaller values, the smallest first; with a unit only the whole ones, halves and tenths."""
    if not unit:
        return sorted({number for number in (0, value // 2, value - 1) if 0 <= number < value})
    steps = (unit, unit // 2, unit // 10)
    found = {step * count for step in steps for count in (value // step, value // step // 2)}
    found |= {value - step for step in steps}
    return sorted(number for number in found if 0 <= number < value)
