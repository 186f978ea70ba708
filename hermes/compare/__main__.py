"""What does a process of `hermes compare` do? It runs cells, each in a fork of its own.

What all cells need is imported once. A fork begins as if nothing had been run before it, so that no
cell depends on another one; and where it ends badly, it ends alone.

On stdin: orders, a line of JSON each, the next one once the last has ended; the end of stdin means
that whoever asked is gone. On stdout: lines of JSON, from the fork `{"part": 0.3}` now and then and
`{"done": true}` or `{"error": ...}`, at last `{"ended": 0}`, its exit code, or less a signal. The
outcome is the file that the order names. What the job prints goes to the log beside that.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from hermes.compare.cell import Order

EVERY = 0.5
"""Real seconds between two words of how far it is."""

LIBRARIES = ("torch", "torch._dynamo")
"""What a job of PyTorch imports: itself, and with its first optimizer."""


def main() -> None:
    """Run the cells that are asked for; the folder that they share is our argument."""
    from hermes.compare.cell import Order

    told, shared = os.dup(1), Path(sys.argv[1])
    while line := sys.stdin.buffer.readline():
        order = msgspec.json.decode(line, type=Order)
        _print_to(Path(order.path).with_suffix(".log"))
        _import_for(order)
        gc.freeze()  # a fork's collections need not look through what was imported
        with _children() as ended:
            child = os.fork()
            if child:
                _tell(told, {"ended": _end_of(child, ended)})
        if not child:
            _cell(order, told, shared)
            # Libraries' last words are none of the job's, and tidying up takes its time.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def _print_to(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _import_for(order: Order) -> None:
    """What goes wrong goes wrong in the cell, too, which tells of it."""
    if "torch" in order.job_text:
        with contextlib.suppress(Exception):
            for name in LIBRARIES:
                __import__(name)


@contextlib.contextmanager
def _children() -> Any:
    """A descriptor from which something can be read once a child has ended."""
    ended, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield ended
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before)
        os.close(ended)
        os.close(write)


def _end_of(child: int, ended: int) -> int:
    """How it ends; we leave, with all that we have started, where nobody waits for that."""
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if 0 in ready:
            os.killpg(0, signal.SIGKILL)
        os.read(ended, 1)
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)


# --- in the fork ----------------------------------------------------------------------------------


def _cell(order: Order, told: int, shared: Path) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        _run(order, told, shared)
        _tell(told, {"done": True})
    except Exception as error:  # noqa: BLE001  (the boundary: what comes here is told, not raised)
        _tell(told, {"error": _what(error)})


def _leave_with_parent() -> None:
    while os.read(0, 1 << 12):  # past the buffer, whose lock would be held when Python ends
        pass
    os._exit(1)


def _run(order: Order, told: int, shared: Path) -> None:
    from hermes.compare.cell import run_cell
    from hermes.compare.kept import Folder
    from hermes.runtime.at_once import write_at_once

    due = 0.0

    def tell(part: float) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + EVERY
            _tell(told, {"part": round(part, 4)})

    outcome = run_cell(order, tell, Folder(shared))
    write_at_once(Path(order.path), msgspec.json.format(msgspec.json.encode(outcome)))


def _tell(told: int, what: dict[str, Any]) -> None:
    os.write(told, msgspec.json.encode(what) + b"\n")


def _what(error: Exception) -> str:
    """What went wrong, in words; a defect's traceback goes to stderr, which is kept."""
    from hermes.errors import Defect, HermesError, of_the_machine

    known = error if isinstance(error, HermesError) else of_the_machine(error)
    if known is None or isinstance(known, Defect):
        traceback.print_exception(error)
    return f"{type(error).__name__}: {error}" if known is None else str(known)


if __name__ == "__main__":
    main()
