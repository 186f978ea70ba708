"""Do the workers' own journals and the ledger agree on what became of each update?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from hermes.codec import decode
from hermes.errors import Defect
from hermes.machine.audit import Audit
from hermes.messages import LedgerRecord, Update
from hermes.runtime.archive import read_archive
from hermes.runtime.outbox import Contents
from hermes.runtime.pushes import Known, Push, read_journal
from hermes.values import Birth


class Books(NamedTuple):
    """What became of the updates that the workers say they pushed."""

    pushed: int
    applied: int
    rejected: int
    undecided: int
    """Taken by the ledger, and not decided when the run stopped."""
    unsent: int
    """Never taken: the run stopped first."""
    records: int
    terms: int
    wrong: list[str]
    """What does not agree; empty where all is well."""


Key = tuple[str, Birth]


def compare(workers: Path, run: str, ledger: Path) -> Books:
    """The journals below `workers` against the ledger's records on disk, of a run that has stopped.

    Raises `Defect` where the ledger cannot be true by itself.
    """
    records = [decode(raw.value) for raw in read_archive(ledger)]
    told = [record for record in records if isinstance(record, LedgerRecord)]
    audit = Audit().read(told)
    if not audit.stopped:
        raise Defect("the run has not stopped")
    pushed: dict[Key, Push] = {}
    left: set[Key] = set()
    wrong: list[str] = []
    for folder in sorted((workers / run).iterdir()):
        wrong += _read(folder, pushed, audit)
        contents = msgspec.msgpack.decode((folder / "outbox.msgpack").read_bytes(), type=Contents)
        left |= {(folder.name, update.birth) for update in contents.updates}
    for key, update in audit.taken.items():
        wrong += _differs(key, pushed.get(key), update)
    unsent = set(pushed) - set(audit.taken)
    both = audit.applied & audit.rejected
    wrong += [f"{key} was applied and rejected" for key in both]
    wrong += [f"{key} was lost: neither the ledger nor the outbox has it" for key in unsent - left]
    return Books(
        len(pushed),
        len(audit.applied),
        len(audit.rejected),
        len(audit.taken) - len(audit.applied | audit.rejected),
        len(unsent),
        len(told),
        len({record.term for record in told}),
        wrong,
    )


def _read(folder: Path, pushed: dict[Key, Push], audit: Audit) -> list[str]:
    """One worker's journal: its updates go to `pushed`; returns what is wrong with it."""
    wrong: list[str] = []
    for line in read_journal(folder):
        key = (folder.name, line.birth)
        if isinstance(line, Known):
            if key not in audit.taken:
                wrong.append(f"{key} was let go of, and the ledger has it not")
        elif pushed.setdefault(key, line).digest != line.digest:
            wrong.append(f"{key} was pushed twice, with other bytes")
    return wrong


def _differs(key: Key, own: Push | None, update: Update) -> list[str]:
    if own is None:
        return [f"{key} is in the ledger, and its worker has not pushed it"]
    ours = (own.digest, own.base, own.base_digest, own.samples)
    base = update.base
    theirs = (update.payload.digest, base.version, base.digest, update.samples)
    return [] if ours == theirs else [f"{key} is another one in the ledger"]
