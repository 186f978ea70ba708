"""Where are rounds trained while virtual time goes on? In processes of ours, ahead of it.

A round depends on what its worker did before, and on nothing that happens while it lasts: it is
begun when it is dispatched, and its outcome is asked for when that is due. So results do not depend
on how many processes there are. Each worker's model and optimizer stay in one of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import BinaryIO

from msgspec.structs import replace

from hermes.errors import HermesError, RunFailed
from hermes.machine.events import LoadVersion, Train
from hermes.messages import BlocksGranted, Manifest
from hermes.perform.bench import Trained
from hermes.simulate import wire
from hermes.values import Payload

Send = Callable[[bytes], Payload]

THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
"""What the numeric libraries read."""

GOING = 10.0
"""Real seconds that a process may take to go, once nothing more is wanted of it."""


class Process:
    """One process that trains, and the thread that hears it."""

    def __init__(self, opening: wire.Opening) -> None:
        threads = str(opening.threads or 1)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hermes.simulate.aside"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(THREADS, threads)},
            start_new_session=True,  # Ctrl-C in our terminal is ours to handle
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = self._process.stdout  # type: ignore[assignment]
        self._lock = threading.Lock()
        self._number = 0
        self._asked: dict[int, Future[wire.Answer]] = {}
        self._failed: BaseException | None = None
        self._closing = False
        self._ears = threading.Thread(target=self._hear, name="hermes-aside", daemon=True)
        self._ears.start()
        self.tell(0, 0, opening)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, bench: int, due: int, what: wire.Job) -> None:
        """Have it do this; raises what the process has ended by."""
        self._number += 1
        try:
            wire.send(self._to, wire.Told(self._number, due, bench, what))
        except OSError:  # it has ended, and its last words say by what
            self._ears.join(GOING)
            raise self._ended() from None

    def ask(self, bench: int, due: int, what: wire.Work | wire.Pack) -> Callable[[], wire.Answer]:
        """Have it do this; what is returned waits for the answer, and raises what came of it."""
        future: Future[wire.Answer] = Future()
        with self._lock:
            if self._failed is not None:
                raise self._failed
            self._asked[self._number + 1] = future  # before it is told, as it may be quick
        self.tell(bench, due, what)
        return future.result

    def _hear(self) -> None:
        trouble: BaseException | None
        try:
            trouble = self._answers()
        except Exception as error:  # noqa: BLE001  (or whoever waits for an answer waits for ever)
            trouble = error
        with self._lock:
            self._failed = trouble or self._ended()
            left, self._asked = self._asked, {}
        for future in left.values():
            future.set_exception(self._failed)

    def _answers(self) -> HermesError | None:
        """Hand them out, until there are no more: what it has ended by, if it said so."""
        while (answer := wire.receive(self._from, wire.Answer)) is not None:
            trouble = None if answer.trouble is None else wire.error_of(answer.trouble)
            with self._lock:
                future = self._asked.pop(answer.number, None)
            if future is None:  # of what nobody waits for
                return trouble
            if trouble is None:
                future.set_result(answer)
            else:
                future.set_exception(trouble)
        return None

    def _ended(self) -> BaseException:
        if self._failed is not None:
            return self._failed
        how = "has gone"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(GOING)
            how = f"has ended by signal {-code}" if code < 0 else f"has ended with exit code {code}"
        return RunFailed(
            f"a process that trains for this run {how}",
            where="simulate",
            remedy="What it said stands above. If memory was short: --processes 1 trains in one.",
        )

    def close(self) -> None:
        """Nothing more is wanted of it; it is gone when this returns."""
        with contextlib.suppress(OSError):
            self._to.close()
        try:
            self._process.wait(GOING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(GOING)
        self._ears.join(GOING)
        self._from.close()


class Crew:
    """The processes of one run."""

    def __init__(self, opening: wire.Opening, processes: int, speeds: Mapping[str, float]) -> None:
        self._all = [Process(opening) for _ in range(processes)]
        self._place = placed(speeds, processes)
        self._benches = 0

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes."""
        return tuple(process.pid for process in self._all)

    def data(self, manifest: Manifest) -> None:
        """The blocks lie where the opening said."""
        for process in self._all:
            process.tell(0, 0, wire.Data(manifest))

    def seat(self, name: str, now: Callable[[], int]) -> Seat:
        """A place for a worker's bench; `now`: virtual time (ns)."""
        self._benches += 1
        return Seat(self._all[self._place[name]], self._benches, name, now)

    def close(self) -> None:
        """All processes are gone when this returns."""
        for process in self._all:
            process.close()


class Seat:
    """One worker's bench, in another process."""

    def __init__(self, process: Process, bench: int, name: str, now: Callable[[], int]) -> None:
        self._process, self._bench, self._now = process, bench, now
        self._due = 0
        self._packed = 0
        self._called: dict[str, str] = {}
        """What an update is called there, by the id of its payload."""
        self._tell(wire.Begin(name))

    def accept(self, grant: BlocksGranted) -> None:
        """See `WorkerBench.accept`."""
        self._tell(wire.Accept(grant))

    def drop(self, grant: int) -> None:
        """See `WorkerBench.drop`."""
        self._tell(wire.Drop(grant))

    def load(self, action: LoadVersion, data: bytes) -> None:
        """See `WorkerBench.load`."""
        pending = tuple(self._called.get(one, one) for one in action.pending)
        self._called = {one: n for one, n in self._called.items() if one in action.pending}
        self._tell(wire.Load(replace(action, pending=pending), data))

    def train(self, action: Train, due: int) -> Callable[[], Trained]:
        """Begin a round; its outcome is asked for at `due`, or never."""
        answer = self._process.ask(self._bench, self._until(due), wire.Work(action))

        def outcome() -> Trained:
            trained = answer().trained
            assert trained is not None
            return trained

        return outcome

    def pack(self) -> Callable[[Send], Payload]:
        """Begin to lay down what would be sent; what is returned waits for it, has it sent, and
        remembers by what id."""
        self._packed += 1
        name = f"{self._packed}"
        answer = self._process.ask(self._bench, self._until(self._now()), wire.Pack(name))

        def sent(send: Send) -> Payload:
            payload = send(answer().data)
            self._called[payload.id] = name
            return payload

        return sent

    def _tell(self, what: wire.Job) -> None:
        self._process.tell(self._bench, self._until(self._now()), what)

    def _until(self, due: int) -> int:
        """Not before what this worker does first: its own order stands."""
        self._due = max(self._due, due)
        return self._due


def placed(speeds: Mapping[str, float], processes: int) -> dict[str, int]:
    """In which process each worker trains: such that each has about as much to do."""
    load, found = [0.0] * processes, {}
    for name in sorted(speeds, key=lambda name: (-speeds[name], name)):
        found[name] = load.index(min(load))
        load[found[name]] += speeds[name]
    return found
