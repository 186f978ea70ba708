"""A master that has nothing to commit still notices that another one leads."""

from __future__ import annotations

from collections import Counter

import pytest

from hermes.errors import Fenced
from hermes.perform.ledger import Ledger
from hermes.simulate.faults import FaultyLog
from hermes.simulate.schedules import draw, setup_of

TOPIC = "hermes.schedule.ledger"


def test_whoever_looks_sees_the_higher_term() -> None:
    log = FaultyLog(TOPIC, {}, Counter())
    log.create([TOPIC])
    one, other = Ledger(log, TOPIC), Ledger(log, TOPIC)
    one.start("m1")
    one.commit((setup_of(draw(1)).run,), (), 1)
    one.look()
    other.start("m2")
    with pytest.raises(Fenced, match="term 2"):
        one.look()
    other.look()
