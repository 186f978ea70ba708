"""Are slow, quiet, silent, stuck, cut off and dead told apart? And can a loss be recomputed?"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from passing import beat, live, losses, trained
from stage import MasterStage

from hermes.machine.apply import apply_entries
from hermes.machine.state import MasterState
from hermes.messages import Bye, WorkerLost
from hermes.report.live.health import health, last_decision, shown
from hermes.report.live.recent import Recent
from hermes.report.live.waits import CALM, Around, standing
from hermes.report.story import Story
from hermes.report.tables import status_json
from hermes.report.why import recompute
from hermes.values import SECOND, Reason


def recent_of(stage: MasterStage) -> Recent:
    """What a display has read of this run."""
    recent = Recent()
    for record in stage.records:
        recent.read(record)
    return recent


def told(stage: MasterStage, worker: str, around: Around = CALM) -> str:
    """The word that stands for this worker."""
    recent, member = recent_of(stage), stage.state.members[worker]
    stands = standing(stage.state, recent, member, stage.now, around)
    return health(stage.state, recent, member, stands, around)


def decision(stage: MasterStage, worker: str) -> str:
    return last_decision(recent_of(stage), stage.state.members[worker])


def test_slow_is_twice_as_slow_as_the_others() -> None:
    stage = MasterStage(workers=4)
    for worker, busy in (("w1", 1.0), ("w2", 1.1), ("w3", 0.9), ("w4", 2.5)):
        stage.say(worker, stage.round(worker, verdict="veto", busy=busy))
    assert {w: told(stage, w) for w in stage.state.alive()} == {
        "w1": "training", "w2": "training", "w3": "training", "w4": "slow",
    }  # fmt: skip


def test_quiet_is_three_quiet_rounds_in_a_row() -> None:
    stage = MasterStage(workers=2)
    words = []
    for verdict in ("quiet", "quiet", "veto", "quiet", "quiet", "quiet"):
        stage.say("w1", stage.round("w1", verdict=verdict))
        words.append(told(stage, "w1"))
    assert words == ["training"] * 5 + ["quiet"]
    assert told(stage, "w2") == "starting"


def test_silent_then_dead_or_cut_off_then_back() -> None:
    stage = trained()
    recent = recent_of(stage)
    recent.hear({"w1": (1, 1), "w2": (1, 1)}, stage.now)
    member = stage.state.members["w1"]
    stands = standing(stage.state, recent, member, stage.now + 7 * SECOND)
    word = health(stage.state, recent, member, stands)
    assert (word, shown(word, stands)) == ("silent", "silent 7.0 s")
    assert health(stage.state, recent, member, stands, Around(dead=("w1",))) == "dead"
    assert losses(live(stage, 14, {"w2": 1.0}))
    assert told(stage, "w1") == "dead or cut off"
    assert told(stage, "w1", Around(dead=("w1",))) == "dead"
    assert told(stage, "w1", Around(revoked=("w1",))) == "revoked"
    assert decision(stage, "w1").startswith("lost: silent for 1")
    beat(stage, "w1")
    assert decision(stage, "w1") == "was cut off for 14 s"
    assert told(stage, "w1") == "quiet"
    stage.say("w1", stage.round("w1"))
    assert "cut off" not in decision(stage, "w1"), "what was decided since is of more interest"


def test_revoked_is_said_before_anybody_misses_it() -> None:
    stage = trained()
    assert told(stage, "w1") != "revoked"
    around = Around(revoked=("w1",))
    assert (told(stage, "w1", around), told(stage, "w2", around)) == ("revoked", told(stage, "w2"))
    stage.say("w1", Bye("moves"))
    assert told(stage, "w1", around) == "left"


def test_a_new_incarnation_says_that_the_last_one_had_died() -> None:
    stage = trained()
    live(stage, 14, {"w2": 1.0})
    stage.hello("w1", "w1-2", previous="w1-1")
    assert decision(stage, "w1") == "had died"
    stage.hello("w2", "w2-2", previous="w2-1")
    assert decision(stage, "w2") == "had died", "it took its own place while that was not lost yet"
    stage.say("w2", Bye("moves"))
    assert told(stage, "w2", Around(dead=("w2",))) == "left"
    stage.hello("w2", "w2-3", previous="w2-2")
    assert decision(stage, "w2") != "had died", "it had said bye"


def test_a_restarted_master_says_of_nobody_that_it_had_died() -> None:
    stage = trained()
    live(stage, 14, {"w2": 1.0})
    stage.restart()
    assert told(stage, "w1") == "dead or cut off"
    assert not recent_of(stage).returned
    beat(stage, "w1")
    assert decision(stage, "w1") == "was cut off for 14 s"


def test_stuck_and_back() -> None:
    stage = trained()
    live(stage, 30, {"w1": 1.0, "w2": 1.0}, steps=9)
    assert told(stage, "w1") == "stuck"
    assert decision(stage, "w1").startswith("lost: no progress for 1")
    as_json = status_json(stage.state, Story(), recent_of(stage))["workers"]["w1"]
    assert (as_json["status"], as_json["doing"], as_json["health"]) == ("lost", "lost", "stuck")
    beat(stage, "w1", steps=10)
    assert decision(stage, "w1").startswith("was stuck for 3")
    as_json = status_json(stage.state, Story(), recent_of(stage))["workers"]["w1"]
    assert as_json["returned"] == decision(stage, "w1")


# --- hermes why ---------------------------------------------------------------------------------


def before_losses(stage: MasterStage) -> list[tuple[MasterState, WorkerLost]]:
    """Each loss, and the fold up to just before it."""
    state, found = MasterState(), []
    for record in stage.records:
        state = replace(state, time=record.time)
        for entry in record.entries:
            if isinstance(entry, WorkerLost):
                found.append((state, entry))
            state = apply_entries(state, [entry])
        state = apply_entries(state, (), record.consumed)
    return found


@pytest.mark.parametrize("code", ["silent", "stuck"])
def test_a_loss_is_recomputed_and_a_wrong_one_seen(code: str) -> None:
    """The limit follows from what it was made of; neither can be changed alone."""
    stage = trained()
    live(stage, 30, {"w2": 1.0} if code == "silent" else {"w1": 1.0, "w2": 1.0}, steps=9)
    state, entry = next(pair for pair in before_losses(stage) if pair[1].worker == "w1")
    assert entry.reason.code == code
    assert recompute.lost(state, entry).outcome == recompute.AGREES
    long = "silent" if code == "silent" else "seconds"
    for wrong in ({"limit": 11.0}, {"median": 30.0}, {"spread": 9.0}, {long: 9.9}):
        facts = {**entry.reason.facts, **wrong}
        changed = WorkerLost("w1", Reason(code, facts))
        assert recompute.lost(state, changed).outcome == recompute.DIFFERS, wrong
