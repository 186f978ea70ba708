"""What does one cell's process do? It reads an order, runs it, and tells of it.

On stdin: an order, as a line of JSON; the end of stdin means that whoever asked is gone. On stdout:
lines of JSON, `{"part": 0.3}` now and then, at last `{"done": true}` or `{"error": ...}`. The
outcome is the file that the order names. What the job prints goes to stderr.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec

EVERY = 0.5
"""Real seconds between two words of how far it is."""


def main() -> None:
    """Run one cell."""
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    told = os.dup(1)
    os.dup2(2, 1)
    try:
        _run(line, told)
        _tell(told, {"done": True})
    except Exception as error:  # noqa: BLE001  (the boundary: what comes here is told, not raised)
        _tell(told, {"error": _what(error)})


def _leave_with_parent() -> None:
    while os.read(0, 1 << 12):  # past the buffer, whose lock would be held when Python ends
        pass
    os._exit(1)


def _run(line: bytes, told: int) -> None:
    from hermes.compare.cell import Order, run_cell
    from hermes.runtime.at_once import write_at_once

    order, due = msgspec.json.decode(line, type=Order), 0.0

    def tell(part: float) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + EVERY
            _tell(told, {"part": round(part, 4)})

    outcome = run_cell(order, tell)
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
