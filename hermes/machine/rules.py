"""The rules of the protocol that decide what counts, one function each, in one table. Pure.

The machines are given the table, so that a test can take a rule out and see an invariant break.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from hermes.machine import ledger
from hermes.machine.ledger import COUNTING, Authority, Counting
from hermes.machine.pools import NONE, pool_at, pool_for
from hermes.machine.state import MasterState, Member
from hermes.machine.walk import outstanding
from hermes.messages import (
    PROTOCOL,
    BlocksReturned,
    Hello,
    LedgerRecord,
    Update,
    VersionPublished,
)
from hermes.policy.codecs import FP16, FP32
from hermes.policy.own import FEWEST
from hermes.values import SECOND, Birth, BlockRange, Facts, Position, Reason

NAME = re.compile(r"[a-z0-9-]{1,40}")
"""What a worker may be called (protocol 1)."""

WIDER = {FP32: 2, FP16: 8}
"""How many times as long as a version an update may be, by the codec of the version: twice the
model, whose floats have up to four times the bytes of a half."""

SLACK = 1 << 20
"""Bytes that an update may be longer still: headers of a tiny one."""

ASK_AGAIN = 5 * SECOND
"""A request to send again is repeated after this time, if the number is still missing."""

Order = Literal["take", "repeat", "gap"]
Unknown = Literal["again", "done", "failed"]


# --- the ledger: who may write, and what was written (2, 3) -------------------------------------


def unknown() -> Unknown:
    """Rule 2: an append whose outcome is unknown is neither done nor failed: the same bytes are
    appended again, and no other decision is taken meanwhile."""
    return "again"


def nobody_between(read_to: int, offset: int) -> bool:
    """Rule 2: an acknowledged offset exactly one after the last folded record proves that nobody
    wrote between; otherwise the gap is read first."""
    return offset == read_to


def leads(authority: Authority, nonce: str) -> bool:
    """Rules 2 and 3: a master decides only once its own `MasterStarted` is in force, and only as
    long as it is."""
    return authority.nonce == nonce


# --- inputs (5) ---------------------------------------------------------------------------------


def order(taken: int, number: int) -> Order:
    """Rule 5: messages of an incarnation are taken in the order 1, 2, 3, ... only."""
    if number <= taken:
        return "repeat"
    return "take" if number == taken + 1 else "gap"


def overdue(taken: int, last: int) -> bool:
    """Rule 5: a heartbeat names the last number sent, so that a lost last message is missed."""
    return last > taken


def asks(first: int, asked: tuple[int, int], now: int) -> bool:
    """Rule 5: at a gap the missing number is asked for, and again after a while. `asked` is the
    (number, run time) of the last request."""
    return first != asked[0] or now - asked[1] >= ASK_AGAIN


def resume(state: MasterState, topic: str) -> Position | None:
    """Rule 5: a topic is read on from the position that the ledger names."""
    return state.consumed.get(topic)


def may_forget(number: int, taken: int) -> bool:
    """Rule 5: a worker keeps a message until the ledger's consumed number has passed it."""
    return number <= taken


# --- workers (6) --------------------------------------------------------------------------------


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
    if any(knock.incarnation in other.taken for other in state.members.values()):
        # Births are told apart by incarnation alone.
        return Reason("incarnation-taken", {"worker": knock.worker})
    assert state.opened is not None
    ours = state.opened.software
    if knock.software.protocol != PROTOCOL or knock.software.hermes != ours.hermes:
        facts: Facts = {"worker": knock.software.hermes, "master": ours.hermes}
        if knock.software.protocol != PROTOCOL:
            facts |= {"worker_protocol": knock.software.protocol, "master_protocol": PROTOCOL}
        return Reason("other-version", facts)
    limit = state.settings.workers.max
    if member is None and len(state.members) >= limit:
        return Reason("too-many", {"limit": limit})
    if member is not None and member.status == "alive" and knock.previous not in member.taken:
        return Reason("name-taken", {"worker": knock.worker})
    if state.data is not None and pool_for(state, knock.worker) is None:
        return Reason("no-pool", {"pools": len(state.data.pools)})
    return other_data(state, knock)


def other_data(state: MasterState, knock: Hello) -> Reason | None:
    """Rule 6: why a worker cannot take part with the data that it brings, or without."""
    data, own = state.data, knock.own
    if data is None or not data.shares:
        return None if own is None else Reason("data-granted")
    if own is None:
        return Reason("no-data")
    if own.samples < FEWEST:
        return Reason("too-few-samples", {"samples": own.samples, "least": FEWEST})
    others = [other.own.kind for other in state.members.values() if other.own is not None]
    kind = data.kind or next(iter(others), own.kind)
    if own.kind != kind:
        return Reason("other-samples", {"brings": own.kind, "run": kind})
    member = state.members.get(knock.worker)
    known = member.own if member is not None else None
    if known is not None and (known.digest, known.samples) != (own.digest, own.samples):
        return Reason("other-data", {"samples": own.samples, "before": known.samples})
    return None


def silent(heard: int, now: int, limit: float) -> bool:
    """Rule 6: nothing was heard for `limit` seconds."""
    return now - heard > limit * SECOND


def stuck(progress: int, heard: int, limit: float) -> bool:
    """Rule 6: a worker's signs of life went on for `limit` seconds beyond its last progress
    (alive without progress is stuck, not dead). Both are run times; a silence is no part of it."""
    return heard - progress > limit * SECOND


def owes_progress(member: Member, waiting: bool) -> bool:
    """Rule 6: progress is owed by whoever holds blocks, and does not wait for a version that
    holds or rejects its update."""
    return member.status == "alive" and bool(member.grants) and not waiting


def lost_for_good(missing_now: bool, read_to_end: bool) -> bool:
    """Rule 6: a deadline counts only once the worker's topic has been read to its end."""
    return missing_now and read_to_end


def slept(last: int, now: int, limit: float) -> bool:
    """Rule 6: the master itself was away (asleep, or newly started) so long that every deadline
    starts anew. `last` is when it was last called, `limit` the seconds of `workers.lost`."""
    return now - last > limit * SECOND / 2


def stuck_at(member: Member) -> int | None:
    """The steps at which a worker was declared stuck, if that is why it is lost."""
    if member.status != "lost" or member.last.code != "stuck":
        return None
    steps = member.last.facts.get("steps")
    return steps if isinstance(steps, int) else 0


def comes_back(member: Member, gets_on: bool) -> bool:
    """Rule 6: whoever was lost is back with its next message; who was stuck with its next
    progress, since signs of life it gave all the time."""
    return member.status == "lost" and (gets_on or stuck_at(member) is None)


def readmit(member: Member, term: int) -> bool:
    """Rule 6: a master of a new term admits anew those that an older one admitted."""
    return member.status != "left" and member.term < term


def owed(birth: Birth, taken: Mapping[str, int]) -> bool:
    """Rule 6: an update in the outbox is sent again, unless the ledger has it."""
    return birth.number > taken.get(birth.incarnation, 0)


# --- versions and blocks (7, 8, 9a) -------------------------------------------------------------


def malformed(update: Update, worker: str, at: Position, newest: VersionPublished) -> Reason | None:
    """Rule 5: why what an update claims cannot be; None if it can. Its chunks lie before the
    message that names them (at `at`), in the worker's own topic."""
    payload = update.payload
    before = (payload.generation, payload.last) < (at.generation, at.offset)
    claims = {
        "topic": payload.topic == f"from.{worker}" and payload.generation >= 0,
        "offsets": 0 <= payload.first <= payload.last and before,
        "length": 0 < payload.length <= WIDER[newest.codec] * newest.payload.length + SLACK,
        "samples": update.samples >= 1 and update.rounds >= 1,
        "oldest": update.oldest <= update.base.version,
    }
    wrong = [claim for claim, holds in claims.items() if not holds]
    if not wrong:
        return None
    facts: Facts = {"before": at.offset} if wrong[0] == "offsets" else {}
    return Reason("malformed", {"claim": wrong[0], **facts})


def known_base(state: MasterState, update: Update) -> bool:
    """Rule 7: a base is (version, digest). True if it is a version that was published."""
    known = state.versions.get(update.base.version)
    return known is not None and known.payload.digest == update.base.digest


def may_merge(under_way: bool) -> bool:
    """Rule 8: merges happen one at a time, in the order of acceptance."""
    return not under_way


def running(state: MasterState) -> bool:
    """Rule 8: after `RunStopped` nothing is published, taken or admitted."""
    return state.stopped is None


def free(state: MasterState, worker: str) -> tuple[tuple[BlockRange, ...], int]:
    """Rule 9a: what this worker may be granted: blocks given back first, then the walk from its
    next block on, of its own pool where there are pools. What somebody holds is neither."""
    pool, data = state.members[worker].pool, state.data
    if pool == NONE or data is None:
        return state.returned, state.cursor
    back = tuple(block for block in state.returned if pool_at(data, block.first) == pool)
    return back, state.cursors[pool]


def holds_round(member: Member, steps: int) -> bool:
    """Rule 9a: beyond its first grant (of which a sample may be left) a worker holds a whole
    round of `steps` batches."""
    need = steps * max(member.batch, max([grant.batch for grant in member.grants]))
    have = outstanding(member)
    return have >= 2 * need and have - member.grants[0].size >= need


def release(member: Member, why: str) -> BlocksReturned | None:
    """Rule 9a: what a worker held goes back, so that somebody else trains it."""
    numbers = tuple(grant.number for grant in member.grants)
    return BlocksReturned(member.name, numbers, why) if numbers else None


# --- the table ----------------------------------------------------------------------------------


class Rules(NamedTuple):
    """The table. `Rules()` is the protocol."""

    counting: Counting = COUNTING
    unknown: Callable[[], Unknown] = unknown
    nobody_between: Callable[[int, int], bool] = nobody_between
    leads: Callable[[Authority, str], bool] = leads
    astray: Callable[[Authority, LedgerRecord], str] = ledger.astray
    order: Callable[[int, int], Order] = order
    overdue: Callable[[int, int], bool] = overdue
    asks: Callable[[int, tuple[int, int], int], bool] = asks
    resume: Callable[[MasterState, str], Position | None] = resume
    may_forget: Callable[[int, int], bool] = may_forget
    unborn: Callable[[Member, Birth], bool] = unborn
    speaks_for: Callable[[Member, str], bool] = speaks_for
    hello: Callable[[MasterState, Hello], Reason | None] = hello
    lost_for_good: Callable[[bool, bool], bool] = lost_for_good
    slept: Callable[[int, int, float], bool] = slept
    comes_back: Callable[[Member, bool], bool] = comes_back
    stuck: Callable[[int, int, float], bool] = stuck
    owes_progress: Callable[[Member, bool], bool] = owes_progress
    readmit: Callable[[Member, int], bool] = readmit
    owed: Callable[[Birth, Mapping[str, int]], bool] = owed
    malformed: Callable[[Update, str, Position, VersionPublished], Reason | None] = malformed
    known_base: Callable[[MasterState, Update], bool] = known_base
    may_merge: Callable[[bool], bool] = may_merge
    running: Callable[[MasterState], bool] = running
    free: Callable[[MasterState, str], tuple[tuple[BlockRange, ...], int]] = free
    holds_round: Callable[[Member, int], bool] = holds_round
    release: Callable[[Member, str], BlocksReturned | None] = release

    def void(self, authority: Authority, record: LedgerRecord) -> str:
        """Why this record does not count here, or "" if it does."""
        return ledger.void(authority, record, self.counting)


PROTOCOL_RULES = Rules()
