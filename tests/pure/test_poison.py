"""What should not have come is refused, told apart from what came twice, and hangs nobody."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from stage import MasterStage, of, one, reference

from hermes.errors import SettingError
from hermes.machine import merging
from hermes.machine.apply import apply_entries
from hermes.machine.events import Merge, MergeFailed, Score, SetAside, VersionStored
from hermes.machine.master import Decision
from hermes.messages import (
    Bye,
    Heartbeat,
    Resent,
    RunStopped,
    UpdateRejected,
    UpdateTaken,
    VersionPublished,
    WorkerRefused,
)
from hermes.policy import norm
from hermes.policy.norm import Limit
from hermes.policy.weigh import MergeSettings, check_merge
from hermes.report.why import recompute
from hermes.report.why.recompute import AGREES, DIFFERS
from hermes.values import Base, Birth, Position, Reason

# --- the norm, and what it may be ---------------------------------------------------------------


def test_a_norm_is_the_distance_over_what_is_learned() -> None:
    """In float64, across tiles; buffers and integers are none of it."""
    base = {
        "w": np.zeros(norm.TILE + 1, np.float32),
        "mean": np.zeros(2, np.float32),
        "seen": np.zeros((), np.int64),
    }
    local = {
        "w": base["w"].copy(),
        "mean": np.full(2, 1e9, np.float32),
        "seen": np.array(7, np.int64),
    }
    local["w"][0], local["w"][-1] = 3, -4
    assert norm.distance(local, base, {"mean"}) == 5.0
    huge = np.array([3e38, -3e38], np.float32)
    assert norm.distance({"w": huge}, {"w": -huge}) == pytest.approx(6e38 * math.sqrt(2))
    beyond = {"w": np.array([1e200])}
    assert norm.distance(beyond, {"w": np.zeros(1)}) == math.inf


def test_the_limit_is_made_of_the_norms_that_are_known() -> None:
    assert norm.limit(None, (1.0,) * 8, 400) is None
    assert norm.limit(2.5, (1.0,) * 8, 400) == Limit(2.5)
    assert norm.limit("auto", (1.0,) * 7, 400) == Limit(1e6 * 20, None, 7)
    norms = (1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0, 900.0)
    assert norm.limit("auto", norms, 400) == Limit(300.0, 3.0, 8)


def test_a_norm_is_judged_by_its_limit() -> None:
    allowed = Limit(300.0, 3.0, 8)
    assert norm.judge(300.0, allowed) is None
    wrong = norm.judge(301.0, allowed)
    facts = {"norm": 301.0, "limit": 300.0, "known": 8, "median": 3.0}
    assert wrong == Reason("absurd-norm", facts)
    endless = norm.judge(math.inf, Limit(9.0))
    assert endless is not None
    assert endless.facts["norm"] == "inf"


def test_norms_of_nothing_are_not_remembered() -> None:
    """A learning rate that warms up from zero would make every later update absurd."""
    assert norm.remembered((1.0,), (0.0, 2.0, math.inf)) == (1.0, 2.0)
    assert norm.remembered(tuple(map(float, range(1, 33))), (99.0,))[0] == 2.0


@pytest.mark.parametrize("wrong", ["some", 0, -1.0, math.inf, True])
def test_a_bad_limit_is_an_error(wrong: Any) -> None:
    with pytest.raises(SettingError, match=r"merge\.max_norm"):
        check_merge(MergeSettings(max_norm=wrong))
    for good in ("auto", None, 3, 0.5):
        check_merge(MergeSettings(max_norm=good))


# --- the machine --------------------------------------------------------------------------------


def merged(stage: MasterStage, name: str, length: float) -> Decision:
    """The worker pushes an update of this norm, and alone it makes a version."""
    merge = one(Merge, stage.push(name))
    stored = VersionStored(merge.version, reference("model", merge.version), (length,))
    return stage.put(stored)


def failed(stage: MasterStage, pushed: Decision, worker: str, length: float) -> Decision:
    """The desk looks at the parts of the merge, and refuses one for its norm."""
    merge = one(Merge, pushed)
    (part,) = [part for part in merge.parts if part.worker == worker]
    assert merge.limit is not None
    reason = norm.judge(length, merge.limit)
    assert reason is not None
    return stage.put(MergeFailed(merge.version, part.update.birth, reason))


def test_the_norms_in_the_ledger_make_the_limit_of_every_master() -> None:
    """[11] Recorded, never recomputed: a master that starts again asks for the same merge."""
    stage = MasterStage("bsp")
    for length in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0):
        version = one(VersionPublished, merged(stage, "w1", length))
        assert version.members[0].norm == length
    start = merging.limit_in_force(stage.state)
    assert start is not None
    assert (start.median, start.known) == (None, 7)
    merged(stage, "w1", 8.0)
    asked = one(Merge, stage.push("w1"))
    assert asked.limit == Limit(450.0, 4.5, 8)
    before = stage.state
    stage.claim()
    assert merging.limit_in_force(stage.state) == asked.limit
    assert stage.state.norms == before.norms == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def test_the_papers_scoring_has_the_limit_too() -> None:
    stage = MasterStage(merge__max_norm=3.0)
    assert one(Score, stage.push("w1")).limit == Limit(3.0)
    off = MasterStage(merge__max_norm=None)
    assert one(Score, off.push("w1")).limit is None


def test_an_absurd_norm_is_rejected_with_its_evidence_and_told_again() -> None:
    stage = MasterStage("bsp", merge__max_norm=10.0)
    update = stage.update("w1")
    pushed = stage.push("w1")
    before = pushed.state
    decision = failed(stage, pushed, "w1", 11.0)
    entry = one(UpdateRejected, decision)
    assert entry.reason.facts == {"norm": 11.0, "limit": 10.0, "known": 0}
    kept = one(SetAside, decision)
    assert (kept.worker, kept.update, kept.at.topic) == ("w1", update, "from.w1")
    assert recompute.rejected(before, entry).outcome == AGREES
    for facts in ({"norm": 9.0}, {"limit": 12.0}):
        other = replace(entry, reason=Reason("absurd-norm", {**entry.reason.facts, **facts}))
        assert recompute.rejected(before, other).outcome == DIFFERS


def test_a_version_waits_once_for_a_worker_whose_update_was_rejected() -> None:
    """One more update is waited for; who offers nothing better does not hang the others."""
    stage = MasterStage("bsp", workers=2, merge__max_norm=10.0)
    stage.push("w1")
    again = failed(stage, stage.push("w2"), "w2", 11.0)
    assert not of(Merge, again)
    onward = failed(stage, stage.push("w2"), "w2", 11.0)
    assert [part.worker for part in one(Merge, onward).parts] == ["w1"]
    published = one(VersionPublished, stage.store(onward))
    assert [part.worker for part in published.members] == ["w1"]
    # At the next version everybody is waited for again.
    assert not of(Merge, stage.push("w1"))
    assert len(one(Merge, stage.push("w2")).parts) == 2
    assert stage.state.members["w2"].rejected == 2


def test_norms_are_learned_anew_only_where_everybody_insists() -> None:
    """A learning rate that was raised, and not one liar beside an honest worker."""
    stage = MasterStage("bsp", workers=2)
    for _ in range(4):
        stage.push("w1")
        merge = one(Merge, stage.push("w2"))
        stage.put(VersionStored(merge.version, reference("model", merge.version), (1.0, 1.0)))
    assert len(stage.state.norms) == 8
    stage.push("w1")
    for _ in range(2):
        last = failed(stage, stage.push("w2"), "w2", 1e4)
    assert len(stage.state.norms) == 8  # w1 is honest
    stage.store(last)
    stage.push("w1")
    failed(stage, stage.push("w2"), "w1", 1e4)
    failed(stage, stage.push("w1"), "w1", 1e4)
    assert stage.state.norms == ()
    assert not any(member.absurd for member in stage.state.members.values())


def test_one_who_left_with_an_absurd_update_teaches_nothing() -> None:
    """Nobody is alive then: that is not everybody."""
    stage = MasterStage("bsp")
    for _ in range(8):
        merged(stage, "w1", 1.0)
    pushed = stage.push("w1")
    stage.say("w1", Bye("moves"))
    failed(stage, pushed, "w1", 1e4)
    assert len(stage.state.norms) == 8


def test_what_comes_from_the_future_is_told_again() -> None:
    stage = MasterStage("bsp")
    before = stage.state
    update = replace(stage.update("w1"), base=Base(9, "x"), oldest=9)
    decision = stage.say("w1", stage.round("w1", update))
    entry = one(UpdateRejected, decision)
    assert entry.reason == Reason("from-the-future", {"base": 9, "newest": 0})
    assert one(SetAside, decision).update == update
    taken = apply_entries(before, (UpdateTaken("w1", update),))
    assert recompute.rejected(taken, entry).outcome == AGREES
    nearer = replace(entry, reason=Reason("from-the-future", {"base": 9, "newest": 8}))
    assert recompute.rejected(taken, nearer).outcome == DIFFERS


@pytest.mark.parametrize(
    ("ours", "theirs"), [("fp32", "fp16"), ("fp16", "fp32"), ("fp16", "x" * 99)]
)
def test_another_codec_is_refused_by_name_and_told_again(ours: str, theirs: str) -> None:
    stage = MasterStage("bsp", codec__up=ours)
    before = stage.state
    update = replace(stage.update("w1"), codec=theirs)
    decision = stage.say("w1", stage.round("w1", update))
    entry = one(UpdateRejected, decision)
    assert entry.reason == Reason("wrong-codec", {"codec": theirs[:40], "wanted": ours})
    assert one(SetAside, decision).update == update
    taken = apply_entries(before, (UpdateTaken("w1", update),))
    assert recompute.rejected(taken, entry).outcome == AGREES
    other = replace(entry, reason=Reason("wrong-codec", {"codec": "int8", "wanted": ours}))
    assert recompute.rejected(taken, other).outcome == DIFFERS


def test_honest_lateness_is_no_poison() -> None:
    stage = MasterStage("bsp")
    merged(stage, "w1", 1.0)
    late = stage.push("w1", base=0)
    assert one(UpdateRejected, late).reason.code == "too-stale"
    assert not of(SetAside, late)


def test_a_birth_that_was_taken_is_not_taken_again() -> None:
    """Under a new number, by whatever message and with whatever tensors: kept apart, no entry."""
    stage = MasterStage("bsp")
    update = stage.update("w1")
    merged(stage, "w1", 1.0)
    repeat = replace(update, payload=replace(update.payload, digest="f" * 64))
    for body in (stage.round("w1", repeat), Resent(repeat)):
        decision = stage.say("w1", body)
        assert not of(UpdateTaken, decision)
        kept = one(SetAside, decision)
        assert (kept.reason.code, kept.update) == ("repeated-birth", repeat)
    assert stage.state.members["w1"].pushes == 1


@pytest.mark.parametrize("birth", [Birth("w1-1", 99), Birth("w2-1", 5), Birth("nobody", 5)])
def test_a_birth_that_is_not_its_own_is_not_taken(birth: Birth) -> None:
    """Or somebody else's update could be decided in its name."""
    stage = MasterStage("bsp", workers=2)
    update = replace(stage.update("w1"), birth=birth)
    for body in (stage.round("w1", update), Resent(update)):
        decision = stage.say("w1", body)
        assert not of(UpdateTaken, decision)
        assert one(SetAside, decision).reason.code == "false-birth"


def test_an_incarnation_is_one_workers() -> None:
    stage = MasterStage(workers=1)
    refused = one(WorkerRefused, stage.hello("w2", "w1-1"))
    assert refused.reason.code == "incarnation-taken"


def test_a_fenced_incarnation_is_told_apart_from_what_it_said_before() -> None:
    """[6] What it says anew is kept apart; what comes a second time, and beats, are counted."""
    stage = MasterStage("bsp")
    stage.say("w1", stage.round("w1"))
    stage.hello("w1", "w1-2", previous="w1-1")
    before = stage.state.members["w1"]
    old = stage.say("w1", stage.round("w1"), number=1, sender="w1-1")
    beat = stage.say("w1", Heartbeat(5, 1), sender="w1-1")
    assert not of(SetAside, old)
    assert not of(SetAside, beat)
    assert stage.soft.repeats == 2
    fresh = stage.say("w1", stage.round("w1"), number=2, sender="w1-1")
    kept = one(SetAside, fresh)
    assert kept.at == Position("from.w1", 0, stage.offset["from.w1"])
    assert kept.reason.facts == {"sender": "w1-1", "number": 2, "in_force": "w1-2"}
    unknown = stage.say("w1", Heartbeat(5, 1), sender="never-admitted")
    assert one(SetAside, unknown).reason.code == "unknown-sender"
    assert stage.state.members["w1"] == before


def test_what_is_sent_again_is_counted_and_no_offence() -> None:
    """[5] A log delivers twice; a worker sends again what it was asked for."""
    stage = MasterStage("bsp")
    update = stage.update("w1")
    body = stage.round("w1", update)
    stage.say("w1", body)
    again = stage.say("w1", body, number=1)
    assert not of(SetAside, again)
    assert stage.soft.repeats == 1


def test_one_who_floods_with_nan_does_not_end_the_run_of_the_others() -> None:
    """Only where nobody brings anything else is the run over."""
    stage = MasterStage(workers=2)

    def nan(name: str) -> Decision:
        asked = one(Score, stage.push(name))
        birth = asked.update.birth
        return stage.put(MergeFailed(asked.version.version, birth, Reason("not-finite")))

    for _ in range(20):
        assert not of(RunStopped, nan("w2"))
    assert one(RunStopped, nan("w1")).reason.code == "diverged"
