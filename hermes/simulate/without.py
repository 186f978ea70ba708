"""What if a rule of the protocol were not kept? Each rule's absence, in one table.

A rule is taken out by putting another function in its place: what somebody would write who did not
know the rule. `scripts/schedules --without NAME` looks for a schedule that breaks then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from hermes.machine import rules as protocol
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.state import MasterState
from hermes.messages import Hello
from hermes.simulate.failing import Failure, failure_of
from hermes.simulate.schedules import Schedule
from hermes.values import Reason

Change = Callable[[Rules], Rules]


class Case(NamedTuple):
    """One rule, not kept."""

    part: str
    """Of the protocol: the number that the rules' docstrings name."""
    instead: str
    """What happens in its place, in words."""
    change: Change
    second: str = ""
    """The case of a second rule that stands behind it, so that no schedule breaks without this
    one alone: then both are taken out, and what breaks is not what breaks without the second."""

    @property
    def rules(self) -> Rules:
        """The protocol without this rule alone."""
        return self.change(PROTOCOL_RULES)


def failure_without(name: str, schedule: Schedule) -> Failure | None:
    """How this schedule breaks without a rule (and the second one behind it); None if it does
    not, or does just so without the second one alone."""
    case = CASES[name]
    if not case.second:
        return failure_of(schedule, case.rules)
    second = CASES[case.second]
    failure = failure_of(schedule, second.change(case.rules))
    if failure is None:
        return None
    alone = failure_of(schedule, second.rules)
    return None if alone is not None and alone.kind == failure.kind else failure


def _without(**changes: Any) -> Change:
    return lambda rules: rules._replace(**changes)


def _uncounted(**changes: Callable[..., Any]) -> Change:
    return lambda rules: rules._replace(counting=rules.counting._replace(**changes))


def _yes(*_: object) -> bool:
    return True


def _no(*_: object) -> bool:
    return False


def _nothing(*_: object) -> None:
    return None


def _hello_but(code: str) -> Callable[[MasterState, Hello], Reason | None]:
    def hello(state: MasterState, knock: Hello) -> Reason | None:
        answer = protocol.hello(state, knock)
        return None if answer is not None and answer.code == code else answer

    return hello


CASES: dict[str, Case] = {
    "in-force": Case("2", "records of a fenced master count", _uncounted(in_force=_yes), "chain"),
    "next-number": Case(
        "2", "a repeated append counts again", _uncounted(next_number=_yes), "chain"
    ),
    "chain": Case("2", "a forged record counts", _uncounted(continues=_yes)),
    "next-term": Case("3", "any claim to the run counts", _uncounted(next_term=_yes)),
    "unknown-is-done": Case(
        "2", "an unknown outcome is taken for success", _without(unknown=lambda: "done")
    ),
    "unknown-is-failed": Case(
        "2", "an unknown outcome is taken for failure", _without(unknown=lambda: "failed")
    ),
    "gap-first": Case(
        "2", "what others wrote before one's own record is not read", _without(nobody_between=_yes)
    ),
    "leads": Case("2, 3", "a master goes on that another has replaced", _without(leads=_yes)),
    "astray": Case(
        "6",
        "a worker that lost the thread of the ledger goes on",
        _without(astray=lambda *_: ""),
        "stuck",
    ),
    "order": Case(
        "5", "messages are taken as they come", _without(order=lambda _taken, _number: "take")
    ),
    "gaps": Case(
        "5",
        "what comes after a gap is taken for a repeat",
        _without(order=lambda taken, number: "take" if number == taken + 1 else "repeat"),
        "overdue",
    ),
    "repeats": Case(
        "5",
        "a repeated message is taken again",
        _without(order=lambda taken, number: "take" if number <= taken + 1 else "gap"),
    ),
    "overdue": Case("5", "a lost last message is not missed", _without(overdue=_no)),
    "asks": Case("5", "a missing number is not asked for", _without(asks=_no)),
    "asks-again": Case(
        "5",
        "a missing number is asked for once only",
        _without(asks=lambda first, asked, _now: first != asked[0]),
    ),
    "resume": Case("5", "a new master reads its inputs from the start", _without(resume=_nothing)),
    "may-forget": Case("5", "a worker forgets what it has sent", _without(may_forget=_yes)),
    "malformed": Case("5", "what an update claims is believed", _without(malformed=_nothing)),
    "unborn": Case(
        "6",
        "an update sent again counts again",
        _without(unborn=_yes),
        "owed-only",
    ),
    "speaks-for": Case(
        "6", "a process that was replaced is still listened to", _without(speaks_for=_yes)
    ),
    "hello": Case("6", "whoever knocks is admitted", _without(hello=_nothing)),
    "hello-known": Case(
        "6", "one incarnation is admitted again", _without(hello=_hello_but("known"))
    ),
    "hello-name": Case(
        "6", "a name in use is given away", _without(hello=_hello_but("name-taken"))
    ),
    "read-to-end": Case(
        "6",
        "a deadline counts though messages lie unread",
        _without(lost_for_good=lambda silent, _read: silent),
    ),
    "slept": Case("6", "deadlines go on while the master sleeps", _without(slept=_no)),
    "comes-back": Case("6", "whoever was lost stays lost", _without(comes_back=_no)),
    "back-with-progress": Case(
        "6",
        "a stuck worker is back with its next heartbeat",
        _without(comes_back=lambda member, _gets_on: member.status == "lost"),
    ),
    "stuck": Case("6", "a worker that gets nowhere is waited for", _without(stuck=_no)),
    "owes-progress": Case(
        "6",
        "who waits for a version, or for blocks, counts as stuck",
        _without(owes_progress=lambda member, _waiting: member.status == "alive"),
    ),
    "readmit": Case("6", "a new master does not admit anew", _without(readmit=_no)),
    "owed": Case("6", "what an outbox holds is not sent again", _without(owed=_no)),
    "owed-only": Case("6", "what the ledger has is sent again, too", _without(owed=_yes)),
    "known-base": Case(
        "7", "an update of another model is measured against ours", _without(known_base=_yes)
    ),
    "one-merge": Case("8", "merges run side by side", _without(may_merge=_yes)),
    "after-stop": Case("8", "the run goes on after its stop", _without(running=_yes)),
    "returned-first": Case(
        "9a",
        "blocks given back are forgotten",
        _without(free=lambda state, _worker: ((), state.cursor)),
    ),
    "exclusive": Case(
        "9a",
        "the walk begins anew for each",
        _without(free=lambda state, _worker: (state.returned, 0)),
    ),
    "holds-round": Case(
        "9a", "a worker holds two grants, however small", _without(holds_round=_yes)
    ),
    "release": Case("9a", "what a lost worker held stays its own", _without(release=_nothing)),
}
"""Name -> the case. A test breaks each, and sees that no rule of the table is left out."""

HINTS: dict[str, tuple[int, ...]] = {
    "in-force": (12, 16),
    "next-term": (41, 53),
    "unknown-is-done": (2, 7),
    "unknown-is-failed": (2, 3),
    "gap-first": (2, 3),
    "leads": (2, 3),
    "astray": (45, 112),
    "gaps": (162, 216),
    "overdue": (18, 37),
    "asks": (18, 37),
    "asks-again": (37, 52),
    "may-forget": (6, 13),
    "malformed": (112, 166),
    "speaks-for": (3, 33),
    "hello": (2, 4),
    "hello-known": (22, 34),
    "hello-name": (2, 4),
    "read-to-end": (3, 5),
    "comes-back": (52, 85),
    "back-with-progress": (52, 140),
    "stuck": (21, 116),
    "owes-progress": (21, 79),
    "owed": (31, 62),
    "known-base": (158, 589),
    "one-merge": (825, 1430),
    "after-stop": (32, 60),
    "holds-round": (5, 9),
}
"""Seeds that come to grief without a rule, to be tried first; where there are none, one of the
first seeds does. A hint that has grown stale costs time, not truth: others are tried after it."""
