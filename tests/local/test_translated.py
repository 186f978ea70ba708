"""Is a broker that is leaving told from one that says no?"""

from __future__ import annotations

import pytest

from hermes.errors import BrokerRefused, BrokerUnreachable, NoSuchTopic, NotAllowed, OutcomeUnknown
from hermes.transport.kafka import translate, trouble


@pytest.mark.parametrize(
    "error",
    [
        trouble.KafkaConnectionError("gone"),
        trouble.NotLeaderForPartitionError(),
        trouble.UnknownBrokerIdError(-1),  # of a topic without a leader: the broker ends in order
    ],
    ids=lambda error: type(error).__name__,
)
def test_it_is_away_and_may_be_asked_again(error: Exception) -> None:
    ours = translate(error, "h:1")
    assert isinstance(ours, BrokerUnreachable)
    assert ours.retriable
    assert isinstance(translate(error, "a topic", sent=True), OutcomeUnknown)


def test_a_no_is_a_no() -> None:
    refused = translate(trouble.TopicAuthorizationFailedError(), "a topic")
    assert isinstance(refused, NotAllowed)
    assert not refused.retriable
    assert isinstance(translate(trouble.InvalidTopicError(), "a topic"), BrokerRefused)
    assert isinstance(translate(trouble.UnknownTopicOrPartitionError(), "a topic"), NoSuchTopic)
