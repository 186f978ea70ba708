"""Quotas of a superstep: ZipLine against every choice there is; and the machine that obeys them."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from stage import MasterStage, WorkerStage, one

from hermes.errors import SettingError
from hermes.machine.events import Merge, Train
from hermes.messages import TrainingStarted, VersionPublished
from hermes.policy.presets import resolve
from hermes.policy.zipline import Runner, superstep
from hermes.report.why.decided import MASTER
from hermes.report.why.decisions import Retelling
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting
from hermes.report.why.recompute import AGREES, DIFFERS
from hermes.values import Reason, Superstep

# Whole and halved seconds: their sums and differences are exact.
exact = st.integers(1, 40).map(lambda halves: halves / 2)
crews = st.lists(st.tuples(exact, st.sampled_from([0.0, 0.5, 3.0])), min_size=1, max_size=4)


def runners(crew: list[tuple[float, float]]) -> list[Runner]:
    return [Runner(f"w{i}", interval, apart) for i, (interval, apart) in enumerate(crew, 1)]


@given(crews, st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_it_is_the_earliest_of_the_nearest_choices(
    crew: list[tuple[float, float]], lookahead: int
) -> None:
    found = superstep(runners(crew), lookahead)
    assert found.reason.code == "zipline"
    best = min(
        (max(times) - min(times), max(times))
        for quotas in itertools.product(range(1, lookahead + 1), repeat=len(crew))
        for times in [[a + q * i for q, (i, a) in zip(quotas, crew, strict=True)]]
    )
    ends = [a + q * i for q, (i, a) in zip(found.quotas.values(), crew, strict=True)]
    assert (max(ends) - min(ends), max(ends)) == best
    assert (found.reason.facts["spread"], found.reason.facts["barrier"]) == best
    assert all(1 <= quota <= lookahead for quota in found.quotas.values())


@given(crews)
def test_a_lookahead_of_one_is_bsp(crew: list[tuple[float, float]]) -> None:
    assert set(superstep(runners(crew), 1).quotas.values()) == {1}


@given(crews, st.integers(1, 20), st.integers(-8, 8))
def test_neither_names_nor_the_unit_of_time_matter(
    crew: list[tuple[float, float]], lookahead: int, power: int
) -> None:
    scale = float(Fraction(2) ** power)
    other = [Runner(f"x{i}", r.interval * scale, r.apart * scale)
             for i, r in enumerate(runners(crew)) if r.interval is not None]  # fmt: skip
    one_way, other_way = superstep(runners(crew), lookahead), superstep(other, lookahead)
    assert list(one_way.quotas.values()) == list(other_way.quotas.values())


def test_the_twelve_of_edge12_meet_after_twenty_steps_of_the_fastest() -> None:
    speeds = [1, 1, 1, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5, 0.25, 0.25, 0.1]
    crew = [Runner(f"w{i}", 1 / speed) for i, speed in enumerate(speeds)]
    found = superstep(crew, 30)
    assert list(found.quotas.values()) == [20, 20, 20, 16, 16, 16, 10, 10, 10, 5, 5, 2]
    assert found.reason == Reason(
        "zipline", {"lookahead": 30, "workers": 12, "barrier": 20.0, "spread": 0.0}
    )
    assert list(superstep(crew, 15).quotas.values()) == [10, 10, 10, 8, 8, 8, 5, 5, 5, 2, 2, 1]


def test_all_take_one_step_until_everybody_is_measured() -> None:
    found = superstep([Runner("a", 1.0), Runner("b", None)], 15)
    assert found.quotas == {"a": 1, "b": 1}
    facts = {"lookahead": 15, "workers": 2, "worker": "b"}
    assert found.reason == Reason("unmeasured", facts)
    assert superstep([], 15).quotas == {}


# --- the machines ---------------------------------------------------------------------------------


def barrier(stage: MasterStage, **busy: float) -> VersionPublished:
    """Everybody pushes, after so many seconds of work; the version."""
    for name, seconds in busy.items():
        last = stage.say(name, stage.round(name, stage.update(name), busy=seconds, steps=1))
    assert one(Merge, last).rule == "mean"
    return one(VersionPublished, stage.store(last))


def test_the_first_superstep_is_bsp_and_the_next_are_planned_from_it() -> None:
    stage = MasterStage("ebsp", workers=3)
    assert stage.state.newest is not None
    assert stage.state.newest.superstep is None
    first = barrier(stage, w1=1.0, w2=2.0, w3=3.0)
    assert first.superstep is not None
    assert first.superstep.quotas == {"w1": 6, "w2": 3, "w3": 2}
    stage.hello("w4")
    second = barrier(stage, w1=1.0, w2=2.0, w3=3.0, w4=1.0)
    assert second.superstep is not None
    third = barrier(stage, w1=1.0, w2=2.0, w3=3.0, w4=1.0)
    assert second.superstep == third.superstep
    retelling = Retelling()
    for record in stage.records:
        retelling.read(record)
    checks = [d.check for d in retelling.decisions if d.kind == "version" and d.worker == MASTER]
    assert [check.outcome for check in checks] == [AGREES] * 4


def test_why_tells_the_quotas_and_finds_one_that_does_not_follow() -> None:
    stage = MasterStage("ebsp", workers=2, size__lookahead=4)
    barrier(stage, w1=1.0, w2=3.0)
    for wrong in (False, True):
        retelling = Retelling()
        for record in stage.records:
            entries = record.entries
            if wrong:
                entries = tuple(
                    replace(e, superstep=replace(e.superstep, quotas={"w1": 4, "w2": 1}))
                    if isinstance(e, VersionPublished) and e.superstep is not None
                    else e
                    for e in entries
                )
            retelling.read(replace(record, entries=entries))
        last = [d for d in retelling.decisions if d.kind in ("version", "merged")][-3:]
        assert {d.check.outcome for d in last} == {DIFFERS if wrong else AGREES}
        setting = Setting(stage.state.settings, 0)
        if not wrong:
            text = told(last[0], setting).body
            assert "Quotas until the next barrier: w1 3, w2 1" in text
            assert "0 ms apart, 3.0 s from the version" in text
            assert "Until the next barrier: 3 rounds' work in one" in told(last[1], setting).body
        else:
            assert last[0].check.differing == ["quota w1"]


def test_a_worker_trains_its_quota_and_the_master_sees_that_it_can() -> None:
    stage = WorkerStage("ebsp", admit=False)
    planned = Superstep({"w1": 3}, Reason("zipline"))
    stage.version0 = replace(stage.version0, superstep=planned)
    stage.see(stage.admission(), TrainingStarted(1))
    train = one(Train, stage.ready())
    assert sum(part.stop - part.start for part in train.segments) == 3 * 8
    assert train.joined
    master = MasterStage("ebsp", workers=2, size__lookahead=15)
    barrier(master, w1=1.0, w2=15.0)
    assert sum(grant.size for grant in master.state.members["w1"].grants) >= 2 * 15 * 8
    assert len(master.state.members["w2"].grants) == 2


@pytest.mark.parametrize(
    ("strategy", "changes", "says"),
    [
        ("ebsp", {"size.lookahead": 0}, "size.lookahead is 0"),
        ("ebsp", {"size.lookahead": 1001}, "size.lookahead is 1001"),
        ("ebsp", {"round.steps": None}, "round.steps=off"),
        ("ebsp", {"close.rule": "each"}, "close.rule=each"),
        ("ebsp", {"continue.rule": "at-once"}, "continue.rule=at-once"),
        ("ebsp", {"gate.rule": "zscore"}, "close.rule=all waits"),
    ],
)
def test_quotas_need_a_barrier(strategy: str, changes: dict[str, object], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        resolve(strategy, [changes])
