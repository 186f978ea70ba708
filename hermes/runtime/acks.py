"""Is the broker there? Heartbeats are acknowledged, or it is away."""

from __future__ import annotations

import time
from collections import deque

from hermes.errors import BrokerUnreachable, NoSuchTopic, OutcomeUnknown
from hermes.transport.log import Receipt


class Acknowledgements:
    """The receipts of heartbeats. Belongs to one thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Receipt]] = deque()

    def add(self, receipt: Receipt) -> None:
        """One more heartbeat was sent."""
        self._waiting.append((time.monotonic(), receipt))

    def unanswered(self) -> float:
        """Seconds since the oldest heartbeat that is not acknowledged; 0 if all are."""
        while self._waiting:
            sent, receipt = self._waiting[0]
            try:
                receipt.offset(0.0)
            except (OutcomeUnknown, BrokerUnreachable, NoSuchTopic):
                return time.monotonic() - sent
            self._waiting.popleft()
        return 0.0


def away(seconds: float, who: str) -> BrokerUnreachable:
    """The error of a broker that has been away too long."""
    return BrokerUnreachable(
        f"the broker has not answered {who} for {seconds:.0f} s",
        where="the broker",
        remedy="Start it again.",
    )
