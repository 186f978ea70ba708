"""How are many cells run at once? Each in a process of its own, so that none can harm another.

The processes are ours: they are gone when the pool is, however it ends, and they leave by
themselves where we are killed. Each computes with one thread. Those that we start import what cells
need, and fork for each cell (`hermes.compare.__main__`).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from hermes.compare.cell import Order
from hermes.simulate.ahead import THREADS

GOING = 30.0
"""Seconds that a process may take to go, once it has nothing more to say."""

LOOK = 0.2
"""Real seconds between two looks at whether somebody wants it to stop."""


class Ended(NamedTuple):
    """A cell whose process is gone."""

    order: Order
    error: str
    """Empty where its outcome is there."""


class Running(NamedTuple):
    """How far a cell is."""

    order: Order
    seconds: float
    """Real ones, so far."""
    part: float
    """Of it that is done, 0 .. 1."""
    setup: float = 0.0
    """Seconds before the first of it: libraries are loaded, and data laid down."""


class _Said(msgspec.Struct):
    part: float = 0.0
    done: bool = False
    error: str = ""
    ended: int | None = None
    """Exit code of what ran the cell; below 0 the signal."""


class _Process:
    """It runs cells, one after the other."""

    def __init__(self, order: Order, work: str) -> None:
        """It begins with this cell; `work`: a folder that all processes share."""
        with _log_of(order).open("wb") as errors:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "hermes.compare", work],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **dict.fromkeys(THREADS, "1"), "TMPDIR": work},
                start_new_session=True,  # Ctrl-C in our terminal is ours to handle
            )
        self._rest = b""
        self.begin(order)

    def begin(self, order: Order) -> None:
        """Run this cell."""
        self.order, self.part, self.began = order, 0.0, time.monotonic()
        self.setup = 0.0
        self._last = _Said()
        with contextlib.suppress(BrokenPipeError):  # it died at once, which is seen at its end
            pipe = self.process.stdin
            assert pipe is not None
            pipe.write(msgspec.json.encode(order) + b"\n")
            pipe.flush()

    @property
    def out(self) -> IO[bytes]:
        """Where it tells how far it is."""
        assert self.process.stdout is not None
        return self.process.stdout

    def hear(self) -> tuple[bool, Ended | None]:
        """Read what it says: whether it is still there, and the cell that has ended with that."""
        data = os.read(self.out.fileno(), 1 << 16)
        if not data:
            return False, self._gone()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            said = msgspec.json.decode(line, type=_Said)
            self.setup = self.setup or time.monotonic() - self.began
            self.part = max(self.part, said.part)
            if said.ended is not None:
                return True, self._ended(said.ended)
            self._last = said
        return True, None

    def _gone(self) -> Ended:
        """The process itself has ended, and its cell with it."""
        try:
            code = self.process.wait(GOING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(GOING)
        self._close()
        return self._ended(code)

    def _ended(self, code: int) -> Ended:
        log = _log_of(self.order)
        if self._last.done:
            if not log.stat().st_size:
                log.unlink()
            return Ended(self.order, "")
        if self._last.error:
            return Ended(self.order, self._last.error)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return Ended(self.order, f"its process has ended {how}\n  See {log}")

    def _close(self) -> None:
        self.out.close()
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def kill(self) -> None:
        """Now, with all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(GOING)
        self._close()


def _log_of(order: Order) -> Path:
    """What the job prints, in this cell."""
    return Path(order.path).with_suffix(".log")


class _Pool:
    """The processes that there are."""

    def __init__(self, work: str, selector: selectors.BaseSelector) -> None:
        self._work, self._selector = work, selector
        self.busy: list[_Process] = []
        self._idle: list[_Process] = []

    def begin(self, order: Order) -> None:
        """Have one of them run this cell: one that is idle, or another one."""
        if self._idle:
            self.busy.append(self._idle.pop())
            self.busy[-1].begin(order)
        else:
            self.busy.append(_Process(order, self._work))
            self._selector.register(self.busy[-1].out, selectors.EVENT_READ, self.busy[-1])

    def hear(self) -> Iterator[Ended]:
        """What has ended since; waits a moment for it."""
        for key, _ in self._selector.select(LOOK):
            process: _Process = key.data
            was_idle = process in self._idle
            there, ended = process.hear()
            if not there:
                self._selector.unregister(key.fileobj)
            if was_idle:
                self._idle.remove(process)  # somebody has killed it: nothing is lost
            elif ended is not None:
                self.busy.remove(process)
                self._idle += [process] * there
                yield ended

    def close(self) -> None:
        """All of them are gone when this returns."""
        for process in (*self.busy, *self._idle):
            process.kill()
        for process in self.busy:
            with contextlib.suppress(OSError):
                _log_of(process.order).unlink(missing_ok=True)


def run_all(
    orders: Sequence[Order],
    processes: int,
    wanted: Callable[[], bool],
    look: Callable[[list[Running]], None],
) -> Generator[Ended, None, None]:
    """Run these, in their order as far as so many processes allow; yields each as it ends. Stops
    where somebody `wanted` it; `look` is called a few times a second with what is under way."""
    waiting = list(orders)[::-1]
    with (
        tempfile.TemporaryDirectory(prefix="hermes-compare-") as work,
        selectors.DefaultSelector() as selector,
        contextlib.closing(_Pool(work, selector)) as pool,
    ):
        while (waiting or pool.busy) and not wanted():
            while waiting and len(pool.busy) < processes:
                pool.begin(waiting.pop())
            yield from pool.hear()
            now = time.monotonic()
            look([Running(o.order, now - o.began, o.part, o.setup) for o in pool.busy])
