"""Is a broker that answers taken for one that does?"""

from __future__ import annotations

import pytest

from hermes.errors import BrokerRefused, HermesError, NoSuchTopic, OutcomeUnknown
from hermes.runtime.acks import Acknowledgements


class Told:
    """A receipt whose outcome is set."""

    def __init__(self, outcome: HermesError | int) -> None:
        self.outcome = outcome

    def offset(self, timeout: float = 60.0) -> int:
        if isinstance(self.outcome, HermesError):
            raise self.outcome
        return self.outcome


def test_the_oldest_without_an_answer_counts() -> None:
    acks = Acknowledgements()
    assert acks.unanswered() == 0.0
    first, second = Told(OutcomeUnknown("not yet")), Told(OutcomeUnknown("not yet"))
    acks.add(first)
    acks.add(second)
    assert acks.unanswered() > 0.0
    first.outcome = 1
    assert acks.unanswered() > 0.0
    second.outcome = 2
    assert acks.unanswered() == 0.0


@pytest.mark.parametrize("outcome", [OutcomeUnknown("for good"), NoSuchTopic("gone")])
def test_one_that_is_never_told_of_is_answered_by_a_later_one(outcome: HermesError) -> None:
    """An append whose outcome stays unknown must not make a healthy broker one that is away."""
    acks = Acknowledgements()
    acks.add(Told(outcome))
    acks.add(Told(7))
    assert acks.unanswered() == 0.0


def test_a_no_is_an_answer() -> None:
    acks = Acknowledgements()
    acks.add(Told(BrokerRefused("no")))
    assert acks.unanswered() == 0.0
