"""Is the broker there? What is sent is acknowledged, or it is away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator

from hermes.errors import BrokerError, BrokerUnreachable, OutcomeUnknown
from hermes.transport.log import Receipt


class Acknowledgements:
    """Receipts of heartbeats, and what is asked now. One thread sends, or asks the broker; any may
    look."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Receipt]] = deque()
        self._began: float | None = None
        self._looking = threading.Lock()
        self.used = False
        """Whether anything was ever sent."""

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Inside, one question is put to the broker, and its answer is waited for."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Inside, something is being sent: that alone may have to wait for the broker."""
        self.used = True
        with self.asking():
            yield

    def add(self, receipt: Receipt) -> None:
        """One more heartbeat was sent."""
        with self._looking:
            self._waiting.append((time.monotonic(), receipt))

    def unanswered(self) -> float:
        """Seconds since the oldest that is not acknowledged, or not even sent; 0 if all are.

        One that will never be told of (its outcome stays unknown, its topic is gone) is answered
        by any that was sent later.
        """
        with self._looking:
            answered = [n for n, (_, one) in enumerate(self._waiting) if _is_answered(one)]
            for _ in range(answered[-1] + 1 if answered else 0):
                self._waiting.popleft()
            oldest = self._waiting[0][0] if self._waiting else self._began
        return time.monotonic() - oldest if oldest is not None else 0.0


def _is_answered(receipt: Receipt) -> bool:
    try:
        receipt.offset(0.0)
    except (OutcomeUnknown, BrokerUnreachable):
        return False
    except BrokerError:
        pass  # a no is an answer, and so is that the topic is gone
    return True
