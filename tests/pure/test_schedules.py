"""Random schedules of faults keep every invariant; a rule taken out breaks one."""

from __future__ import annotations

from collections import Counter

import pytest

from hermes.errors import HermesError
from hermes.machine import ledger
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.simulate import schedules
from hermes.values import Reason

SEEDS = 300


def test_random_schedules_keep_every_invariant() -> None:
    """300 schedules finish, and each kind of fault fired."""
    fired: Counter[str] = Counter()
    for seed in range(SEEDS):
        fired += schedules.run(schedules.draw(seed)).fired
    kinds = {"lost", "unknown", "killed-before", "killed-after", "kill", "cut", "leave"}
    kinds |= {"duplicated", "dropped", "zombie", "fenced", "lag", "sleep"}
    assert set(fired) == kinds
    assert min(fired.values()) > 10


def _void_only_by_start(place: ledger.Authority, record: object) -> str:
    del place, record
    return ""


BROKEN = {
    "void": PROTOCOL_RULES._replace(void=_void_only_by_start),
    "order": PROTOCOL_RULES._replace(order=lambda _taken, _number: "take"),
    "speaks_for": PROTOCOL_RULES._replace(speaks_for=lambda _member, _sender: True),
    "hello": PROTOCOL_RULES._replace(hello=lambda _state, _knock: None),
    "release": PROTOCOL_RULES._replace(release=lambda _member, _why: None),
    "may_forget": PROTOCOL_RULES._replace(may_forget=lambda _number, _taken: True),
    "lost_for_good": PROTOCOL_RULES._replace(lost_for_good=lambda silent, _read: silent),
    "order-no-gap": PROTOCOL_RULES._replace(
        order=lambda taken, number: "take" if number == taken + 1 else "repeat"
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_rule_taken_out_breaks_an_invariant(rule: str) -> None:
    """Without it, one of the first schedules comes to grief."""
    assert any(_breaks(seed, BROKEN[rule]) for seed in range(SEEDS)), rule


def _breaks(seed: int, rules: Rules) -> bool:
    try:
        schedules.run(schedules.draw(seed), rules)
    except (HermesError, KeyError, AssertionError, TypeError):
        return True
    return False


def test_a_reason_is_plain() -> None:
    """Reasons compare by value."""
    assert Reason("x", {"a": 1}) == Reason("x", {"a": 1})
