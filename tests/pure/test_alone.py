"""One worker trains alone: the quickest of those that came. Every story is asked again."""

from __future__ import annotations

from stage import MasterStage, of, one

from hermes.machine import master
from hermes.machine.events import Merge, Ticked, TopicRead
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    ShardResized,
    UpdateRejected,
    VersionPublished,
    WorkerLost,
)
from hermes.policy.fastest import Runner, quickest
from hermes.report.why.decisions import Retelling
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting
from hermes.report.why.recompute import AGREES, DIFFERS
from hermes.values import Reason


def stage_of(workers: int = 3) -> MasterStage:
    return MasterStage("fastest-alone", workers=workers, round__steps=3)


def push(stage: MasterStage, name: str, busy: float) -> master.Decision:
    return stage.say(name, stage.round(name, stage.update(name), busy=busy))


def tried(stage: MasterStage, **busy: float) -> master.Decision:
    """They finish their trials, after so many seconds of work; the first has its version."""
    names = list(busy)
    first = push(stage, names[0], busy[names[0]])
    for name in names[1:]:
        assert not of(Merge, push(stage, name, busy[name]))
    return stage.store(first)


def sizes(stage: MasterStage) -> dict[str, int]:
    return {name: member.size for name, member in stage.state.members.items()}


def retold(stage: MasterStage) -> Retelling:
    retelling = Retelling()
    for record in stage.records:
        retelling.read(record)
    made_up = ("data", "round")  # by the stage
    asked = [d for d in retelling.decisions if d.kind not in made_up]
    wrong = [d for d in asked if d.check.outcome == DIFFERS]
    assert not wrong, wrong
    return retelling


def test_the_quickest_is_the_first_that_is_measured_or_one_quicker_by_a_margin() -> None:
    assert quickest([]) is None
    assert quickest([Runner("a", None, True), Runner("b", None, True)]) is None
    first = Runner("b", 4.0, True)
    assert quickest([Runner("a", None, True), first]) == first, "nobody waits for the rest"
    assert quickest([Runner("a", 5.0, False), first]) == first, "jitter makes as much of equals"
    assert quickest([Runner("a", 5.01, False), first]) == Runner("a", 5.01, False)
    assert quickest([Runner("c", 4.0, True), first]) == first, "of equals the first"
    gone = [Runner("a", None, False), Runner("b", 3.0, False), Runner("c", 4.0, False)]
    assert quickest(gone) == gone[2]
    back = Runner("d", None, True)
    assert quickest([*gone, back]) == back, "a new process of the one that trained"


def test_the_first_to_finish_has_all_and_what_the_others_did_is_not_merged() -> None:
    stage = stage_of()
    chosen = push(stage, "w2", 1.0)
    assert [part.worker for part in one(Merge, chosen).parts] == ["w2"]
    resized = of(ShardResized, chosen)
    assert [(r.worker, r.size, r.reason.code) for r in resized] == [
        ("w1", 0, "not-quickest"),
        ("w3", 0, "not-quickest"),
    ]
    assert {r.worker for r in of(BlocksReturned, chosen)} == {"w1", "w3"}
    later = push(stage, "w1", 2.0)
    assert not of(Merge, later)
    facts = {"quickest": "w2", "its": 24.0, "speed": 12.0}
    assert one(UpdateRejected, later).reason == Reason("not-quickest", facts)
    for _ in range(3):
        assert one(VersionPublished, stage.store(chosen)).members[0].worker == "w2"
        chosen = push(stage, "w2", 1.0)
    assert sizes(stage) == {"w1": 0, "w2": 24, "w3": 0}
    granted = of(BlocksGranted, stage.entries[stage.entries.index(resized[0]) :])
    assert {grant.worker for grant in granted} == {"w2"}
    retelling = retold(stage)
    setting = Setting(stage.state.settings, 0)
    told_w1 = [told(d, setting) for d in retelling.decisions if d.worker == "w1"]
    text = " ".join(t.body for t in told_w1)
    assert "W2 trains alone, with 24 samples a second the quickest; this worker (measured:" in text
    kept = [d for d in retelling.decisions if (d.worker, d.kind) == ("w2", "kept")]
    assert {d.check.outcome for d in kept} == {AGREES}
    assert "the quickest of those that were measured" in told(kept[-1], setting).body


def test_one_that_began_later_and_was_quicker_takes_over_and_no_newcomer_is_tried() -> None:
    stage = stage_of()
    tried(stage, w1=1.0, w2=0.9)
    assert sizes(stage) == {"w1": 24, "w2": 0, "w3": 0}
    change = stage.say("w3", stage.round("w3", stage.update("w3", base=0), busy=0.5))
    assert [(r.worker, r.reason.code) for r in of(ShardResized, change)] == [
        ("w3", "quickest"),
        ("w1", "not-quickest"),
    ]
    assert one(UpdateRejected, change).reason.code == "too-stale", "it goes on from version 1"
    late = stage.hello("w4")
    assert one(ShardResized, late).reason.facts["quickest"] == "w3"
    assert not of(BlocksGranted, late)
    retold(stage)


def test_if_the_chosen_is_lost_the_next_quickest_goes_on_from_its_version() -> None:
    stage = stage_of()
    tried(stage, w1=1.0, w2=2.0, w3=1.5)
    for _ in range(3):
        for name in ("w2", "w3"):
            stage.beat(name, later=4.0)
    stage.put(Ticked())
    decision = stage.put(TopicRead("w1"))
    assert one(WorkerLost, decision).worker == "w1"
    assert sizes(stage) == {"w1": 24, "w2": 0, "w3": 24}
    assert [r.reason.code for r in of(ShardResized, decision)] == ["quickest"]
    again = push(stage, "w3", 1.5)
    assert one(Merge, again).current.version == 1
    stage.store(again)
    back = stage.beat("w1")
    assert one(ShardResized, back).worker == "w3", "it is the quicker of the two that have work"
    assert sizes(stage) == {"w1": 24, "w2": 0, "w3": 0}
    retold(stage)


def test_one_that_comes_alone_needs_no_decision() -> None:
    stage = stage_of(1)
    assert one(Merge, push(stage, "w1", 1.0)).version == 1
    assert not of(ShardResized, stage.entries)
    retold(stage)


def test_none_takes_the_place_of_one_whose_update_is_being_merged() -> None:
    """A master that begins again in the middle could not know of the merge: it decides alike."""
    for killed in (False, True):
        stage = stage_of()
        assert [part.worker for part in one(Merge, push(stage, "w1", 1.0)).parts] == ["w1"]
        quick = push(stage, "w3", 0.5)
        assert [e.worker for e in of(UpdateRejected, quick)] == ["w3"]
        assert sizes(stage)["w1"] > 0
        if killed:
            assert not of(UpdateRejected, stage.restart())
        assert [pending.worker for pending in stage.state.pending] == ["w1"]
        retold(stage)
