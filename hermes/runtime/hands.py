"""Who does a worker's slow things? Two threads: one trains and pushes, one fetches blocks.

Each does one job after the other and tells the outcome as an event; what goes wrong there is told,
too, and raised by the process's own thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from hermes.errors import Defect, HermesError, of_the_machine
from hermes.machine.events import Event
from hermes.runtime.pace import Broken

Job = Callable[[], Event | None]
"""A piece of work; its outcome is told, if it has one."""


class Failed(Event, frozen=True):
    """A job of a hand failed; the process ends with this error."""

    error: HermesError


def as_ours(error: BaseException) -> HermesError:
    """An error that another thread can raise: what is not ours is a defect, with its cause."""
    if isinstance(error, HermesError):
        return error
    refused = of_the_machine(error)
    if refused is not None:
        refused.__cause__ = error
        return refused
    defect = Defect(f"{type(error).__name__}: {error}", where=threading.current_thread().name)
    defect.__cause__ = error
    return defect


class Hand:
    """One thread that does jobs in order."""

    def __init__(self, name: str, tell: Callable[[Event], None], leave: Callable[[], None]) -> None:
        """`tell` is given outcomes; `leave` is called by the thread when it ends."""
        self._tell, self._leave = tell, leave
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Job) -> None:
        """Do this after what was asked before."""
        self._jobs.put(job)

    def stop(self, timeout: float) -> None:
        """End after the job under way; waits `timeout` seconds at most."""
        self._over.set()
        self._jobs.put(None)
        self._thread.join(timeout)

    def _serve(self) -> None:
        try:
            self._work()
        finally:
            self._leave()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._over.is_set():
                return
            try:
                outcome = job()
            except Broken:
                return
            except BaseException as error:  # noqa: BLE001  (told, and raised by the main thread)
                self._tell(Failed(as_ours(error)))
                return
            if outcome is not None:
                self._tell(outcome)
