"""Is whoever was told of an outage told of its end, and only of one that is over?"""

from __future__ import annotations

import pytest

from hermes.errors import OutcomeUnknown
from hermes.runtime import watch
from hermes.runtime.watch import BACK, BrokerWatch
from hermes.transport.memory import MemoryLog


class Sick(MemoryLog):
    """A log that can be away."""

    why = "nothing listens there"

    def complaint(self) -> str:
        return self.why


class Unanswered:
    """A receipt without an outcome."""

    answered = False

    def offset(self, timeout: float = 60.0) -> int:
        if not self.answered:
            raise OutcomeUnknown("not yet")
        return 1


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def watching(told: list[str], monkeypatch: pytest.MonkeyPatch) -> BrokerWatch:
    """One that has told of an outage, and looks no more until it is stopped."""
    monkeypatch.setattr(watch, "SAID", 0.0)
    monkeypatch.setattr(watch, "LOOK", 0.01)
    log = Sick()
    found = BrokerWatch(log, "w", 600.0, told.append)
    found.acks.add(Unanswered())
    while not told:
        pass
    assert told == [
        "the broker does not answer: nothing listens there. Waiting for it, up to 600 s"
    ]
    monkeypatch.setattr(found.acks, "unanswered", lambda: 1.0)
    monkeypatch.setattr(watch, "LOOK", 600.0)
    return found


def test_it_is_back_though_nobody_has_looked_since(watching: BrokerWatch, told: list[str]) -> None:
    watching._log.why = ""  # type: ignore[attr-defined]
    watching.stop()
    assert told[1:] == [BACK]


def test_it_is_not_said_to_be_back_where_nobody_asks_any_more(
    watching: BrokerWatch, told: list[str]
) -> None:
    watching.stop()
    assert told[1:] == []


def test_whoever_leaves_is_not_told_of_an_outage(told: list[str]) -> None:
    """It has not been silent for so long that anybody had to know."""
    found = BrokerWatch(Sick(), "w", 600.0, told.append)
    found.acks.add(Unanswered())
    found.stop()
    assert told == []
