"""When does a version close over some of the updates, and what do they weigh? The machine itself.

Every story that is told here is asked again as `hermes why` does: each decision follows from the
ledger alone, but for how long a quorum was there.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from stage import MasterStage, of, one

from hermes.machine import master
from hermes.machine.closing import scene
from hermes.machine.events import (
    Merge,
    SecureVersions,
    StateRestored,
    Ticked,
    TopicRead,
    VersionsSecured,
)
from hermes.messages import Bye, LedgerRecord, VersionPublished
from hermes.policy import sync
from hermes.policy.stability import largest_stable
from hermes.report.live.recent import Recent
from hermes.report.live.waits import waits
from hermes.report.why.decided import MASTER
from hermes.report.why.decisions import Retelling
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting
from hermes.report.why.recompute import AGREES, DIFFERS
from hermes.values import SECOND, Reason

LOST = 10.0


def stage_of(workers: int = 4, strategy: str = "fedavg", **settings: Any) -> MasterStage:
    """Rounds last a second, so that the grace is a tenth of one."""
    rule = {"close__rule": "quorum", "close__share": 0.75, "merge__max_staleness": None}
    return MasterStage(strategy, workers=workers, **{**rule, **settings})


def merging(decision: master.Decision) -> list[str]:
    """The workers of the merge that it asks for; none where it waits."""
    return [part.worker for merge in of(Merge, decision) for part in merge.parts]


def differing(records: list[LedgerRecord]) -> list[list[str]]:
    """The facts of this story's versions that do not follow from it, as `hermes why` finds them."""
    retelling = Retelling()
    for record in records:
        retelling.read(record)
    versions = [d for d in retelling.decisions if d.kind == "version" and d.details["members"]]
    assert all(d.check.outcome in (AGREES, DIFFERS) for d in versions)
    return [
        d.check.differing for d in versions if d.check.outcome == DIFFERS and d.worker == MASTER
    ]


def began(stage: MasterStage) -> float | None:
    """How long ago the quorum came together, seconds; None where there is none."""
    since = sync.since(stage.state.settings.close, scene(stage.state))
    return None if since is None else (stage.now - since) / SECOND


def secured(stage: MasterStage, decision: master.Decision) -> master.Decision:
    """The versions are looked at, and are all there."""
    newest = one(SecureVersions, decision).versions[0].version
    return stage.put(VersionsSecured((), newest, asked=newest))


# --- quorum and grace -----------------------------------------------------------------------------


def test_a_quorum_and_its_grace_close_a_version() -> None:
    stage = stage_of()
    assert merging(stage.push("w3")) == merging(stage.push("w1")) == []
    assert began(stage) is None
    assert merging(stage.push("w2")) == []
    assert stage.wake == stage.now + SECOND // 10
    assert merging(stage.put(Ticked(), later=0.099)) == []
    assert stage.wake == stage.now + SECOND // 1000
    closed = stage.put(Ticked(), later=0.001)
    assert merging(closed) == ["w3", "w1", "w2"]
    version = one(VersionPublished, stage.store(closed))
    facts = {"quorum": 3, "pushed": 3, "quiet": 0, "alive": 4, "grace": 0.1, "waited": 0.1}
    assert version.reason == Reason("quorum", facts)
    assert differing(stage.records) == []


def test_whoever_comes_within_the_grace_is_in_it_and_nobody_waits_on() -> None:
    stage = stage_of()
    for name in ("w1", "w2", "w3"):
        stage.push(name)
    stage.put(Ticked(), later=0.05)
    assert merging(stage.push("w4")) == ["w1", "w2", "w3", "w4"]


def test_whoever_comes_too_late_is_in_the_next_one() -> None:
    """It counts for that one's quorum, and is a version old."""
    stage = stage_of(strategy="fedavgm", merge__rate="auto", merge__discount=True)
    stage.put(StateRestored(0, 0))
    for name in ("w1", "w2", "w3"):
        stage.push(name)
    first = stage.put(Ticked(), later=0.1)
    assert merging(stage.push("w4")) == [], "the first is being merged"
    stage.store(first)
    stage.push("w1")
    assert began(stage) is None
    stage.push("w2")
    merge = one(Merge, stage.put(Ticked(), later=0.1))
    assert [part.worker for part in merge.parts] == ["w4", "w1", "w2"]
    assert [part.weight for part in merge.parts] == [24 / 2**0.5, 24, 24]
    assert merge.outer is not None
    assert one(Merge, first).outer == replace(merge.outer, rate=1.0)
    late = (48 / (48 + 24 / 2**0.5), 24 / 2**0.5 / (48 + 24 / 2**0.5))
    assert merge.outer.rate == pytest.approx(0.5 * largest_stable(0.9, False, late))
    assert 0.05 < merge.outer.rate < 0.2, "between half of the limits at lag 1 and at lag 0"
    stage.put(master.VersionStored(2, merge.current.payload))
    assert differing(stage.records) == []


def test_the_grace_runs_while_another_version_is_made() -> None:
    stage = stage_of(5, close__share=0.4)
    for name in ("w1", "w2"):
        stage.push(name)
    first = stage.put(Ticked(), later=0.1)
    for name in ("w3", "w4"):
        assert merging(stage.push(name)) == []
    stage.put(Ticked(), later=0.3)
    assert stage.wake is not None
    assert stage.wake > stage.now + SECOND // 1000, "there is nothing to wake up for"
    second = stage.store(first)
    assert merging(second) == ["w3", "w4"], "it was over long before"
    assert one(VersionPublished, second).reason.facts["waited"] == 0.1
    third = stage.store(second)
    assert one(VersionPublished, third).reason.facts["waited"] == 0.3
    stage.push("w5", base=0)
    stage.put(Ticked(), later=0.2)
    stage.push("w1")
    assert began(stage) == 0, "of those that came since"
    stage.store(second)
    assert differing(stage.records) == []


def test_a_master_started_again_goes_on_with_the_grace() -> None:
    """It is counted in run time, from what the ledger says: nothing about it is remembered."""
    stage = stage_of()
    for name in ("w1", "w2", "w3"):
        stage.push(name)
    stage.put(Ticked(), later=0.09)
    restarted = stage.restart()
    assert merging(secured(stage, restarted)) == []
    assert stage.wake == stage.now + SECOND // 100
    closed = stage.put(Ticked(), later=0.01)
    assert merging(closed) == ["w1", "w2", "w3"]
    stage.store(closed)
    assert differing(stage.records) == []


def test_a_lost_worker_is_no_part_of_a_quorum() -> None:
    """Four alive need three; once one of the missing is lost, the two that pushed make it."""
    stage = stage_of(close__share=0.6)
    stage.push("w1")
    stage.push("w2")
    for _ in range(3):
        for name in ("w1", "w2", "w3"):
            assert merging(stage.beat(name, later=LOST / 8)) == []
    stage.put(Ticked())
    closed = stage.put(TopicRead("w4"))
    assert stage.state.alive() == ["w1", "w2", "w3"]
    assert merging(closed) == ["w1", "w2"], "which waited long enough for the third"
    stage.store(closed)
    assert differing(stage.records) == []


def test_a_newcomer_may_take_a_quorum_away() -> None:
    """Three of four are no longer enough of five; the grace begins with the next one."""
    stage = stage_of()
    for name in ("w1", "w2", "w3"):
        stage.push(name)
    stage.hello("w5", later=0.05)
    assert began(stage) is None
    assert merging(stage.put(Ticked(), later=1)) == []
    stage.push("w4")
    assert began(stage) == 0
    assert merging(stage.put(Ticked(), later=0.1)) == ["w1", "w2", "w3", "w4"]


def test_whoever_is_quiet_is_heard_until_the_next_version() -> None:
    """A closed gate stalls nobody; without any push there is no version."""
    stage = stage_of(strategy="hermes-paper", merge__rule="mean")
    for name in ("w1", "w2", "w3", "w4"):
        stage.say(name, stage.round(name))
    assert began(stage) is None
    closed = stage.push("w2")
    assert merging(closed) == ["w2"], "all four are heard"
    version = one(VersionPublished, stage.store(closed))
    assert (version.reason.facts["pushed"], version.reason.facts["quiet"]) == (1, 3)
    stage.push("w2")
    assert began(stage) is None, "a new version: nobody else has been heard"
    stage.say("w3", stage.round("w3", verdict="veto"))
    stage.say("w4", stage.round("w4"), later=0.05)
    assert began(stage) == 0
    for name in ("w3", "w4"):
        stage.say(name, stage.round(name), later=0.02)
    assert began(stage) == 0.04, "whoever is quiet again was heard before"
    stage.store(stage.put(Ticked(), later=0.1))
    assert differing(stage.records) == []


def test_a_quorum_that_did_not_wait_long_enough_is_seen() -> None:
    """The ledger cannot say how long it was there; that it says too little is no agreement."""
    stage = stage_of()
    for name in ("w1", "w2", "w3"):
        stage.push(name)
    stage.store(stage.put(Ticked(), later=0.1))
    record = stage.records[-1]
    version = one(VersionPublished, list(record.entries))
    assert differing(stage.records) == []
    for name, value in (("waited", 0.05), ("grace", 0.01), ("quorum", 2)):
        facts = {**version.reason.facts, name: value}
        changed = replace(version, reason=Reason("quorum", facts))
        entries = tuple(changed if entry is version else entry for entry in record.entries)
        told = differing([*stage.records[:-1], replace(record, entries=entries)])
        assert told == [[name]]


# --- count, add and buffered ----------------------------------------------------------------------


def test_a_count_takes_the_first_that_wait() -> None:
    """Those that come while they are merged wait for the next version."""
    stage = stage_of(close__rule="count", close__count=2)
    stage.push("w3")
    first = stage.push("w1")
    assert merging(first) == ["w3", "w1"]
    stage.push("w4")
    stage.push("w2")
    second = stage.store(first)
    assert merging(second) == ["w4", "w2"]
    stage.store(second)
    assert differing(stage.records) == []


def test_a_count_waits_for_no_more_than_are_alive() -> None:
    stage = stage_of(3, close__rule="count", close__count=10)
    stage.push("w1")
    stage.push("w2")
    closed = stage.say("w3", Bye("enough"))
    assert merging(closed) == ["w1", "w2"]
    stage.store(closed)
    assert differing(stage.records) == []


@pytest.mark.parametrize("rule", ["count", "quorum"])
def test_whoever_waits_for_the_slowest_is_not_waited_for(rule: str) -> None:
    """Or the slowest would wait for two that wait for it."""
    close = {"close__rule": rule} | (
        {"close__count": 2} if rule == "count" else {"close__share": 0.5, "close__grace": 0}
    )
    stage = stage_of(3, **close, merge__rule="add", continue__rule="bounded", continue__slack=0)
    stage.push("w1")
    stage.store(stage.push("w2"))
    last = stage.push("w3")
    assert merging(last) == ["w3"]
    stage.store(last)
    assert differing(stage.records) == []


def test_what_is_added_is_a_share_of_those_alive_then() -> None:
    """Whoever leaves while it is merged changes nothing about it, and the ledger agrees."""
    stage = stage_of(close__rule="each", merge__rule="add")
    first = stage.push("w1")
    assert [part.weight for part in one(Merge, first).parts] == [0.25]
    stage.say("w4", Bye("enough"))
    second = stage.store(first)
    assert not of(Merge, second)
    assert [p.weight for p in one(Merge, stage.push("w2")).parts] == [1 / 3]
    assert differing(stage.records) == []
    version = one(VersionPublished, second)
    heavier = replace(version, members=(replace(version.members[0], weight=1 / 2),))
    told = [
        replace(r, entries=tuple(heavier if entry is version else entry for entry in r.entries))
        for r in stage.records
    ]
    assert differing(told) == [["weight 1"]]


def test_a_buffered_update_weighs_less_the_older_it_is() -> None:
    stage = stage_of(3, close__rule="count", close__count=2, merge__rule="buffered")
    stage.push("w1")
    first = stage.push("w2")
    assert [part.weight for part in one(Merge, first).parts] == [0.5, 0.5]
    stage.store(first)
    stage.push("w3", base=0)
    second = stage.push("w1")
    assert [part.weight for part in one(Merge, second).parts] == [0.5 / 2**0.5, 0.5]
    stage.store(second)
    assert differing(stage.records) == []


# --- in words -------------------------------------------------------------------------------------


def said(stage: MasterStage, name: str) -> str:
    """The last decision about this worker, or the master, that tells of a version."""
    retelling = Retelling()
    for record in stage.records:
        retelling.read(record)
    kinds = ("version", "merged")
    last = [d for d in retelling.decisions if d.worker == name and d.kind in kinds][-1]
    return told(last, Setting(stage.state.settings, stage.state.started)).body


def test_a_version_of_some_is_told_with_its_reason_and_weights() -> None:
    stage = stage_of(merge__rule="buffered")
    for name in ("w1", "w2", "w3"):
        stage.push(name)
    stage.store(stage.put(Ticked(), later=0.1))
    why = (
        "3 of 4 alive had pushed and 0 were quiet, where 3 make a quorum; that was there for 0.1 s "
        "(the grace: 0.1 s)."
    )
    assert f"Made of the updates of w1, w2 and w3: {why}" in said(stage, MASTER)
    assert "Of what they changed is added: w1 0.333, w2 0.333, w3 0.333." in said(stage, MASTER)
    assert "with weight 0.333: so much of what it changed was added." in said(stage, "w2")
    assert f"The version closed: {why}" in said(stage, "w2")


def test_a_version_of_several_updates_of_one_worker_adds_them_up() -> None:
    stage = MasterStage("fedbuff", workers=2, close__count=2)
    stage.push("w1")
    stage.store(stage.push("w1"))
    why = "2 updates waited; it takes 2, and no more than are alive (2) are waited for."
    assert said(stage, MASTER).startswith(f"Made of the update of w1: {why}")
    assert "is added: w1 1." in said(stage, MASTER)


def waited_for(stage: MasterStage) -> list[str]:
    """What the live display says of the next version, a second later."""
    recent = Recent()
    for record in stage.records:
        recent.read(record)
    found = waits(stage.state, recent, stage.now + SECOND)
    return [wait.text for wait in found if wait.key.startswith(("barrier", "merge"))]


def test_what_a_version_waits_for_is_said() -> None:
    stage = stage_of()
    stage.push("w1")
    stage.push("w2")
    waits_for = "version 1 waits for a quorum (1.0 s), 3 of 4; not heard yet: w3 and w4"
    assert waited_for(stage) == [waits_for]
    stage.push("w3")
    assert waited_for(stage) == ["version 1 has a quorum (1.0 s), 3 of 4, and 0.1 s for w4"]
    stage.push("w4")
    assert waited_for(stage) == ["version 1 is being made of 4 updates (1.0 s)"]
    stage = stage_of(close__rule="count", close__count=3)
    stage.push("w1")
    assert waited_for(stage) == ["version 1 waits for more updates (1.0 s): it has 1 of 3"]
