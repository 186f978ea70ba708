"""What the master decides: one test a rule of the protocol (its part in brackets)."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest
from stage import MasterStage, of, one

from hermes.errors import Defect
from hermes.machine import events, master
from hermes.machine.apply import APPLY
from hermes.machine.audit import Audit
from hermes.machine.events import (
    Action,
    ChunkSeen,
    Evaluate,
    EvaluationFinished,
    Event,
    FinalScored,
    Finish,
    FollowWorker,
    Merge,
    MergeFailed,
    ReadToEnd,
    Score,
    ScoreLast,
    SecureVersions,
    StopAsked,
    StopReceived,
    Ticked,
    TopicRead,
    UpdateScored,
    VersionsSecured,
    VersionStored,
)
from hermes.machine.rules import PROTOCOL_RULES
from hermes.machine.walk import outstanding
from hermes.machine.worker import HANDLERS as WORKER_HANDLERS
from hermes.messages import (
    PROTOCOL,
    BlocksGranted,
    BlocksReturned,
    Bye,
    Entry,
    Heartbeat,
    ResendAsked,
    Resent,
    RoundNoted,
    RunScored,
    RunStopped,
    ShardResized,
    Software,
    StopRequested,
    TrainingStarted,
    UpdateRejected,
    UpdateTaken,
    VersionEvaluated,
    VersionPublished,
    WorkerAdmitted,
    WorkerBack,
    WorkerLeft,
    WorkerLost,
    WorkerRefused,
)
from hermes.simulate.schedules import reference
from hermes.values import SECOND, Base, Birth, BlockRange, Position, Reason

LIMIT = 10.0
"""`workers.lost`, by default."""


def kinds(base: type) -> set[type]:
    """Every event or action there is."""
    found = vars(events).values()
    return {
        k for k in found if isinstance(k, type) and issubclass(k, base) and k not in (Event, Action)
    }


# --- the tables ---------------------------------------------------------------------------------


def test_every_event_has_a_handler() -> None:
    """Each event is the master's or the worker's, and no handler is for anything else."""
    assert set(master.HANDLERS) | set(WORKER_HANDLERS) == kinds(Event)
    assert not set(master.HANDLERS) & set(WORKER_HANDLERS)


def test_every_entry_is_applied() -> None:
    """`APPLY` knows every entry of the ledger, and nothing else."""
    assert set(APPLY) == set(get_args(Entry))


# --- inputs [5] ---------------------------------------------------------------------------------


def test_messages_are_taken_in_the_order_of_their_numbers() -> None:
    """[5] Number 1 is taken, then 2; the record says so."""
    stage = MasterStage()
    for number in (1, 2):
        decision = stage.say("w1", stage.round("w1"))
        assert one(RoundNoted, decision).round == number
        assert stage.state.members["w1"].taken == {"w1-1": number}
        assert decision.consumed[-1].number == number


def test_a_repeat_is_not_taken_again() -> None:
    """[5] The same number again changes nothing but the position."""
    stage = MasterStage()
    body = stage.round("w1")
    stage.say("w1", body, number=1)
    decision = stage.say("w1", body, number=1)
    assert not decision.entries
    assert stage.state.consumed["from.w1"].offset == 2
    assert stage.state.members["w1"].rounds == 1


def test_a_gap_is_asked_for_once_in_five_seconds() -> None:
    """[5] Nothing after a missing number is taken; the request is repeated, but not at once."""
    stage = MasterStage()
    decision = stage.say("w1", stage.round("w1"), number=2)
    assert decision.entries == (ResendAsked("w1", "w1-1", 1),)
    assert not stage.say("w1", stage.round("w1"), number=3, later=1).entries
    assert not stage.beat("w1", later=3.9).entries
    assert one(ResendAsked, stage.say("w1", stage.round("w1"), number=3, later=0.2)).first == 1
    assert one(RoundNoted, stage.say("w1", stage.round("w1"), number=1))
    assert one(ResendAsked, stage.beat("w1", last=3)).first == 2


def test_a_heartbeat_tells_of_a_lost_last_message() -> None:
    """[5] A heartbeat whose `last` was never taken asks for it; one that agrees does not."""
    stage = MasterStage()
    stage.say("w1", stage.round("w1"))
    assert not stage.beat("w1", last=1).entries
    assert one(ResendAsked, stage.beat("w1", last=2)).first == 2


def test_heartbeats_and_chunks_are_signs_of_life_and_no_input() -> None:
    """[5, 6] Neither takes a number; each puts off the deadline."""
    stage = MasterStage()
    for later in (4.0, 4.0, 4.0):
        stage.beat("w1", later)
        stage.put(ChunkSeen("w1"), 2.0)
        assert not stage.put(Ticked(), 1.0).actions
    assert stage.state.members["w1"].taken == {"w1-1": 0}


# --- who may speak [6] --------------------------------------------------------------------------


def test_an_earlier_incarnation_is_not_listened_to() -> None:
    """[6] Fencing is judged by the sender: its message moves the position and nothing else."""
    stage = MasterStage()
    stage.hello("w1", "w1-2", previous="w1-1")
    decision = stage.say("w1", stage.round("w1"), number=1, sender="w1-1")
    assert not decision.entries
    assert stage.state.members["w1"].rounds == 0
    assert stage.state.consumed["from.w1"].offset == 1


def test_an_update_sent_again_keeps_its_birth_and_is_taken_once() -> None:
    """[6] A resent update is known by its birth, whoever sends it."""
    stage = MasterStage("bsp", workers=2)
    update = stage.update("w1")
    stage.say("w1", stage.round("w1", update))
    stage.hello("w1", "w1-2", previous="w1-1")
    assert not of(UpdateTaken, stage.say("w1", Resent(update)))
    lost = stage.update("w2")
    stage.hello("w2", "w2-2", previous="w2-1")
    decision = stage.say("w2", Resent(lost))
    assert one(UpdateTaken, decision).update == lost
    assert stage.state.members["w2"].taken["w2-1"] == lost.birth.number
    assert not of(UpdateTaken, stage.say("w2", Resent(lost)))
    Audit().read(stage.records)


def test_without_births_an_update_would_be_taken_twice() -> None:
    """[6] With the rule taken out the audit sees it."""
    stage = MasterStage("bsp", 2, PROTOCOL_RULES._replace(unborn=lambda _member, _birth: True))
    update = stage.update("w1")
    stage.say("w1", stage.round("w1", update))
    stage.hello("w1", "w1-2", previous="w1-1")
    with pytest.raises(Defect, match="twice"):  # the state's own check sees it first
        stage.say("w1", Resent(update))


def test_the_audit_sees_an_update_decided_twice_or_never_taken() -> None:
    """What no state can show, the whole story does: each of the audit's sentences can be false."""
    stage = MasterStage("bsp")
    stage.store(stage.push("w1"))
    for extra in (
        UpdateTaken("w1", one(UpdateTaken, stage.entries).update),
        UpdateRejected("w1", one(UpdateTaken, stage.entries).update.birth, Reason("x")),
        UpdateRejected("w1", Birth("w1-1", 9), Reason("x")),
        one(RoundNoted, stage.entries),
        of(BlocksGranted, stage.entries)[0],
        one(VersionPublished, of(VersionPublished, stage.entries)[:1]),
    ):
        last = stage.records[-1]
        story = [*stage.records, master.replace(last, consumed=(), entries=(extra,))]
        with pytest.raises(Defect):
            Audit().read(story)
    Audit().read(stage.records)


# --- hello [6] ----------------------------------------------------------------------------------


def test_admission_carries_all_that_a_worker_needs() -> None:
    """[6] The hello's nonce, settings, data, version, what was taken of it; its topic is read."""
    stage = MasterStage(workers=0)
    decision = stage.hello("w1")
    admitted = one(WorkerAdmitted, decision)
    assert (admitted.worker, admitted.incarnation, admitted.hello) == ("w1", "w1-1", "w1-1?")
    assert admitted.opened == stage.state.opened
    assert admitted.data == stage.state.data
    assert admitted.version == stage.state.newest
    assert admitted.taken == {"w1-1": 0}
    assert one(FollowWorker, decision) == FollowWorker("w1", None)


def test_a_known_hello_is_ignored() -> None:
    """[6] A hello of an incarnation that was admitted, now or once, has no effect."""
    stage = MasterStage()
    assert not stage.hello("w1").entries
    stage.hello("w1", "w1-2", previous="w1-1")
    assert not stage.hello("w1", "w1-1").entries
    assert stage.state.members["w1"].incarnation == "w1-2"


def test_a_second_worker_of_one_name_is_refused_while_the_first_is_heard() -> None:
    """[6] And a new start of it is admitted once the first is lost. The refused one has left: a
    second knock of it that lay in the lobby admits no ghost."""
    stage = MasterStage()
    assert one(WorkerRefused, stage.hello("w1", "w1-x")).reason.code == "name-taken"
    stage.beat("w1")
    lose(stage, "w1")
    assert not stage.hello("w1", "w1-x").entries
    assert one(WorkerAdmitted, stage.hello("w1", "w1-y")).incarnation == "w1-y"


def test_a_worker_that_proves_its_outbox_takes_its_own_place() -> None:
    """[6] What the incarnation before held goes back before the new one gets anything."""
    stage = MasterStage(workers=2)
    held = stage.state.members["w1"].grants
    decision = stage.hello("w1", "w1-2", previous="w1-1")
    steps = [type(entry) for entry in decision.entries]
    assert steps[:3] == [BlocksReturned, WorkerLeft, WorkerAdmitted]
    assert one(BlocksReturned, decision).numbers == tuple(grant.number for grant in held)
    again = of(BlocksGranted, decision)
    assert [grant.ranges for grant in again] == [grant.ranges for grant in held]
    assert [grant.number for grant in again] == [3, 4]


def test_an_incarnation_that_never_knocked_does_not_lock_the_next_one_out() -> None:
    """[6] The outbox may name an older incarnation of this worker: it is its own all the same."""
    stage = MasterStage()
    stage.hello("w1", "w1-2", previous="w1-1")
    assert of(WorkerAdmitted, stage.hello("w1", "w1-4", previous="w1-1"))


def test_a_worker_of_another_version_is_refused() -> None:
    """[6] Of Hermes or of the protocol, with both in the facts."""
    stage = MasterStage()
    ours, theirs = PROTOCOL, PROTOCOL + 1
    others = (Software("2", ours, "3", ""), Software("1", theirs, "3", ""))
    for start, software in enumerate(others):
        refused = one(WorkerRefused, stage.hello("w2", f"w2-{start}", software=software))
        assert refused.reason.code == "other-version"
        known = {"worker_protocol": theirs, "master_protocol": ours}
        protocols = known if software.protocol == theirs else {}
        assert refused.reason.facts == {"worker": software.hermes, "master": "1", **protocols}


def test_there_are_at_most_so_many_names() -> None:
    """[1] A name beyond `workers.max` is refused; a known name never is."""
    stage = MasterStage(workers=2, workers__max=2)
    assert one(WorkerRefused, stage.hello("w3")).reason.code == "too-many"
    assert of(WorkerAdmitted, stage.hello("w2", "w2-2", previous="w2-1"))


def test_nobody_is_admitted_after_the_stop() -> None:
    """A hello after the stop is refused."""
    stage = MasterStage()
    stage.put(StopAsked("stopped", Reason("interrupted")))
    assert one(WorkerRefused, stage.hello("w2")).reason.code == "run-stopped"


# --- silence [6] --------------------------------------------------------------------------------


def quiet_for(stage: MasterStage, seconds: float, *others: str) -> list[master.Decision]:
    """Time passes in seconds; the others beat."""
    found = []
    for _ in range(int(seconds)):
        for other in others:
            found.append(stage.beat(other))
        found.append(stage.put(Ticked(), 1.0))
    return found


def lose(stage: MasterStage, worker: str, *others: str) -> master.Decision:
    """This worker is silent until it is lost."""
    quiet_for(stage, LIMIT + 1, *others)
    return stage.put(TopicRead(worker))


def test_a_silent_worker_is_lost_only_once_its_topic_was_read() -> None:
    """[6] First its topic is read to the end; then its blocks go back and it is lost."""
    stage = MasterStage(workers=2)
    passed = quiet_for(stage, LIMIT + 3, "w2")
    assert [a.worker for d in passed for a in of(ReadToEnd, d)] == ["w1"]
    assert not any(of(WorkerLost, d) for d in passed)
    decision = stage.put(TopicRead("w1"))
    assert [type(e) for e in decision.entries] == [BlocksReturned, WorkerLost]
    assert one(WorkerLost, decision).reason.facts == {"silent": 13.0, "limit": 10.0}
    assert not stage.state.members["w1"].grants


def test_a_message_found_while_reading_puts_the_deadline_off() -> None:
    """[6] Who is heard in the topic is not lost, though the deadline had passed."""
    stage = MasterStage(workers=2)
    quiet_for(stage, LIMIT + 1, "w2")
    stage.beat("w1")
    assert not stage.put(TopicRead("w1")).entries
    assert stage.state.members["w1"].status == "alive"


def test_the_only_worker_is_lost_by_time_alone() -> None:
    """[6] The master's own wake-ups, and nothing else, find a silence of all workers."""
    stage = MasterStage(stop__seconds=1000)
    stage.put(EvaluationFinished(0, 1.0, 0.5, stage.now, 1))
    since, lost = stage.now, False
    while not lost and stage.now < since + 2 * LIMIT * SECOND:
        assert stage.wake is not None
        stage.now = stage.wake + SECOND // 10
        if of(ReadToEnd, stage.put(Ticked())):
            lost = bool(of(WorkerLost, stage.put(TopicRead("w1"))))
    assert lost


def test_a_lost_worker_is_back_with_its_next_message() -> None:
    """[6] `WorkerBack` comes before what the message says, and new grants after it."""
    stage = MasterStage(workers=2)
    lose(stage, "w1", "w2")
    decision = stage.say("w1", stage.round("w1"))
    assert [type(e) for e in decision.entries][:2] == [WorkerBack, RoundNoted]
    assert len(of(BlocksGranted, decision)) == 2
    assert stage.state.members["w1"].status == "alive"


def test_one_that_comes_back_starts_at_the_slowest_clock() -> None:
    """[design 2] One lost leaves the minimum; back, it holds nobody up."""
    stage = MasterStage(workers=2)
    for _ in range(3):
        stage.say("w2", stage.round("w2"))
    lose(stage, "w1", "w2")
    stage.beat("w1")
    assert stage.state.members["w1"].clock == 3


def test_a_master_that_slept_starts_every_deadline_anew() -> None:
    """[6] After a sleep nobody is late, and what was being read is forgotten."""
    stage = MasterStage(workers=2)
    assert not stage.put(Ticked(), 60.0).actions
    assert not quiet_for(stage, LIMIT - 1)[-1].actions
    assert {a.worker for a in of(ReadToEnd, stage.put(Ticked(), 2.0))} == {"w1", "w2"}


def test_a_restarted_master_starts_every_deadline_anew() -> None:
    """[6] Whoever was nearly late has the whole time again."""
    stage = MasterStage(workers=2)
    quiet_for(stage, LIMIT - 1)
    stage.restart()
    assert not of(ReadToEnd, stage.put(Ticked(), 2.0))


def test_a_new_master_admits_everyone_anew() -> None:
    """[6] In a new term all but those that left are told what was taken of them; topics go on."""
    stage = MasterStage(workers=3)
    stage.say("w1", stage.round("w1"))
    stage.say("w2", Bye("done"))
    decision = stage.restart()
    admitted = {entry.worker: entry for entry in of(WorkerAdmitted, decision)}
    assert set(admitted) == {"w1", "w3"}
    assert admitted["w1"].taken == {"w1-1": 1}
    assert admitted["w1"].hello == ""
    assert one(FollowWorker, [a for a in decision.actions if getattr(a, "worker", "") == "w1"]) == (
        FollowWorker("w1", Position("from.w1", 0, 1))
    )
    assert {m.term for m in stage.state.members.values() if m.status == "alive"} == {2}


def test_a_bye_gives_the_blocks_back() -> None:
    """[9a] Who leaves holds nothing; its number was taken all the same."""
    stage = MasterStage(workers=2)
    decision = stage.say("w1", Bye("interrupted"))
    assert [type(e) for e in decision.entries][:2] == [BlocksReturned, WorkerLeft]
    assert stage.state.members["w1"].status == "left"
    assert stage.state.members["w1"].taken == {"w1-1": 1}


# --- versions [7, 8] ----------------------------------------------------------------------------


def test_training_starts_when_as_many_as_expected_are_alive() -> None:
    """Nothing is granted before; those that come later join."""
    stage = MasterStage(workers=0, expect=2)
    assert not of(BlocksGranted, stage.hello("w1"))
    decision = stage.hello("w2")
    assert one(TrainingStarted, decision).workers == 2
    assert {grant.worker for grant in of(BlocksGranted, decision)} == {"w1", "w2"}
    assert not of(TrainingStarted, stage.hello("w3"))


def test_bsp_closes_when_all_alive_have_pushed() -> None:
    """A version waits for the last one, and holds every update, in order."""
    stage = MasterStage("bsp", workers=3)
    assert not of(Merge, stage.push("w2"))
    assert not of(Merge, stage.push("w1"))
    merge = one(Merge, stage.push("w3"))
    assert [part.worker for part in merge.parts] == ["w2", "w1", "w3"]
    assert merge.version == 1


def test_bsp_closes_when_the_missing_one_is_lost() -> None:
    """Nobody waits for a worker that is not there."""
    stage = MasterStage("bsp", workers=3)
    stage.push("w1")
    stage.push("w2")
    assert one(Merge, lose(stage, "w3", "w1", "w2")).version == 1


def test_bsp_closes_when_the_missing_one_leaves() -> None:
    """The same for a bye."""
    stage = MasterStage("bsp", workers=2)
    stage.push("w1")
    assert one(Merge, stage.say("w2", Bye("")))


def test_what_came_too_late_is_rejected() -> None:
    """[6] Judged by the staleness rule: on arrival, and when a version overtakes one that waits."""
    stage = MasterStage("bsp", workers=3)
    stage.push("w1")
    stage.push("w2")
    merging = lose(stage, "w3", "w1", "w2")
    late = stage.push("w3")
    assert not of(UpdateRejected, late)
    assert one(UpdateRejected, stage.store(merging)).reason.code == "too-stale"
    rejected = one(UpdateRejected, stage.push("w3", base=0))
    assert rejected.reason.facts == {"staleness": 1, "max_staleness": 0}
    assert stage.state.members["w3"].last.code == "too-stale"


def test_an_accepted_stale_update_holds_no_version_up() -> None:
    """With staleness allowed, one of an older base counts as its worker's push: nothing hangs."""
    stage = MasterStage("bsp", workers=3, merge__max_staleness=None)
    stage.push("w1")
    stage.push("w2")
    stage.store(lose(stage, "w3", "w1", "w2"))
    stage.push("w3", base=0)
    stage.push("w1")
    merge = one(Merge, stage.push("w2"))
    assert [part.update.base.version for part in merge.parts] == [0, 1, 1]


def test_an_unknown_base_is_rejected_and_no_offence() -> None:
    """[6] A version of another digest, or none that we have."""
    stage = MasterStage("bsp")
    for base, code in ((Base(0, "x"), "unknown-base"), (Base(7, "x"), "from-the-future")):
        update = master.replace(stage.update("w1"), base=base)
        rejected = one(UpdateRejected, stage.say("w1", stage.round("w1", update)))
        assert rejected.reason.code == code
    assert stage.state.members["w1"].status == "alive"


def test_the_papers_merges_wait_for_a_loss_one_at_a_time() -> None:
    """[8] In the order of acceptance, each scored against the version it goes into."""
    stage = MasterStage(workers=2)
    first = stage.push("w1")
    assert one(Score, first).worker == "w1"
    assert not of(Score, stage.push("w2"))
    merging = stage.score(first, loss=0.5)
    merge = one(Merge, merging)
    assert (merge.keep, merge.parts[0].weight) == (1.0, 2.0)
    published = stage.store(merging)
    assert one(VersionPublished, published).reason.facts == {
        "worker": "w1",
        "loss_global": 1.0,
        "loss_worker": 0.5,
    }
    assert (one(Score, published).worker, one(Score, published).version.version) == ("w2", 1)


def test_a_score_of_an_older_version_is_asked_for_again() -> None:
    """[8] The losses in a record are those of the version that it replaces."""
    stage = MasterStage(workers=1)
    asked = one(Score, stage.push("w1"))
    again = stage.put(UpdateScored(asked.update.birth, 7, 1.0, 1.0))
    assert one(Score, again) == asked


def test_a_loss_of_zero_rejects_with_its_reason() -> None:
    """[design 6] And the next update is looked at."""
    stage = MasterStage(workers=2)
    first = stage.push("w1")
    stage.push("w2")
    decision = stage.score(first, loss=0.0)
    rejected = one(UpdateRejected, decision)
    assert (rejected.worker, rejected.reason.code) == ("w1", "loss-zero")
    assert one(Score, decision).worker == "w2"


def test_an_update_that_cannot_be_merged_is_rejected_and_the_rest_goes_on() -> None:
    """[8] The culprit goes, with its reason; the others wait for it to push again."""
    stage = MasterStage("bsp", workers=2)
    stage.push("w1")
    merge = one(Merge, stage.push("w2"))
    failed = MergeFailed(merge.version, merge.parts[0].update.birth, Reason("wrong-shape"))
    decision = stage.put(failed)
    assert one(UpdateRejected, decision).reason.code == "wrong-shape"
    assert not of(Merge, decision)
    assert one(Merge, stage.push("w1")).version == 1


def test_a_restart_asks_for_the_merge_again() -> None:
    """[4] Nothing under way is remembered: a new master looks, and sees."""
    stage = MasterStage("bsp")
    merge = one(Merge, stage.push("w1"))
    asked = stage.restart()
    assert not of(Merge, asked), "first it is seen whether the version's bytes are there"
    newest = one(SecureVersions, asked).versions[0].version
    assert one(Merge, stage.put(VersionsSecured((), newest, "", newest))) == merge


def test_a_merge_that_ends_after_the_stop_is_not_published() -> None:
    """[8] Final weights are the last version before `RunStopped`; the update stays undecided."""
    stage = MasterStage("bsp")
    merging = stage.push("w1")
    stage.put(StopAsked("stopped", Reason("interrupted")))
    assert not of(VersionPublished, stage.store(merging))
    assert len(stage.state.pending) == 1


def test_versions_in_use_stay_known() -> None:
    """[13] The newest twenty, and any that an alive worker starts from."""
    stage = MasterStage("hermes-paper", workers=2)
    for _ in range(25):
        stage.store(stage.score(stage.push("w1")))
    assert sorted(stage.state.versions) == [0, *range(6, 26)]
    assert not of(UpdateRejected, stage.push("w2", base=0))


# --- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "limit", "outcome"),
    [
        ("accuracy", 0.5, EvaluationFinished(0, 1.0, 0.5, 0, 1)),
        ("loss", 1.0, EvaluationFinished(0, 1.0, 0.1, 0, 1)),
        ("versions", 1, None),
        ("samples", 24, None),
    ],
)
def test_the_first_stopping_rule_that_holds_ends_the_run(
    rule: str, limit: float, outcome: Event | None
) -> None:
    """[design 9] With its code and facts; then the last version is scored, then `Finish`."""
    stage = MasterStage("bsp", **{f"stop__{rule}": limit})
    decision = stage.put(outcome) if outcome else stage.store(stage.push("w1"))
    stopped = one(RunStopped, decision)
    assert (stopped.status, stopped.reason.code) == ("finished", rule)
    assert stopped.reason.facts["limit"] == limit
    if outcome is None:
        decision = stage.put(EvaluationFinished(0, 1.0, 0.5, 0, 1))  # it was under way
    last = one(ScoreLast, decision).version
    assert last == stage.state.newest
    scored = stage.put(FinalScored(last.version, 1.0, 0.5, 1.0, 0.5))
    assert of(RunScored, scored)
    assert of(Finish, scored)
    assert not of(Finish, stage.put(Ticked()))


@pytest.mark.parametrize("loss", [1.0, None], ids=["scored", "unreadable"])
def test_an_evaluation_under_way_is_recorded_before_the_last_scores(loss: float | None) -> None:
    """Nothing comes after those, whatever came of it."""
    stage = MasterStage("bsp", stop__versions=1)
    stopped = stage.store(stage.push("w1"))
    assert of(RunStopped, stopped)
    assert not of(ScoreLast, stopped)
    assert not of(ScoreLast, stage.put(Ticked(), 1.0))
    outcome = stage.put(EvaluationFinished(0, loss, None, 0, 1))
    assert one(VersionEvaluated, outcome).version == 0
    assert one(ScoreLast, outcome).version == stage.state.newest
    assert not of(ScoreLast, stage.put(Ticked(), 1.0))


def test_a_master_that_comes_anew_waits_for_no_evaluation_of_another() -> None:
    stage = MasterStage("bsp", stop__versions=1)
    assert not of(ScoreLast, stage.store(stage.push("w1")))
    assert not of(ScoreLast, stage.restart())
    assert of(ScoreLast, stage.put(VersionsSecured((), 1, asked=1)))


def test_patience_counts_points_of_the_grid_without_a_new_best() -> None:
    """[design 9] On the validation loss."""
    stage = MasterStage("bsp", stop__patience=2)
    for loss, ends in ((1.0, False), (1.1, False), (0.9, False), (0.9, False), (None, True)):
        done = stage.put(EvaluationFinished(0, loss, None, stage.now, 1))
        assert bool(of(RunStopped, done)) == ends
    assert stage.state.evaluations.best is not None
    assert stage.state.evaluations.best.loss == 0.9


def test_seconds_count_from_the_start_of_training() -> None:
    """[design 9] And the master asks to be woken for it."""
    stage = MasterStage("bsp", stop__seconds=2)
    assert stage.wake == stage.now + 2 * SECOND
    assert not of(RunStopped, stage.put(Ticked(), 1.9))
    assert one(RunStopped, stage.put(Ticked(), 0.1)).reason.code == "seconds"


def test_a_request_stops_once() -> None:
    """A signed request, and one of the person here; the second changes nothing."""
    stage = MasterStage("bsp")
    asked = StopReceived(stage.at("lobby"), StopRequested("run", "n", "me"))
    decision = stage.put(asked)
    assert one(RunStopped, decision) == RunStopped("stopped", Reason("requested", {"by": "me"}))
    assert not of(RunStopped, stage.put(StopAsked("failed", Reason("x"))))
    assert stage.state.status == "stopped"


def test_evaluations_lie_on_a_grid_of_time() -> None:
    """[8] At most every max(0.5 s, 10 times the cost), one at a time, and only of a new version."""
    stage = MasterStage("bsp", workers=1)
    start = stage.now

    def outcome(version: int, cost: float) -> master.Decision:
        done = EvaluationFinished(version, 1.0, 0.5, stage.now, int(cost * SECOND))
        return stage.put(done)

    assert not of(Evaluate, stage.store(stage.push("w1"))), "version 0 is being evaluated"
    first = outcome(0, 0.02)
    assert of(VersionEvaluated, first)
    assert not of(Evaluate, first)
    assert stage.wake == start + SECOND // 2
    assert one(Evaluate, stage.put(Ticked(), 0.5)).version.version == 1
    stage.store(stage.push("w1"))
    outcome(1, 0.2)
    assert not of(Evaluate, stage.put(Ticked(), 1.9))
    assert of(Evaluate, stage.put(Ticked(), 0.1))


# --- blocks [9a] --------------------------------------------------------------------------------


def test_blocks_are_walked_in_order_and_two_grants_are_out() -> None:
    """[9a] Each worker has the one it trains and one ahead; the next comes as one is finished."""
    stage = MasterStage(workers=2)
    walked = [(g.worker, g.number, g.ranges) for g in of(BlocksGranted, stage.entries)]
    assert walked == [
        ("w1", 1, (BlockRange(0, 3),)),
        ("w1", 2, (BlockRange(3, 6),)),
        ("w2", 1, (BlockRange(6, 9),)),
        # The last block of a pass is short, so that one more is needed for 24 samples.
        ("w2", 2, (BlockRange(9, 13),)),
    ]
    third = one(BlocksGranted, stage.say("w1", stage.round("w1")))
    assert (third.number, third.ranges, third.size) == (3, (BlockRange(13, 16),), 24)


def test_returned_blocks_are_granted_first() -> None:
    """[9a] In the order of the walk, and to nobody twice."""
    stage = MasterStage(workers=2)
    stage.say("w1", Bye(""))
    grants = of(BlocksGranted, [*stage.say("w2", stage.round("w2")).entries])
    assert grants[0].ranges == (BlockRange(0, 3),)
    assert stage.state.returned == (BlockRange(3, 6),)


def test_a_worker_always_holds_a_round_beyond_its_first_grant() -> None:
    """[9a] Whatever the sizes: a first grant that is nearly used up never leaves it without."""
    stage = MasterStage("fedavg", round__steps=2)
    for size in (24, 5, 90, 3, 3, 24):
        stage.state = APPLY[ShardResized](stage.state, ShardResized("w1", size, 8, Reason("test")))
        for _ in range(4):
            stage.say("w1", stage.round("w1"))
            member = stage.state.members["w1"]
            assert outstanding(member) - member.grants[0].size >= 2 * 8


def test_an_outlier_is_resized_and_its_next_grants_are_smaller() -> None:
    """[design 6] `size` in samples is what changes, with all the facts of the decision."""
    stage = MasterStage(workers=5)
    for _ in range(2):
        for name, busy in (("w2", 1.0), ("w3", 1.0), ("w4", 1.1), ("w5", 0.9), ("w1", 2.0)):
            decision = stage.say(name, stage.round(name, busy=busy, steps=15))
    resized = of(ShardResized, stage.entries)
    assert {entry.worker for entry in resized} == {"w1"}
    assert resized[0].size < 24
    facts = {"time", "q1", "q3", "iqr", "median", "a", "b", "steps", "size", "batch"}
    assert facts <= set(resized[0].reason.facts)
    assert one(BlocksGranted, decision).size == stage.state.members["w1"].size


def test_the_first_one_measured_is_not_given_what_all_are_to_have() -> None:
    """An equal part is kept for each of those whose speed is not known yet."""
    stage = MasterStage("fedavg", workers=4, size__rule="speed", round__steps=None, size__mean=12)
    whole = stage.state.data.samples["train"]
    stage.say("w1", stage.round("w1", busy=1.0, steps=3))
    facts = one(ShardResized, stage.entries).reason.facts
    assert facts["total"] == min(48, whole)
    assert stage.state.members["w1"].size == facts["total"] // 4


# --- always -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["bsp", "fedavg", "hermes-paper"])
def test_pushed_is_applied_and_rejected_and_undecided(strategy: str) -> None:
    """After every event of a random run (`check` is asked after each), and in the audit."""
    chance = random.Random(strategy)
    stage = MasterStage(strategy, workers=3)
    asked: list[Action] = []
    for _ in range(150):
        decision = random_step(stage, chance, asked)
        asked += decision.actions
        members = stage.state.members.values()
        assert sum(m.pushes for m in members) == (
            sum(m.applied for m in members)
            + sum(m.rejected for m in members)
            + len(stage.state.pending)
        )
    audit = Audit().read(stage.records)
    assert len(audit.applied) == sum(m.applied for m in stage.state.members.values()) > 0
    assert len(audit.rejected) == sum(m.rejected for m in stage.state.members.values())


def random_step(stage: MasterStage, chance: random.Random, asked: list[Action]) -> master.Decision:
    """Something that may happen, happens."""
    name = chance.choice(["w1", "w2", "w3"])
    member = stage.state.members[name]
    what = chance.choice(["push", "push", "old", "quiet", "beat", "tick", "again", *["do"] * 4])
    if what == "push":
        return stage.push(name)
    if what == "old":
        return stage.push(name, base=min(stage.state.versions))
    if what == "quiet":
        return stage.say(name, stage.round(name))
    if what == "beat":
        return stage.beat(name, later=chance.random())
    if what == "again":
        number = int(member.incarnation.split("-")[1]) + 1
        return stage.hello(name, f"{name}-{number}", previous=member.incarnation)
    while asked and what == "do":
        action = asked.pop(0)
        if isinstance(action, Score):
            loss = chance.choice([0.0, 0.5, 2.0, float("nan")])
            return stage.put(UpdateScored(action.update.birth, action.version.version, 1.0, loss))
        if isinstance(action, Merge) and chance.random() < 0.2:
            part = chance.choice(action.parts)
            return stage.put(MergeFailed(action.version, part.update.birth, Reason("not-finite")))
        if isinstance(action, Merge):
            return stage.put(VersionStored(action.version, reference("model", action.version)))
        if isinstance(action, ReadToEnd):
            return stage.put(TopicRead(action.worker))
    return stage.put(Ticked(), chance.random() * 2)


def test_steps_of_heartbeats_are_not_counted_as_rounds() -> None:
    """[6] Alive without progress is stuck, not dead: a beat changes no counter."""
    stage = MasterStage()
    before = stage.state.members["w1"]
    stage.say("w1", Heartbeat(99, 0))
    assert stage.state.members["w1"] == before


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("topic", {"topic": "nonsense"}),
        ("topic", {"topic": "from.w2"}),
        ("topic", {"generation": -3}),
        ("offsets", {"first": -1}),
        ("offsets", {"last": 10**9}),
        ("offsets", {"first": 5, "last": 4}),
        ("length", {"length": 1 << 40}),
        ("length", {"length": 0}),
    ],
)
def test_a_payload_that_cannot_be_is_rejected(claim: str, changes: dict[str, Any]) -> None:
    """[5] An update's chunks lie before it, in its worker's topic, and are as long as a model."""
    stage = MasterStage("bsp")
    update = stage.update("w1")
    update = master.replace(update, payload=master.replace(update.payload, **changes))
    rejected = one(UpdateRejected, stage.say("w1", stage.round("w1", update)))
    place = {"before": stage.offset["from.w1"]} if claim == "offsets" else {}
    assert rejected.reason == Reason("malformed", {"claim": claim, **place})


@pytest.mark.parametrize("changes", [{"samples": 0}, {"rounds": 0}, {"oldest": 7}])
def test_counts_that_cannot_be_are_rejected(changes: dict[str, Any]) -> None:
    """[5] An update holds samples, and its oldest step is not younger than its base."""
    stage = MasterStage("bsp")
    update = master.replace(stage.update("w1"), **changes)
    rejected = one(UpdateRejected, stage.say("w1", stage.round("w1", update)))
    assert rejected.reason.code == "malformed"


def test_a_name_that_is_none_is_refused() -> None:
    """[1] Worker names are 1 to 40 of a-z, 0-9 and -."""
    stage = MasterStage(workers=0)
    for name in ("A b", "", "x" * 41, "../w1"):
        refused = one(WorkerRefused, stage.hello(name))
        assert refused.reason.code == "bad-name"
