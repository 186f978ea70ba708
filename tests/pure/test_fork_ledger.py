"""A run that begins where another one stood: what its ledger says, and what cannot be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from stage import MasterStage, of, one

from hermes.errors import Defect
from hermes.machine.audit import Audit
from hermes.machine.events import RestoreState, VersionsSecured
from hermes.messages import (
    BlocksGranted,
    DataPublished,
    Forked,
    RunOpened,
    StateSaved,
    VersionPublished,
)
from hermes.simulate.schedules import reference

FORKED = Forked("parent", 7, 40, b"chain", reference("model", 0).digest, 500, 30, {"gate.rule": 1})
HELD = reference("state", 3)


def test_it_begins_at_the_parents_version_and_counts_on() -> None:
    """Number and samples are the parent's, the walk goes on from where that one's stood; all later
    versions count on, and the story can be true."""
    stage = MasterStage("bsp", 2, forked=FORKED)
    kinds = [type(entry) for entry in stage.entries[1:4]]
    assert kinds == [Forked, RunOpened, DataPublished]
    first = one(VersionPublished, stage.entries)
    assert (first.version, first.samples, first.rule, first.members) == (7, 500, "init", ())
    granted = of(BlocksGranted, stage.entries)
    assert min(part.first for grant in granted for part in grant.ranges) == FORKED.cursor
    stage.push("w1")
    stage.store(stage.push("w2"))
    assert stage.state.newest is not None
    assert (stage.state.newest.version, stage.state.newest.samples) == (8, 548)
    assert stage.state.forked == FORKED
    Audit().read(stage.records)


def test_what_the_parents_master_held_counts_with_the_first_version() -> None:
    """In the same record, so that no death comes between; and a master has it from there."""
    stage = MasterStage("fedavgm", forked=FORKED, held=HELD)
    (record,) = [record for record in stage.records if of(VersionPublished, record.entries)]
    assert one(StateSaved, record.entries) == StateSaved(7, HELD)
    Audit().read(stage.records)
    stage.restart()
    asked = one(RestoreState, stage.put(VersionsSecured((), 7, asked=7)))
    assert (asked.version.version, asked.snapshots) == (7, (StateSaved(7, HELD),))


def changed(stage: MasterStage, kind: type, **values: object) -> list[object]:
    """The records, with the first entry of this kind another one."""
    found: list[object] = []
    for record in stage.records:
        entries = tuple(replace(e, **values) if type(e) is kind else e for e in record.entries)
        found.append(replace(record, entries=entries))
    return found


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"version": 0}, "version 0 follows version 6"),
        ({"version": 8}, "version 8 follows version 6"),
        ({"samples": 0}, "counts 0 samples, its updates 500"),
    ],
)
def test_a_beginning_that_is_not_the_parents_is_found(values: dict[str, int], says: str) -> None:
    stage = MasterStage("bsp", forked=FORKED)
    with pytest.raises(Defect, match=says):
        Audit().read(changed(stage, VersionPublished, **values))  # type: ignore[arg-type]


def test_a_run_under_way_is_not_forked_from_another() -> None:
    stage = MasterStage("bsp")
    last = stage.records[-1]
    late = replace(last, n=last.n + 1, entries=(FORKED,), consumed=())
    with pytest.raises(Defect, match="under way is forked"):
        Audit().read([*stage.records, late])
