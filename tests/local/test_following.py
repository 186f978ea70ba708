"""What does a worker make of a ledger that it cannot read any further?"""

from __future__ import annotations

import time

import pytest

from hermes.errors import BrokerRefused, HermesError, NotAllowed
from hermes.machine.events import Event, LedgerTorn
from hermes.runtime.calm import Calm
from hermes.runtime.following import Follower
from hermes.runtime.hands import Failed
from hermes.transport.log import Record


class Ear:
    """Of a ledger whose next record does not come, for this reason."""

    def __init__(self, error: HermesError) -> None:
        self._error = error

    def poll(self, timeout: float) -> list[Record]:
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BrokerRefused("the offset lies outside the topic"), LedgerTorn),
        (NotAllowed("the broker does not let us (TopicAuthorizationFailed)"), Failed),
    ],
    ids=["its end is lost", "we were revoked"],
)
def test_it_begins_again_unless_it_was_revoked(error: HermesError, kind: type[Event]) -> None:
    """To begin again would be in vain, and take as long as for a master that does not answer."""
    told: list[Event] = []
    follower = Follower(Ear(error), Calm(), told.append, None)  # type: ignore[arg-type]
    end = time.monotonic() + 20
    while not told and time.monotonic() < end:
        time.sleep(0.01)
    follower.leave()
    follower.join(5)
    (event,) = told
    assert type(event) is kind
    if isinstance(event, Failed):
        assert event.error is error
        assert event.error.exit_code == 3
