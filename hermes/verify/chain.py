"""Which records of a ledger count, and does each fit those before it? Record by record.

A void record is no error: a repeated append, a master that was fenced, somebody's forgery do no
harm as long as the story goes on after them. Where it does not, a record is missing or was changed.
"""

from __future__ import annotations

from typing import NamedTuple

from hermes.codec import MAGIC, decode
from hermes.errors import DecodeError, Defect, HermesError
from hermes.machine.audit import Audit
from hermes.machine.ledger import Authority, astray, starts_master
from hermes.machine.state import MasterState
from hermes.messages import PROTOCOL, LedgerRecord
from hermes.perform.ledger import Void, read_record
from hermes.transport.log import Record
from hermes.verify.findings import Finding

CANNOT_BE = (HermesError, LookupError, TypeError, ValueError, AssertionError, AttributeError)
"""What is raised of a record that is in order and makes no sense."""


class VoidRecord(NamedTuple):
    """One that does not count."""

    offset: int
    why: str


class Chain:
    """The fold of a ledger, with all that must hold of each record."""

    def __init__(self) -> None:
        self.state = MasterState()
        self.audit = Audit()
        self.records = 0
        """Records that count."""
        self.next = 0
        """Offset after the last record seen."""
        self.terms: list[int] = []
        self.voids: list[VoidRecord] = []
        self.found: list[Finding] = []
        self.newer: int | None = None
        """Offset of the first record of another protocol since the last that counts."""
        self.protocol = PROTOCOL
        """Of that one."""
        self._sane = True
        self._break: Finding | None = None
        self._unfit = False
        """Whether a record that was to count did not fit: then those after it miss it."""

    def take(self, raw: Record) -> LedgerRecord | None:
        """The next record of the topic, if it counts; `state` is the fold up to and with it."""
        self.next = raw.offset + 1
        before = self.state.authority
        read = read_record(self.state, raw)
        if isinstance(read, Void):
            self._void(raw, read, before)
            return None
        self.state, record = read
        self.records += 1
        if starts_master(record):
            self.terms.append(record.term)
        else:
            self._break, self.newer = None, None
        self._look_at(raw, record)
        return record

    def end(self) -> list[Finding]:
        """No more comes: what was found."""
        return [*self.found, *([self._break] if self._break else [])]

    def _look_at(self, raw: Record, record: LedgerRecord) -> None:
        """The whole story so far. After its first break nothing is asked of it any more."""
        if not self._sane:
            return
        try:
            self.audit.read([record])
        except CANNOT_BE as error:
            self._sane = False
            self.found.append(Finding("story", raw.offset, *_defect(error)))

    def _void(self, raw: Record, void: Void, before: Authority) -> None:
        self.voids.append(VoidRecord(raw.offset, void.why))
        if void.defect is not None:
            what, says = _defect(void.defect)[0], "it is the next of the master in force"
            follows = f"it cannot follow from what is before it: {_defect(void.defect)[2]}"
            self.found.append(Finding("fold", raw.offset, what, says, follows))
            self._unfit = True
            return
        try:
            record = decode(raw.value)
        except DecodeError:
            self._other_protocol(raw)
            return
        known = self._break is not None or self._unfit
        if isinstance(record, LedgerRecord) and not known and astray(before, record):
            self._break = _break(raw, record, before, void.why)

    def _other_protocol(self, raw: Record) -> None:
        other = raw.value[:2] == MAGIC and raw.value[2:3] != bytes([PROTOCOL])
        if other and self.newer is None:
            self.newer, self.protocol = raw.offset, raw.value[2]


def _defect(error: Exception) -> tuple[str, str, str]:
    """(which entry, what is recorded, what is wrong)."""
    if isinstance(error, HermesError):
        where = error.where if isinstance(error, Defect) and error.where else "the record"
        return where, "it counts", error.what
    return "the record", "it counts", f"{type(error).__name__}: {error}"


def _break(raw: Record, record: LedgerRecord, before: Authority, why: str) -> Finding:
    """Where the chain ends: nothing after it counts."""
    here, last = raw.offset, before.offset
    if why == "broken-chain" and last >= 0:
        return Finding(
            "chain",
            last,
            f"record {before.next_n - 1} of term {before.term}",
            f"the record after it, at offset {here}, was written upon other bytes than are there",
            "it was changed, or the one after it is not the master's; nothing after it counts",
        )
    same = (record.term, record.nonce) == (before.term, before.nonce)
    missing = (
        f"record{'s' if record.n - before.next_n > 1 else ''} {before.next_n}"
        + (f" .. {record.n - 1}" if record.n - before.next_n > 1 else "")
        + f" of term {record.term}"
        if same
        else f"the start of the master of term {record.term}"
    )
    place = f"after offset {last}" if last >= 0 else "at the ledger's beginning"
    return Finding(
        "chain",
        here,
        f"record {record.n} of term {record.term}",
        f"{missing} {'are' if ' .. ' in missing else 'is'} missing before it ({place})",
        "it does not count, and nothing after it",
    )
