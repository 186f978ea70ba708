"""Who is much slower than the quickest has no work, and stands by. Every story is asked again."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import MasterStage, of, one
from test_alone import push, retold, sizes

from hermes.errors import SettingError
from hermes.machine.events import Merge, Ticked, TopicRead
from hermes.messages import BlocksGranted, BlocksReturned, ShardResized, WorkerLost
from hermes.policy.presets import Layer, resolve, warnings
from hermes.policy.resting import BACK, resting
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting

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


def stage_of(workers: int = 3) -> MasterStage:
    """Where a version waits for all who work, and each has work by its speed."""
    words = {"size__rule": "speed", "size__slowest": 0.6, "size__first": 24, "size__mean": 24}
    return MasterStage("fedavg", workers=workers, round__steps=None, **words)


def test_the_slow_one_rests_and_nobody_waits_for_it() -> None:
    """It is told why; what it had done is merged, what it held is another's."""
    stage = stage_of()
    assert not of(Merge, push(stage, "w1", 1.0))
    assert not of(Merge, push(stage, "w2", 1.2))
    last = push(stage, "w3", 2.0)
    resized = one(ShardResized, last)
    assert (resized.worker, resized.size, resized.reason.code) == ("w3", 0, "too-slow")
    assert one(BlocksReturned, last).worker == "w3"
    assert [part.worker for part in one(Merge, last).parts] == ["w1", "w2", "w3"]
    stage.store(last)
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
    assert any("less than 0.6 (size.slowest) of" in text and "of w1" in text for text in texts)


def test_it_is_back_where_the_quicker_are_lost_or_become_slow() -> None:
    stage = stage_of()
    for name, busy in (("w1", 1.0), ("w2", 1.0), ("w3", 2.0)):
        last = push(stage, name, busy)
    stage.store(last)
    assert sizes(stage)["w3"] == 0
    for _ in range(3):
        for name in ("w2", "w3"):
            stage.beat(name, later=4.0)
    stage.put(Ticked())
    assert one(WorkerLost, stage.put(TopicRead("w1"))).worker == "w1"
    assert sizes(stage)["w3"] == 0, "w2 is as quick as w1 was"
    for _ in range(8):
        decision = push(stage, "w2", 2.2)
        if of(Merge, decision):
            stage.store(decision)
    assert sizes(stage)["w3"] > 0
    rest, back = (e for e in of(ShardResized, stage.entries) if e.worker == "w3")
    assert (rest.reason.code, back.reason.code) == ("too-slow", "by-speed")
    after = stage.entries[stage.entries.index(back) :]
    assert "w3" in {grant.worker for grant in of(BlocksGranted, after)}
    retold(stage)
