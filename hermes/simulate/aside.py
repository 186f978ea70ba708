"""What does a process do that trains for a simulation? What it is told, the earliest due first.

Started by `hermes.simulate.ahead`, as `python -m hermes.simulate.aside`: frames come on stdin, and
answers go to what was stdout. What the job prints goes to stderr. The end of stdin ends it at once.
"""

from __future__ import annotations

import heapq
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO

from hermes.chance import generator
from hermes.data.cache import BlockCache
from hermes.errors import Defect, HermesError, of_the_machine
from hermes.jobfile import build
from hermes.perform.bench import WorkerBench
from hermes.perform.blocks import Blocks
from hermes.perform.store import Store
from hermes.policy.presets import from_tree
from hermes.simulate import wire
from hermes.simulate.local import RUN, UNBOUNDED, Remembered
from hermes.train import make_trainer
from hermes.transport.memory import MemoryLog
from hermes.values import Payload


class Inbox:
    """What is to be done. Filled by a thread, so that whoever tells us never waits for us."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, wire.Told]] = []

    def read(self) -> None:
        """Until the end of stdin, which ends this process: nobody wants any of it now."""
        while (told := wire.receive(self._pipe, wire.Told)) is not None:
            with self._changed:
                heapq.heappush(self._heap, (told.due, told.number, told))
                self._changed.notify()
        os._exit(0)

    def take(self) -> wire.Told:
        """The earliest due, and of those the oldest: what one worker does stays in its order."""
        with self._changed:
            while not self._heap:
                self._changed.wait()
            return heapq.heappop(self._heap)[2]


class Tray(Store):
    """A store that keeps what is put, for somebody else to send."""

    def __init__(self, name: str) -> None:
        super().__init__(MemoryLog(), RUN)
        self.data: bytes = b""
        self._called = name

    def put(self, short: str, data: bytes) -> Payload:
        """Nothing is sent."""
        self.data = data
        return Payload(self._called, short, 0, 0, 0, 1, len(data), "")


class Crew:
    """The benches of the workers that are placed here."""

    def __init__(self, opening: wire.Opening) -> None:
        self._opening = opening
        source = opening.source
        self._settings = from_tree(opening.settings)
        self._job = build(source.text, source.name, source.args, source.backend).on(opening.device)
        self._blocks: Blocks | None = None
        self._benches: dict[int, WorkerBench] = {}
        self._names: dict[str, int] = {}

    def do(self, told: wire.Told) -> wire.Answer | None:
        """One thing. Raises `HermesError` for what is wrong with the job."""
        what = told.what
        if isinstance(what, wire.Data):
            cache = BlockCache(Path(self._opening.folder), UNBOUNDED)
            self._blocks = Remembered(Store(MemoryLog(), RUN), what.manifest, cache, {})
        elif isinstance(what, wire.Begin):
            self._benches.pop(self._names.get(what.name, -1), None)
            self._names[what.name] = told.bench
            self._benches[told.bench] = self._made(what.name)
        elif told.bench in self._benches:  # else its worker has begun anew since
            return self._work(told.number, self._benches[told.bench], what)
        return None

    def _made(self, name: str) -> WorkerBench:
        if self._blocks is None:
            raise Defect("a worker begins before there are data", where=name)
        opening = self._opening
        trainer = make_trainer(self._job, generator(opening.seed, "init"))
        if opening.threads is not None:
            trainer.use_threads(opening.threads)
        made = WorkerBench(name, opening.seed, self._job, trainer, self._blocks)
        made.obey(self._settings)
        return made

    def _work(self, number: int, bench: WorkerBench, what: wire.Said) -> wire.Answer | None:
        if isinstance(what, wire.Work):
            return wire.Answer(number, trained=bench.train(what.action))
        if isinstance(what, wire.Pack):
            tray = Tray(what.name)
            bench.push(tray)
            return wire.Answer(number, data=tray.data)
        if isinstance(what, wire.Load):
            bench.load(what.action, what.data)
        elif isinstance(what, wire.Accept):
            bench.accept(what.grant)
        elif isinstance(what, wire.Drop):
            bench.drop(what.grant)
        return None


def main() -> None:
    """Until stdin ends, or something goes wrong."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox = Inbox(sys.stdin.buffer)
    threading.Thread(target=inbox.read, daemon=True).start()
    crew: Crew | None = None
    try:
        while True:
            told = inbox.take()
            if isinstance(told.what, wire.Opening):
                crew = Crew(told.what)
                continue
            assert crew is not None
            answer = _answer(crew, told)
            if answer is not None:
                wire.send(answers, answer)
    except Exception as error:  # noqa: BLE001  (the boundary: what comes here is told, not raised)
        wire.send(answers, wire.Answer(0, trouble=_what(error)))


def _answer(crew: Crew, told: wire.Told) -> wire.Answer | None:
    """What goes wrong with what is asked for is told to who asks; anything else ends us."""
    try:
        return crew.do(told)
    except Exception as error:
        if not isinstance(told.what, wire.Work | wire.Pack):
            raise
        return wire.Answer(told.number, trouble=_what(error))


def _what(error: Exception) -> wire.Trouble:
    known = error if isinstance(error, HermesError) else of_the_machine(error)
    if known is None or isinstance(known, Defect):
        traceback.print_exception(error)
    return wire.trouble_of(known or Defect(f"{type(error).__name__}: {error}", where="simulate"))


if __name__ == "__main__":
    main()
