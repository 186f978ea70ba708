"""Who is missing? Silences and standstills, by each worker's own pace (protocol 6)."""

from __future__ import annotations

from passing import LONGEST, LOST, beat, calm, live, losses, trained
from stage import of, one

from hermes.machine.events import ChunkSeen, Merge, ReadToEnd, Ticked, TopicRead
from hermes.messages import BlocksGranted, BlocksReturned, Bye, WorkerBack, WorkerLeft, WorkerLost
from hermes.policy.pace import limit
from hermes.values import SECOND

# --- silence ------------------------------------------------------------------------------------


def test_with_heartbeats_every_second_the_floor_governs() -> None:
    stage = calm()
    assert not losses(live(stage, 60, {"w1": 1.0, "w2": 1.0}))
    (lost,) = losses(live(stage, 15, {"w2": 1.0}))
    facts = lost.reason.facts
    assert (lost.worker, lost.reason.code, facts["limit"]) == ("w1", "silent", LOST)
    assert (facts["median"], facts["spread"]) == (1.0, 0.125)
    assert LOST <= float(facts["silent"] or 0) <= LOST + 3


def test_over_a_link_of_rare_signs_the_deadline_grows() -> None:
    """Signs every 20 s: lost once, at the floor, since nothing else was known; never again. Then
    it is gone, and that is seen by a deadline that follows from the facts."""
    stage = calm()
    found = live(stage, 600, {"w1": 20.0, "w2": 1.0})
    assert [lost.worker for lost in losses(found)] == ["w1"]
    assert sum(len(of(WorkerBack, decision)) for decision in found) == 1
    (lost,) = losses(live(stage, 100, {"w2": 1.0}))
    facts = lost.reason.facts
    assert (facts["median"], facts["spread"]) == (20.0, 2.5)
    assert facts["limit"] == limit(20.0, 2.5, LOST, LONGEST) == 35.0


def test_what_comes_in_one_breath_is_one_sign() -> None:
    """A thin link holds twenty heartbeats back, then brings them at once: that is a gap of 20 s,
    not twenty of a second."""
    stage = calm()
    lost = 0
    for _ in range(8):
        lost += len(losses(live(stage, 20, {"w2": 1.0})))
        for _ in range(20):
            beat(stage, "w1")
    assert lost == 1


def test_no_silence_is_longer_than_the_ceiling() -> None:
    stage = calm(workers__longest=30)
    live(stage, 400, {"w1": 25.0, "w2": 1.0})
    (lost,) = losses(live(stage, 40, {"w2": 1.0}))
    assert lost.reason.facts["limit"] == 30


def test_a_new_incarnation_has_its_own_pace() -> None:
    stage = calm()
    live(stage, 200, {"w1": 20.0, "w2": 1.0})
    stage.say("w1", Bye("moves"))
    stage.hello("w1", "w1-2", previous="w1-1")
    (lost,) = losses(live(stage, 15, {"w2": 1.0}))
    assert lost.reason.facts["limit"] == LOST


def test_who_is_back_begins_anew_with_the_gap_that_ended() -> None:
    """14 s cut off: twice that may pass, until it has been heard often enough again."""
    stage = calm()
    live(stage, 60, {"w1": 1.0, "w2": 1.0})
    assert losses(live(stage, 14, {"w2": 1.0}))
    beat(stage, "w1")
    assert not losses(live(stage, 25, {"w2": 1.0}))
    assert losses(live(stage, 6, {"w2": 1.0}))


def test_a_master_that_slept_declares_nobody_lost() -> None:
    """Neither silent nor stuck: every deadline starts anew as it wakes up, and the sleep is no
    part of anybody's pace."""
    stage = calm()
    for _ in range(6):
        stage.say("w1", stage.round("w1"))
        live(stage, 5, {"w1": 1.0, "w2": 1.0})
    stage.now += 3600 * SECOND
    assert "stood still" in stage.put(Ticked()).note
    assert not losses(live(stage, 9, {"w1": 1.0, "w2": 1.0}))
    assert max(stage.soft.gaps["w1"].values) < 5


# --- stuck --------------------------------------------------------------------------------------


def test_alive_without_progress_is_stuck() -> None:
    """Its heartbeats go on; its blocks go back, and the numbers that say so are kept."""
    stage = trained()
    stage.say("w2", stage.round("w2"))
    found = live(stage, 30, {"w1": 1.0, "w2": 1.0}, steps=9)
    (lost,) = [entry for entry in losses(found) if entry.worker == "w1"]
    known = stage.soft.rounds["w1"]
    facts = lost.reason.facts
    assert lost.reason.code == "stuck"
    assert facts["limit"] == limit(known.median, known.spread, LOST, LONGEST)
    assert (facts["median"], facts["spread"]) == (known.median, known.spread)
    assert facts["steps"] == 9
    assert LOST < float(facts["seconds"] or 0) <= LOST + 2
    decision = next(d for d in found if lost in d.entries)
    assert one(BlocksReturned, decision).worker == "w1"
    assert not stage.state.members["w1"].grants


def test_only_progress_brings_a_stuck_worker_back() -> None:
    """Not its next idle heartbeat; a step more does, or a round, or a chunk."""
    for brings in ("steps", "round", "chunk"):
        stage = trained()
        found = live(stage, 40, {"w1": 1.0, "w2": 1.0}, steps=9)
        assert "w1" in {lost.worker for lost in losses(found)}
        assert not any(of(WorkerBack, decision) for decision in found)
        if brings == "steps":
            decision = beat(stage, "w1", steps=10)
        elif brings == "round":
            decision = stage.say("w1", stage.round("w1"))
        else:
            decision = stage.put(ChunkSeen("w1"))
        assert one(WorkerBack, decision).worker == "w1"
        assert of(BlocksGranted, decision)
        assert not losses(live(stage, 8, {"w1": 1.0, "w2": 1.0}, steps=10))


def test_a_stuck_worker_may_say_bye() -> None:
    stage = trained()
    live(stage, 30, {"w1": 1.0, "w2": 1.0}, steps=9)
    assert one(WorkerLeft, stage.say("w1", Bye("asked to leave"))).worker == "w1"


def test_steps_that_rise_are_progress() -> None:
    """A round of ten minutes after rounds of a second: as long as it steps, nobody minds."""
    stage = trained()
    for step in range(60):
        assert not losses(live(stage, 9, {"w1": 1.0, "w2": 1.0}, steps=10 + step))


def test_before_its_rounds_are_known_the_ceiling_governs() -> None:
    """It loads its framework, or its first round is slow: ten minutes are allowed."""
    stage = calm()
    assert not losses(live(stage, LONGEST - 5, {"w1": 1.0, "w2": 1.0}, steps=0))
    found = losses(live(stage, 10, {"w1": 1.0, "w2": 1.0}, steps=0))
    assert {(lost.reason.code, lost.reason.facts["limit"]) for lost in found} == {
        ("stuck", LONGEST)
    }


def test_who_waits_for_a_version_is_not_stuck() -> None:
    """At the barrier of bsp: w1 has pushed and waits for w2, which hangs. That one is stuck, then
    the version comes, and w1 has its whole time from there."""
    stage = calm("bsp", workers=3)
    for _ in range(5):
        stage.push("w1")
        stage.push("w2")
        stage.store(stage.push("w3"))
    stage.push("w1")
    stage.push("w3")
    beats = {"w1": 1.0, "w3": 1.0}
    found = live(stage, LOST + 2.5, {**beats, "w2": 1.0}, steps=0)
    assert [(lost.worker, lost.reason.code) for lost in losses(found)] == [("w2", "stuck")]
    (decision,) = [decision for decision in found if of(Merge, decision)]
    stage.store(decision)
    assert not losses(live(stage, LOST - 1, beats, steps=0))
    assert {lost.worker for lost in losses(live(stage, 4, beats, steps=0))} == {"w1", "w3"}


def test_a_thin_link_is_no_standstill() -> None:
    """Signs in bursts, 9 s apart: the silence between them is no part of a standstill."""
    stage = trained()
    for step in range(10):
        found = live(stage, 9, {"w2": 1.0}, steps=10 + step)
        beat(stage, "w1", 9 + step)
        found.append(beat(stage, "w1", 10 + step))
        assert not losses(found)


def test_its_topic_is_read_to_the_end_before_it_is_stuck() -> None:
    """Idle heartbeats do not stop the reading; progress that is found there does."""
    stage = trained()
    read: list[ReadToEnd] = []
    while not read:
        stage.now += SECOND
        beat(stage, "w1", 9)
        beat(stage, "w2", 10 + stage.now // SECOND)
        read = of(ReadToEnd, stage.put(Ticked()))
    beat(stage, "w1", 9)
    other = stage.put(TopicRead("w1"))
    assert one(WorkerLost, other).reason.code == "stuck"
    stage = trained()
    while not of(ReadToEnd, stage.put(Ticked())):
        stage.now += SECOND
        beat(stage, "w1", 9)
        beat(stage, "w2", 10 + stage.now // SECOND)
    beat(stage, "w1", 10)
    assert not losses([stage.put(TopicRead("w1"))])


def test_a_restarted_master_begins_anew() -> None:
    """It knows nobody's rounds: nobody is stuck before the ceiling."""
    stage = trained()
    live(stage, 9, {"w1": 1.0, "w2": 1.0}, steps=9)
    stage.restart()
    assert not losses(live(stage, 60, {"w1": 1.0, "w2": 1.0}, steps=9))


def test_who_is_stuck_is_no_less_so_for_a_restarted_master() -> None:
    """The ledger has the steps at which it stood still: a heartbeat of as many is no progress."""
    stage = trained()
    live(stage, 30, {"w1": 1.0, "w2": 1.0}, steps=9)
    stage.restart()
    assert not of(WorkerBack, beat(stage, "w1", steps=9))
    assert of(WorkerBack, beat(stage, "w1", steps=10))
