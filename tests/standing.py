"""How does a process stand still? The signal alone is only asked for: its threads go on for a
while, and on a busy machine one may still answer (Linux)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

PATIENCE = 10.0
"""Seconds until the system has stopped a process."""


def stand(pid: int) -> None:
    """SIGSTOP; returns once all of its threads stand."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + PATIENCE
    while not stands(pid):
        assert time.monotonic() < end, f"process {pid} does not stand after SIGSTOP"
        time.sleep(0.002)


def stands(pid: int) -> bool:
    """Whether it lives, and the system has stopped all of its threads."""
    states = [_state(path) for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return "T" in states and all(state in ("T", "") for state in states)


def _state(stat: Path) -> str:
    """Of a thread; empty where it has ended meanwhile."""
    try:
        return stat.read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
