"""Where can a master die, and does it change the outcome? Kill points of a run, as scripts.

A run that nothing disturbs tells the places: each record of its ledger, and at each of them the
steps of its commit (design, part 3). A run in which the master dies at one of them, or at all of
them, must come to the same digest (protocol 12).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from hermes.simulate.driver import Driver
from hermes.simulate.faults import KILLS, AppendFault, Faults

LONGER = 4
"""So many times the records of the calm run a run may have that is killed all the time."""


class Outcome(NamedTuple):
    """What must be the same, wherever the master died."""

    digest: str
    """Of the last version."""
    version: int
    samples: int
    scores: tuple[tuple[str, float | None], ...]
    cursor: int
    """Where the walk over the blocks stands."""
    members: tuple[tuple[str, int, int, int, int], ...]
    """Name, rounds, pushes, samples merged, size of the next grant."""


def outcome(driver: Driver) -> Outcome:
    """Of a finished run."""
    state = driver.master.state
    assert state.newest is not None
    return Outcome(
        state.newest.payload.digest,
        state.newest.version,
        state.newest.samples,
        tuple(sorted(state.scores.items())),
        state.cursor,
        tuple(
            (m.name, m.rounds, m.pushes, m.samples, m.size)
            for _, m in sorted(state.members.items())
        ),
    )


def places(calm: Driver) -> dict[AppendFault, list[int]]:
    """Of an undisturbed run: the appends at which each kind of kill can strike."""
    each = range(calm.log.count)
    beside = {fault: sorted(found) for fault, found in calm.log.places.items()}
    return {fault: beside.get(fault, list(each)) for fault in KILLS}


def single(calm: Driver) -> Iterator[tuple[AppendFault, int]]:
    """Every kill of which a run can have just one, in the order of the records."""
    found = [(index, fault) for fault, indices in places(calm).items() for index in indices]
    for index, fault in sorted(found, key=lambda one: (one[0], one[1].value)):
        yield fault, index


STRIDES = (3, 4, 2, 5, 3)
"""Appends between two kills of one run; as many as the kinds would strike each at one step only."""


def everywhere(calm: Driver) -> Faults:
    """One run with kills of all kinds, one after another, a new master's own first records among
    them; it has more appends than the calm one, and is killed to its end."""
    kinds, strides = itertools.cycle(KILLS), itertools.cycle(STRIDES)
    script: dict[int, AppendFault] = {}
    place = 0
    while place < LONGER * calm.log.count:
        script[place] = next(kinds)
        place += next(strides)
    return Faults(appends=script)
