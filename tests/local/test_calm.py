"""Does a worker leave its ledger alone within a round, and at no other time?"""

from __future__ import annotations

import threading

import pytest

from hermes.errors import Defect
from hermes.machine.events import Event
from hermes.runtime.calm import ATTENTION, LOOK, SHORTEST, Calm
from hermes.runtime.following import POLL, Follower


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_rests_within_a_round_as_long_as_the_last_one_but_for_its_end() -> None:
    clock = Clock()
    calm = Calm(clock)
    calm.begin(50)
    assert calm.rest() == 0, "nobody knows how long the first round takes"
    clock.now += 2
    calm.end(50)
    assert calm.rest() == 0
    calm.begin(100)  # 4 s
    assert calm.rest() == LOOK
    attentive = 4 * (1 - ATTENTION)
    clock.now += attentive - LOOK / 2
    assert calm.rest() == pytest.approx(LOOK / 2)
    clock.now += LOOK / 2 - SHORTEST / 2
    assert calm.rest() == 0
    clock.now -= 2
    calm.alert()
    assert calm.rest() == 0
    calm.pause()  # does not wait
    calm.begin(1)
    assert calm.rest() == 0, "too short a round"
    calm.end(0)  # broken off before its first step
    calm.begin(100)
    assert calm.rest() == 0


class Ear:
    """Notes how long each poll may wait, and does what it is told at it."""

    def __init__(self, calm: Calm, clock: Clock) -> None:
        self.timeouts: list[float] = []
        self._calm, self._clock, self.enough = calm, clock, threading.Event()

    def poll(self, timeout: float) -> list[object]:
        self.timeouts.append(timeout)
        match len(self.timeouts):
            case 2:
                self._calm.begin(10)
            case 4:
                self._clock.now += 10 * (1 - ATTENTION)
            case 6:
                self.enough.set()
                raise Defect("enough")
        return []


def test_the_follower_looks_without_waiting_as_long_as_there_is_calm() -> None:
    clock = Clock()
    calm = Calm(clock)
    calm.begin(1)
    clock.now += 1
    calm.end(1)
    ear, told = Ear(calm, clock), list[Event]()
    follower = Follower(ear, calm, told.append, None)  # type: ignore[arg-type]
    assert ear.enough.wait(20)
    follower.leave()
    follower.join(5)
    assert ear.timeouts == [POLL, POLL, 0.0, 0.0, POLL, POLL]


def test_what_waits_is_woken_at_the_rounds_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes.runtime.calm.LOOK", 1000.0)
    calm = Calm()
    calm.begin(1)
    calm.end(1)
    calm._each = 1000.0
    calm.begin(1)
    waits = threading.Thread(target=lambda: [calm.pause() for _ in range(2)])
    waits.start()
    waits.join(0.1)
    assert waits.is_alive()
    calm.alert()
    waits.join(30)
    assert not waits.is_alive()
