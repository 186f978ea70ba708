"""Who is much slower than the quickest has no work, and stands by. Every story is asked again."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from stage import MasterStage, of, one
from test_alone import push, retold, sizes

from hermes.errors import SettingError
from hermes.machine import master
from hermes.machine.events import Merge, Ticked, TopicRead
from hermes.machine.hand import Hand, WorkerState
from hermes.machine.reading import ENTRIES
from hermes.machine.rules import PROTOCOL_RULES
from hermes.machine.stopping import TRIES
from hermes.messages import BlocksGranted, BlocksReturned, RunStopped, ShardResized, WorkerLost
from hermes.policy.presets import Layer, resolve, warnings
from hermes.policy.resting import BACK, TRIED, resting
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting
from hermes.values import Base, Reason

few = settings(max_examples=60, deadline=None)


@few
@given(
    st.floats(0.01, 0.99),
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.tuples(st.none() | st.floats(1, 1e6), st.booleans())
    ),
)
def test_those_rest_who_are_slower_and_the_quickest_never_does(
    slowest: float, workers: dict[str, tuple[float | None, bool]]
) -> None:
    speeds = {name: speed for name, (speed, _) in workers.items()}
    working = {name: works for name, (_, works) in workers.items()}
    assert not resting(None, speeds, working)
    found = resting(slowest, speeds, working)
    best = max((speed for speed in speeds.values() if speed is not None), default=math.nan)
    for name, speed in speeds.items():
        if speed is None or speed == best:
            assert name not in found
        elif speed < slowest * best:
            assert found[name].code == "too-slow"
            assert found[name].facts["its"] == best
        elif working[name] or speed >= slowest * best * BACK:
            assert name not in found


def test_of_equals_none_stays_out_however_small_the_difference_allowed() -> None:
    assert not resting(0.95, {"a": 1.0, "b": 1.0}, {"a": True, "b": False})


@pytest.mark.parametrize("rule", ["at-once", "bounded"])
def test_it_goes_with_waiting_for_versions_alone(rule: str) -> None:
    with pytest.raises(SettingError, match=r"size\.slowest=0\.5 leaves workers out"):
        resolve("hermes", [{"size.slowest": 0.5, "continue.rule": rule}])


@pytest.mark.parametrize(
    ("changes", "wants"),
    [({}, 0), ({"data.resident": True}, 1), ({"data.partition": "by-class"}, 1)],
)
def test_data_that_the_slow_alone_have_are_warned_of(changes: dict[str, Any], wants: int) -> None:
    found = warnings(resolve("hermes", [{"size.slowest": 0.5, **changes}]), [])
    assert ["size.slowest=0.5 leaves slow workers out" in one for one in found] == [True] * wants


def test_it_is_refused_where_no_rule_looks_at_it() -> None:
    with pytest.raises(SettingError, match=r"size\.slowest would never take effect"):
        resolve("hermes-paper", [Layer("--set", {"size.slowest": 0.5})])


def stage_of(**changes: Any) -> MasterStage:
    """Three workers; a version waits for all who work, and each has work by its speed."""
    words = {"size__rule": "speed", "size__slowest": 0.6, "size__first": 24, "size__mean": 24}
    return MasterStage("fedavg", workers=3, round__steps=None, **words, **changes)


def rounds(stage: MasterStage, **busy: float) -> master.Decision:
    """Each has a round of so many seconds, and a version is made of them: so often that all are
    measured."""
    for _ in range(TRIED):
        for name, seconds in busy.items():
            last = push(stage, name, seconds)
        stage.store(last)
    return last


def lose(stage: MasterStage, gone: str, *others: str) -> master.Decision:
    for _ in range(3):
        for name in others:
            stage.beat(name, later=4.0)
    stage.put(Ticked())
    decision = stage.put(TopicRead(gone))
    assert one(WorkerLost, decision).worker == gone
    return decision


def test_the_slow_one_rests_and_nobody_waits_for_it() -> None:
    """Once it is measured, and told why; what it had done is merged, what it held is another's."""
    stage = stage_of()
    last = rounds(stage, w1=1.0, w2=1.2, w3=9.0)
    resized = of(ShardResized, last)[-1]
    assert (resized.worker, resized.size, resized.reason.code) == ("w3", 0, "too-slow")
    assert one(BlocksReturned, last).worker == "w3"
    assert [part.worker for part in one(Merge, last).parts] == ["w1", "w2", "w3"]
    for _ in range(2):
        push(stage, "w1", 1.0)
        closing = push(stage, "w2", 1.2)
        assert [part.worker for part in one(Merge, closing).parts] == ["w1", "w2"]
        stage.store(closing)
    found = sizes(stage)
    assert found["w3"] == 0
    assert 46 <= found["w1"] + found["w2"] <= 48, "24 each, of those who work"
    after = stage.entries[stage.entries.index(resized) :]
    assert "w3" not in {grant.worker for grant in of(BlocksGranted, after)}
    setting = Setting(stage.state.settings, 0)
    texts = [told(d, setting).body for d in retold(stage).decisions if d.worker == "w3"]
    assert any("too few where size.slowest is 0.6" in text and "w1" in text for text in texts)


def test_its_versions_are_let_go_of() -> None:
    """Else the topic of the models would grow for as long as it rests."""
    stage = stage_of(retention__keep="last:2")
    rounds(stage, w1=1.0, w2=1.0, w3=9.0)
    for _ in range(4):
        push(stage, "w1", 1.0)
        stage.store(push(stage, "w2", 1.0))
    assert min(stage.state.versions) >= stage.state.newest.version - 2  # type: ignore[union-attr]


def test_it_is_back_where_the_quicker_are_lost_or_become_slow() -> None:
    stage = stage_of()
    rounds(stage, w1=1.0, w2=1.0, w3=9.0)
    assert sizes(stage)["w3"] == 0
    lose(stage, "w1", "w2", "w3")
    assert sizes(stage)["w3"] == 0, "w2 is as quick as w1 was"
    for _ in range(8):
        decision = push(stage, "w2", 9.0)
        if of(Merge, decision):
            stage.store(decision)
    assert sizes(stage)["w3"] > 0
    rest, back = [e for e in of(ShardResized, stage.entries) if e.worker == "w3"][-2:]
    assert (rest.reason.code, back.reason.code) == ("too-slow", "by-speed")
    after = stage.entries[stage.entries.index(back) :]
    assert "w3" in {grant.worker for grant in of(BlocksGranted, after)}
    retold(stage)


def test_why_asks_again_where_one_record_has_its_late_round_and_its_return() -> None:
    """The rule was asked after its round, and again after another's."""
    stage = stage_of()
    rounds(stage, w1=1.0, w2=1.0, w3=9.0)
    lose(stage, "w1", "w2", "w3")
    decision = None
    while decision is None or "w3" not in {r.worker for r in of(ShardResized, decision)}:
        stage.say("w3", stage.round("w3", busy=9.0))
        begun = len(stage.records) - 1
        decision = push(stage, "w2", 9.0)
    late, *rest = stage.records[begun:]
    entries = (*late.entries, *(entry for record in rest for entry in record.entries))
    stage.records[begun:] = [replace(late, entries=entries)]
    assert of(ShardResized, entries)[-1].reason.code == "by-speed"
    retold(stage)


def test_another_process_of_it_is_tried_again() -> None:
    """Nothing is known of it: it may be the only one left."""
    stage = stage_of()
    rounds(stage, w1=1.0, w2=1.0, w3=9.0)
    decision = stage.hello("w3", "w3-2", previous="w3-1")
    assert [r.reason.code for r in of(ShardResized, decision)] == ["tried-again"]
    assert sizes(stage)["w3"] == 24
    assert "w3" in {grant.worker for grant in of(BlocksGranted, decision)}
    retold(stage)


def test_a_run_of_which_all_that_work_diverge_ends() -> None:
    stage = stage_of()
    rounds(stage, w1=1.0, w2=1.0, w3=9.0)
    reason = Reason("not-finite", {"tensor": "w"})
    for _ in range(TRIES):
        for name in ("w1", "w2"):
            assert not of(RunStopped, stage.entries)
            body = stage.round(name, None, busy=1.0)
            stage.say(name, replace(body, verdict="veto", reason=reason))
    assert one(RunStopped, stage.entries).reason.code == "diverged"


def test_a_worker_that_has_work_again_takes_the_newest_version() -> None:
    """Its own may be long gone; and while it rests it fetches none."""
    settings = resolve("hermes", [{"size.slowest": 0.5}])
    base = Base(3, "d")
    state = WorkerState("w", "w-1", "idle", settings=settings, base=base)
    resized = ShardResized("w", 0, 32, Reason("too-slow"))
    resting_now = read(state, resized)
    assert (resting_now.rests, resting_now.base) == (True, base)
    assert read(state, replace(resized, worker="other")) == state
    back = read(resting_now, replace(resized, size=24))
    assert (back.rests, back.base) == (False, None)


def read(state: WorkerState, entry: ShardResized) -> WorkerState:
    hand = Hand(PROTOCOL_RULES, state, 0)
    ENTRIES[ShardResized](hand, entry)
    return hand.state
