"""What keeps the machine awake while it leads a run? systemd's inhibitor, where there is one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator

LEAVING = 2.0
"""Seconds that the inhibitor may take to leave."""


@contextlib.contextmanager
def awake(run: str) -> Iterator[None]:
    """While this is entered, the machine neither sleeps nor idles, where `systemd-inhibit` is
    there and allowed to say so; else nothing happens, and nothing is said.

    The lock is held for as long as `cat` reads from a pipe whose other end is ours alone: however
    we end, the pipe ends with us, and the lock with it.
    """
    holder = _hold(run)
    try:
        yield
    finally:
        if holder is not None:
            _let_go(holder)


def _hold(run: str) -> subprocess.Popen[bytes] | None:
    program, reader = shutil.which("systemd-inhibit"), shutil.which("cat")
    if program is None or reader is None:
        return None
    why = f"--why=run {run} is under way"
    command = [program, "--what=sleep:idle", "--who=hermes", why, "--mode=block", reader]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to handle, and nobody is asked for a password
        )
    except OSError:
        return None


def _let_go(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    with contextlib.suppress(OSError):
        holder.stdin.close()
    try:
        holder.wait(LEAVING)
    except subprocess.TimeoutExpired:
        holder.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            holder.wait(LEAVING)
