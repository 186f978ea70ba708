"""The rules of the protocol that decide what counts, one function each, in one table. Pure.

The machines are given the table, so that a test can take a rule out and see an invariant break.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from hermes.machine import ledger
from hermes.machine.ledger import Authority
from hermes.machine.state import MasterState, Member
from hermes.messages import (
    PROTOCOL,
    BlocksReturned,
    Hello,
    LedgerRecord,
    Update,
    VersionPublished,
)
from hermes.values import SECOND, Birth, Reason

NAME = re.compile(r"[a-z0-9-]{1,40}")
"""What a worker may be called (protocol 1)."""

SLACK = 1 << 20
"""Bytes that an update may be longer than twice the model: headers of a tiny one."""

Order = Literal["take", "repeat", "gap"]


def order(taken: int, number: int) -> Order:
    """Rule 5: messages of an incarnation are taken in the order 1, 2, 3, ... only."""
    if number <= taken:
        return "repeat"
    return "take" if number == taken + 1 else "gap"


def unborn(member: Member, birth: Birth) -> bool:
    """Rule 6: duplicates are judged by birth. True if this update was never taken."""
    return birth.number > member.taken.get(birth.incarnation, 0)


def speaks_for(member: Member, sender: str) -> bool:
    """Rule 6: fencing is judged by sender. True if this incarnation is the one in force."""
    return sender == member.incarnation


def hello(state: MasterState, knock: Hello) -> Reason | None:
    """Rule 6: None admits; code "known" is ignored; anything else is a refusal."""
    if not NAME.fullmatch(knock.worker):
        return Reason("bad-name", {"rule": "1 to 40 of a-z, 0-9 and -"})
    member = state.members.get(knock.worker)
    if member is not None and knock.incarnation in member.taken:
        return Reason("known")
    assert state.opened is not None
    ours = state.opened.software
    if knock.software.protocol != PROTOCOL or knock.software.hermes != ours.hermes:
        facts = {"worker": knock.software.hermes, "master": ours.hermes}
        return Reason("other-version", {**facts})
    if member is None:
        limit = state.settings.workers.max
        return Reason("too-many", {"limit": limit}) if len(state.members) >= limit else None
    if member.status == "alive" and knock.previous not in member.taken:
        return Reason("name-taken", {"worker": knock.worker})
    return None


def malformed(update: Update, worker: str, offset: int, newest: VersionPublished) -> Reason | None:
    """Rule 5: why what an update claims cannot be; None if it can. Its chunks lie before the
    message that names them (at `offset`), in the worker's own topic."""
    payload = update.payload
    claims = {
        "topic": payload.topic == f"from.{worker}" and payload.generation == 0,
        "offsets": 0 <= payload.first <= payload.last < offset,
        "length": 0 < payload.length <= 2 * newest.payload.length + SLACK,
        "samples": update.samples >= 1 and update.rounds >= 1,
        "oldest": update.oldest <= update.base.version,
    }
    wrong = [claim for claim, holds in claims.items() if not holds]
    return Reason("malformed", {"claim": wrong[0]}) if wrong else None


def silent(heard: int, now: int, limit: float) -> bool:
    """Rule 6: nothing was heard for `limit` seconds."""
    return now - heard > limit * SECOND


def lost_for_good(silent_now: bool, read_to_end: bool) -> bool:
    """Rule 6: a deadline counts only once the worker's topic has been read to its end."""
    return silent_now and read_to_end


def release(member: Member, why: str) -> BlocksReturned | None:
    """Rule 9a: what a worker held goes back, so that somebody else trains it."""
    numbers = tuple(grant.number for grant in member.grants)
    return BlocksReturned(member.name, numbers, why) if numbers else None


def may_forget(number: int, taken: int) -> bool:
    """Rule 5: a worker keeps a message until the ledger's consumed number has passed it."""
    return number <= taken


class Rules(NamedTuple):
    """The table. `Rules()` is the protocol."""

    void: Callable[[Authority, LedgerRecord], str] = ledger.void
    order: Callable[[int, int], Order] = order
    unborn: Callable[[Member, Birth], bool] = unborn
    speaks_for: Callable[[Member, str], bool] = speaks_for
    hello: Callable[[MasterState, Hello], Reason | None] = hello
    lost_for_good: Callable[[bool, bool], bool] = lost_for_good
    release: Callable[[Member, str], BlocksReturned | None] = release
    may_forget: Callable[[int, int], bool] = may_forget


PROTOCOL_RULES = Rules()
