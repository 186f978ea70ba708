"""How far is a run, without asking its broker? From the records that its master keeps on disk."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from hermes.codec import decode
from hermes.messages import DataPublished, LedgerRecord, RunStopped, VersionPublished

_FRAME = struct.Struct(">QI")  # as in hermes.runtime.archive: offset, bytes of the value

Seen = Callable[[LedgerRecord], None]


class LedgerWatch:
    """Reads on in `log/ledger.records`, which each master begins anew beside the old one."""

    def __init__(self, path: Path, seen: Seen) -> None:
        """`seen` is told of each record, once."""
        self.path, self._seen = path, seen
        self._file = (0, 0)
        """Inode, and the place to read on from."""
        self.offset = -1
        """Of the last record."""
        self.version = -1
        self.term = 0
        self.has_data = self.stopped = False

    def look(self) -> None:
        """Take what is new."""
        try:
            with self.path.open("rb") as file:
                inode = self.path.stat().st_ino
                place = self._file[1] if inode == self._file[0] else 0
                file.seek(place)
                self._file = (inode, place + self._take(file.read()))
        except FileNotFoundError:
            return

    def _take(self, data: bytes) -> int:
        place = 0
        while place + _FRAME.size <= len(data):
            offset, length = _FRAME.unpack_from(data, place)
            end = place + _FRAME.size + length
            if end > len(data):
                break
            if offset > self.offset:
                self.offset = offset
                self._record(data[end - length : end])
            place = end
        return place

    def _record(self, value: bytes) -> None:
        record = decode(value)
        assert isinstance(record, LedgerRecord)
        self.term = record.term
        for entry in record.entries:
            if isinstance(entry, VersionPublished):
                self.version = entry.version
            self.has_data |= isinstance(entry, DataPublished)
            self.stopped |= isinstance(entry, RunStopped)
        self._seen(record)
