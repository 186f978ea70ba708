"""Is nobody else bringing this cluster up, or taking it down, from this machine just now?

The cluster's folder itself is locked, so that there is no file to be left behind; the lock ends
with the process. (What two machines do at one node is kept apart there: `remote`.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hermes.cluster.conf import Cluster
from hermes.errors import RunError

LOCKS = Path("/proc/locks")


@contextlib.contextmanager
def alone(cluster: Cluster, *, idle: bool = False) -> Iterator[None]:
    """Nobody else is at it while this lasts. `idle`: nothing will be done, so it does not matter.
    Raises `RunError` where somebody is."""
    if idle:
        yield
        return
    folder = os.open(cluster.folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(os.fstat(folder).st_ino)
            raise RunError(
                "another hermes up or down is at this cluster"
                + (f": process {who}" if who else ""),
                where=str(cluster.folder),
                remedy="Wait for its end, or end it; then type this again.",
            ) from None
        except OSError:
            pass  # a file system without locks: then it is the user who sees to it
        yield
    finally:
        os.close(folder)


def _holder(inode: int) -> int | None:
    """The process that has locked it, as Linux tells."""
    with contextlib.suppress(OSError, ValueError):
        for line in LOCKS.read_text().splitlines():
            words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:393233 0 EOF
            if "->" not in words and "FLOCK" in words and words[5].endswith(f":{inode}"):
                return int(words[4]) if int(words[4]) > 0 else None
    return None
