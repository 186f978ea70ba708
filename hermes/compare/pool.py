"""How are many cells run at once? Each in a process of its own, so that none can harm another.

The processes are ours: they are gone when the pool is, however it ends, and they leave by
themselves where we are killed. Each computes with one thread.
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
from collections.abc import Callable, Generator, Sequence
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


class _Said(msgspec.Struct):
    part: float = 0.0
    done: bool = False
    error: str = ""


class _Worker:
    """One process."""

    def __init__(self, order: Order, work: str) -> None:
        self.order, self.part, self.began = order, 0.0, time.monotonic()
        self.last: _Said | None = None
        self.log = Path(order.path).with_suffix(".log")
        self._rest = b""
        with self.log.open("wb") as errors:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "hermes.compare"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **dict.fromkeys(THREADS, "1"), "TMPDIR": work},
                start_new_session=True,  # Ctrl-C in our terminal is ours to handle
            )
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

    def hear(self) -> bool:
        """Read what it says; False at its end."""
        data = os.read(self.out.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.last = msgspec.json.decode(line, type=_Said)
            self.part = max(self.part, self.last.part)
        return bool(data)

    def end(self) -> Ended:
        """Its process is gone, or about to be."""
        try:
            code = self.process.wait(GOING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(GOING)
        self._close()
        if self.last is not None and self.last.done:
            if not self.log.stat().st_size:
                self.log.unlink()
            return Ended(self.order, "")
        if self.last is not None and self.last.error:
            return Ended(self.order, self.last.error)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return Ended(self.order, f"its process has ended {how}\n  See {self.log}")

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
        with contextlib.suppress(OSError):
            self.log.unlink(missing_ok=True)


def run_all(
    orders: Sequence[Order],
    processes: int,
    wanted: Callable[[], bool],
    look: Callable[[list[Running]], None],
) -> Generator[Ended, None, None]:
    """Run these, in their order as far as so many processes allow; yields each as it ends. Stops
    where somebody `wanted` it; `look` is called a few times a second with what is under way."""
    waiting, here = list(orders)[::-1], list[_Worker]()
    with (
        tempfile.TemporaryDirectory(prefix="hermes-compare-") as work,
        selectors.DefaultSelector() as selector,
    ):
        try:
            while (waiting or here) and not wanted():
                while waiting and len(here) < processes:
                    here.append(_Worker(waiting.pop(), work))
                    selector.register(here[-1].out, selectors.EVENT_READ, here[-1])
                for key, _ in selector.select(LOOK):
                    worker: _Worker = key.data
                    if not worker.hear():
                        selector.unregister(worker.out)
                        here.remove(worker)
                        yield worker.end()
                now = time.monotonic()
                look([Running(one.order, now - one.began, one.part) for one in here])
        finally:
            for worker in here:
                worker.kill()
