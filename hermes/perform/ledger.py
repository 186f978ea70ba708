"""How does a decision become a record, and a record the state? The master's end of the ledger.

The order of commit (design, part 3): (1) inputs are taken, (2) the machine decides, (3) tensors
are stored, (4) the record is appended and acknowledged, (5) it is applied. This module is 4 and 5.

One append is outstanding at a time. If its outcome is unknown, the same bytes are appended again
until one is acknowledged. An acknowledged offset exactly one after the last folded record proves
that nobody wrote between; otherwise the gap is read first (protocol 2). An offset below it proves
that the broker has lost records that it had acknowledged: they are written again, from the run's
own folder, and follow from what is left as they did before.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from msgspec.structs import replace

from hermes.codec import decode, encode
from hermes.errors import (
    BrokerRefused,
    BrokerUnreachable,
    DecodeError,
    Defect,
    Fenced,
    OutcomeUnknown,
    RunFailed,
    SettingError,
)
from hermes.machine.apply import apply
from hermes.machine.ledger import EMPTY, link
from hermes.machine.rules import PROTOCOL_RULES, Rules
from hermes.machine.state import MasterState, check
from hermes.messages import Consumed, Entry, LedgerRecord, MasterStarted
from hermes.transport.log import Log, Record
from hermes.transport.upto import records_in

Saved = Callable[[], Iterable[Record]]
"""The records that counted, in order, as this machine has kept them."""

Watcher = Callable[[Record, LedgerRecord, MasterState], None]
"""Told of each record that counts, raw and read, with the state after it."""

TRIES = 10
"""Appends of the same bytes, each with the log's own patience, before we give up."""


class Ledger:
    """The fold of a ledger topic, and the only way to add to it."""

    def __init__(
        self,
        log: Log,
        topic: str,
        *,
        rules: Rules = PROTOCOL_RULES,
        watcher: Watcher | None = None,
        saved: Saved = tuple,
    ) -> None:
        """`saved`: what is written again where the broker has lost it."""
        self.state = MasterState()
        self.mended = 0
        """Records that were written again; whoever tells of them sets it to 0."""
        self._saved = saved
        self._doubted = False
        self._last = EMPTY
        """SHA-256 of the last record that counts."""
        self.read_to = 0
        """Offset of the next record to fold."""
        self.voids: list[tuple[int, str]] = []
        """Offsets of records that do not count, and why; whoever tells of them empties it."""
        self._nonce = ""
        """Ours, once we have claimed the run."""
        self._log, self._topic, self._rules, self._watcher = log, topic, rules, watcher

    def fold(self, end: int | None = None) -> None:
        """Read on to the present end of the topic; or to the record before the offset `end`."""
        last = self._log.ends([self._topic])[self._topic]
        self._fold_to(last if end is None else min(end, last))

    def look(self) -> None:
        """Somebody says that another master leads: read on. Raises `Fenced` if that is so."""
        self.fold()
        if not self._rules.leads(self.state.authority, self._nonce):
            raise self._fenced()

    def fold_saved(self) -> None:
        """Read on to the end, and beyond it what this machine has kept and the broker has lost: the
        ledger as it will be once that is written again. Writes nothing."""
        self.fold()
        for raw in self._lost():
            self._take(Record(self._topic, self.read_to, raw.value))

    def start(self, nonce: str, time: int = 0) -> None:
        """Claim the run: fold all there is, append `MasterStarted`, and again with the next term
        until ours counts (protocol 3). `time` is the run time now, nanoseconds."""
        self.fold()
        for raw in self._lost():
            self._settle(raw.value)
            self.mended += 1
        self._nonce = nonce
        ours = False
        while not ours:
            term = self.state.authority.term + 1
            now = max(time, self.state.time)
            claim = MasterStarted(term, nonce)
            record = LedgerRecord(term, nonce, 0, b"", now, (), (claim,))
            self._settle(encode(record))
            ours = self._rules.leads(self.state.authority, nonce)

    def commit(
        self, entries: tuple[Entry, ...], consumed: tuple[Consumed, ...], now: int
    ) -> LedgerRecord:
        """Append one decision and apply it. Raises `Fenced` if another master is in force."""
        authority = self.state.authority
        if not self._rules.leads(authority, self._nonce):  # else we would write in its name
            raise self._fenced()
        record = LedgerRecord(
            authority.term,
            authority.nonce,
            authority.next_n,
            authority.chain,
            now,
            consumed,
            entries,
        )
        self._settle(encode(record))
        after = self.state.authority
        if not self._rules.leads(after, self._nonce):
            raise self._fenced()
        if after.next_n != authority.next_n + 1:
            raise RunFailed("our own record does not count where it lies", where=self._topic)
        return record

    def _fenced(self) -> Fenced:
        return Fenced(
            f"another master (term {self.state.authority.term}) has taken over this run",
            where=self._topic,
            remedy="This one stops; do not start it again.",
        )

    def _settle(self, data: bytes) -> None:
        """Append one record and fold up to it, reading first what others wrote before it."""
        offset = self._append(data)
        while offset is not None and not self._goes_on(offset):
            self._mend()
            offset = self._append(data)
        if offset is None:
            return
        if self._rules.nobody_between(self.read_to, offset):
            self._take(Record(self._topic, offset, data))
        else:
            self._fold_to(offset + 1)

    def doubt(self) -> None:
        """The broker was away: before the next record counts, look whether the last one is there.
        (Where others have written since, an offset that follows proves nothing.) Any thread."""
        self._doubted = True

    def _goes_on(self, offset: int) -> bool:
        """Whether a record that was appended at this offset follows on what we have read."""
        if offset < self.read_to:
            return False
        if not self._doubted:
            return True
        self._doubted = False
        return self._is_there(self.state.authority.offset)

    def _is_there(self, offset: int) -> bool:
        """Whether the last record that counts lies where it was acknowledged."""
        if offset < 0:
            return True
        try:
            found = list(records_in(self._log, self._topic, offset, offset + 1))
        except BrokerRefused:
            return False
        return [_digest(record.value) for record in found] == [self._last]

    def _mend(self) -> None:
        """The broker has lost the end of the ledger, which we have: write it again. Raises
        `RunFailed` where we do not, and lets us be fenced where another master has gone on."""
        left = Ledger(self._log, self._topic, rules=self._rules, saved=self._saved)
        left.fold()
        ours, theirs = self.state.authority, left.state.authority
        another = theirs.nonce != ours.nonce and theirs.term == ours.term
        if theirs.term > ours.term or another:  # it has gone on from what was left
            self.state, self.read_to = left.state, left.read_to
            raise self._fenced()
        for raw in left._lost():
            left._settle(raw.value)
            self.mended += 1
        if left.state.authority.chain != ours.chain:
            raise RunFailed(
                "the broker has lost records of the ledger that this machine has not kept either",
                where=self._topic,
                remedy="hermes resume goes on from what is left.",
            )
        self.state = replace(self.state, authority=left.state.authority)
        self.read_to = left.read_to

    def _lost(self) -> list[Record]:
        """What this machine has kept beyond the end of the ledger, and follows from it."""
        chain, follows = EMPTY, not self.state.authority.chain
        found: list[Record] = []
        for raw in self._saved():
            if follows:
                found.append(raw)
            chain = link(chain, hashlib.sha256(raw.value).digest())
            follows = follows or chain == self.state.authority.chain
        return found

    def _append(self, data: bytes) -> int | None:
        """The offset of these bytes; None if the append is taken to have failed."""
        for _ in range(TRIES):
            try:
                return self._log.append(self._topic, data).offset()
            except OutcomeUnknown:
                self._doubted = True
                then = self._rules.unknown()
                if then != "again":
                    return self.read_to if then == "done" else None
        raise BrokerUnreachable(
            f"the ledger could not be written {TRIES} times over",
            where=self._topic,
            remedy="Is the broker up, and has its disk room?",
        )

    def _fold_to(self, end: int) -> None:
        """Fold the records before `end`."""
        if self.read_to >= end:
            return
        with contextlib.closing(records_in(self._log, self._topic, self.read_to, end)) as records:
            for record in records:
                self._take(record)

    def _take(self, raw: Record) -> None:
        self.read_to = raw.offset + 1
        found = read_record(self.state, raw, self._rules)
        if isinstance(found, Void):
            if found.defect is not None and found.nonce == self._nonce:
                raise found.defect  # we decided it ourselves
            self.voids.append((raw.offset, found.why))
            return
        self.state, record = found
        self._last = _digest(raw.value)
        if self._watcher is not None:
            self._watcher(raw, record, self.state)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Void(NamedTuple):
    """A record that does not count, and why."""

    why: str
    nonce: str = ""
    """Of the master that it says it is from."""
    defect: Exception | None = None
    """What breaks if it is applied, where that is why."""


def read_record(
    state: MasterState, raw: Record, rules: Rules = PROTOCOL_RULES
) -> tuple[MasterState, LedgerRecord] | Void:
    """One record of a ledger topic: the state after it and the record; or that it is void.

    Whatever the bytes are, nothing is raised. A record that is in order but cannot have followed
    from the state (it names a worker that nobody admitted, breaks an invariant) is void, too.
    """
    try:
        record = decode(raw.value)
    except DecodeError as error:
        return Void(str(error))
    if not isinstance(record, LedgerRecord):
        return Void("not a ledger record")
    why = rules.void(state.authority, record)
    if why:
        return Void(why, record.nonce)
    digest = hashlib.sha256(raw.value).digest()
    try:
        after = apply(state, record, raw.offset, digest)
        check(after)
    except (Defect, SettingError, LookupError, TypeError, ValueError, AssertionError) as error:
        return Void("does-not-fit", record.nonce, error)
    return after, record
