"""How are a run's own records kept, when the broker is gone? Framed, in one file a topic."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from hermes.broker.process import identity
from hermes.errors import RunError, RunFailed
from hermes.perform.ledger import Ledger, Watcher
from hermes.transport import names
from hermes.transport.log import Record
from hermes.transport.memory import MemoryLog

_FRAME = struct.Struct(">QI")  # offset, bytes of the value

HEAD = _FRAME.size
"""Bytes of a record beside its value."""

GAP = 1 << 16
"""Offsets that a broker may have kept to itself between two records; more is damage."""


class Archive:
    """Appends raw records to a file; each is on the way to the disk when `add` returns.

    It begins anew with each master, beside what one before it has kept: that is there until
    `settle`, once all of it has been read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        spare = path.with_name(f"{path.name}.new-{os.getpid()}")
        self._spare = spare if path.is_file() else path
        try:
            self._file = self._spare.open("wb")
        except OSError as error:
            raise _unwritable(str(path), error) from None

    def settle(self) -> None:
        """What was added takes the place of what another master has kept."""
        try:
            self._spare.replace(self._path)
            for left in self._path.parent.glob(f"{self._path.name}.new-*"):
                if identity(int(left.name.rpartition("-")[2])) is None:
                    left.unlink(missing_ok=True)  # of a master that was killed as it began
        except OSError as error:
            raise _unwritable(str(self._path), error) from None

    def saved(self) -> Iterator[Record]:
        """What is kept; nothing where there is nothing."""
        return kept_in(self._path)

    def add(self, record: Record) -> None:
        """Keep one record."""
        try:
            self._file.write(_FRAME.pack(record.offset, len(record.value)) + record.value)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._file.name, error) from None

    def close(self) -> None:
        """No more comes."""
        with contextlib.suppress(OSError):  # what is not on the disk by now was told by `add`
            self._file.close()


def kept_in(path: Path) -> Iterator[Record]:
    """The records of an archive; nothing where there is none."""
    if path.exists():
        yield from read_archive(path)


def _unwritable(path: str, error: OSError) -> RunFailed:
    return RunFailed(
        f"the run's records cannot be written: {error.strerror or error}",
        where=path,
        remedy="Make room there, or choose another place with --out DIR.",
    )


def read_archive(path: Path) -> Iterator[Record]:
    """The records of an archive, up to its end or to where it is damaged: a torn last record is
    left out, and all that follows one whose frame cannot be. Raises `RunError` if it is gone."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(
            f"the run's records cannot be read: {error.strerror}",
            where=str(path),
            remedy="Was the run's folder moved or cleaned?",
        ) from None
    place, before = 0, -1
    while place + HEAD <= len(data):
        offset, length = _FRAME.unpack_from(data, place)
        place += HEAD
        # A record that was written again after a loss may lie where an older one lay.
        if place + length > len(data) or abs(offset - before) > GAP:
            return
        before = offset
        yield Record(names.LEDGER, offset, data[place : place + length])
        place += length


def fold_archive(path: Path, watcher: Watcher | None = None) -> Ledger:
    """The fold of a saved ledger; `watcher` is told of each record that counts. Only such were
    saved: its `voids` are damage."""
    topic, log = names.LEDGER, MemoryLog()
    log.create([topic])
    kept: set[int] = set()
    for record in read_archive(path):
        while log.ends([topic])[topic] < record.offset:
            log.append(topic, b"")  # an offset that was not saved: void by rule
        kept.add(log.append(topic, record.value).offset())
    ledger = Ledger(log, topic, watcher=watcher)
    ledger.fold()
    ledger.voids = [void for void in ledger.voids if void[0] in kept]
    return ledger
