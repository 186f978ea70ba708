"""Data that stay with the workers: who is let in, what is granted, and what a version is worth."""

from __future__ import annotations

import hashlib
import math
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace
from passing import live
from stage import MasterStage, WorkerStage, of, one, opening, version

from hermes.codec import encode
from hermes.machine import worker
from hermes.machine.apply import apply
from hermes.machine.audit import Audit
from hermes.machine.events import (
    DataStored,
    Evaluate,
    EvaluationFinished,
    FinalScored,
    Finish,
    Leave,
    LoadVersion,
    Opened,
    RoundFinished,
    ScoreLast,
    ScoreVersion,
    Send,
    SetAside,
    StopAsked,
    StoreUpdate,
    Ticked,
    Train,
    UpdateStored,
    VersionScored,
    VersionStored,
)
from hermes.machine.master import Decision
from hermes.machine.state import MasterState
from hermes.messages import (
    BlocksGranted,
    BlocksReturned,
    Bye,
    Contribution,
    DataPublished,
    EvaluationAsked,
    Own,
    RunScored,
    RunStopped,
    Scored,
    ScoreNoted,
    VersionEvaluated,
    WorkerBack,
    WorkerLost,
    WorkerRefused,
)
from hermes.policy.own import cut, shares_of
from hermes.simulate.references import KIND, SHARES, brought, reference
from hermes.values import SECOND, Reason

T = TypeVar("T")

ALONE = brought(central=False)
"""The upload of a run whose master has no samples at all."""


def own(samples: int = 100, kind: str = KIND, digest: str = "d") -> Own:
    return Own(samples, kind, digest)


class Stage(MasterStage):
    """A master whose workers bring their data."""

    def __init__(self, data: DataPublished = ALONE, expect: int = 1, **settings: Any) -> None:
        super().__init__("bsp", 0, expect=expect, **settings)
        # As the base does, with this upload in the place of the other.
        self.state, self.soft = MasterState(), type(self.soft)()
        self.entries.clear()
        self.records.clear()
        self.claim()
        self.put(Opened(opening("bsp", expect, **settings)))
        self.put(DataStored(data))
        self.put(VersionStored(0, reference("model", 0)))

    def brings(self, name: str, samples: int = 100, **changes: Any) -> Decision:
        """A worker knocks that brings so many samples."""
        return self.hello(name, own=own(samples, digest=name), **changes)

    def answer(self, name: str, total: float | None, right: float | None, **claims: Any) -> Any:
        """What it is asked, answered truthfully but for what `claims` say."""
        asked, mine = self.state.asked, self.state.members[name].own
        assert asked is not None
        assert mine is not None
        n = cut(mine.samples, SHARES).validation
        body = Scored(asked.number, asked.version, total, right, n, SECOND // 50)
        return self.say(name, replace(body, **claims))

    def publish(self) -> Decision:
        """Everybody alive pushes, and the version is stored."""
        decision = None
        for name in self.state.alive():
            decision = self.push(name)
        assert decision is not None
        return self.store(decision)

    def audited(self) -> None:
        """The whole ledger tells a story that can be true, and comes to this state."""
        Audit().read(self.records)
        again = MasterState()
        for offset, record in enumerate(self.records):
            again = apply(again, record, offset, hashlib.sha256(encode(record)).digest())
        assert again == self.state


def two(data: DataPublished = ALONE, **settings: Any) -> Stage:
    """Two workers of 100 and 200 samples, training."""
    stage = Stage(data, expect=2, **settings)
    stage.brings("w1", 100)
    stage.brings("w2", 200)
    return stage


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [3, 4, 7, 10, 99, 1797])
def test_every_sample_is_in_one_split(samples: int) -> None:
    """Whatever the size: none is lost, none is empty."""
    found = cut(samples, shares_of(0.7, 0.05, 0.1))
    assert sum(found) == samples
    assert min(found) >= 1


# --- who is let in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("brought_by_it", "code"),
    [
        (None, "no-data"),
        (own(2), "too-few-samples"),
        (own(kind="x uint8 (3,), y int64 ()"), "other-samples"),
    ],
)
def test_who_brings_nothing_or_something_else_is_refused(
    brought_by_it: Own | None, code: str
) -> None:
    """The first one's samples say what the run's are."""
    stage = Stage()
    assert not of(WorkerRefused, stage.brings("w1"))
    assert one(WorkerRefused, stage.hello("w2", own=brought_by_it)).reason.code == code


def test_the_masters_own_set_says_what_a_sample_is() -> None:
    """The very first worker is held against it."""
    stage = Stage(brought(central=True))
    refused = stage.hello("w1", own=own(kind="x uint8 (3,), y int64 ()"))
    assert one(WorkerRefused, refused).reason.facts["run"] == KIND


def test_who_brings_data_to_a_run_that_grants_them_is_refused() -> None:
    """Nothing is mixed."""
    stage = MasterStage("bsp")
    refused = stage.hello("w2", own=own())
    assert one(WorkerRefused, refused).reason.code == "data-granted"


def test_who_comes_back_brings_what_it_had() -> None:
    """Under its name; and goes on where its walk stood."""
    stage = Stage()
    granted = of(BlocksGranted, stage.brings("w1"))
    assert [grant.start for grant in granted] == [0, granted[0].size]
    stage.say("w1", stage.round("w1"))
    stage.say("w1", Bye("done"))
    other = stage.hello("w1", "w1-2", own=own(100, digest="another"))
    assert one(WorkerRefused, other).reason.code == "other-data"
    again = stage.brings("w1", incarnation="w1-3")
    assert of(BlocksGranted, again)[0].start == granted[0].size  # the first one is finished
    stage.audited()


# --- grants ---------------------------------------------------------------------------------------


def test_a_grant_is_of_the_workers_own_walk_and_no_larger_than_its_data() -> None:
    """Size by size, in order; what was given back comes again, and nobody else is granted it."""
    stage = two(replace(ALONE, first_size=10_000))
    for name, samples in (("w1", 100), ("w2", 200)):
        train, member = cut(samples, SHARES).train, stage.state.members[name]
        assert member.size == train
        assert [(g.start, g.size) for g in member.grants] == [(0, train), (train, train)]
        assert all(not grant.ranges for grant in member.grants)
    held = stage.state.members["w1"].grants
    gone = silent(stage, "w1")
    assert one(BlocksReturned, all_of(BlocksReturned, gone)).numbers == tuple(
        grant.number for grant in held
    )
    assert stage.state.members["w1"].walked == 0
    back = stage.beat("w1")
    assert of(WorkerBack, back)
    assert [g.start for g in of(BlocksGranted, back)] == [0, held[0].size]
    assert stage.state.returned == ()
    stage.audited()


def silent(stage: Stage, name: str) -> list[Decision]:
    """The others are heard, this one is not, until it is lost."""
    return live(stage, 12, {other: 1.0 for other in stage.state.alive() if other != name})


def all_of(kind: type[T], found: list[Decision]) -> list[T]:
    """The entries of one kind in all of these decisions."""
    return [entry for decision in found for entry in of(kind, decision)]


# --- what a version is worth ----------------------------------------------------------------------


def test_two_workers_of_unequal_size_give_the_exact_weighted_mean() -> None:
    """Their sums are added in the order of the ledger, and divided once."""
    stage = two()
    asked = one(EvaluationAsked, stage.entries)
    assert (asked.version, asked.number, asked.workers) == (0, 1, ("w1", "w2"))
    assert not of(VersionEvaluated, stage.answer("w2", 66.3, 41.0))
    found = one(VersionEvaluated, stage.answer("w1", 0.1, 7.0))
    assert (found.loss, found.accuracy) == ((66.3 + 0.1) / 90, 48 / 90)
    assert (found.n, found.workers, found.version) == (90, ("w2", "w1"), 0)
    assert stage.state.evaluations.best is not None
    assert stage.state.asked is None
    stage.audited()


def test_the_masters_own_set_is_one_of_those_that_are_asked() -> None:
    """Its sums are added to the workers'; its test set gives the test scores."""
    stage = Stage(brought(central=True))
    decision = stage.brings("w1")
    assert one(EvaluationAsked, decision).workers == ("", "w1")
    assert one(Evaluate, decision).version.version == 0
    stage.answer("w1", 30.0, 15.0)
    sums = (16.0, 4.0, 8)
    found = stage.put(EvaluationFinished(0, 2.0, 0.5, stage.now, 1, *sums))
    scored = one(VersionEvaluated, found)
    assert (scored.loss, scored.accuracy, scored.n) == (46 / 38, 19 / 38, 38)
    over = stage.put(StopAsked("stopped", Reason("enough")))
    assert one(ScoreLast, over).version.version == 0
    final = one(RunScored, stage.put(FinalScored(0, None, None, 1.5, 0.25)))
    assert (final.validation_loss, final.validation_accuracy) == (46 / 38, 19 / 38)
    assert (final.test_loss, final.test_accuracy) == (1.5, 0.25)


def test_a_master_that_begins_again_between_question_and_answers_asks_nobody_twice() -> None:
    """What was answered counts, what was not is waited for; the master's own set is asked anew."""
    stage = Stage(brought(central=True), expect=2)
    stage.brings("w1", 100)
    stage.brings("w2", 200)
    stage.answer("w1", 30.0, 15.0)
    before = stage.state.asked
    decision = stage.restart()
    assert not of(EvaluationAsked, decision)
    assert stage.state.asked == before
    assert one(Evaluate, decision).version.version == 0
    stage.put(EvaluationFinished(0, 2.0, 0.5, stage.now, 1, 16.0, 4.0, 8))
    found = one(VersionEvaluated, stage.answer("w2", 60.0, 30.0))
    assert found.workers == ("w1", "", "w2")
    assert found.n == 30 + 8 + 60
    stage.audited()


def test_who_is_lost_is_not_waited_for() -> None:
    """The others' answers are what there is; its own, once it is back, comes too late."""
    stage = two()
    number = one(EvaluationAsked, stage.entries).number
    stage.answer("w1", 30.0, 15.0)
    gone = silent(stage, "w2")
    assert [entry.worker for entry in all_of(WorkerLost, gone)] == ["w2"]
    (found,) = all_of(VersionEvaluated, gone)
    assert (found.n, found.workers, found.loss) == (30, ("w1",), 1.0)
    late = stage.say("w2", Scored(number, 0, 60.0, 30.0, 60))
    assert not of(ScoreNoted, late)
    stage.audited()


def test_a_new_process_of_a_worker_owes_no_answer() -> None:
    """It has not read the question: the one before it did, and left."""
    stage = two()
    stage.answer("w1", 30.0, 15.0)
    stage.say("w2", Bye("interrupted"))
    assert stage.state.asked is None
    assert [e.workers for e in of(VersionEvaluated, stage.entries)] == [("w1",)]
    stage.audited()


def test_where_nobody_answers_the_version_is_asked_about_again() -> None:
    """Not scored, and no point for patience: at the next point of the grid."""
    stage = two()
    for name in ("w1", "w2"):
        found = stage.answer(name, None, None, n=0)
    assert one(VersionEvaluated, found).n == 0
    assert (stage.state.evaluations.last_version, stage.state.asked) == (-1, None)
    assert not of(EvaluationAsked, stage.put(Ticked()))
    assert one(EvaluationAsked, stage.put(Ticked(), later=0.6)).number == 2
    stage.audited()


def test_an_answer_is_waited_for_in_bounds() -> None:
    """Whoever beats and does not answer is left out of that evaluation."""
    stage = two()
    stage.answer("w1", 30.0, 15.0)
    found: list[VersionEvaluated] = []
    for _ in range(12):
        stage.beat("w1", later=0.5)
        found += of(VersionEvaluated, stage.beat("w2", later=0.5))
        assert stage.wake is not None
    assert [entry.workers for entry in found] == [("w1",)]
    assert stage.state.members["w2"].status == "alive"


def test_who_takes_long_to_score_is_waited_for_the_next_time() -> None:
    """Its first answer comes too late, and tells how long it takes: else it would be asked for
    ever, and never in time. A claim beyond reason holds nobody up for ever, nor moves the grid."""
    stage = two(workers__longest=60.0)
    stage.answer("w1", 30.0, 15.0)
    late = stage.state.asked
    assert late is not None
    live(stage, 11, {"w1": 1.0, "w2": 1.0})
    assert stage.state.asked is None
    stage.say("w2", Scored(late.number, 0, 60.0, 30.0, 60, 2**53))
    stage.publish()
    live(stage, 2, {"w1": 1.0, "w2": 1.0})
    asked = stage.state.asked
    assert asked is not None
    stage.answer("w1", 30.0, 15.0)
    live(stage, 40, {"w1": 1.0, "w2": 1.0})
    assert stage.state.asked is not None
    found = one(VersionEvaluated, stage.answer("w2", 60.0, 30.0, busy=2**53))
    assert found.workers == ("w1", "w2")
    assert found.cost <= stage.now - asked.at


@pytest.mark.parametrize(
    "claims",
    [
        {"n": 31},
        {"n": 10**9},
        {"version": 1},
        {"loss_sum": math.nan},
        {"loss_sum": math.inf},
        {"correct": 31.0},
        {"correct": -1.0},
        {"correct": math.nan},
        {"correct": None},
    ],
)
def test_a_claim_that_cannot_be_is_set_aside(claims: dict[str, Any]) -> None:
    """With its reason; it counts for nothing, and is not waited for again."""
    stage = two()
    decision = stage.answer("w1", 30.0, 15.0, **claims)
    aside = one(SetAside, decision)
    assert (aside.reason.code, aside.reason.facts["claim"]) == ("false-score", next(iter(claims)))
    assert one(ScoreNoted, decision).n == 0
    found = one(VersionEvaluated, stage.answer("w2", 60.0, 30.0))
    assert (found.n, found.workers) == (60, ("w2",))
    stage.audited()


def test_a_loss_that_is_not_finite_makes_the_whole_one_unknown() -> None:
    """As a central evaluation's; the accuracy is known."""
    stage = two()
    stage.answer("w1", None, 15.0)
    found = one(VersionEvaluated, stage.answer("w2", 60.0, 30.0))
    assert (found.loss, found.accuracy, found.n) == (None, 45 / 90, 90)


def test_the_run_stops_by_the_sums() -> None:
    """In the very record that has the last answer."""
    stage = two(stop__accuracy=0.5)
    stage.answer("w1", 30.0, 10.0)
    decision = stage.answer("w2", 60.0, 35.0)
    stopped = one(RunStopped, decision)
    assert (stopped.reason.code, stopped.reason.facts["accuracy"]) == ("accuracy", 0.5)
    assert one(RunScored, decision).validation_accuracy == 0.5
    assert of(Finish, decision)


def test_the_last_version_is_asked_about_in_the_record_that_stops_the_run() -> None:
    """What was asked of an older one is dropped; no result before the answers, or the deadline."""
    stage = two(stop__versions=1)
    first = one(EvaluationAsked, stage.entries)
    decision = stage.publish()
    assert of(RunStopped, decision)
    assert one(VersionEvaluated, decision).n == 0
    last = one(EvaluationAsked, decision)
    assert (last.version, last.number) == (1, first.number + 1)
    assert not of(Finish, decision)
    stage.answer("w1", 3.0, 15.0)
    done = stage.answer("w2", 6.0, 30.0)
    final = one(RunScored, done)
    assert (final.version, final.validation_loss, final.test_loss) == (1, 0.1, None)
    assert of(Finish, done)
    stage.audited()


def test_the_end_does_not_wait_for_ever() -> None:
    """Who never answers the last question holds up no result."""
    stage = two(stop__versions=1)
    stage.publish()
    stage.answer("w1", 3.0, 15.0)
    found: list[RunScored] = []
    for _ in range(12):
        assert stage.wake is not None
        stage.now = max(stage.now, stage.wake)
        found += of(RunScored, stage.put(Ticked(), later=0.0))
        if found:
            break
    assert [score.validation_loss for score in found] == [0.1]


# --- the worker -----------------------------------------------------------------------------------


class Site(WorkerStage):
    """A worker that brings its data."""

    def admission(self, taken: int = 0, incarnation: str = "w1-1") -> Any:
        told = super().admission(taken, incarnation)
        return replace(told, data=ALONE, own=own())

    def ask(self, number: int = 1, about: int = 0) -> worker.Step:
        return self.see(EvaluationAsked(about, number, ("w1", "w2")))

    def scored(self, number: int = 1) -> worker.Step:
        return self.put(VersionScored(number, 0, 30.0, 15.0, 30, 5))


def test_a_worker_answers_between_two_rounds() -> None:
    """Not within one; the answer is numbered, and then it trains on."""
    site = Site("bsp")
    site.ready()
    assert site.state.phase == "training"
    assert not of(ScoreVersion, site.ask())
    site.see(site.grant(3))
    step = site.put(RoundFinished(1, 3, 24, SECOND, 0.5, None))
    assert of(StoreUpdate, step)  # bsp pushes each round, and waits ...
    stored = site.put(UpdateStored(reference("from", 1)))
    assert one(ScoreVersion, stored).version.version == 0  # ... and meanwhile it answers
    assert site.state.phase == "scoring"
    sent = one(Send, site.scored())
    assert (sent.number, sent.body) == (2, Scored(1, 0, 30.0, 15.0, 30, 5))
    assert site.state.phase == "waiting"


def test_a_version_that_comes_while_it_scores_is_loaded_next() -> None:
    """It had waited for it."""
    site = Site("bsp")
    site.ready()
    update = site.push().update
    assert update is not None
    site.ask()
    assert site.state.phase == "scoring"
    part = Contribution("w1", update.birth, 1.0, update.samples)
    site.see(version(1, part))
    assert site.state.phase == "scoring"
    step = site.scored()
    assert one(LoadVersion, step).version.version == 1


def test_an_answer_that_comes_too_late_is_sent_all_the_same() -> None:
    """It is a sign of progress; what is asked since is answered next."""
    site = Site("bsp", admit=False)
    site.see(site.admission())
    site.ask(1)
    site.see(VersionEvaluated(0, 1.0, 0.5, 0, 1, 30, ("w2",)))
    assert one(Send, site.scored(1)).number == 1
    assert site.state.phase != "scoring"
    site.ask(2)
    site.ask(3)
    step = site.scored(2)
    assert one(Send, step).number == 2
    assert one(ScoreVersion, step).number == 3
    assert site.scored(3) is not None
    assert site.state.asked is None


def test_at_the_stop_a_worker_answers_what_that_record_asks_and_leaves() -> None:
    """In the midst of a round it ends it first, and what it trained counts no more."""
    site = Site("bsp")
    site.ready()
    asks = EvaluationAsked(0, 4, ("w1",))
    step = site.see(RunStopped("finished", Reason("samples")), asks)
    assert site.state.phase == "training"
    assert not of(Leave, step)
    step = site.put(RoundFinished(1, 3, 24, SECOND, 0.5, None))
    assert one(ScoreVersion, step).number == 4
    assert not of(Train, step)
    step = site.scored(4)
    bodies = [send.body for send in of(Send, step)]
    assert [type(body) for body in bodies] == [Scored, Bye]
    assert one(Leave, step).code == "done"


@pytest.mark.parametrize("training", [True, False], ids=["training", "idle"])
def test_at_the_stop_a_worker_that_is_asked_nothing_leaves(*, training: bool) -> None:
    """At once, as ever."""
    site = Site("bsp")
    if training:
        site.ready()
    step = site.see(RunStopped("failed", Reason("diverged")))
    assert one(Leave, step).code == "done"


def test_at_the_end_nobody_stays_for_an_answer() -> None:
    """The result is written: whoever is not done leaves."""
    site = Site("bsp", admit=False)
    site.see(site.admission())
    site.see(RunStopped("finished", Reason("samples")), EvaluationAsked(0, 4, ("w1",)))
    assert site.state.phase == "scoring"
    assert one(Leave, site.see(RunScored(0, None, None, None, None))).code == "done"
