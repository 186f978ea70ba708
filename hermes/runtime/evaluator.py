"""How are versions evaluated beside the merging? In a thread of their own, one at a time."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from hermes.codec import decode_tensors
from hermes.errors import BrokerRefused, NoSuchTopic, PeerError
from hermes.machine.events import EvaluationFinished, Event
from hermes.messages import VersionEvaluated, VersionPublished
from hermes.perform.desk import Judge, evaluation
from hermes.runtime.clock import RunClock
from hermes.runtime.hands import Failed, as_ours
from hermes.values import Tensors

Asked: TypeAlias = "tuple[VersionPublished, Tensors | None]"

STOPPING = 10.0
"""Seconds that the evaluation under way may take at the end."""


class Best(NamedTuple):
    """The best version so far."""

    version: int = -1
    loss: float = math.inf
    accuracy: float | None = None
    model: Tensors | None = None
    """Often the very tensors of the version in force, so that they are in memory once."""

    def or_(self, version: int, loss: float | None, accuracy: float | None, model: Tensors) -> Best:
        """The better of the two."""
        if loss is None or not loss < self.loss:
            return self
        return Best(version, loss, accuracy, model)


class Evaluator:
    """A thread that scores versions on the validation set; outcomes go to `tell`."""

    def __init__(self, tell: Callable[[Event], None], clock: RunClock) -> None:
        self.best = Best()
        self._sums = False
        self._held: tuple[int, Tensors | None] = (-1, None)
        self._tell, self._clock = tell, clock
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, judge: Judge, *, sums: bool = False) -> None:
        """From now on there is somebody to ask; `sums`: what they say is put together with the
        workers' sums, and only that tells which is the best (`judged`)."""
        self._sums = sums
        self._thread = threading.Thread(
            target=self._serve, args=(judge,), name="evaluator", daemon=True
        )
        self._thread.start()

    def ask(self, version: VersionPublished, model: Tensors | None = None) -> None:
        """Score this version; the outcome comes as an event. `model`: its tensors, where they are
        in memory anyway; else they are fetched."""
        self._asked.put((version, model))

    def hold(self, version: int, model: Tensors | None) -> None:
        """The workers are asked about this version; `model`: its tensors, where they are here."""
        self._held = (version, model)

    def judged(self, entry: VersionEvaluated, fetch: Callable[[], Tensors | None]) -> None:
        """The workers' sums have come to this; `fetch` gives the model, where it is not held."""
        if entry.loss is None or not entry.loss < self.best.loss:
            return
        number, model = self._held
        if number != entry.version or model is None:
            model = fetch()
        if model is not None:
            self.best = self.best.or_(entry.version, entry.loss, entry.accuracy, model)

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
        while (asked := self._asked.get()) is not None:
            version, model = asked
            del asked
            started = self._clock.now()
            try:
                if model is None:
                    model = decode_tensors(judge.bytes_of(version))
            except (PeerError, BrokerRefused, NoSuchTopic):
                # The version is gone or damaged: the grid goes on with the next one.
                cost = self._clock.now() - started
                self._tell(EvaluationFinished(version.version, None, None, started, cost))
                continue
            scores = judge.scores(model, "validation")
            outcome = evaluation(version, scores, started, self._clock.now() - started)
            if not self._sums:
                loss, accuracy = outcome.loss, outcome.accuracy
                self.best = self.best.or_(version.version, loss, accuracy, model)
            del model  # before the next one is waited for
            self._tell(outcome)
