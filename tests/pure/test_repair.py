"""What a broker lost is made again, or named: the duties after a start and an outage."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from stage import MasterStage, WorkerStage, of, one, version

from hermes.errors import Defect
from hermes.machine.audit import Audit
from hermes.machine.events import (
    BrokerBack,
    Evaluate,
    Leave,
    LedgerTorn,
    LoadVersion,
    Merge,
    RestoreState,
    SaveState,
    ScoreLast,
    SecureVersions,
    SendResent,
    StateRestored,
    StateStored,
    StoreUpdate,
    TailMissing,
    UpdateStored,
    VersionMissing,
    VersionsSecured,
)
from hermes.machine.master import Decision
from hermes.messages import (
    Republished,
    Rewound,
    RunReopened,
    RunStopped,
    StateReset,
    StateSaved,
    TailLost,
    UpdateRejected,
    VersionPublished,
    WorkerAdmitted,
)
from hermes.policy.presets import resettled, to_tree
from hermes.simulate.schedules import reference
from hermes.values import Birth, Reason


def grown(versions: int, strategy: str = "bsp", **settings: Any) -> MasterStage:
    """A run of one worker, so many versions on."""
    stage = MasterStage(strategy, **settings)
    had(stage, None)
    if strategy == "fedavgm":
        stage.put(StateRestored(0, 0))
    for _ in range(versions):
        had(stage, stage.store(had(stage, stage.push("w1"))))
    return stage


def had(stage: MasterStage, decision: Decision | None) -> Decision:
    """Whatever the master wants of its own tensors is done at once."""
    last = decision or stage.put(BrokerBack())
    found = last
    while True:
        if secure := of(SecureVersions, found):
            found = stage.put(secured(stage, secure[0].versions[0].version))
        elif restore := of(RestoreState, found):
            found = stage.put(StateRestored(restore[0].version.version, 0))
        elif save := of(SaveState, found):
            number = save[0].version.version
            found = stage.put(StateStored(number, reference("state", number)))
        else:
            return last if of(Merge, last) else found


def secured(stage: MasterStage, last: int, why: str = "") -> VersionsSecured:
    """The versions were looked at: up to this one they are there."""
    assert stage.state.newest is not None
    return VersionsSecured((), last, why, stage.state.newest.version)


# --- versions -----------------------------------------------------------------------------------


def test_nothing_is_made_of_a_version_before_its_bytes_were_seen() -> None:
    """[7] Neither merged, evaluated nor scored: what a broker acknowledged may be gone."""
    stage = grown(3)
    stage.push("w1")
    first = stage.restart()
    assert not of(Merge, first) + of(Evaluate, first)
    asked = one(SecureVersions, first)
    assert [one_.version for one_ in asked.versions] == [3, 2, 1, 0]
    assert [recipe.version.version for recipe in asked.recipes] == [1, 2, 3]
    assert all(len(recipe.parts) == 1 for recipe in asked.recipes)
    assert of(Merge, stage.put(secured(stage, 3)))


def test_a_stopped_run_is_scored_only_once_its_version_was_seen() -> None:
    stage = grown(2, stop__versions=2)
    assert stage.state.stopped is not None
    first = stage.restart()
    assert not of(ScoreLast, first)
    assert of(ScoreLast, stage.put(secured(stage, 2)))


def test_after_an_outage_it_is_looked_at_again() -> None:
    stage = grown(1)
    assert of(SecureVersions, stage.put(BrokerBack()))
    assert not of(SecureVersions, stage.put(BrokerBack())), "one look is under way"


def test_a_version_that_was_made_again_lies_elsewhere() -> None:
    """[7] `Republished`: the same digest, another place; for the version in force and its base."""
    stage = grown(2)
    stage.restart()
    assert stage.state.newest is not None
    place = replace(stage.state.newest.payload, first=70, last=70)
    assert one(Republished, stage.put(VersionsSecured(((2, place),), 2, "", 2))).version == 2
    assert stage.state.newest.payload.first == stage.state.versions[2].payload.first == 70
    Audit().read(stage.records)


def test_what_cannot_be_made_again_is_named() -> None:
    """[7] `Rewound`: the versions, the updates that they held; the run goes on from what is left,
    and no sample counts that is not in its model."""
    stage = grown(4)
    before = stage.state.members["w1"]
    stage.restart()
    decision = stage.put(secured(stage, 2, "model: chunks are missing"))
    entry = one(Rewound, decision)
    assert (entry.version.version, entry.dropped, len(entry.lost)) == (2, (3, 4), 2)
    after = stage.state.members["w1"]
    assert (after.applied, after.rejected) == (before.applied - 2, before.rejected + 2)
    assert stage.state.newest == stage.state.versions[2]
    had(stage, stage.store(had(stage, stage.push("w1", base=2))))
    assert stage.state.newest is not None
    assert stage.state.newest.version == 3
    assert len(Audit().read(stage.records).applied) == 3


def test_an_update_on_a_version_that_is_lost_is_rejected_by_name() -> None:
    stage = grown(3)
    stage.push("w1")
    stage.restart()
    rejected = one(UpdateRejected, stage.put(secured(stage, 1, "gone")))
    assert rejected.reason == Reason("base-lost", {"base": 3})
    assert not stage.state.pending


def test_where_no_version_is_left_the_run_ends() -> None:
    stage = grown(2)
    stage.restart()
    stopped = one(RunStopped, stage.put(secured(stage, -1, "gone")))
    assert (stopped.status, stopped.reason.code) == ("failed", "no-version-readable")


def test_the_audit_sees_a_rewinding_that_forgets_an_update() -> None:
    stage = grown(3)
    stage.restart()
    stage.put(secured(stage, 1, "gone"))
    last = stage.records[-1]
    (entry,) = of(Rewound, list(last.entries))
    forged = replace(last, entries=(replace(entry, lost=entry.lost[:1]),))
    with pytest.raises(Defect, match="not those named as lost"):
        Audit().read([*stage.records[:-1], forged])


# --- what the master itself holds ---------------------------------------------------------------


def test_the_momentum_is_saved_every_few_versions_and_two_snapshots_are_known() -> None:
    """[13] The two newest; the versions since the older one stay."""
    stage = grown(9, "fedavgm", retention__snapshots=2, retention__keep="last:2")
    saved = [entry.version for entry in of(StateSaved, stage.entries)]
    assert len(saved) >= 3
    assert [one_.version for one_ in stage.state.snapshots] == saved[-1:-3:-1]
    assert min(stage.state.versions) <= saved[-2]
    Audit().read(stage.records)


def test_a_new_master_merges_only_with_its_momentum() -> None:
    stage = grown(5, "fedavgm", retention__snapshots=2)
    stage.push("w1")
    stage.restart()
    decision = stage.put(secured(stage, 5))
    assert not of(Merge, decision)
    asked = one(RestoreState, decision)
    assert asked.version.version == 5
    assert [recipe.version.version for recipe in asked.recipes][-1] == 5
    assert of(Merge, stage.put(StateRestored(5, 4)))


def test_however_rare_snapshots_are_there_is_something_to_begin_from() -> None:
    """[7] Before the first one that is version 0: it is known, and all that came after it."""
    stage = grown(24, "fedavgm", retention__snapshots=25, retention__keep="all")
    stage.restart()
    asked = one(RestoreState, stage.put(secured(stage, 24)))
    assert asked.snapshots == ()
    assert asked.versions[0].version == 0
    assert [recipe.version.version for recipe in asked.recipes] == list(range(1, 25))


def test_momentum_that_is_lost_begins_anew_and_is_said() -> None:
    stage = grown(5, "fedavgm", retention__snapshots=2)
    stage.restart()
    stage.put(secured(stage, 5))
    decision = stage.put(StateRestored(5, 5, "state: gone"))
    assert one(StateReset, decision).reason.facts == {"why": "state: gone"}
    assert one(SaveState, decision).version.version == 5, "nobody may go on from what was before"
    assert stage.state.snapshots == ()


# --- topics whose end is lost -------------------------------------------------------------------


def test_a_topic_that_lost_its_end_is_read_from_its_start() -> None:
    """[5] The numbers decide: what was taken is not taken twice, what is missing is asked for."""
    stage = grown(1)
    stage.beat("w1")
    stage.push("w1")
    taken = stage.state.members["w1"].taken
    entry = one(TailLost, stage.put(TailMissing("from.w1", Reason("end-lost", {"end": 0}))))
    assert entry.topic not in stage.state.consumed
    assert stage.state.members["w1"].taken == taken
    Audit().read(stage.records)


def test_records_of_the_ledger_that_were_written_again_are_noted() -> None:
    stage = grown(1)
    event = TailMissing("ledger", Reason("written-again", {"records": 3}))
    assert one(TailLost, stage.put(event)).reason.facts == {"records": 3}


def test_a_worker_whose_ledger_was_cut_short_knocks_anew() -> None:
    """[6] It drops what hangs on the lost part."""
    worker = WorkerStage("bsp")
    assert one(Leave, worker.put(LedgerTorn("offset 9 lies outside"))).code == "again"


def test_a_worker_waits_for_a_version_that_it_cannot_read() -> None:
    """It neither ends nor asks again and again: the master publishes it again, or another."""
    worker = WorkerStage("bsp")
    assert worker.state.phase == "loading"
    stuck = worker.put(VersionMissing(0, worker.version0.payload.id))
    assert not of(LoadVersion, stuck)
    again = replace(worker.version0.payload, id="f" * 32, first=70)
    assert one(LoadVersion, worker.see(Republished(0, again))).version.payload.first == 70


def test_a_worker_goes_back_with_the_run() -> None:
    worker = WorkerStage("bsp")
    worker.ready()
    worker.push()
    birth = worker.state.waiting_for[0].birth
    worker.see(version(1), UpdateRejected("w1", birth, Reason("base-lost")))
    assert worker.state.phase == "loading"
    worker.see(Rewound(version(0), (1,), (), Reason("lost")))
    gone = worker.put(VersionMissing(1, version(1).payload.id))
    assert one(LoadVersion, gone).version == version(0)


def test_an_update_whose_tensors_are_gone_is_sent_once_more() -> None:
    """[7] The broker lost them, the worker has its model still: the same work, a new birth."""
    worker = WorkerStage("bsp")
    worker.ready()
    first = worker.push().update
    assert first is not None
    step = worker.see(UpdateRejected("w1", first.birth, Reason("unreadable")))
    assert of(StoreUpdate, step)
    again = one(SendResent, worker.put(UpdateStored(reference("from", 77))))
    assert again.update == replace(
        first, birth=Birth("w1-1", again.number), payload=reference("from", 77)
    )
    twice = worker.see(UpdateRejected("w1", again.update.birth, Reason("unreadable")))
    assert not of(StoreUpdate, twice), "then it is not the broker"
    assert of(LoadVersion, twice)


# --- a run that goes on -------------------------------------------------------------------------


def test_a_run_that_had_stopped_goes_on_by_a_record() -> None:
    """`RunReopened`: with other settings, its workers admitted anew, and its count as it was."""
    stage = grown(2, stop__versions=2)
    assert stage.state.stopped is not None
    settings = to_tree(resettled(stage.state.settings, {"stop.versions": 3}, "--set"))
    decision = stage.restart(RunReopened(settings, Reason("asked")))
    assert {
        entry.opened.settings["stop"]["versions"] for entry in of(WorkerAdmitted, decision)
    } == {3}
    assert stage.state.stopped is None
    assert stage.state.settings.stop.versions == 3
    stage.put(secured(stage, 2))
    had(stage, stage.store(had(stage, stage.push("w1", base=2))))
    assert [entry.version for entry in of(VersionPublished, stage.entries)] == [0, 1, 2, 3]
    assert stage.state.stopped is not None
    Audit().read(stage.records)
