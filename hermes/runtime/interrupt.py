"""What do Ctrl-C and SIGTERM do? The first asks to stop in order, the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

AT_ONCE = 0.7
"""Seconds that a process has to end by itself after the second; then it is ended."""

ONE_AND_THE_SAME = 0.1
"""Seconds in which a second signal is the first one once more: nobody types that fast."""

INTERRUPTED = 130
"""Its exit code."""

SHOW_CURSOR = "\x1b[?25h"


def nothing() -> None:
    """Nothing."""


@contextlib.contextmanager
def on_interrupt(
    first: Callable[[], object], second: Callable[[], object] = nothing
) -> Iterator[None]:
    """The first signal calls `first`, in the handler: it may only note it. The second raises
    `KeyboardInterrupt`, calls `second` in a thread, and ends the process if that takes long."""

    began = 0.0

    def handle_first(_number: int, _frame: object) -> None:
        nonlocal began
        began = time.monotonic()
        for number in old:
            signal.signal(number, handle_second)
        first()

    def handle_second(_number: int, _frame: object) -> None:
        if time.monotonic() - began < ONE_AND_THE_SAME:
            return  # `timeout` signals the process and then its group
        threading.Thread(target=_leave, args=(second,), daemon=True).start()
        raise KeyboardInterrupt

    old = {
        number: signal.getsignal(number) or signal.SIG_DFL
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number in old:
        signal.signal(number, handle_first)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _leave(second: Callable[[], object]) -> None:
    end = time.monotonic() + AT_ONCE
    with contextlib.suppress(Exception):
        second()
    time.sleep(max(0.0, end - time.monotonic()))
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    os._exit(INTERRUPTED)
