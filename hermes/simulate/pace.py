"""How long does a device take for its work? Its speed, jitter and heat; chance from the seed."""

from __future__ import annotations

import math

import numpy as np

from hermes.chance import generator
from hermes.simulate.devices import Device
from hermes.values import SECOND


class Pace:
    """One device's. Asked in the order of virtual time."""

    def __init__(self, device: Device, seed: int) -> None:
        self._device = device
        self._jitter = generator(seed, "device", device.name, "jitter")
        self._heat = generator(seed, "device", device.name, "throttling")
        self._hot = False
        self._factor = 1.0
        """Of the round that was begun last."""
        self._until = 0
        """Nanoseconds of virtual time at which it leaves the state that it is in."""
        if device.throttling is not None:
            self._until = self._stay(device.throttling.normal)

    def busy(self, now: int, seconds: float) -> int:
        """Nanoseconds for work of so many seconds at speed 1, begun now."""
        sigma = self._device.jitter
        if sigma:
            drawn = sigma * float(self._jitter.standard_normal())
            self._factor = math.exp(drawn - sigma * sigma / 2)
        return self.more(now, seconds)

    def more(self, now: int, seconds: float) -> int:
        """As `busy`, of work that belongs to what was begun last."""
        left = max(1, round(seconds * SECOND / self._device.speed * self._factor))
        return left if self._device.throttling is None else self._through_heat(now, left)

    def _through_heat(self, now: int, left: int) -> int:
        """The time that `left` takes through the states that come."""
        throttling = self._device.throttling
        assert throttling is not None
        time = now
        while True:
            while self._until <= time:
                self._hot = not self._hot
                self._until += self._stay(throttling.hot if self._hot else throttling.normal)
            speed = throttling.factor if self._hot else 1.0
            needed = math.ceil(left / speed)
            if time + needed <= self._until:
                return time + needed - now
            left = max(1, left - math.floor((self._until - time) * speed))
            time = self._until

    def _stay(self, mean: float) -> int:
        return max(1, round(float(np.float64(self._heat.standard_exponential())) * mean * SECOND))
