"""What did a worker push, as it says itself? A journal beside its outbox, for whoever checks a run.

The outbox tells what is undecided now; this tells what ever was: a line when an update is about to
be sent, and one when the ledger is seen to have it. Nothing of the run depends on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from hermes.messages import Update
from hermes.runtime.logs import utc_now
from hermes.values import Birth

NAME = "journal.jsonl"

LARGEST = 8 << 20
"""Bytes of the file before it is rotated; one old one is kept. Some 20 000 updates."""

ENDING = 64 << 10
"""Bytes at the end of the file in which the undecided updates are looked for."""


class Push(msgspec.Struct, frozen=True, tag="pushed", tag_field="what"):
    """An update is kept in the outbox, and about to be sent."""

    at: str
    """UTC, for people."""
    process: int
    incarnation: str
    number: int
    """Of its birth."""
    base: int
    base_digest: str
    samples: int
    digest: str
    """Of its tensors."""

    @property
    def birth(self) -> Birth:
        """By which the ledger knows it."""
        return Birth(self.incarnation, self.number)


class Known(msgspec.Struct, frozen=True, tag="known", tag_field="what"):
    """The ledger was seen to have an update, which has left the outbox."""

    at: str
    process: int
    incarnation: str
    number: int

    @property
    def birth(self) -> Birth:
        """By which the ledger knows it."""
        return Birth(self.incarnation, self.number)


Line = Push | Known


class Journal:
    """Appends lines; each is with the system, out of this process's hands, when a call returns."""

    def __init__(self, folder: Path, undecided: Iterable[Update] = ()) -> None:
        """`undecided`: what the outbox holds. A process that died between outbox and journal has
        not told of the last one: it is told now. Raises `OSError`, as every call does."""
        self._path = folder / NAME
        self._file = self._open()
        told = {line.birth for line in _lines(_ending(self._path)) if isinstance(line, Push)}
        for update in undecided:
            if update.birth not in told:
                self.pushed(update)

    def pushed(self, update: Update) -> None:
        """This update is about to be sent."""
        birth, base = update.birth, update.base
        self._add(
            Push(
                utc_now(),
                os.getpid(),
                birth.incarnation,
                birth.number,
                base.version,
                base.digest,
                update.samples,
                update.payload.digest,
            )
        )

    def known(self, birth: Birth) -> None:
        """The ledger has this update."""
        self._add(Known(utc_now(), os.getpid(), birth.incarnation, birth.number))

    def close(self) -> None:
        """No more comes."""
        with contextlib.suppress(OSError):
            os.close(self._file)

    def _open(self) -> int:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":  # the machine died within a line
            os.write(file, b"\n")
        return file

    def _add(self, line: Line) -> None:
        data = msgspec.json.encode(line) + b"\n"
        if os.fstat(self._file).st_size + len(data) > LARGEST:
            self.close()
            self._path.replace(self._path.with_name(f"{NAME}.1"))
            self._file = self._open()
        os.write(self._file, data)


def read_journal(folder: Path) -> Iterator[Line]:
    """What a worker says, the oldest first; torn lines are left out, and nothing is there where it
    never pushed."""
    for name in (f"{NAME}.1", NAME):
        with contextlib.suppress(FileNotFoundError):
            yield from _lines((folder / name).read_bytes())


def _lines(data: bytes) -> Iterator[Line]:
    for text in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            yield msgspec.json.decode(text, type=Push | Known)


def _ending(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - ENDING))
        return file.read()
