"""What did a bed leave behind whose owner was killed, and how does that go away?

A bed's name says who owns it: the pid of a process, and when that started. All that outlives a
process carries the name: a folder, control groups. Namespaces, mounts, cables and addresses are in
no need of this: they end with the bed's processes, and these when their owner does.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import shares

PREFIX = "hermes-bed-"

_numbers = count(1)


def new_name() -> str:
    """A name for a bed of this process."""
    pid = os.getpid()
    return f"{PREFIX}{pid}-{_started(pid)}-{next(_numbers)}"


def alive(bed: str) -> bool:
    """Does the process that owns this bed still run?"""
    pid, started, _ = bed.removeprefix(PREFIX).split("-")
    return _started(int(pid)) == started


def place() -> Path:
    """Where beds lie unless told otherwise."""
    return Path(tempfile.gettempdir())


def beds(folder: Path | None = None) -> list[Path]:
    """The folders of all beds, running or left, of this user."""
    return [
        path
        for path in sorted((folder or place()).glob(f"{PREFIX}*-*-*"))
        if path.stat().st_uid == 0
    ]


def clean(folder: Path | None = None) -> list[str]:
    """Remove all that is left of beds whose owner is gone; their names."""
    names = {path.name for path in [*beds(folder), *shares.found(f"{PREFIX}*-*-*")]}
    gone = sorted(name for name in names if not alive(name))
    for name in gone:
        remove(name, (folder or place()) / name)
    return gone


def remove(bed: str, folder: Path) -> None:
    """End what still runs of a bed, and remove its groups and its folder."""
    until = time.monotonic() + 10
    while left := processes(bed):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < until, f"these do not end: {left}"
        time.sleep(0.01)
    shares.remove(bed)
    if folder.exists():
        shutil.rmtree(folder)


def processes(bed: str) -> list[int]:
    """What runs for a bed: its machines' first processes name its folder on their command line, and
    all of a machine ends with its first."""
    found = set(shares.members(bed))
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(word.endswith("machine.py") for word in words) and bed in words[-2]:
                found.add(int(process.name))
    return sorted(found)


def _started(pid: int) -> str | None:
    """When a process started, in ticks since the computer did."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return (
        None if text.rpartition(")")[2].split()[0] == "Z" else text.rpartition(")")[2].split()[19]
    )
