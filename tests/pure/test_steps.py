"""Where all step together: when does a gradient make a flag, and what does the machine make of it?

Every story that is told here is asked again as `hermes why` does, and read by the audit.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace
from stage import MasterStage, WorkerStage, of, one, version

from hermes.errors import Defect, SettingError
from hermes.machine import master, worker
from hermes.machine.audit import Audit
from hermes.machine.events import (
    LoadVersion,
    Merge,
    MergeFailed,
    RoundFinished,
    Send,
    SendResent,
    StoreUpdate,
    Ticked,
    TopicRead,
    Train,
    UpdateStored,
    VersionLoaded,
    VersionsSecured,
)
from hermes.machine.stopping import TRIES
from hermes.messages import (
    Bye,
    Contribution,
    LedgerRecord,
    Resent,
    Round,
    RoundNoted,
    RunReopened,
    RunStopped,
    StepClosed,
    UpdateRejected,
    VersionPublished,
)
from hermes.policy import gate
from hermes.policy.gate import Learned, Verdict
from hermes.policy.presets import resolve, to_tree, warnings
from hermes.policy.verdict import GateSettings, GateState
from hermes.report.live.recent import Recent
from hermes.report.live.waits import waits
from hermes.report.why.decided import MASTER
from hermes.report.why.decisions import Retelling
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting
from hermes.report.why.recompute import AGREES
from hermes.simulate.schedules import reference
from hermes.values import SECOND, Base, Reason

# --- the gate -------------------------------------------------------------------------------------


def verdicts(norms: list[float], **settings: Any) -> list[Verdict]:
    """What the gate says, one after the other."""
    chosen = GateSettings(rule="gradient", **settings)
    state, found = gate.start(chosen), list[Verdict]()
    for norm in norms:
        found.append(gate.decide(chosen, state, 0.5, Learned(gradient=norm)))
        state = found[-1].state
    return found


def test_the_change_is_that_of_the_weighted_mean_of_squares() -> None:
    norms = [1.0, 2.0, 0.5, 3.0, 3.0]
    mean, expected = 1.0, [0.0]
    for norm in norms[1:]:
        after = 0.84 * mean + 0.16 * norm**2
        expected.append(abs(after - mean) / mean)
        mean = after
    found = verdicts(norms, delta=0.3)
    assert [v.reason.facts["change"] for v in found] == pytest.approx(expected)
    assert [v.push for v in found] == ["push" if c >= 0.3 else "quiet" for c in expected]
    assert {v.push for v in found} == {"push", "quiet"}
    assert found[-1].state.smoothed == pytest.approx(mean)


def test_a_gradient_that_fades_never_reaches_a_delta_above_the_smoothing() -> None:
    grown = [verdicts([1.0, x**0.5], delta=0.3)[1].push for x in (2.87, 2.88)]
    assert grown == ["quiet", "push"]
    faded = verdicts([1.0, 0.0], delta=0.3)[1]
    assert (faded.push, faded.reason.facts["change"]) == ("quiet", pytest.approx(0.16))


def test_an_undefined_change_counts_as_none_which_a_delta_of_zero_is_content_with() -> None:
    for norms in ([1.0, 1.0], [0.0, 0.0, 2.0], [5.0]):
        assert {v.push for v in verdicts(norms, delta=0.0)} == {"push"}
        assert {v.push for v in verdicts(norms, delta=1e-9)} == {"quiet"}
    assert gate.first_possible_push(GateSettings(rule="gradient", delta=0.0)) == 1
    assert gate.first_possible_push(GateSettings(rule="gradient")) == 2
    tiny, huge = verdicts([1e-160, 1e150], delta=0.3, smoothing=1.0)
    assert math.isfinite(float(str(huge.reason.facts["change"])))
    assert (tiny.push, huge.push) == ("quiet", "push")


@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_what_is_not_finite_is_thrown_away_and_remembered_by_nobody(delta: float) -> None:
    chosen, state = GateSettings(rule="gradient", delta=delta), GateState((), 3, 0.0, 4.0)
    for norm in (math.nan, math.inf, 1e200):
        found = gate.decide(chosen, state, 0.5, Learned(gradient=norm))
        assert (found.push, found.reason.code, found.state) == ("veto", "not-finite", state)
    found = gate.decide(chosen, state, math.nan, Learned(gradient=1.0))
    assert (found.push, found.reason.code, found.state) == ("veto", "loss-not-finite", state)


# --- the master -----------------------------------------------------------------------------------


def stage_of(workers: int = 3, **settings: Any) -> MasterStage:
    return MasterStage("selsync", workers=workers, **settings)


def vote(stage: MasterStage, **verdicts: str) -> master.Decision:
    """These workers take a step, in this order."""
    for name, said in verdicts.items():
        last = stage.say(name, stage.round(name, verdict=said))
    return last


def push(stage: MasterStage, *names: str) -> master.Decision:
    """Their updates come."""
    for name in names:
        last = stage.say(name, Resent(stage.update(name)))
    return last


def merging(decision: master.Decision) -> list[str]:
    return [part.worker for merge in of(Merge, decision) for part in merge.parts]


def holds(records: list[LedgerRecord]) -> Retelling:
    """The audit reads it, and what was decided about steps and versions follows from the ledger."""
    Audit().read(records)
    retelling = Retelling()
    for record in records:
        retelling.read(record)
    for decision in retelling.decisions:
        if decision.kind in ("step", "version"):
            assert decision.check.outcome == AGREES, decision
    return retelling


def test_without_a_flag_all_go_on_once_the_last_has_taken_its_step() -> None:
    stage = stage_of()
    assert not of(StepClosed, vote(stage, w1="quiet", w2="quiet"))
    (wait,) = waits(stage.state, Recent(), stage.now + 2 * SECOND)
    assert wait.text == "step 1 waits for w3 (2.0 s), as all step together"
    step = one(StepClosed, vote(stage, w3="quiet"))
    assert (step.step, step.version, step.sync, step.pushers) == (1, 0, False, ())
    assert step.reason.code == "no-flag"
    assert one(StepClosed, vote(stage, w3="quiet", w1="quiet", w2="quiet")).step == 2
    assert stage.state.pending == ()
    holds(stage.records)


def test_a_flag_of_anyone_makes_all_push_and_the_version_is_the_mean_of_their_models() -> None:
    stage = stage_of()
    step = one(StepClosed, vote(stage, w1="quiet", w3="flag", w2="quiet"))
    assert (step.sync, step.pushers) == (True, ("w1", "w2", "w3"))
    assert step.reason == Reason(
        "flagged", {"stepped": 3, "flags": 1, "vetoed": 0, "first_flag": "w3"}
    )
    assert merging(push(stage, "w2", "w1")) == []
    last = push(stage, "w3")
    assert merging(last) == ["w2", "w1", "w3"]
    assert one(Merge, last).rule == "mean"
    assert one(VersionPublished, stage.store(last)).version == 1
    retelling = holds(stage.records)
    (said,) = [d for d in retelling.decisions if d.kind == "step"]
    story = told(said, Setting(stage.state.settings, 0))
    assert said.worker == MASTER
    assert story.body == "3 workers had taken it; flagged by w3. To push: w1, w2 and w3."


def test_whoever_threw_its_step_away_is_waited_for_and_pushes_nothing() -> None:
    stage = stage_of()
    assert not of(StepClosed, vote(stage, w1="veto", w2="flag"))
    step = one(StepClosed, vote(stage, w3="quiet"))
    assert (step.pushers, step.reason.facts["vetoed"]) == (("w2", "w3"), 1)
    assert merging(push(stage, "w2", "w3")) == ["w2", "w3"]
    other = stage_of()
    assert not one(StepClosed, vote(other, w1="veto", w2="veto", w3="veto")).sync
    holds(stage.records)
    holds(other.records)


def lose(stage: MasterStage, name: str) -> master.Decision:
    """All but this one beat until it is lost."""
    others = [other for other in stage.state.alive() if other != name]
    for _ in range(12):
        for other in others:
            stage.beat(other, later=1.0)
    stage.put(Ticked(), later=1.0)
    return stage.put(TopicRead(name))


def test_a_lost_worker_holds_neither_a_step_nor_a_version() -> None:
    stage = stage_of()
    vote(stage, w1="flag", w2="quiet")
    assert one(StepClosed, lose(stage, "w3")).pushers == ("w1", "w2")
    push(stage, "w1")
    assert merging(lose(stage, "w2")) == ["w1"]
    holds(stage.records)


def test_a_vote_of_one_who_is_back_in_time_counts() -> None:
    stage = stage_of()
    vote(stage, w1="quiet", w3="flag")
    lose(stage, "w3")
    stage.beat("w3")
    assert stage.state.members["w3"].status == "alive"
    assert one(StepClosed, vote(stage, w2="quiet")).pushers == ("w1", "w2", "w3")


def test_an_update_of_one_who_was_away_makes_the_next_step_a_sync() -> None:
    """It was to push, was lost, and is back when the version is out: nobody merges it alone, and
    no step waits for a vote that it cannot give."""
    stage = stage_of()
    vote(stage, w1="flag", w2="quiet", w3="quiet")
    late = stage.update("w3")
    push(stage, "w1", "w2")
    decision = lose(stage, "w3")
    stage.store(decision)
    assert not of(Merge, stage.say("w3", Resent(late)))
    assert not of(StepClosed, vote(stage, w1="quiet"))
    step = one(StepClosed, vote(stage, w2="quiet"))
    assert (step.sync, step.pushers, step.reason.code) == (True, ("w1", "w2"), "update-waits")
    assert merging(push(stage, "w1", "w2")) == ["w3", "w1", "w2"]
    holds(stage.records)


def test_who_comes_while_a_version_is_made_is_merged_with_the_next_one_version_behind() -> None:
    stage = stage_of(2)
    vote(stage, w1="flag", w2="quiet")
    stage.hello("w3")
    stage.store(push(stage, "w1", "w2"))
    assert not of(StepClosed, vote(stage, w1="flag", w2="quiet"))
    behind = stage.update("w3", base=0)
    round_ = replace(stage.round("w3", verdict="quiet"), base=0)
    assert one(StepClosed, stage.say("w3", round_)).pushers == ("w1", "w2", "w3")
    number = behind.birth.number + 1
    behind = replace(behind, birth=replace(behind.birth, number=number))
    stage.say("w3", Resent(behind))
    assert merging(push(stage, "w1", "w2")) == ["w3", "w1", "w2"]
    holds(stage.records)


def test_a_new_master_goes_on_between_the_step_and_its_version() -> None:
    stage = stage_of()
    vote(stage, w1="flag", w2="quiet", w3="quiet")
    push(stage, "w1")
    stage.restart()
    stage.put(VersionsSecured((), 0, asked=0))
    assert merging(push(stage, "w2", "w3")) == ["w1", "w2", "w3"]
    again = stage.restart()
    assert not of(StepClosed, again)
    assert stage.state.step is not None
    assert stage.state.step.step == 1
    holds(stage.records)


def test_a_new_process_of_a_worker_has_no_vote_and_owes_nothing() -> None:
    stage = stage_of()
    vote(stage, w1="quiet", w2="flag")
    stage.hello("w2", "w2-2", previous="w2-1")
    assert not of(StepClosed, vote(stage, w3="quiet"))
    assert not one(StepClosed, vote(stage, w2="quiet")).sync
    vote(stage, w1="flag", w2="quiet", w3="quiet")
    push(stage, "w1", "w3")
    assert merging(stage.hello("w2", "w2-3", previous="w2-2")) == ["w1", "w3"]
    holds(stage.records)


def test_where_all_of_a_sync_are_gone_the_others_go_on_without_it() -> None:
    stage = stage_of(2)
    vote(stage, w1="flag", w2="veto")
    assert not of(Merge, stage.say("w1", Bye("leaves")))
    assert not one(StepClosed, vote(stage, w2="quiet")).sync
    holds(stage.records)


def test_one_whose_update_cannot_be_merged_does_not_hold_the_version() -> None:
    stage = stage_of(2)
    vote(stage, w1="flag", w2="flag")
    merge = one(Merge, push(stage, "w1", "w2"))
    bad = merge.parts[0].update.birth
    decision = stage.put(MergeFailed(1, bad, Reason("not-finite", {"tensor": "x"})))
    assert one(UpdateRejected, decision).worker == "w1"
    assert merging(decision) == ["w2"]


def test_a_run_of_which_nothing_can_be_merged_ends_though_each_step_was_flagged() -> None:
    stage = stage_of(1)
    for _ in range(TRIES):
        vote(stage, w1="flag")
        birth = one(Merge, push(stage, "w1")).parts[0].update.birth
        last = stage.put(MergeFailed(1, birth, Reason("not-finite", {"tensor": "x"})))
    assert one(RunStopped, last).reason.code == "diverged"


def test_the_audit_and_why_see_a_step_that_cannot_be() -> None:
    stage = stage_of(2)
    vote(stage, w1="flag", w2="veto")
    for changes, says in (
        ({"pushers": ("w1", "w2")}, "has nothing"),
        ({"step": 2}, "step 2 follows step 0"),
        ({"sync": False}, "makes no version"),
        ({"version": 7}, "closes on version 7"),
    ):
        wrong = [
            replace(
                record,
                entries=tuple(
                    replace(e, **changes) if isinstance(e, StepClosed) else e
                    for e in record.entries
                ),
            )
            for record in stage.records
        ]
        with pytest.raises(Defect, match=says):
            Audit().read(wrong)
        retelling = Retelling()
        for record in wrong:
            retelling.read(record)
        (step,) = [d for d in retelling.decisions if d.kind == "step"]
        assert step.check.differing == list(changes)


# --- a worker -------------------------------------------------------------------------------------


def step_of(stage: WorkerStage, norm: float = 1.0) -> Round:
    """A step is taken; what is told of it."""
    event = RoundFinished(stage.state.round, 1, 8, SECOND, 0.5, None, gradient=norm)
    step = stage.put(event)
    assert stage.state.phase == "stepped"
    assert not of(StoreUpdate, step)
    body = one(Send, step).body
    assert isinstance(body, Round)
    assert body.update is None
    return body


def noted(body: Round) -> RoundNoted:
    said = (body.loss, body.verdict, body.reason, body.finished)
    return RoundNoted("w1", body.round, 0, 1, 8, 1, 0, *said)


def closes(number: int, *pushers: str, sync: bool = True) -> StepClosed:
    return StepClosed(number, 0, sync, pushers, Reason("test"))


def test_a_worker_goes_on_with_its_own_model_until_it_is_asked_to_push() -> None:
    stage = WorkerStage("selsync")
    assert one(Train, stage.ready()).gradient
    told_ = step_of(stage)
    assert (told_.verdict, told_.reason.code) == ("quiet", "steady")
    early = stage.see(closes(1, "w1"))  # of a step before: the master has not seen this one
    assert (early.actions, stage.state.phase) == ((), "stepped")
    on = stage.see(noted(told_), closes(2, sync=False))
    assert one(Train, on)
    assert not of(LoadVersion, on)
    told_ = step_of(stage, norm=3.0)
    assert (told_.verdict, told_.reason.code) == ("flag", "changed")
    assert of(StoreUpdate, stage.see(noted(told_), closes(3, "w1")))
    update = one(SendResent, stage.put(UpdateStored(reference("from", 1)))).update
    assert (update.samples, update.rounds, update.oldest) == (16, 2, 0)
    assert update.birth.number == stage.state.number
    part = Contribution("w1", update.birth, 1.0, 16)
    assert one(LoadVersion, stage.see(version(1, part))).version.version == 1


def test_who_is_not_named_goes_on_and_one_that_threw_its_step_away_from_the_newest() -> None:
    stage = WorkerStage("selsync")
    stage.ready()
    assert one(Train, stage.see(noted(step_of(stage)), closes(1, "w2")))
    body = step_of(stage, norm=math.nan)
    assert (body.verdict, body.reason.code) == ("veto", "not-finite")
    assert one(LoadVersion, stage.see(noted(body), closes(2, "w2"))).version.version == 0
    stage.put(VersionLoaded(Base(0, stage.version0.payload.digest)))
    assert stage.state.unsent_samples == 0


def test_an_update_that_the_broker_lost_is_stored_once_more_and_the_next_is_a_new_one() -> None:
    stage = WorkerStage("selsync", gate__delta=0.0)
    stage.ready()

    def pushed() -> Any:
        stage.see(noted(step_of(stage)), closes(1, "w1"))
        return one(SendResent, stage.put(UpdateStored(reference("from", 1)))).update

    first = pushed()
    gone = UpdateRejected("w1", first.birth, Reason("unreadable"))
    assert one(StoreUpdate, stage.see(gone))
    again = one(SendResent, stage.put(UpdateStored(reference("from", 2)))).update
    assert again.birth.number == first.birth.number + 1
    stage.see(version(1, Contribution("w1", again.birth, 1.0, 8)))
    stage.put(VersionLoaded(Base(1, version(1).payload.digest)))
    after = pushed()
    assert (after.base.version, after.samples, after.rounds) == (1, 8, 1)


def test_a_run_that_goes_on_under_another_rule_leaves_nobody_waiting_for_steps() -> None:
    stage = WorkerStage("selsync")
    stage.ready()
    body = step_of(stage)
    tree = to_tree(resolve("bsp", []))
    assert one(Train, stage.see(noted(body), RunReopened(tree, Reason("asked"))))
    worker.check(stage.state)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "changes", "says"),
    [
        ("selsync", {"gate.delta": -0.1}, "gate.delta is -0.1"),
        ("selsync", {"gate.smoothing": 0}, "gate.smoothing is 0"),
        ("selsync", {"gate.smoothing": 1.1}, "gate.smoothing is 1.1"),
        ("selsync", {"continue.rule": "at-once"}, "continue.rule=at-once lets workers"),
        ("selsync", {"gate.rule": "zscore"}, "gate.rule=zscore goes by"),
        ("selsync", {"merge.rule": "interpolate"}, "merges one at a time"),
        ("selsync", {"close.rule": "all"}, "close.rule=all waits for a push"),
        ("ebsp", {"close.rule": "flagged"}, "close.rule=flagged"),
    ],
)
def test_what_does_not_go_together_is_refused(
    strategy: str, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(SettingError, match=says):
        resolve(strategy, [changes])


def test_a_newcomer_that_is_thrown_away_again_and_again_is_a_warning() -> None:
    found = warnings(resolve("selsync", [{"merge.max_staleness": 0}]), [])
    assert any("newcomer" in warning for warning in found)
    assert warnings(resolve("selsync", []), []) == []
