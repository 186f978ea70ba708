"""What a worker does next: one test a rule of the protocol (its part in brackets)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from stage import WorkerStage, of, one, version

from hermes.errors import Defect
from hermes.machine import worker
from hermes.machine.events import (
    BeatDue,
    Began,
    BlocksFetched,
    DropGrant,
    FetchBlocks,
    Forget,
    ForgetUpdate,
    Interrupted,
    KnockDue,
    Leave,
    LoadVersion,
    RoundFinished,
    Send,
    SendAgain,
    SendBeat,
    SendHello,
    SendResent,
    StoreUpdate,
    Train,
    UpdateStored,
    VersionLoaded,
    VersionMissing,
)
from hermes.machine.worker import WorkerState
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Bye,
    Consumed,
    Contribution,
    LedgerRecord,
    MasterStarted,
    ResendAsked,
    Round,
    RunStopped,
    ShardResized,
    TrainingStarted,
    Update,
    UpdateRejected,
    WorkerBack,
    WorkerLeft,
    WorkerLost,
    WorkerRefused,
)
from hermes.simulate.schedules import reference
from hermes.values import SECOND, Base, Birth, BlockRange, Position, Reason


def open_gate(**settings: object) -> WorkerStage:
    """A worker that pushes after every round."""
    return WorkerStage(gate__rule="open", **settings)


def test_what_is_about_others_makes_nothing_due() -> None:
    """It is read, and the next step is not looked for again; what is about itself is."""
    stage = open_gate()
    before = stage.state.authority.next_n
    assert not stage.see(ShardResized("w2", 64, 8, Reason("by-speed"))).changed
    assert stage.state.authority.next_n == before + 1
    assert not stage.put(BeatDue(0)).changed
    assert stage.see(BlocksGranted("w1", 1, (BlockRange(0, 1),), 8, 8)).changed


# --- being admitted [6] -------------------------------------------------------------------------


def test_it_knocks_until_it_is_admitted() -> None:
    """Each hello has a fresh nonce and names the incarnation before; no beat before admission."""
    stage = WorkerStage(admit=False)
    stage.state = WorkerState("w1", "w1-2")
    assert one(SendHello, stage.put(Began("a", "w1-1", ()))) == SendHello("a", "w1-1")
    assert one(SendHello, stage.put(KnockDue("b"))) == SendHello("b", "w1-1")
    assert not stage.put(BeatDue(0)).actions
    assert not stage.see(stage.admission(incarnation="w1-1")).actions
    stage.see(stage.admission(incarnation="w1-2"))
    assert stage.state.admitted
    assert not stage.put(KnockDue("c")).actions
    assert one(SendBeat, stage.put(BeatDue(7))) == SendBeat(7, 0)


def test_a_refusal_of_its_own_hello_ends_it() -> None:
    """By the hello's nonce; with the master's reason."""
    stage = WorkerStage(admit=False)
    reason = Reason("other-version", {"worker": "2", "master": "1"})
    assert not stage.see(WorkerRefused("w1", "another", reason)).actions
    left = one(Leave, stage.see(WorkerRefused("w1", "hello-1", reason)))
    assert (left.code, left.reason) == ("refused", "other-version (worker 2, master 1)")
    assert not stage.see(stage.admission()).actions


def test_what_stands_before_its_admission_is_not_its_own() -> None:
    """The grants that the same record returns were an incarnation's before."""
    stage = WorkerStage(admit=False)
    stage.see(stage.grant(1), WorkerLeft("w1", "a newer one"), stage.admission(), stage.grant(2))
    assert stage.state.phase == "idle"
    assert [grant.number for grant in stage.state.grants] == [2]


def test_nothing_is_loaded_before_training_starts() -> None:
    """The version it then loads is the newest."""
    stage = WorkerStage(admit=False)
    assert not of(LoadVersion, stage.see(stage.admission()))
    stage.see(version(1))
    assert one(LoadVersion, stage.see(TrainingStarted(1))).version.version == 1


def test_a_newer_incarnation_fences_it() -> None:
    """By admission of another incarnation, or by `WorkerLeft`."""
    for entry in (
        WorkerStage(admit=False).admission(incarnation="w1-2"),
        WorkerLeft("w1", "a newer incarnation took its place"),
    ):
        stage = WorkerStage()
        assert one(Leave, stage.see(entry)).code == "fenced"
        assert stage.state.phase == "gone"


# --- which records count [2, 6] -----------------------------------------------------------------


def record(stage: WorkerStage, *entries: object, **changes: object) -> LedgerRecord:
    """A record as the master in force would write it next, but for the changes."""
    nonce, term, n, chain = stage.place
    made = LedgerRecord(term, nonce, n, chain, 0, (), entries)  # type: ignore[arg-type]
    return replace(made, **changes)


def test_a_repeated_append_and_a_zombies_record_are_skipped() -> None:
    """[2] Void records change nothing, and the worker goes on."""
    stage = WorkerStage()
    stage.show(claim(stage, 2))
    stage.place = ("m2", 2, 1, stage.state.authority.chain)
    stage.see(stage.admission())
    before = stage.state
    for void in (
        record(stage, stage.grant(1), n=1),
        record(stage, stage.grant(1), term=1, nonce="m1", n=7),
        claim(stage, 2, "late"),
    ):
        assert not stage.show(void).actions
        assert stage.state == before
    stage.see(stage.grant(1))
    assert stage.state.grants


def claim(stage: WorkerStage, term: int, nonce: str = "m2") -> LedgerRecord:
    """A master starts."""
    return record(stage, MasterStarted(term, nonce), term=term, nonce=nonce, n=0, chain=b"")


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": b"another"},
        {"n": 9},
        {"term": 3, "nonce": "m3"},
        {"nonce": "another"},
    ],
    ids=["broken-chain", "missed-records", "higher-term", "another-master"],
)
def test_a_worker_that_lost_its_way_begins_again(changes: dict[str, object]) -> None:
    """[6] What does not continue what it followed sends it back to knock as a fresh incarnation."""
    stage = WorkerStage()
    left = one(Leave, stage.show(record(stage, stage.grant(1), **changes)))
    assert left.code == "again"


def test_a_higher_term_has_it_wait_to_be_admitted_again() -> None:
    """[6] It finishes its round, and begins no other before the new master speaks to it."""
    stage = WorkerStage()
    assert of(Train, stage.ready())
    stage.show(claim(stage, 2))
    stage.place = ("m2", 2, 1, stage.state.authority.chain)
    assert not stage.state.admitted
    assert not of(Train, stage.finish())
    admitted = stage.see(replace(stage.admission(), started=True))
    assert one(SendAgain, admitted).first == 1
    assert one(Train, admitted).round == 2


# --- blocks [9a] --------------------------------------------------------------------------------


def test_a_grant_is_fetched_before_it_is_trained() -> None:
    """And the one ahead is fetched meanwhile, but not while a version is on the way."""
    stage = WorkerStage("fedavg", round__steps=None, round__epochs=1)
    assert not of(Train, stage.put(VersionLoaded(Base(0, ""))))
    assert one(FetchBlocks, stage.see(stage.grant(1), stage.grant(2))).grant.number == 1
    assert not of(Train, stage.put(BlocksFetched(2)))
    begins = stage.put(BlocksFetched(1))
    train = one(Train, begins)
    assert {segment.grant for segment in train.segments} == {1}
    assert one(FetchBlocks, begins).grant.number == 2
    steps = [
        stage.finish(),
        stage.see(stage.grant(3)),
        stage.put(UpdateStored(reference("from", 5))),
    ]
    assert not any(of(FetchBlocks, step) for step in steps)


def test_a_finished_grant_is_dropped_and_reported() -> None:
    """The report names it; its blocks may go."""
    stage = WorkerStage()
    stage.ready()
    step = stage.finish()
    assert one(DropGrant, step).grant == 1
    assert sent(step).finished == (1,)
    assert [grant.number for grant in stage.state.grants] == [2]


def sent(step: worker.Step) -> Round:
    """The report that a step sends."""
    body = one(Send, step).body
    assert isinstance(body, Round)
    return body


def test_returned_grants_are_dropped() -> None:
    """They are somebody else's now: not trained, and a late fetch is no reason to."""
    stage = WorkerStage()
    stage.put(VersionLoaded(Base(0, "")))
    stage.see(stage.grant(1), stage.grant(2))
    step = stage.see(BlocksReturned("w1", (1, 2), "lost"), WorkerLost("w1", Reason("silent")))
    assert [action.grant for action in of(DropGrant, step)] == [1, 2]
    assert not stage.put(BlocksFetched(1)).actions
    assert stage.state.fetched == frozenset()


def test_a_grant_returned_during_its_round_ends_with_it() -> None:
    """The round is finished and reported; the next one begins with the next grant."""
    stage = WorkerStage("bsp")
    stage.ready()
    stage.see(BlocksReturned("w1", (1,), "lost"))
    assert stage.push().finished == ()
    assert stage.state.offset == 0
    assert [grant.number for grant in stage.state.grants] == [2]


# --- rounds, pushes [7] -------------------------------------------------------------------------


def test_after_a_quiet_round_it_goes_on_at_its_own_model() -> None:
    """[7] Nothing is sent but the report; what is unsent adds up and keeps its base."""
    stage = WorkerStage()
    stage.ready()
    step = stage.finish(probe=1.0)
    assert sent(step).verdict == "quiet"
    assert sent(step).update is None
    assert one(Train, step).round == 2
    assert not of(LoadVersion, step)
    assert (stage.state.unsent_samples, stage.state.unsent_rounds) == (24, 1)


def test_a_push_carries_all_that_is_unsent_and_then_waits() -> None:
    """[7] Chunks first, then the report that names them; the next round waits for the decision."""
    stage = open_gate()
    stage.ready()
    assert of(StoreUpdate, stage.finish())
    assert not of(Send, stage.see(version(1)))
    step = stage.put(UpdateStored(reference("from", 5)))
    report = sent(step)
    assert report.update == Update(
        Birth("w1-1", 1), Base(0, stage.version0.payload.digest), 24, 1, 0, reference("from", 5)
    )
    assert one(Send, step).number == 1
    assert stage.state.phase == "waiting"
    assert not of(Train, step)


def decided(stage: WorkerStage, report: Round, number: int = 1) -> Contribution:
    assert report.update is not None
    return Contribution("w1", report.update.birth, 1.0, 24)


def test_a_version_is_loaded_after_the_decision_only() -> None:
    """[7] The first that contains the update; one that does not changes nothing."""
    stage = open_gate()
    stage.ready()
    report = stage.push()
    assert not stage.see(version(1)).actions
    step = stage.see(version(2, decided(stage, report)))
    assert one(LoadVersion, step).version.version == 2
    assert one(ForgetUpdate, step).birth == Birth("w1-1", 1)
    assert stage.state.waiting_for == ()
    step = stage.put(VersionLoaded(Base(2, "d")))
    assert one(Train, step).round == 2
    assert (stage.state.base, stage.state.unsent_samples) == (Base(2, "d"), 0)


def test_a_rejected_update_is_forgotten_and_the_newest_version_loaded() -> None:
    """[7] Another worker's rejection does not concern it."""
    stage = open_gate()
    stage.ready()
    birth = Birth("w1-1", 1)
    stage.push()
    assert not stage.see(UpdateRejected("w2", birth, Reason("x"))).actions
    step = stage.see(version(1), UpdateRejected("w1", birth, Reason("x")))
    assert of(ForgetUpdate, step)
    assert one(LoadVersion, step).version.version == 1


def test_a_veto_throws_the_round_away() -> None:
    """[design 6] A loss that is not finite: it begins again from the newest version."""
    stage = WorkerStage()
    stage.ready()
    stage.see(version(3))
    step = stage.finish(loss=float("nan"), probe=float("nan"))
    report = sent(step)
    assert (report.verdict, report.loss, report.probe) == ("veto", None, None)
    assert one(LoadVersion, step).version.version == 3


def test_the_report_tells_work_from_waiting() -> None:
    """[10] Durations only: busy, and what passed beside it since the round before."""
    stage = WorkerStage()
    stage.ready()
    stage.now += SECOND
    assert sent(stage.finish(probe=1.0)).waited == 0
    step = stage.put(RoundFinished(2, 3, 24, SECOND, 0.5, 1.0), later=5)
    assert (sent(step).busy, sent(step).waited) == (SECOND, 4 * SECOND)


def test_progress_is_that_of_the_newest_version() -> None:
    """[design 5] Of `stop.samples`: what schedules are a function of."""
    stage = WorkerStage(stop__samples=240)
    assert one(Train, stage.ready()).progress == 0.0
    stage.see(version(5))
    assert one(Train, stage.finish(probe=1.0)).progress == 0.5


# --- the outbox [5, 6] --------------------------------------------------------------------------


def consumed(number: int, incarnation: str = "w1-1") -> Consumed:
    return Consumed(Position("from.w1", 0, number), incarnation, number)


def test_a_message_is_kept_until_the_ledger_has_taken_it() -> None:
    """[5] By this incarnation's number in a record that counts, not by another's."""
    stage = open_gate()
    stage.ready()
    stage.push()
    assert not stage.see(consumed=(consumed(9, "w1-0"),)).actions
    assert one(Forget, stage.see(consumed=(consumed(1),))).up_to == 1
    assert stage.state.taken == 1


def test_it_sends_again_what_is_asked_for() -> None:
    """[5] Only if it is this incarnation that is asked."""
    stage = open_gate()
    stage.ready()
    stage.push()
    assert not stage.see(ResendAsked("w1", "w1-0", 1)).actions
    assert not stage.see(ResendAsked("w2", "w1-1", 1)).actions
    assert one(SendAgain, stage.see(ResendAsked("w1", "w1-1", 1))).first == 1


def test_updates_left_by_an_incarnation_before_are_sent_again() -> None:
    """[6] With the birth that they have, before anything is trained; what the ledger has is not."""
    stage = WorkerStage(admit=False)
    updates = tuple(
        Update(Birth("w1-0", number), Base(0, "d"), 24, 1, 0, reference("from", number))
        for number in (3, 5)
    )
    stage.put(Began("again", "w1-0", updates))
    admission = replace(stage.admission(), taken={"w1-0": 3, "w1-1": 0})
    step = stage.see(admission, TrainingStarted(1))
    assert one(ForgetUpdate, step).birth == updates[0].birth
    assert one(SendResent, step) == SendResent(1, updates[1])
    assert not of(LoadVersion, step)
    assert stage.state.phase == "waiting"
    step = stage.see(UpdateRejected("w1", updates[1].birth, Reason("too-stale")))
    assert of(ForgetUpdate, step)
    assert of(LoadVersion, step)


# --- leaving ------------------------------------------------------------------------------------


def test_the_stop_has_it_say_bye() -> None:
    """And leave, whatever it was doing; then nothing moves it."""
    stage = WorkerStage()
    stage.ready()
    step = stage.see(RunStopped("finished", Reason("samples")))
    assert one(Send, step).body == Bye("the run has finished: samples")
    assert one(Leave, step).code == "done"
    assert not stage.finish().actions


def test_an_interrupted_worker_says_bye_if_it_was_admitted() -> None:
    """Its number is the next one, so that the master takes it."""
    stage = WorkerStage()
    step = stage.put(Interrupted("Ctrl-C"))
    assert one(Send, step) == Send(1, Bye("Ctrl-C"))
    assert one(Leave, step).code == "interrupted"
    stage = WorkerStage(admit=False)
    assert [type(a) for a in stage.put(Interrupted("Ctrl-C")).actions] == [Leave]


def test_who_knocks_at_a_run_that_has_stopped_leaves_when_nobody_answers() -> None:
    """A stop that may be forged is believed once the next hello is due."""
    stage = WorkerStage(admit=False)
    assert not of(Leave, stage.see(RunStopped("finished", Reason("samples"))))
    assert of(Leave, stage.put(KnockDue("b"))) == [Leave("done", "the run has finished: samples")]


def test_a_state_that_cannot_be_is_seen() -> None:
    """`check` is a check: each of its sentences can be false."""
    good = WorkerState("w1", "w1-1")
    for bad in (
        {"phase": "waiting"},
        {"phase": "training"},
        {"taken": 1},
        {"fetched": frozenset({1})},
    ):
        with pytest.raises(Defect):
            worker.check(replace(good, **bad))


# --- stuck ----------------------------------------------------------------------------------------

STUCK = (BlocksReturned("w1", (1, 2), "stuck"), WorkerLost("w1", Reason("stuck", {"steps": 3})))


def left(step: worker.Step) -> list[str]:
    return [action.code for action in step.actions if isinstance(action, Leave)]


def test_who_hung_on_a_version_knocks_anew_once_it_has_it() -> None:
    """Its blocks are others', so it has no step to show by which it would be back."""
    stage = WorkerStage()
    stage.see(stage.grant(1), stage.grant(2))
    assert stage.state.phase == "loading"
    assert not left(stage.see(*STUCK))
    assert left(stage.put(VersionLoaded(Base(0, stage.version0.payload.digest)))) == ["again"]


def test_who_hung_on_a_version_that_is_gone_knocks_anew() -> None:
    stage = WorkerStage()
    stage.see(stage.grant(1))
    stage.see(BlocksReturned("w1", (1,), "stuck"), STUCK[1])
    assert left(stage.put(VersionMissing(0, stage.version0.payload.id))) == ["again"]


def test_who_hung_on_blocks_knocks_anew() -> None:
    stage = WorkerStage()
    stage.put(VersionLoaded(Base(0, stage.version0.payload.digest)))
    stage.see(stage.grant(1), stage.grant(2))
    assert left(stage.see(*STUCK)) == ["again"]


def test_who_took_long_over_a_round_is_back_with_it() -> None:
    """A false alarm: the round that it reports is what the master waits for."""
    stage = WorkerStage()
    stage.ready()
    stage.see(*STUCK)
    assert stage.state.stuck
    assert not left(stage.finish())
    assert not stage.state.stuck
    assert not left(stage.see(WorkerBack("w1"), stage.grant(3)))


def test_who_was_silent_waits_for_new_blocks() -> None:
    """It is back with its next heartbeat."""
    stage = WorkerStage()
    stage.ready()
    stage.finish()
    step = stage.see(BlocksReturned("w1", (1, 2), "lost"), WorkerLost("w1", Reason("silent")))
    assert not left(step)
    assert not left(stage.see(WorkerBack("w1")))
    assert not left(stage.see(WorkerLost("w2", Reason("stuck", {"steps": 3}))))
