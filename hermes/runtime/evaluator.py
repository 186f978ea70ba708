"""How are versions evaluated beside the merging? In a thread of their own, one at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from hermes.codec import decode_tensors
from hermes.errors import PeerError
from hermes.machine.events import EvaluationFinished, Event
from hermes.messages import VersionPublished
from hermes.perform.desk import Judge, evaluation
from hermes.runtime.clock import RunClock
from hermes.runtime.hands import Failed, as_ours

STOPPING = 10.0
"""Seconds that the evaluation under way may take at the end."""


class Best:
    """The best version so far: its loss and bytes."""

    def __init__(self) -> None:
        self.version = -1
        self.loss = float("inf")
        self.accuracy: float | None = None
        self.data = b""

    def offer(self, outcome: EvaluationFinished, data: bytes) -> None:
        """Keep this version if it is better."""
        if outcome.loss is not None and outcome.loss < self.loss:
            self.version, self.loss, self.data = outcome.version, outcome.loss, data
            self.accuracy = outcome.accuracy


class Evaluator:
    """A thread that scores versions on the validation set; outcomes go to `tell`."""

    def __init__(self, tell: Callable[[Event], None], clock: RunClock) -> None:
        self.best = Best()
        self._tell, self._clock = tell, clock
        self._asked: queue.SimpleQueue[VersionPublished | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, judge: Judge) -> None:
        """From now on there is somebody to ask."""
        self._thread = threading.Thread(
            target=self._serve, args=(judge,), name="evaluator", daemon=True
        )
        self._thread.start()

    def ask(self, version: VersionPublished) -> None:
        """Score this version; the outcome comes as an event."""
        self._asked.put(version)

    def stop(self) -> None:
        """Finish what is under way, then end; a broker that is away is not waited for."""
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join(STOPPING)

    def _serve(self, judge: Judge) -> None:
        try:
            self._judge(judge)
        except BaseException as error:  # noqa: BLE001  (told, and raised by the master's thread)
            self._tell(Failed(as_ours(error)))
        finally:
            judge.close()

    def _judge(self, judge: Judge) -> None:
        while (version := self._asked.get()) is not None:
            started = self._clock.now()
            try:
                data = judge.bytes_of(version)
                scores = judge.scores(decode_tensors(data), "validation")
            except PeerError:
                # The version is gone or damaged: the grid goes on with the next one.
                cost = self._clock.now() - started
                self._tell(EvaluationFinished(version.version, None, None, started, cost))
                continue
            outcome = evaluation(version, scores, started, self._clock.now() - started)
            self.best.offer(outcome, data)
            self._tell(outcome)
