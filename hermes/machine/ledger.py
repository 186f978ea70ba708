"""Which records of the ledger count? Pure.

Protocol 2 and 3. A record whose term and nonce are not in force where it lies, whose n is not the
next, or whose chain does not continue, is void: every reader skips it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from hermes.messages import LedgerRecord, MasterStarted

EMPTY = b""


class Authority(msgspec.Struct, frozen=True):
    """Who may decide at this place of the ledger, and what has to come next."""

    term: int = 0
    nonce: str = ""
    next_n: int = 0
    chain: bytes = EMPTY
    """Running hash over all valid records so far."""
    offset: int = -1
    """Of the last valid record."""


@functools.lru_cache(1 << 10)
def link(chain: bytes, digest: bytes) -> bytes:
    """The chain after a record whose bytes have this SHA-256. Where many read the same ledger in
    one process, as in a simulation, it is made once."""
    return hashlib.sha256(chain + digest).digest()


def in_force(authority: Authority, record: LedgerRecord) -> bool:
    """Rule 2: the record's term and nonce are those in force where it lies."""
    return (record.term, record.nonce) == (authority.term, authority.nonce)


def next_number(authority: Authority, record: LedgerRecord) -> bool:
    """Rule 2: its n is the next within the nonce."""
    return record.n == authority.next_n


def continues(authority: Authority, record: LedgerRecord) -> bool:
    """Rule 2: its chain covers all valid records before it."""
    return record.chain == authority.chain


def next_term(authority: Authority, claim: MasterStarted) -> bool:
    """Rule 3: a master counts only if its term is one above the term in force at its place."""
    return claim.term == authority.term + 1


class Counting(NamedTuple):
    """The rules that make a record count, one each; `Counting()` is the protocol."""

    in_force: Callable[[Authority, LedgerRecord], bool] = in_force
    next_number: Callable[[Authority, LedgerRecord], bool] = next_number
    continues: Callable[[Authority, LedgerRecord], bool] = continues
    next_term: Callable[[Authority, MasterStarted], bool] = next_term


COUNTING = Counting()


def void(authority: Authority, record: LedgerRecord, rules: Counting = COUNTING) -> str:
    """Why this record does not count here, or "" if it does."""
    if starts_master(record):
        claim = record.entries[0]
        assert isinstance(claim, MasterStarted)
        if (record.term, record.nonce, record.n) != (claim.term, claim.nonce, 0):
            return "not-a-claim"
        return "" if rules.next_term(authority, claim) else "term-not-next"
    if not rules.in_force(authority, record):
        return "not-in-force"
    if not rules.next_number(authority, record):
        return "not-next"
    if not rules.continues(authority, record):
        return "broken-chain"
    return ""


def astray(authority: Authority, record: LedgerRecord) -> str:
    """Why a reader that finds this record void has itself lost the way (it missed records, or
    followed a master that was not in force), or "" if the record merely does not count.

    A repeated append, a zombie's record and a claim that came too late merely do not count.
    """
    why = void(authority, record)
    if not why or why == "broken-chain":
        return why
    if record.term > authority.term:
        return why
    if record.term < authority.term or starts_master(record):
        return ""
    if record.nonce != authority.nonce or record.n > authority.next_n:
        return why
    return ""


def starts_master(record: LedgerRecord) -> bool:
    """Whether the record is a master's claim."""
    return len(record.entries) == 1 and isinstance(record.entries[0], MasterStarted)


def advance(authority: Authority, record: LedgerRecord, offset: int, digest: bytes) -> Authority:
    """The authority after a valid record."""
    return Authority(
        term=record.term,
        nonce=record.nonce,
        next_n=record.n + 1,
        chain=link(authority.chain, digest),
        offset=offset,
    )
