"""When has a transfer arrived, where devices share a link? Max-min fair sharing, in virtual time.

A flow crosses two links: its device's and the one at master and broker. Flows of one device share
that device's link evenly, and what is left over at the shared link goes to whoever can use it.
Rates change only when a flow begins or ends, or a link is cut; between, bits run on evenly.
All of it in whole numbers: bits a second, nanoseconds, and 1e-9 bits for what is still to come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from hermes.simulate.queue import Queue
from hermes.values import SECOND

BITS = 8


class Flow:
    """One transfer under way."""

    __slots__ = ("device", "left", "rate", "then")

    def __init__(self, device: str, size: int, then: Callable[[], None]) -> None:
        self.device, self.then = device, then
        self.left = size * BITS * SECOND
        """In 1e-9 bits."""
        self.rate = 0
        """Bits a second."""


class Pipe:
    """One direction of the shared link, with the devices' own links in series."""

    def __init__(self, queue: Queue, shared: int, devices: Mapping[str, int]) -> None:
        """Rates in bits a second."""
        self._queue, self._shared, self._devices = queue, shared, dict(devices)
        self._cut: Counter[str] = Counter()
        self._flows: list[Flow] = []
        self._since = 0
        self._turn = 0

    def begin(self, device: str, size: int, then: Callable[[], None]) -> None:
        """Transfer so many bytes from or to this device; `then` is called when they are through."""
        self._advance()
        self._flows.append(Flow(device, size, then))
        self._share()

    def cut(self, device: str, lasts: int) -> None:
        """For so long nothing passes this device's link; what is under way goes on afterwards."""
        self._advance()
        self._cut[device] += 1
        self._share()
        self._queue.at(self._queue.now + lasts, lambda: self._mend(device), device)

    def _mend(self, device: str) -> None:
        self._advance()
        self._cut[device] -= 1
        self._share()

    def _advance(self) -> None:
        """Up to now."""
        now = self._queue.now
        for flow in self._flows:
            flow.left -= flow.rate * (now - self._since)
        self._since = now

    def _share(self) -> None:
        """New rates, and the next arrival."""
        for flow, rate in zip(self._flows, self._rates(), strict=True):
            flow.rate = rate
        self._turn += 1
        turn = self._turn
        ends = [-(-max(0, flow.left) // flow.rate) for flow in self._flows if flow.rate]
        if ends:
            self._queue.at(self._queue.now + min(ends), lambda: self._arrive(turn))

    def _rates(self) -> list[int]:
        """Max-min: nobody could have more without somebody who has less losing."""
        many = Counter(flow.device for flow in self._flows)
        most = {
            device: 0 if self._cut[device] else self._devices[device] // count
            for device, count in many.items()
        }
        if sum(most[device] * count for device, count in many.items()) <= self._shared:
            return [most[flow.device] for flow in self._flows]
        left, flows = self._shared, len(self._flows)
        level = 0
        for device in sorted(most, key=most.__getitem__):
            level = left // flows
            if most[device] > level:
                break
            left -= most[device] * many[device]
            flows -= many[device]
        return [min(most[flow.device], level) for flow in self._flows]

    def _arrive(self, turn: int) -> None:
        if turn != self._turn:
            return  # rates have changed since: another arrival is planned
        self._advance()
        through = [flow for flow in self._flows if flow.left <= 0]
        self._flows = [flow for flow in self._flows if flow.left > 0]
        self._share()
        for flow in through:
            flow.then()
