"""How long is a broker waited for? Through an outage, until it is given up, until a thing is done.

Knows no client library: what its errors are, and which of ours they become, is told.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from hermes.errors import BrokerUnreachable, HermesError
from hermes.transport.access import Access
from hermes.transport.probe import Greeting, probe

T = TypeVar("T")

LOOK = 0.2
"""Seconds between two looks at whether the broker was given up, and at one that is away."""
_AGAIN = 0.1
"""Seconds between two attempts of a question."""
_DONE = 0.02
"""Seconds between two looks at whether the broker got a thing done."""


class Patience:
    """With one broker, until it is given up or `closed` is set. Thread-safe."""

    def __init__(
        self,
        broker: str,
        outage: float,
        trouble: type[Exception],
        translate: Callable[[Exception, str], HermesError],
        access: Access | None = None,
    ) -> None:
        """`broker` is HOST:PORT; `outage`, in seconds, is ridden out; `trouble` is what questions
        raise, and `translate` gives our error for one of it and the question's name; `access`:
        how we get in."""
        self._broker = broker
        self._outage = outage
        self.access = access or Access()
        self._trouble = trouble
        self._translate = translate
        self._gone: BrokerUnreachable | None = None
        self.closed = threading.Event()

    def give_up(self, why: BrokerUnreachable | None) -> None:
        """Whoever waits, now or later, gets `BrokerUnreachable`; the first reason stays."""
        if self._gone is None:
            self._gone = why or BrokerUnreachable("the broker is given up", where=self._broker)

    @property
    def given_up(self) -> bool:
        """Whether the broker was given up."""
        return self._gone is not None

    def refuse_if_gone(self) -> None:
        """Raise `BrokerUnreachable` once the broker was given up."""
        gone = self._gone
        if gone is not None:
            raise BrokerUnreachable(gone.what, where=gone.where, remedy=gone.remedy)

    def first_greeting(self, patience: float) -> Greeting:
        """What the broker says of itself, within `patience` seconds (at least one attempt).

        Raises `UsageError` for a bad address, `BrokerRefused` or `BrokerUnreachable` with the
        cause.
        """
        deadline = time.monotonic() + patience
        timeout = 2.0
        while True:
            try:
                return probe(self._broker, timeout, self.access)
            except BrokerUnreachable as error:
                timeout = min(2.0, (deadline - time.monotonic() - 0.2) / 1.5)
                if not error.retriable or timeout < 0.4:
                    raise
            self.closed.wait(0.2)

    def ask(self, what: str, question: Callable[[], T], *, patient: bool = True) -> T:
        """The answer, asked again while the broker is away (once only, if not `patient`)."""
        deadline = time.monotonic() + (self._outage if patient else 0.0)
        while True:
            self.refuse_if_gone()
            try:
                return self.unless_gone(question)
            except self._trouble as error:
                ours = self._translate(error, what)
                if not ours.retriable or time.monotonic() > deadline or self.closed.is_set():
                    raise ours from error
            self.closed.wait(_AGAIN)

    def unless_gone(self, work: Callable[[], T]) -> T:
        """What `work`, which may wait for the broker for long, gives or raises. It is left alone
        where the broker is given up meanwhile: then `BrokerUnreachable`."""
        outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def do() -> None:
            try:
                outcome.put((work(), None))
            except BaseException as error:  # noqa: BLE001  (raised by who asked)
                outcome.put((None, error))

        threading.Thread(target=do, name="broker-question", daemon=True).start()
        while True:
            self.refuse_if_gone()
            with contextlib.suppress(queue.Empty):
                found, error = outcome.get(timeout=LOOK)
                if error is not None:
                    raise error
                return cast(T, found)

    def wait_until(self, reached: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
        """Wait up to `timeout` seconds until it is so. Raises `BrokerUnreachable`."""
        deadline = time.monotonic() + timeout
        while not reached():
            if time.monotonic() > deadline:
                raise BrokerUnreachable(f"the broker has not got it done in {timeout:g} s: {what}")
            self.closed.wait(_DONE)
