"""What does a worker's process leave for the next one? Its incarnation, and updates not decided.

A folder, locked while a process uses it: a hello that names the incarnation of a locked outbox
proves that the first process is gone (protocol 6).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hermes.errors import RunFailed, UsageError
from hermes.messages import Update
from hermes.runtime.pushes import Journal
from hermes.values import Birth

KNOCKED = 16
"""Incarnations that have knocked and were not seen to be admitted, at most: the latest."""


class Contents(msgspec.Struct, frozen=True):
    """What lies in the outbox."""

    run: str = ""
    incarnation: str = ""
    """The last one that saw its admission."""
    updates: tuple[Update, ...] = ()
    knocked: tuple[str, ...] = ()
    """Those after it, which have knocked: each may have been admitted and died before it saw so."""

    @property
    def previous(self) -> str:
        """The incarnation that a hello should name: the latest that the master may have admitted
        before it reads that hello; "" for none."""
        return self.knocked[-1] if self.knocked else self.incarnation


class Outbox:
    """The outbox of one worker name in one run."""

    def __init__(self, folder: Path, run: str) -> None:
        """Raises `UsageError` where another process holds it, `RunFailed` where it cannot be
        used."""
        self._path = folder / "outbox.msgpack"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (folder / "lock").open("a")
        except OSError as error:
            raise _unusable(folder, error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError(
                "another worker of this name runs on this machine",
                where=str(folder),
                remedy="Choose another --name, or stop that one.",
            ) from None
        self.left = self._read()
        if self.left.run != run:
            self.left = Contents(run=run)
        self._now = self.left
        try:
            self._journal = Journal(folder, self.left.updates)
        except OSError as error:
            self._lock.close()
            raise _unusable(folder, error) from None

    def knock(self, incarnation: str) -> None:
        """This incarnation is about to knock: whether it is admitted, its next may have to ask."""
        knocked = (*self._now.knocked, incarnation)[-KNOCKED:]
        self._write(msgspec.structs.replace(self._now, knocked=knocked))

    def begin(self, incarnation: str) -> None:
        """This process's incarnation is the one in force here from now on."""
        self._write(msgspec.structs.replace(self._now, incarnation=incarnation, knocked=()))

    def refused(self, incarnation: str) -> bool:
        """This incarnation was refused since its name is taken, not by the one that it had named;
        whether there is another one to name."""
        named, now = self.left.previous, self._now
        knocked = tuple(one for one in now.knocked if one not in (incarnation, named))
        self._write(msgspec.structs.replace(now, knocked=knocked))
        return self._now.previous not in ("", named)

    def keep(self, update: Update) -> None:
        """This update is pushed and not yet decided."""
        self._write(msgspec.structs.replace(self._now, updates=(*self._now.updates, update)))
        with _usable(self._path):
            self._journal.pushed(update)

    def forget(self, birth: Birth) -> None:
        """The ledger has this update."""
        left = tuple(update for update in self._now.updates if update.birth != birth)
        if len(left) != len(self._now.updates):
            with _usable(self._path):
                self._journal.known(birth)
            self._write(msgspec.structs.replace(self._now, updates=left))

    def close(self) -> None:
        """Let the next process have it."""
        self._journal.close()
        self._lock.close()

    def _read(self) -> Contents:
        try:
            return msgspec.msgpack.decode(self._path.read_bytes(), type=Contents)
        except (OSError, msgspec.DecodeError):
            return Contents()

    def _write(self, contents: Contents) -> None:
        spare = self._path.with_suffix(".new")
        with _usable(self._path):
            with spare.open("wb") as file:
                file.write(msgspec.msgpack.encode(contents))
                file.flush()
                os.fsync(file.fileno())
            spare.replace(self._path)
        self._now = contents


@contextlib.contextmanager
def claimed(folder: Path, broker: str, run: str | None, name: str) -> Iterator[None]:
    """This process alone is the worker of this name, for this run (None: for any) at this broker,
    on this machine; the lock goes with the process, however that ends.

    Raises `UsageError` where another has it, `RunFailed` where the folder cannot be used.
    """
    digest = hashlib.sha256(f"{broker} {run or ''} {name}".encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / f"{name}-{digest}.lock").open("a+")
    except OSError as error:
        raise _unusable(folder, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            whose = lock.read().strip()
            raise UsageError(
                f"another worker named {name!r} is on this machine already"
                f"{f' (process {whose})' if whose else ''}, "
                f"{f'for the run {run!r}' if run else 'serving run after run'} at {broker}",
                where="--name",
                remedy="Choose another --name, or stop that one.",
            ) from None
        with contextlib.suppress(OSError):  # it is for the message alone
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        yield


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"the worker's outbox cannot be used: {error.strerror or error}",
        where=str(path),
        remedy="Make room there or make it writable, or choose another place with --state DIR.",
    )
