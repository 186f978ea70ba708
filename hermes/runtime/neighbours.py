"""Does a worker share its machine with others? Each has claimed its name there (see `outbox`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

LOOK = 5.0
"""Seconds between two looks: workers come and go."""


def cores_here() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def neighbours(names: Path) -> int:
    """How many other processes hold a worker's name in this folder."""
    return sum(map(_held_by_another, names.glob("*.lock")))


def _held_by_another(path: Path) -> bool:
    """The file names a process; only where that is alive is the lock itself tried, for a moment:
    nobody who starts just then must find it taken."""
    with contextlib.suppress(OSError, ValueError), path.open() as file:
        pid = int(file.read())
        if pid == os.getpid() or not _alive(pid):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


class Share:
    """This process's share of the machine, in threads."""

    def __init__(self, threads: int | None, names: Path | None) -> None:
        """`threads`: what somebody asked for; None: one where another worker has a name in `names`,
        else all cores that there are."""
        self._asked, self._names = threads, names
        self._share, self._due = 1, 0.0

    def threads(self) -> int:
        """How many threads to compute with now; a look costs little, and is taken seldom."""
        if self._asked is not None:
            return self._asked
        if self._names is not None and time.monotonic() >= self._due:
            self._share = 1 if neighbours(self._names) else cores_here()
            self._due = time.monotonic() + LOOK
        return self._share
