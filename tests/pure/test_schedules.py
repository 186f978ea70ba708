"""Random schedules of faults keep every invariant; a rule taken out breaks one."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest

from hermes.errors import HermesError
from hermes.machine import audit
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.state import MasterState
from hermes.messages import (
    BlocksReturned,
    ResendAsked,
    UpdateRejected,
    WorkerBack,
    WorkerLost,
    WorkerRefused,
)
from hermes.simulate import schedules
from hermes.simulate.faults import AppendFault, Faults, WorkerFault
from hermes.values import SECOND

SEEDS = 300

KINDS = {fault.value for fault in AppendFault} | {
    *("kill", "cut", "leave", "clone", "duplicated", "dropped", "zombie", "fenced", "lag", "sleep")
}


def test_random_schedules_keep_every_invariant() -> None:
    """300 schedules finish; every kind of fault fired, every kind of answer was given."""
    fired: Counter[str] = Counter()
    answers: Counter[type] = Counter()
    for seed in range(SEEDS):
        driver = schedules.run(schedules.draw(seed))
        fired += driver.fired
        answers.update(type(e) for record in driver.valid_records() for e in record.entries)
    assert set(fired) == KINDS
    assert min(fired.values()) > 10
    for kind in (
        BlocksReturned, ResendAsked, UpdateRejected, WorkerBack, WorkerLost, WorkerRefused,
    ):  # fmt: skip
        assert answers[kind] >= 10, kind


BROKEN: dict[str, dict[str, Any]] = {
    "void": {"void": lambda _place, _record: ""},
    "order": {"order": lambda _taken, _number: "take"},
    "order, gaps are taken for repeats": {
        "order": lambda taken, number: "take" if number == taken + 1 else "repeat"
    },
    "order, repeats are taken": {
        "order": lambda taken, number: "take" if number <= taken + 1 else "gap"
    },
    "speaks_for": {"speaks_for": lambda _member, _sender: True},
    "hello": {"hello": lambda _state, _knock: None},
    "release": {"release": lambda _member, _why: None},
    "may_forget": {"may_forget": lambda _number, _taken: True},
    "lost_for_good": {"lost_for_good": lambda silent, _read: silent},
}

HINTS = {
    "void": (2, 1),
    "order": (7, 8),
    "order, gaps are taken for repeats": (32, 10),
    "order, repeats are taken": (5, 7),
    "speaks_for": (89,),
    "hello": (245, 26),
    "release": (6, 5),
    "may_forget": (182, 30),
    "lost_for_good": (15, 5),
}
"""Seeds that come to grief without a rule, to be tried first. A hint that has grown stale costs
time, not truth: the others are tried after it."""

ELSEWHERE = {"unborn": "test_master: without births an update would be taken twice"}
"""Rules that no schedule needs: a second rule stands behind them. Each is tested by itself."""


@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_taken_out_breaks_an_invariant(case: str) -> None:
    """Without it, one of the schedules comes to grief."""
    rules = PROTOCOL_RULES._replace(**BROKEN[case])
    first = [*HINTS.get(case, ()), *range(SEEDS)]
    assert any(breaks(seed, rules) for seed in first), case


def breaks(seed: int, rules: Rules) -> bool:
    """Whether this schedule ends in an error with these rules."""
    try:
        schedules.run(schedules.draw(seed), rules)
    except (HermesError, KeyError, AssertionError, TypeError):
        return True
    return False


def test_every_rule_is_taken_out_once() -> None:
    """No field of the table is left untested."""
    assert {key for case in BROKEN.values() for key in case} | set(ELSEWHERE) == set(Rules._fields)


@functools.cache
def undisturbed(strategy: str) -> MasterState:
    """The end of a run in which nothing goes wrong."""
    return outcome(strategy, Faults())


def outcome(strategy: str, faults: Faults) -> MasterState:
    schedule = schedules.Schedule(1, strategy, 2, 3, faults)
    return schedules.run(schedule).master.state


@pytest.mark.parametrize("strategy", ["bsp", "fedavg", "hermes-paper"])
@pytest.mark.parametrize("fault", AppendFault)
def test_an_append_gone_wrong_changes_no_outcome(strategy: str, fault: AppendFault) -> None:
    """At any place, by any way: workers, versions and blocks stand as if nothing had happened."""
    calm = undisturbed(strategy)
    for index in range(4, 40, 11):
        state = outcome(strategy, Faults(appends={index: fault}))
        assert state.newest == calm.newest
        assert state.cursor == calm.cursor
        assert state.time == calm.time
        for name, member in calm.members.items():
            found = state.members[name]
            assert (found.rounds, found.pushes, found.applied) == (
                member.rounds, member.pushes, member.applied,
            )  # fmt: skip


def test_the_audit_reads_every_entry_that_tells_a_story() -> None:
    """The entries that the audit knows are entries of the ledger (and it can fail: `Defect`)."""
    assert all(kind.__module__ == "hermes.messages" for kind in audit.READERS)


def test_a_worker_lost_alone_comes_back() -> None:
    """The only worker is cut off for longer than the limit: lost, back, and the run is finished."""
    cut = WorkerFault(SECOND, "worker-1", "cut", 4 * SECOND)
    schedule = schedules.Schedule(1, "bsp", 1, 8, Faults(workers=(cut,)))
    driver = schedules.run(schedule)
    kinds = [type(entry) for record in driver.valid_records() for entry in record.entries]
    assert kinds.count(WorkerLost) == 1
    assert kinds.count(WorkerBack) == 1
