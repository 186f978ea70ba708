"""A failing schedule is made as small as it goes, and still fails in the same way."""

from __future__ import annotations

import pytest

from hermes.simulate import tell
from hermes.simulate.failing import failure_of, kind_of
from hermes.simulate.schedules import KINDS, Fault, Schedule, draw
from hermes.simulate.search import broken, run_chunk
from hermes.simulate.shrink import candidates, shrink, size
from hermes.simulate.without import CASES
from hermes.values import SECOND


def test_only_what_matters_is_left() -> None:
    """Fails with a zombie after 1 s and a worker-2: all else goes, and what stays is small."""

    def fails(schedule: Schedule) -> bool:
        zombies = [f for f in schedule.script if f.kind == "zombie" and f.at >= SECOND]
        return bool(zombies) and len(schedule.speeds) >= 2

    large = next(s for s in map(draw, range(500)) if fails(s) and len(s.script) > 9)
    small = shrink(large, fails)
    assert small == Schedule(
        large.seed, large.strategy, 1, (1.0, 1.0), (0, 0), (Fault("zombie", SECOND),)
    )


def test_two_faults_that_need_each_other_stay() -> None:
    """Taking out either alone does not fail: both are left, and nothing else."""

    def fails(schedule: Schedule) -> bool:
        kinds = {fault.kind for fault in schedule.script}
        return {"kill", "dropped"} <= kinds

    large = next(s for s in map(draw, range(500)) if fails(s) and len(s.script) > 9)
    small = shrink(large, fails)
    assert sorted(fault.kind for fault in small.script) == ["dropped", "kill"]
    assert all(fault.at == 0 for fault in small.script)


def test_what_does_not_fail_stays_as_it_is() -> None:
    """And no more schedules are run than allowed."""
    asked: list[Schedule] = []

    def fails(schedule: Schedule) -> bool:
        asked.append(schedule)
        return False

    assert shrink(draw(3), fails, tries=25) == draw(3)
    assert len(asked) == 25


def test_every_candidate_is_smaller_and_sound() -> None:
    """So shrinking ends; and no fault strikes a worker that is not there."""
    for seed in range(60):
        schedule = draw(seed)
        for smaller in candidates(schedule):
            assert size(smaller) < size(schedule)
            assert len(smaller.speeds) == len(smaller.joins) >= 1
            there = {f"worker-{i + 1}" for i in range(len(smaller.speeds))}
            for fault in smaller.script:
                assert fault.who.removeprefix("from.") in {"", "lobby", "model", "state", *there}


def test_a_worker_that_goes_takes_its_faults_along() -> None:
    """Those after it take the names before theirs, and keep what befalls them."""
    script = (
        Fault("kill", SECOND, "worker-1", SECOND),
        Fault("cut", SECOND, "worker-2", SECOND),
        Fault("lag", 0, "from.worker-3", SECOND),
    )
    schedule = Schedule(1, "bsp", 1, (1.0, 0.5, 0.2), (0, 1, 2), script)
    without_second = next(c for c in candidates(schedule) if c.speeds == (1.0, 0.2))
    assert without_second.joins == (0, 2)
    assert without_second.script == (script[0], Fault("lag", 0, "from.worker-2", SECOND))


@pytest.mark.parametrize("case", ["order", "next-term", "exclusive"])
def test_the_small_schedule_fails_as_the_large_one_did(case: str) -> None:
    """The same invariant, under the same rules; with the rule in place it holds."""
    seed = next(s for s in range(100) if run_chunk(None, case, range(s, s + 1)).broken is not None)
    found = broken(draw(seed), case)
    assert found is not None
    assert found.failure.kind == found.shrunk.kind
    assert size(found.after) < size(found.before)
    assert len(found.after.script) <= 1
    assert failure_of(found.after, CASES[case].rules) is not None
    assert failure_of(found.after) is None


def test_failures_are_the_same_but_for_names_and_numbers() -> None:
    """Else shrinking would wander off to another defect, or stop at a number."""
    one = kind_of("round 3 is noted where 2 comes (worker-1)")
    assert one == kind_of("round 12 is noted where 1 comes (worker-4)")
    assert one != kind_of("grant 3 where 2 comes (worker-1)")


def test_a_schedule_is_told_in_words() -> None:
    """Each fault on a line, with when or where it strikes; the ledger's end as it stands."""
    found = broken(draw(2), "order")
    assert found is not None
    driver = found.shrunk.driver
    assert driver is not None
    story = list(tell.story(driver, last=5))
    assert story[0].startswith("... ")
    assert len(story) == 6
    assert "RoundNoted worker-1 round 2" in story[-1]
    assert tell.fault_line(Fault("cut", SECOND, "worker-2", SECOND // 2)) == (
        "at 1 s: worker-2 is cut off for 0.5 s"
    )
    for kind in KINDS:
        line = tell.fault_line(Fault(kind, 3, "worker-1", SECOND))
        assert KINDS[kind].text in line
