"""A worker that does not wait: which version it takes when, and how far ahead it may be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from stage import WorkerStage, of, one, version

from hermes.machine.events import (
    BlocksFetched,
    ForgetUpdate,
    LoadVersion,
    RoundFinished,
    Send,
    Train,
    UpdateStored,
    VersionLoaded,
    VersionMissing,
)
from hermes.machine.hand import Step
from hermes.messages import (
    Contribution,
    Rewound,
    Round,
    RoundNoted,
    TrainingStarted,
    Update,
    UpdateRejected,
    VersionPublished,
    WorkerBack,
    WorkerLeft,
    WorkerLost,
)
from hermes.policy.sync import ContinueSettings, too_far_ahead
from hermes.simulate.schedules import reference
from hermes.values import Base, Birth, Reason


def at_once(gate: str = "open", **settings: object) -> WorkerStage:
    """A worker that goes on at once, training its first round."""
    chosen = {"gate__rule": gate, "continue__rule": "at-once", "merge__rule": "mean", **settings}
    stage = WorkerStage(**chosen)
    stage.ready()
    supply(stage)
    return stage


def supply(stage: WorkerStage) -> None:
    """Blocks for more rounds than a test has."""
    for number in range(3, 10):
        stage.see(stage.grant(number))
        stage.put(BlocksFetched(number))


def contribution(worker: str, update: Update | None = None) -> Contribution:
    birth = update.birth if update is not None else Birth(f"{worker}-1", 1)
    return Contribution(worker, birth, 1.0, 24)


def loaded(stage: WorkerStage, entry: VersionPublished) -> Step:
    return stage.put(VersionLoaded(Base(entry.version, entry.payload.digest)))


def updates(step: Step) -> Update:
    body = one(Send, step).body
    assert isinstance(body, Round)
    assert body.update is not None
    return body.update


def test_after_a_push_it_trains_on_where_it_is() -> None:
    """There is no newer version yet: nothing is loaded, nothing is waited for."""
    stage = at_once()
    stage.finish()
    step = stage.put(UpdateStored(reference("from", 1)))
    assert one(Train, step).round == 2
    assert not of(LoadVersion, step)
    assert (stage.state.unsent_samples, stage.state.unsent_rounds) == (0, 0)


def test_a_newer_version_is_taken_before_the_next_round_less_what_is_pending() -> None:
    stage = at_once()
    stage.finish()
    mine = updates(stage.put(UpdateStored(reference("from", 1))))
    others = version(1, contribution("w2"))
    assert not stage.see(others).actions, "a round is under way"
    stage.finish()
    step = stage.put(UpdateStored(reference("from", 2)))
    second = updates(step)
    assert (second.base.version, second.oldest) == (0, 0)
    assert one(LoadVersion, step) == LoadVersion(others, (mine.payload.id, second.payload.id))
    assert one(Train, loaded(stage, others)).round == 3
    both = version(2, contribution("w1", mine))
    assert one(ForgetUpdate, stage.see(both)).birth == mine.birth
    stage.finish()
    third = stage.put(UpdateStored(reference("from", 3)))
    assert updates(third).base.version == 1
    pending = (second.payload.id, updates(third).payload.id)
    assert one(LoadVersion, third).pending == pending


def test_what_a_quiet_round_learned_is_kept_and_counts_from_its_own_version() -> None:
    """Staleness counts from the oldest step of what is unsent (protocol 7)."""
    stage = at_once("zscore")
    newer = version(1, contribution("w2"))
    stage.see(newer)
    step = stage.finish(probe=1.0)
    assert one(LoadVersion, step) == LoadVersion(newer, (), keeps=True)
    loaded(stage, newer)
    assert (stage.state.unsent_samples, stage.state.oldest) == (24, 0)
    for probe in (1.0, 1.0, 1.0, -9.0):
        stage.finish(probe=probe)
    update = updates(stage.put(UpdateStored(reference("from", 1))))
    assert (update.base.version, update.oldest) == (1, 0)
    assert update.samples == 24 * update.rounds
    assert stage.state.oldest == stage.state.base.version  # type: ignore[union-attr]


def test_a_veto_drops_what_is_unsent_and_not_what_is_pending() -> None:
    stage = at_once("zscore")
    stage.state = replace(stage.state, waiting_for=(_update(7),))
    newer = version(1, contribution("w2"))
    stage.see(newer)
    step = stage.finish(loss=float("nan"), probe=float("nan"))
    assert one(LoadVersion, step) == LoadVersion(newer, (_update(7).payload.id,), keeps=False)
    loaded(stage, newer)
    assert (stage.state.unsent_samples, stage.state.oldest) == (0, 1)


def _update(number: int) -> Update:
    base = Base(0, version(0).payload.digest)
    return Update(Birth("w1-1", number), base, 24, 1, 0, reference("from", number))


def test_a_version_that_cannot_be_read_is_left_until_the_next() -> None:
    """It trains on where it is."""
    stage = at_once()
    newer = version(1, contribution("w2"))
    stage.see(newer)
    stage.finish()
    assert of(LoadVersion, stage.put(UpdateStored(reference("from", 1))))
    step = stage.put(VersionMissing(1, newer.payload.id))
    assert one(Train, step).round == 2
    stage.see(version(2, contribution("w2")))
    stage.finish()
    assert one(LoadVersion, stage.put(UpdateStored(reference("from", 2)))).version.version == 2


def test_it_goes_back_with_the_run() -> None:
    """Versions were lost: what it had learned on them stays, and counts from what is left."""
    stage = at_once("zscore")
    second = version(2, contribution("w2"))
    stage.see(version(1, contribution("w2")), second)
    stage.finish(probe=1.0)
    loaded(stage, second)
    back = version(1)
    stage.see(Rewound(back, (2,), (), Reason("lost")))
    step = stage.finish(probe=1.0)
    assert one(LoadVersion, step) == LoadVersion(back, (), keeps=True)


# --- bounded ------------------------------------------------------------------------------------


def test_how_far_ahead_is_too_far() -> None:
    settings = ContinueSettings(rule="bounded", slack=2)
    assert not too_far_ahead(settings, 5, 3)
    assert too_far_ahead(settings, 6, 3)
    assert not too_far_ahead(ContinueSettings(rule="bounded", slack=None), 99, 0)
    assert not too_far_ahead(ContinueSettings(rule="at-once"), 99, 0)


class Bounded(WorkerStage):
    """One worker of three, as its admission says how far they are."""

    def __init__(self, slack: int | None, **clocks: int) -> None:
        settings = {"gate__rule": "open", "continue__rule": "bounded", "merge__rule": "mean"}
        super().__init__(admit=False, continue__slack=slack, **settings)
        self.see(replace(self.admission(), clocks=clocks), TrainingStarted(1))
        self.ready()
        supply(self)

    def pushes(self) -> tuple[Update, Step]:
        """The round under way is pushed; the step after it."""
        if self.state.phase == "training":
            self.put(RoundFinished(self.state.round, 1, 8, 1, 0.5, None))
        step = self.put(UpdateStored(reference("from", self.state.number + 1)))
        return updates(step), step


def test_it_waits_for_the_slowest_alive() -> None:
    """A round counts once a version holds it; the newest version is then the one to go on from."""
    stage = Bounded(1, w1=0, w2=0, w3=0)
    first, step = stage.pushes()
    assert of(Train, step), "one round ahead is allowed"
    second, step = stage.pushes()
    assert not of(Train, step)
    one_more = version(1, contribution("w1", first))
    assert not of(LoadVersion, stage.see(one_more)), "w2 and w3 have not finished any"
    assert not stage.see(version(2, contribution("w2"))).actions
    third = version(3, contribution("w3"))
    step = stage.see(third)
    assert one(LoadVersion, step) == LoadVersion(third, (second.payload.id,))
    assert of(Train, loaded(stage, third))


def test_without_slack_everybody_goes_in_step() -> None:
    stage = Bounded(0, w1=0, w2=0)
    first, step = stage.pushes()
    assert not of(Train, step)
    stage.see(version(1, contribution("w2")))
    assert stage.state.phase == "idle", "its own is in no version yet"
    both = version(2, contribution("w1", first))
    assert one(LoadVersion, stage.see(both)).version == both


@pytest.mark.parametrize("gone", [WorkerLost("w2", Reason("silent")), WorkerLeft("w2", "bye")])
def test_whoever_is_gone_is_not_waited_for(gone: WorkerLost | WorkerLeft) -> None:
    """One that comes back starts where the slowest is."""
    stage = Bounded(0, w1=4, w2=4)
    update, _ = stage.pushes()
    stage.see(version(1, contribution("w1", update)))
    assert stage.state.phase == "idle"
    assert of(LoadVersion, stage.see(gone))
    stage.see(WorkerBack("w2"))
    assert stage.state.clocks == {"w1": 5, "w2": 5}


def test_a_rejected_update_and_a_quiet_round_are_rounds_too() -> None:
    stage = Bounded(0, w1=0, w2=0)
    update, _ = stage.pushes()
    stage.see(UpdateRejected("w1", update.birth, Reason("x")))
    assert stage.state.clocks == {"w1": 1, "w2": 0}
    quiet = RoundNoted("w2", 1, 0, 3, 24, 1, 0, 0.5, "quiet", Reason("q"), ())
    stage.see(replace(quiet, verdict="push"))
    assert stage.state.clocks["w2"] == 0, "until a version holds it"
    stage.see(quiet)
    assert stage.state.clocks["w2"] == 1
    assert of(Train, loaded(stage, stage.version0))


def test_without_a_bound_it_is_at_once() -> None:
    stage = Bounded(None)
    for _ in range(3):
        _, step = stage.pushes()
        assert of(Train, step)
    assert not stage.state.clocks


def test_whoever_is_admitted_anew_and_lost_is_not_waited_for() -> None:
    """A new master admits anew all that have not left, whoever is lost among them."""
    stage = Bounded(0, w1=4, w2=4)
    update, _ = stage.pushes()
    stage.see(version(1, contribution("w1", update)), WorkerLost("w2", Reason("silent")))
    anew = replace(stage.admission(), worker="w2", incarnation="w2-1", hello="")
    stage.see(replace(anew, clocks={"w1": 5, "w2": 5}))
    assert stage.state.clocks == {"w1": 5}
    stage.see(WorkerBack("w2"), replace(anew, hello="again", clocks={"w1": 5, "w2": 5}))
    assert stage.state.clocks == {"w1": 5, "w2": 5}


def test_after_all_were_lost_the_bound_holds_again() -> None:
    """They start at none, as with the master."""
    stage = Bounded(0, w1=4, w2=4)
    silent = Reason("silent")
    stage.see(WorkerLost("w1", silent), WorkerLost("w2", silent), WorkerBack("w1"))
    assert stage.state.clocks == {"w1": 0}
    stage.see(WorkerBack("w2"))
    _, step = stage.pushes()
    assert not of(Train, step), "w2 has finished none"


# --- what was rejected ----------------------------------------------------------------------------


def test_a_rejected_update_leaves_the_local_model_before_the_next_round() -> None:
    """Though there is no newer version: the one it is on is taken again."""
    stage = at_once()
    stage.finish()
    mine = updates(stage.put(UpdateStored(reference("from", 1))))
    stage.see(UpdateRejected("w1", mine.birth, Reason("not-finite")))
    stage.finish()
    step = stage.put(UpdateStored(reference("from", 2)))
    assert one(LoadVersion, step).version == stage.version0
    assert one(LoadVersion, step).pending == (updates(step).payload.id,)
    assert of(Train, loaded(stage, stage.version0)), "once"


def test_what_is_rejected_while_a_version_is_loaded_leaves_with_the_next() -> None:
    """It was pending as the loading began, and is carried over."""
    stage = at_once()
    stage.finish()
    mine = updates(stage.put(UpdateStored(reference("from", 1))))
    newer = version(1, contribution("w2"))
    stage.see(newer)
    stage.finish()
    assert of(LoadVersion, stage.put(UpdateStored(reference("from", 2))))
    stage.see(UpdateRejected("w1", mine.birth, Reason("x")))
    again = one(LoadVersion, loaded(stage, newer))
    assert (again.version, len(again.pending)) == (newer, 1)


def test_what_another_incarnation_had_rejected_is_in_no_model_of_this_one() -> None:
    stage = at_once()
    stage.finish()
    stage.see(UpdateRejected("w1", Birth("w1-0", 3), Reason("x")))
    assert not of(LoadVersion, stage.put(UpdateStored(reference("from", 1))))
