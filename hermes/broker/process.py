"""How is a broker's process started, recognised and ended? For brokers of any kind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hermes.errors import BrokerError, BrokerUnreachable, RunFailed
from hermes.transport.access import Access
from hermes.transport.address import Address
from hermes.transport.probe import greet

PAUSE = 0.02
"""Seconds between two looks at a process."""

ASKED = 10.0
"""Seconds that `ps` may take."""

KILLED = 10.0
"""Seconds within which the system ends a process that was killed."""

REMOVED = 20.0
"""Seconds that the end of a container may take."""

# Becomes the broker, after asking the kernel to end it when the thread that started it is gone.
# (Python's own hook for this, preexec_fn, is unsafe in a process with threads.)
_WITH_PARENT = """\
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, int(sys.argv[2]), 0, 0, 0)
except (AttributeError, OSError, TypeError):
    pass  # not Linux: then only an orderly end of the parent ends the broker
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[3], sys.argv[3:])
"""


class Plan(NamedTuple):
    """What to start, and where it will answer."""

    command: list[str]
    """The program by its full path, and its arguments."""
    address: Address
    """For clients on this machine."""
    data: Path | None
    """Where its records lie; None in memory."""
    environment: Mapping[str, str] = {}
    """On top of ours."""
    end_with_parent: int = signal.SIGKILL
    """The signal that a child broker gets when its parent is gone."""
    access: Access | None = None
    """How we get in; None: as everyone does."""
    remove: tuple[str, ...] = ()
    """A command that ends what the program has started elsewhere: a container outlives its client.
    Nothing to end is no failure."""


def launch(plan: Plan, output: Path, *, child: bool) -> subprocess.Popen[bytes]:
    """Start the broker with its output in a file: as a child that ends with this thread, or
    detached, in a session of its own."""
    command = plan.command
    if child:
        end = str(int(plan.end_with_parent))
        shim = [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), end]
        command = [*shim, *command]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **plan.environment},
                start_new_session=True,  # Ctrl-C in our terminal is ours to handle
            )
    except OSError as error:
        raise RunFailed(
            f"a process cannot be started: {error.strerror or error}",
            where=str(error.filename or command[0]),
            remedy="Its program must be there, and its output's folder writable and not full.",
        ) from None


def wait_ready(plan: Plan, process: subprocess.Popen[bytes], output: Path, patience: float) -> None:
    """Wait until the broker answers a metadata request.

    Raises `BrokerUnreachable` with the last lines of its output if it dies, or is not ready after
    `patience` seconds (it is ended then).
    """
    deadline = time.monotonic() + patience
    complaint = ""
    while process.poll() is None:
        try:
            if greet(plan.address, 1.0, plan.access).advertised and process.poll() is None:
                return
        except BrokerError as error:
            complaint = error.what
        if time.monotonic() > deadline:
            end(process.pid, patience=1.0, process=process)
            raise BrokerUnreachable(
                f"the broker was not ready after {patience:g} s ({complaint}){_said(output)}",
                where=str(plan.address),
            )
        time.sleep(PAUSE)
    raise BrokerUnreachable(
        f"the broker died at its start (status {process.returncode}){_said(output)}",
        where=str(plan.address),
        remedy=f"Its whole output is in {output}",
    )


def _said(output: Path, lines: int = 12) -> str:
    """The last lines of a broker's output, to go into an error."""
    try:
        text = output.read_bytes()[-16384:].decode("utf-8", "replace")
    except OSError:
        return ""
    said = text.strip().splitlines()[-lines:]
    return "; it said:\n    " + "\n    ".join(said) if said else "; it said nothing"


def identity(pid: int) -> str | None:
    """What tells this process from a later one of the same number; None if it does not run."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
            fields = stat.rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    try:
        asked = subprocess.run(
            ["/bin/ps", "-o", "stat=,lstart=,command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
            timeout=ASKED,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"ps did not tell of process {pid} within {ASKED:g} s") from None
    state, _, rest = asked.stdout.strip().partition(" ")
    return rest.strip() if rest and not state.startswith("Z") else None


def end(
    pid: int, *, patience: float = 10.0, process: subprocess.Popen[bytes] | None = None
) -> bool:
    """SIGTERM, wait up to `patience` seconds, SIGKILL; whether it went by itself.

    Nothing happens to a process that is not there any more. `process` is reaped if it is ours.
    """
    born = identity(pid)
    for sign, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        if born is None or identity(pid) != born:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        _wait_gone(pid, born, wait, process)
        if identity(pid) != born:
            return sign == signal.SIGTERM
    if process is not None:
        reap(process)
    return True


def remove(command: Sequence[str]) -> None:
    """Run a plan's `remove`. Raises `RunFailed` if it does not end in time."""
    if not command:
        return
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=REMOVED)
    except subprocess.TimeoutExpired:
        raise RunFailed(
            f"the broker's container was not removed within {REMOVED:g} s",
            remedy=f"By hand: {' '.join(command)}",
        ) from None
    except OSError:  # the program is gone: whoever removed it has to look after the rest
        return


def reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that has ended or was killed. Raises `RunFailed` if the system does not
    let it end."""
    try:
        process.wait(KILLED)
    except subprocess.TimeoutExpired:
        raise RunFailed(
            f"process {process.pid} has not ended within {KILLED:g} s of being killed",
            remedy="The system holds it: does a disk or a network drive not answer?",
        ) from None


def _wait_gone(
    pid: int, born: str, timeout: float, process: subprocess.Popen[bytes] | None
) -> None:
    if process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
        return
    deadline = time.monotonic() + timeout
    while identity(pid) == born and time.monotonic() < deadline:
        time.sleep(PAUSE)
