"""Is the broker there? What is sent is acknowledged, or it is away."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator

from hermes.errors import BrokerError, BrokerUnreachable, NoSuchTopic, OutcomeUnknown
from hermes.transport.log import Receipt


class Acknowledgements:
    """Receipts of heartbeats. One thread sends, another may ask."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Receipt]] = deque()
        self._began: float | None = None
        self.used = False
        """Whether anything was ever sent."""

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Inside, something is being sent: that alone may have to wait for the broker."""
        self._began, self.used = time.monotonic(), True
        try:
            yield
        finally:
            self._began = None

    def add(self, receipt: Receipt) -> None:
        """One more heartbeat was sent."""
        self._waiting.append((time.monotonic(), receipt))

    def unanswered(self) -> float:
        """Seconds since the oldest that is not acknowledged, or not even sent; 0 if all are."""
        while self._waiting:
            sent, receipt = self._waiting[0]
            try:
                receipt.offset(0.0)
            except (OutcomeUnknown, BrokerUnreachable, NoSuchTopic):
                return time.monotonic() - sent
            except BrokerError:
                pass  # a no is an answer
            self._waiting.popleft()
        began = self._began
        return time.monotonic() - began if began is not None else 0.0
