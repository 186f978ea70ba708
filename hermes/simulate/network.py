"""When has a transfer arrived, where devices share a link? Max-min fair sharing, in virtual time.

A flow crosses two links: its device's and the one at master and broker. Flows of one device share
that device's link evenly, and what is left over at the shared link goes to whoever can use it.
Rates change only when a flow begins or ends, or a link is cut; between, bits run on evenly.
All of it in whole numbers: bits a second, nanoseconds, and 1e-9 bits for what is still to come.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from hermes.simulate.queue import Queue
from hermes.values import SECOND

BITS = 8


class Lane:
    """A device's own link in one direction. What is under way on it has the same rate, so that it
    is enough to know how much of each was let through since the lane was last empty."""

    __slots__ = ("capacity", "cuts", "let", "rate", "under_way")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Bits a second."""
        self.cuts = 0
        self.rate = 0
        """Bits a second of each transfer."""
        self.let = 0
        """1e-9 bits of each."""
        self.under_way: list[tuple[int, int, Callable[[], None]]] = []
        """A heap: what must have been let through by its end, its number, and what comes then."""

    @property
    def most(self) -> int:
        """The rate that each could have if nobody else were there."""
        return 0 if self.cuts else self.capacity // len(self.under_way)

    def ends(self) -> int:
        """Nanoseconds until the next one is through, at a rate above 0."""
        left = self.under_way[0][0] - self.let
        return -(-left // self.rate) if left > 0 else 0

    def through(self) -> list[tuple[int, Callable[[], None]]]:
        """Take out what has arrived."""
        found: list[tuple[int, Callable[[], None]]] = []
        while self.under_way and self.under_way[0][0] <= self.let:
            found.append(heapq.heappop(self.under_way)[1:])
        if not self.under_way:
            self.let = 0
        return found


class Pipe:
    """One direction of the shared link, with the devices' own links in series."""

    def __init__(self, queue: Queue, shared: int, devices: Mapping[str, int]) -> None:
        """Rates in bits a second."""
        self._queue, self._shared = queue, shared
        self._lanes = {name: Lane(capacity) for name, capacity in devices.items()}
        self._busy: dict[str, Lane] = {}
        self._since = 0
        self._turn = 0
        self._begun = 0

    def begin(self, device: str, size: int, then: Callable[[], None]) -> None:
        """Transfer so many bytes from or to this device; `then` is called when they are through."""
        self._advance()
        lane = self._busy[device] = self._lanes[device]
        self._begun += 1
        heapq.heappush(lane.under_way, (lane.let + size * BITS * SECOND, self._begun, then))
        self._share()

    def cut(self, device: str, lasts: int) -> None:
        """For so long nothing passes this device's link; what is under way goes on afterwards."""
        self._advance()
        self._lanes[device].cuts += 1
        self._share()
        self._queue.at(self._queue.now + lasts, lambda: self._mend(device), device)

    def _mend(self, device: str) -> None:
        self._advance()
        self._lanes[device].cuts -= 1
        self._share()

    def _advance(self) -> None:
        """Up to now."""
        now = self._queue.now
        for lane in self._busy.values():
            lane.let += lane.rate * (now - self._since)
        self._since = now

    def _share(self) -> None:
        """New rates, and the next arrival."""
        lanes, total = self._busy.values(), 0
        for lane in lanes:
            lane.rate = lane.most
            total += lane.rate * len(lane.under_way)
        if total > self._shared:
            level = self._level()
            for lane in lanes:
                lane.rate = min(lane.rate, level)
        self._turn += 1
        turn = self._turn
        ends = [lane.ends() for lane in lanes if lane.rate]
        if ends:
            self._queue.at(self._queue.now + min(ends), lambda: self._arrive(turn))

    def _level(self) -> int:
        """Max-min: the rate that nobody exceeds where all together could, such that nobody could
        have more without somebody who has less losing."""
        left, flows = self._shared, sum(len(lane.under_way) for lane in self._busy.values())
        level = 0
        for lane in sorted(self._busy.values(), key=lambda lane: lane.rate):
            level = left // flows
            if lane.rate > level:
                break
            left -= lane.rate * len(lane.under_way)
            flows -= len(lane.under_way)
        return level

    def _arrive(self, turn: int) -> None:
        if turn != self._turn:
            return  # rates have changed since: another arrival is planned
        self._advance()
        through = [found for lane in self._busy.values() for found in lane.through()]
        self._busy = {name: lane for name, lane in self._busy.items() if lane.under_way}
        self._share()
        for _, then in sorted(through, key=lambda found: found[0]):
            then()
