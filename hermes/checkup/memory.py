"""How much memory has a process taken, and how much is left? None where a system does not say."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hermes.checkup.facts import MemoryFacts
from hermes.perform.grants import IN_MEMORY

MODELS = 9
"""Models that a master holds at most: its trainer's, the newest, the best, one merged and its
bytes, two momenta in float64 (without momentum six are all); measured in benchmarks/large.py."""


def peak() -> int | None:
    """Bytes that this process has had in memory at most."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def now() -> int | None:
    """Bytes that this process has in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def free() -> int | None:
    """Bytes that this machine, or the container we are in, has left."""
    found = [left for left in (_of_machine(), _of_container()) if left is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if "MemAvailable" in line) * 1024
    except (OSError, ValueError, StopIteration):
        return None


def _of_container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        most, used = ((folder / name).read_text() for name in ("memory.max", "memory.current"))
        return max(0, int(most) - int(used))
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _of_accelerator() -> int | None:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())


def memory_facts(
    before: int | None, model: int, block: int, worker: int | None, grant: int
) -> MemoryFacts | None:
    """What was measured, and what is to be expected: `before` the model this process took so
    much; bytes of the model, of a block of the validation split, of a worker's process, of a
    first grant."""
    most = peak()
    if most is None or before is None:
        return None
    return MemoryFacts(
        check=most,
        accelerator=_of_accelerator(),
        worker=None if worker is None else worker + 2 * min(grant, IN_MEMORY),
        master=before + MODELS * model + block,
        free=free(),
    )
