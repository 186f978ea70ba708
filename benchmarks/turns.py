"""How are two processes compared that need the same core? They take short turns on it, by SIGSTOP
and SIGCONT, until both have done their work, and what counts is their CPU time.

So whatever slows the core (its neighbour, another guest of the host, heat) slows both alike.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

TURN = 0.05
"""Seconds; much longer than it takes to warm a cache, much shorter than a core keeps its speed."""


class Side(NamedTuple):
    """One of the two."""

    pid: int
    done: Callable[[], bool]
    """Asked in its own turns only."""


def in_turns(
    first: Side, second: Side, pass_time: Callable[[float], None] = time.sleep, turn: float = TURN
) -> None:
    """Let two halted processes go on in turns until both are done; both are halted afterwards, too.
    `pass_time` returns after so many seconds at most."""
    left = [first, second]
    while left:
        for side in tuple(left):
            with going(side.pid):
                end = time.monotonic() + turn
                while not (done := side.done()) and (rest := end - time.monotonic()) > 0:
                    pass_time(rest)
            if done:
                left.remove(side)


@contextlib.contextmanager
def halted(pid: int) -> Iterator[None]:
    """A process stands still, and goes on afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def going(pid: int) -> Iterator[None]:
    """A halted process goes on, and is halted again."""
    os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGSTOP)


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have taken so far, those that ended, too."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), as the kernel counts


def thread_seconds(pid: int) -> dict[int, float]:
    """What each thread that is alive has taken so far, by its id."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return found
