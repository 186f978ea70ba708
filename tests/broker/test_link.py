"""A link that is up and down: a model gets through both ways, and hardly anything travels twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hermes.broker.control import Child, Kind
from hermes.perform.store import Store
from hermes.transport import names
from hermes.transport.flight import SPAN
from hermes.transport.kafka import KafkaLog
from hermes.transport.settings import BATCH, FRAMING
from tests.broker.link import Crossing, Link, Outage

pytestmark = pytest.mark.broker

RATE = 2e6
"""Bytes a second: what is up for a second carries less than the 4 MiB that a fetch might bring."""

SIZE = 4_200_000

SCHEDULE = (Outage(up=1.0, down=1.0, how="stall"), Outage(up=1.0, down=1.0, how="close"))

SLACK = 1.05
"""Times the payload, besides what outages may cost."""


class Far(NamedTuple):
    """A broker at the other end of a link."""

    link: Link
    store: Store


@pytest.fixture(params=["embedded", "apache"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Far]:
    kind: Kind = request.param
    data = tmp_path if kind == "apache" else None
    with Link(RATE) as link, Child(kind, advertise=link.address, data=data) as broker:
        link.lead_to(broker.port)
        with KafkaLog(link.address) as log:
            log.create([names.physical("r", names.MODEL)])
            store = Store(log, "r")
            yield Far(link, store)
            store.close()


def holds(crossing: Crossing, request: float) -> None:
    """The bar, and that the outages were ones: of each kind, among bytes, with nothing through."""
    assert {fired.outage.how for fired in crossing.fired} == {"stall", "close"}
    for fired in crossing.fired:
        assert fired.caught > 0
        assert fired.before > 0
        assert fired.leaked <= 0  # -1: all was through just as it began
    assert crossing.bytes <= SLACK * SIZE + request * len(crossing.fired)


def test_a_model_crosses_a_link_that_is_up_and_down(far: Far) -> None:
    """Both ways; no outage costs more than one request."""
    link, store = far
    model = os.urandom(SIZE)
    payload, sent = link.crossing("up", SCHEDULE, lambda: store.put("model", model))
    holds(sent, BATCH + FRAMING)
    link.rate = 1e9
    store.put("model", model)  # what lies behind a payload is not fetched with it
    link.rate = RATE
    found, fetched = link.crossing("down", SCHEDULE, lambda: store.get(payload))
    assert found == model
    holds(fetched, max(SPAN * RATE, BATCH + FRAMING))
