"""Which records of a ledger count, and how one is added (protocol 2, 3, 4)."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from hermes.codec import decode, encode
from hermes.errors import BrokerUnreachable, Fenced, OutcomeUnknown, RunFailed
from hermes.machine import ledger
from hermes.machine.apply import apply
from hermes.machine.ledger import Authority, advance, astray, void
from hermes.machine.state import MasterState
from hermes.messages import (
    Consumed,
    LedgerRecord,
    MasterStarted,
    ResendAsked,
    TrainingStarted,
    VersionEvaluated,
)
from hermes.perform.ledger import Ledger
from hermes.simulate.faults import AppendFault, FaultyLog, Killed, records_of
from hermes.transport.memory import MemoryLog
from hermes.values import Position

TOPIC = "hermes.run.ledger"
STARTED = (TrainingStarted(1),)


def scripted(**faults: AppendFault) -> FaultyLog:
    """A log whose ledger appends go wrong: `_3=LOST` is the fourth."""
    script = {int(key[1:]): fault for key, fault in faults.items()}
    log = FaultyLog(TOPIC, script, Counter())
    log.create([TOPIC])
    return log


def fold(log: MemoryLog) -> Ledger:
    """What whoever comes later makes of it."""
    found = Ledger(log, TOPIC)
    found.fold()
    return found


def evaluated(number: int) -> tuple[VersionEvaluated]:
    """An entry that a state of any kind can take."""
    return (VersionEvaluated(number, 1.0, None, 0, 0),)


# --- void, rule by rule [2] ---------------------------------------------------------------------


PLACE = Authority(term=2, nonce="b", next_n=3, chain=b"c", offset=9)
NEXT = LedgerRecord(2, "b", 3, b"c", 0, (), STARTED)


def changed(**changes: object) -> LedgerRecord:
    return ledger.msgspec.structs.replace(NEXT, **changes)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"term": 1}, "not-in-force"),
        ({"term": 3}, "not-in-force"),
        ({"nonce": "a"}, "not-in-force"),
        ({"n": 2}, "not-next"),
        ({"n": 4}, "not-next"),
        ({"chain": b"d"}, "broken-chain"),
        ({"chain": b""}, "broken-chain"),
    ],
)
def test_what_does_not_continue_is_void(changes: dict[str, object], why: str) -> None:
    """A record counts only with the term, nonce, number and chain in force at its place."""
    assert void(PLACE, changed(**changes)) == why


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        (MasterStarted(3, "c"), {}, ""),
        (MasterStarted(2, "c"), {}, "term-not-next"),
        (MasterStarted(4, "c"), {}, "term-not-next"),
        (MasterStarted(1, "c"), {}, "term-not-next"),
        (MasterStarted(3, "c"), {"term": 9}, "not-a-claim"),
        (MasterStarted(3, "c"), {"nonce": "d"}, "not-a-claim"),
        (MasterStarted(3, "c"), {"n": 1}, "not-a-claim"),
    ],
)
def test_a_master_counts_only_one_term_up(
    claim: MasterStarted, changes: dict[str, object], why: str
) -> None:
    """Its term is one above the one in force there; the record's head says as the claim does."""
    head = {"term": claim.term, "nonce": claim.nonce, "n": 0, "chain": b""}
    assert void(PLACE, changed(**{**head, "entries": (claim,), **changes})) == why


def test_a_claim_among_other_entries_is_no_claim() -> None:
    """It would start a master within another's record."""
    assert void(PLACE, changed(entries=(MasterStarted(3, "b"), *STARTED))) == ""
    record = changed(entries=(MasterStarted(3, "x"), *STARTED))
    assert advance(PLACE, record, 10, b"").term == 2


def test_the_chain_covers_every_byte_before() -> None:
    """The chain after a record is SHA-256(chain || SHA-256 of its bytes)."""
    digest = hashlib.sha256(b"bytes").digest()
    after = advance(PLACE, NEXT, 10, digest)
    assert after == Authority(2, "b", 4, hashlib.sha256(b"c" + digest).digest(), 10)
    assert advance(PLACE, NEXT, 10, hashlib.sha256(b"bytez").digest()).chain != after.chain


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({}, False),
        ({"n": 2}, False),
        ({"term": 1, "nonce": "a", "n": 99}, False),
        ({"n": 4}, True),
        ({"chain": b"d"}, True),
        ({"nonce": "a"}, True),
        ({"term": 3}, True),
    ],
)
def test_a_reader_knows_when_it_has_lost_its_way(changes: dict[str, object], lost: bool) -> None:
    """Repeats and zombies merely do not count; a gap, a fork or a higher term is the reader's."""
    assert bool(astray(PLACE, changed(**changes))) == lost


# --- on a log [2, 3] ----------------------------------------------------------------------------


def test_a_ledger_begins_with_its_first_master() -> None:
    """Term 1, n 0, no chain; the next record has n 1 and the chain of the first."""
    log = scripted()
    mine = Ledger(log, TOPIC)
    mine.start("a")
    mine.commit(STARTED, (), 5)
    first, second = (decode(raw.value) for raw in records_of(log, TOPIC))
    assert isinstance(first, LedgerRecord)
    assert isinstance(second, LedgerRecord)
    assert (first.term, first.n, first.chain) == (1, 0, b"")
    assert first.entries == (MasterStarted(1, "a"),)
    digest = hashlib.sha256(encode(first)).digest()
    assert (second.term, second.n, second.chain) == (1, 1, hashlib.sha256(digest).digest())


def test_an_edited_record_and_all_that_follows_it_are_void() -> None:
    """One byte changed behind our back is seen by whoever folds the log again."""
    log = scripted()
    mine = Ledger(log, TOPIC)
    mine.start("a")
    for number in range(3):
        mine.commit(evaluated(number), (), number)
    edited = MemoryLog()
    edited.create([TOPIC])
    for raw in records_of(log, TOPIC):
        value = raw.value
        if raw.offset == 1:
            record = decode(value)
            value = encode(ledger.msgspec.structs.replace(record, entries=evaluated(77)))
        edited.append(TOPIC, value)
    found = fold(edited)
    assert found.state.evaluations.count == 1
    assert [why for _, why in found.voids] == ["broken-chain", "not-next"]


def test_bytes_that_are_no_record_are_void() -> None:
    """Noise in the topic is skipped, and its places are told."""
    log = scripted()
    mine = Ledger(log, TOPIC)
    mine.start("a")
    log.append(TOPIC, b"noise")
    mine.commit(evaluated(1), (), 0)
    assert mine.state.evaluations.count == 1
    assert [offset for offset, _ in mine.voids] == [1]
    assert fold(log).state == mine.state


def test_the_later_of_two_claims_takes_the_next_term() -> None:
    """[3] Both read term 1 and claim 2: the later one is void, and its author claims 3."""
    log = scripted()
    Ledger(log, TOPIC).start("old")
    late = Ledger(log, TOPIC)
    late.fold()
    Ledger(log, TOPIC).start("first")
    # What `late` does after its fold, had it not seen the claim that came between:
    log.append(TOPIC, encode(LedgerRecord(2, "late", 0, b"", 0, (), (MasterStarted(2, "late"),))))
    late.start("late")
    assert (late.state.authority.term, late.state.authority.nonce) == (3, "late")
    assert late.voids == [(2, "term-not-next")]


class Racing(MemoryLog):
    """A log in which another claim comes just before one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.between: list[bytes] = []

    def append(self, topic, value, headers=()):  # type: ignore[no-untyped-def]
        """As ever, after what others slip in."""
        while self.between:
            super().append(topic, self.between.pop(), headers)
        return super().append(topic, value, headers)


def test_a_claim_that_lost_the_race_is_made_again() -> None:
    """[3] `start` returns only once its own claim is in force."""
    log = Racing()
    log.create([TOPIC])
    rival = LedgerRecord(1, "rival", 0, b"", 0, (), (MasterStarted(1, "rival"),))
    log.between.append(encode(rival))
    mine = Ledger(log, TOPIC)
    mine.start("mine")
    assert mine.state.authority.term == 2
    assert mine.voids == [(1, "term-not-next")]


def test_a_fenced_master_finds_out_at_its_commit() -> None:
    """[2] Two ledgers, interleaved: the older one's record is void, and it is told to stop."""
    log = scripted()
    old, new = Ledger(log, TOPIC), Ledger(log, TOPIC)
    old.start("old")
    old.commit(evaluated(1), (), 1)
    new.start("new")
    with pytest.raises(Fenced) as caught:
        old.commit(evaluated(2), (), 2)
    assert caught.value.exit_code == 4
    new.commit(evaluated(3), (), 3)
    assert new.state.evaluations.count == 2
    assert new.voids == [(3, "not-in-force")]
    assert fold(log).state == new.state
    end = len(records_of(log, TOPIC))
    with pytest.raises(Fenced):
        old.commit(evaluated(4), (), 4)
    assert len(records_of(log, TOPIC)) == end, "it wrote in the other's name"


def test_every_interleaving_of_two_masters_has_one_story() -> None:
    """[2, 3] Whoever writes when: all readers agree, and what counted is what was not fenced."""
    for order in range(2**6):
        log = scripted()
        masters = [Ledger(log, TOPIC), Ledger(log, TOPIC)]
        masters[0].start("m0")
        started, fenced, counted = {0}, set(), 0
        for bit in range(6):
            who = order >> bit & 1
            if who not in started:
                masters[who].start(f"m{who}")
                started.add(who)
            elif who not in fenced:
                try:
                    masters[who].commit(evaluated(bit), (), bit)
                    counted += 1
                except Fenced:
                    fenced.add(who)
        final = fold(log).state
        assert final.evaluations.count == counted
        assert fenced <= {0}
        in_force = masters[1] if 1 in started else masters[0]
        assert in_force.state == final


# --- unknown outcomes [2] -----------------------------------------------------------------------


@pytest.mark.parametrize("fault", [AppendFault.LOST, AppendFault.UNKNOWN])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_unknown_outcome_is_met_with_the_same_bytes(fault: AppendFault, index: int) -> None:
    """Whether the record is there or not, it counts once, and nothing else is decided meanwhile."""
    log = scripted(**{f"_{index}": fault})
    mine = Ledger(log, TOPIC)
    mine.start("a")
    mine.commit(evaluated(1), (), 1)
    mine.commit(evaluated(2), (), 2)
    assert mine.state.evaluations.count == 2
    values = [raw.value for raw in records_of(log, TOPIC)]
    assert len(values) == 3 + (fault is AppendFault.UNKNOWN)
    assert len(set(values)) == 3
    assert mine.voids == ([] if fault is AppendFault.LOST else [(index + 1, void_why(index))])
    assert fold(log).state == mine.state


def void_why(index: int) -> str:
    """Why the second copy of the record at this index is void."""
    return "term-not-next" if index == 0 else "not-next"


class Deaf(MemoryLog):
    """A log that never acknowledges."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    def append(self, topic, value, headers=()):  # type: ignore[no-untyped-def]
        """The outcome is unknown."""
        self.heard.append(value)
        raise OutcomeUnknown("deaf")


def test_a_ledger_that_cannot_be_written_ends_the_run() -> None:
    """After many appends of the same bytes, not before."""
    log = Deaf()
    log.create([TOPIC])
    mine = Ledger(log, TOPIC)
    with pytest.raises(BrokerUnreachable):
        mine.start("a")
    assert len(log.heard) >= 10
    assert len(set(log.heard)) == 1


def test_a_record_that_does_not_count_where_it_lies_ends_the_run() -> None:
    """The broker lost the tail before it: who reads the ledger would never come to our state."""
    log = scripted()
    mine = Ledger(log, TOPIC)
    mine.start("a")
    mine.commit(evaluated(1), (), 1)
    lost = MemoryLog()
    lost.create([TOPIC])
    lost.append(TOPIC, records_of(log, TOPIC)[0].value)
    mine._log = lost
    with pytest.raises(RunFailed):
        mine.commit(evaluated(2), (), 2)
    assert mine.state.evaluations.count == 1


def test_a_master_killed_around_its_append_is_followed_without_loss() -> None:
    """[4] Before it: the decision never was. After it: it is the next master's."""
    for fault, count in ((AppendFault.KILLED_BEFORE, 0), (AppendFault.KILLED_AFTER, 1)):
        log = scripted(_1=fault)
        first = Ledger(log, TOPIC)
        first.start("a")
        with pytest.raises(Killed):
            first.commit(evaluated(1), (), 1)
        second = Ledger(log, TOPIC)
        second.start("b")
        assert second.state.evaluations.count == count
        assert second.state.authority.term == 2


# --- the fold [4] -------------------------------------------------------------------------------


def test_the_state_is_the_fold_after_every_record() -> None:
    """[4] Live and on replay it is the same function; positions and time come from the record."""
    log = scripted()
    seen: list[MasterState] = []
    mine = Ledger(log, TOPIC, watcher=lambda _raw, _record, state: seen.append(state))
    mine.start("a", time=7)
    for number in range(4):
        place = Consumed(Position("lobby", 0, number), "", 0)
        mine.commit((ResendAsked("w1", "i", number),), (place,), 10 + number)
        assert fold(log).state == mine.state == seen[-1]
    assert mine.state.time == 13
    assert mine.state.consumed == {"lobby": Position("lobby", 0, 3)}
    state = MasterState()
    for raw in records_of(log, TOPIC):
        record = decode(raw.value)
        assert isinstance(record, LedgerRecord)
        state = apply(state, record, raw.offset, hashlib.sha256(raw.value).digest())
    assert state == mine.state


def test_run_time_never_goes_back() -> None:
    """[10] A master that starts later begins at the last recorded time, or after it."""
    log = scripted()
    Ledger(log, TOPIC).start("a", time=100)
    second = Ledger(log, TOPIC)
    second.start("b", time=3)
    assert second.state.time == 100
