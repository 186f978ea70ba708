"""Does recomputing call the rules that decided, and nothing else? Rules that runs rarely meet."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from stage import MasterStage

from hermes.machine.state import Evaluations, MasterState
from hermes.messages import PROTOCOL, RunStopped, Software, UpdateRejected, WorkerRefused
from hermes.policy.allocate import Keep, Sizing
from hermes.report.why import recompute
from hermes.report.why.of_run import SAY as ALL
from hermes.report.why.phrases import apart, clock, fact
from hermes.report.why.recompute import AGREES, DIFFERS, OPEN, Check, compare, same
from hermes.report.why.tell import SAY
from hermes.values import SECOND, Reason


def pushed(**facts: Any) -> tuple[MasterState, UpdateRejected]:
    """A state in which an update waits, and its rejection with these facts."""
    stage = MasterStage()
    stage.push("w1")
    (pending,) = stage.state.pending
    return stage.state, UpdateRejected("w1", pending.update.birth, Reason("x", facts))


# --- comparing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (0.3, 0.300001, False),
        (True, 1, False),
        ("1", 1, False),
        (None, 0, False),
        (float("inf"), float("inf"), True),
        ([1, 2], [1, 2], True),
    ],
)
def test_when_two_facts_are_one(one: object, other: object, alike: bool) -> None:
    assert same(one, other) is alike
    assert same(other, one) is alike


def test_a_fact_too_many_or_too_few_differs() -> None:
    assert compare({"a": 1}, {"a": 1}).outcome == AGREES
    assert compare({"a": 1, "b": 2}, {"a": 1}).differing == ["b"]
    assert compare({"a": 1}, {"a": 1, "b": 2}).differing == ["b"]
    assert compare({"a": 1}, {"a": 2}).outcome == DIFFERS


# --- updates that no weight can be made of ------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "worker", "outcome"),
    [
        ("loss-not-finite", "nan", AGREES),
        ("loss-not-finite", "inf", AGREES),
        ("loss-not-finite", 0.5, DIFFERS),
        ("loss-negative", -0.5, AGREES),
        ("loss-zero", 0.0, AGREES),
        ("loss-zero", -0.5, DIFFERS),
    ],
)
def test_a_rejection_by_its_loss(code: str, worker: Any, outcome: str) -> None:
    state, entry = pushed(loss_global=0.5, loss_worker=worker)
    entry = replace(entry, reason=Reason(code, entry.reason.facts))
    assert recompute.rejected(state, entry).outcome == outcome


def test_what_was_read_off_tensors_is_not_recomputable() -> None:
    state, entry = pushed()
    entry = replace(entry, reason=Reason("not-finite", {"tensor": "w"}))
    assert recompute.rejected(state, entry).outcome == OPEN


def test_a_rejection_of_what_does_not_wait_differs() -> None:
    stage = MasterStage()
    _, entry = pushed()
    assert recompute.rejected(stage.state, entry).outcome == DIFFERS


# --- the end of a run ---------------------------------------------------------------------------


def running(**settings: Any) -> MasterState:
    """A run that has trained for 20 s."""
    state = MasterStage(**settings).state
    assert state.started is not None
    return replace(state, time=state.started + 20 * SECOND)


@pytest.mark.parametrize(("seconds", "outcome"), [(10.001, AGREES), (12.5, AGREES), (9.9, DIFFERS)])
def test_a_stop_by_time(seconds: float, outcome: str) -> None:
    """The record may be a little younger than the decision: its own time is in the facts."""
    state = running(stop__seconds=10.0)
    stop = RunStopped("finished", Reason("seconds", {"seconds": seconds, "limit": 10.0}))
    assert recompute.stopped(state, stop).outcome == outcome


def test_a_stop_by_accuracy() -> None:
    state = running(stop__accuracy=0.9)
    scored = replace(state, evaluations=Evaluations(count=1, last_accuracy=0.93))
    stop = RunStopped("finished", Reason("accuracy", {"accuracy": 0.93, "limit": 0.9}))
    assert recompute.stopped(scored, stop).outcome == AGREES
    assert recompute.stopped(state, stop).outcome == DIFFERS


def test_a_stop_since_nothing_usable_comes() -> None:
    state = running()
    spoilt = {name: replace(member, unusable=True) for name, member in state.members.items()}
    state = replace(state, unusable=99, members=spoilt)
    stop = RunStopped("failed", Reason("diverged", {"rounds": 99, "version": 0}))
    assert recompute.stopped(state, stop).outcome == AGREES
    assert recompute.stopped(running(), stop).outcome == DIFFERS


@pytest.mark.parametrize(("loss", "outcome"), [(0.0, AGREES), (0.4, DIFFERS)])
def test_a_stop_at_a_loss_of_zero(loss: float, outcome: str) -> None:
    facts = {"loss_global": loss, "loss_worker": 1.0}
    stop = RunStopped("finished", Reason("global-loss-zero", {**facts}))
    assert recompute.stopped(running(), stop).outcome == outcome


def test_a_stop_from_outside_is_not_recomputable() -> None:
    stop = RunStopped("stopped", Reason("requested", {"by": "me"}))
    assert recompute.stopped(running(), stop).outcome == OPEN


# --- who is let in ------------------------------------------------------------------------------


def refusal(stage: MasterStage, *args: Any, **changes: Any) -> tuple[MasterState, WorkerRefused]:
    """The state before a hello, and its refusal."""
    before = stage.state
    (entry,) = [e for e in stage.hello(*args, **changes).entries if isinstance(e, WorkerRefused)]
    return before, entry


@pytest.mark.parametrize(
    ("code", "name", "changes", "settings"),
    [
        ("other-version", "w2", {"software": Software("2", 1, "3", "")}, {}),
        ("other-version", "w2", {"software": Software("1", PROTOCOL + 1, "3", "")}, {}),
        ("too-many", "w2", {}, {"workers__max": 1}),
        ("name-taken", "w1", {"previous": "else"}, {}),
        ("bad-name", "../w1", {}, {}),
    ],
)
def test_each_refusal_is_recomputed(
    code: str, name: str, changes: dict[str, Any], settings: dict[str, Any]
) -> None:
    state, entry = refusal(MasterStage(**settings), name, "incarnation-9", **changes)
    assert entry.reason.code == code
    assert recompute.refused_hello(state, entry).outcome == AGREES
    fresh = MasterStage(workers=0).state
    calm = replace(entry, worker="w7", reason=Reason(code, {"worker": "1", "master": "1"}))
    assert recompute.refused_hello(fresh, calm).outcome == DIFFERS


# --- sizes and phrases --------------------------------------------------------------------------


def test_what_an_answer_leaves_in_force() -> None:
    kept = recompute.size_of(Keep(Reason("inside", {"time": 1.0})), 80, 16)
    assert kept == {"code": "inside", "time": 1.0, "size": 80, "batch": 16}
    new = recompute.size_of(Sizing(40, 8, Reason("outlier")), 80, 16)
    assert (new["size"], new["batch"]) == (40, 8)


def test_numbers_that_decide_are_told_apart() -> None:
    assert apart(-1.52, -1.3) == ("-1.52", "-1.30")
    assert apart(-1.3001, -1.3) == ("-1.3001", "-1.3000")


def test_phrases() -> None:
    setting = type("S", (), {"started": SECOND})()
    assert clock(0, setting) == "before training"
    assert clock(3 * SECOND, setting) == "2.00 s"
    assert fact(None) == "nothing"
    assert Check(AGREES).differing == []
    assert SAY.keys() < ALL.keys()
