"""How far a master has read: topics whose end is lost, that were deleted or trimmed under it."""

from __future__ import annotations

from collections import Counter

import pytest

from hermes.errors import BrokerRefused, NoSuchTopic, RunFailed
from hermes.machine.events import Trim
from hermes.messages import RunReopened, RunStopped
from hermes.perform.ledger import Ledger
from hermes.runtime.join import wait_for_run
from hermes.runtime.places import Place, Places
from hermes.runtime.storage import Meter
from hermes.runtime.topics import RunTopics
from hermes.simulate.faults import FaultyLog
from hermes.simulate.schedules import draw, setup_of
from hermes.transport import names
from hermes.transport.log import Record
from hermes.transport.memory import MemoryLog
from hermes.values import Position, Reason

SHORT = "from.w1"
TOPIC = names.physical("r", SHORT)
OPENED = setup_of(draw(1)).run


class Reading:
    """A topic of ten records, and a master that reads it."""

    def __init__(self) -> None:
        self.log = FaultyLog("none", {}, Counter())
        self.log.create([TOPIC, names.physical("r", SHORT, 1)])
        for number in range(10):
            self.log.append(TOPIC, bytes([number]))
        self.reader = self.log.reader()
        self.places = Places(self.log, self.reader, "r")

    def read(self) -> list[Record]:
        """What a poll brings; what goes wrong with it is mended."""
        try:
            found = self.reader.poll(0.0)
        except (BrokerRefused, NoSuchTopic) as error:
            self.places.mend(error)
            return []
        for record in found:
            name = names.parse(record.topic)
            assert name is not None
            self.places.passed(name, record.offset)
        return found


def at(offset: int) -> Position:
    return Position(SHORT, 0, offset)


def test_reading_goes_on_after_the_place_that_the_ledger_names() -> None:
    reading = Reading()
    reading.places.follow(SHORT, at(6))
    assert [record.offset for record in reading.read()] == [7, 8, 9]
    assert reading.places.of(SHORT) == Place(0, 10)


def test_a_topic_that_ends_before_its_place_is_read_from_its_start() -> None:
    """On a restart: the broker has lost what the ledger says was read."""
    reading = Reading()
    reading.log.lose(TOPIC, 4)
    reading.places.follow(SHORT, at(8))
    assert [record.offset for record in reading.read()] == [0, 1, 2, 3, 4, 5]
    (missed,) = reading.places.missed
    assert missed.topic == SHORT
    assert missed.reason.facts == {"read_to": 9, "end": 6, "from": 0}


def test_an_end_that_is_lost_while_it_is_read_is_seen() -> None:
    reading = Reading()
    reading.places.follow(SHORT, None)
    assert len(reading.read()) == 10
    reading.log.lose(TOPIC, 3)
    assert reading.read() == []
    assert len(reading.places.missed) == 1
    assert [record.offset for record in reading.read()] == list(range(7))


def test_it_begins_where_the_run_has_trimmed() -> None:
    reading = Reading()
    reading.log.trim(TOPIC, 4)
    reading.places.let_go(SHORT, 0, 4)
    reading.log.lose(TOPIC, 3)
    reading.places.follow(SHORT, at(8))
    assert [record.offset for record in reading.read()] == [4, 5, 6]


def test_a_topic_that_somebody_deleted_is_an_error_that_says_so() -> None:
    reading = Reading()
    reading.places.follow(SHORT, at(3))
    reading.log.delete([TOPIC])
    with pytest.raises(RunFailed, match="deleted it under the run") as told:
        reading.read()
    assert told.value.where == TOPIC


def test_records_that_somebody_trimmed_unread_are_an_error_that_says_so() -> None:
    reading = Reading()
    reading.places.follow(SHORT, at(3))
    reading.log.trim(TOPIC, 8)
    with pytest.raises(RunFailed, match="had not read are gone") as told:
        reading.read()
    assert "retention" in told.value.remedy


def test_a_generation_ends_with_its_marker_and_the_next_begins() -> None:
    reading = Reading()
    reading.places.follow(SHORT, at(8))
    reading.read()
    reading.log.append(names.physical("r", SHORT, 1), b"next")
    reading.places.move_on(SHORT, 1)
    assert [record.value for record in reading.read()] == [b"next"]
    reading.places.move_on(SHORT, 1)
    assert reading.places.of(SHORT) == Place(1, 1), "a marker that comes twice changes nothing"
    reading.places.let_go(SHORT, 1, 0)
    reading.log.delete([TOPIC])
    assert reading.read() == [], "the one before may go"


class Strict(MemoryLog):
    """As Apache Kafka is: there is nothing to let go of beyond a topic's end."""

    def trim(self, topic: str, before: int) -> None:
        if before > self.ends([topic])[topic]:
            raise BrokerRefused("the offset is out of range", where=topic)
        super().trim(topic, before)


def test_what_the_broker_has_lost_need_not_be_let_go_of() -> None:
    """A new master trims again what the ledger let go of: a topic that is shorter now is no reason
    why a run could not go on."""
    log = Strict()
    log.create([TOPIC])
    for number in range(3):
        log.append(TOPIC, bytes([number]))
    RunTopics(log, "r", Meter(log, "r"), 1000).let_go(Trim(SHORT, 0, 8))
    assert log.starts([TOPIC]) == {TOPIC: 3}


# --- which run a worker takes part in -----------------------------------------------------------


def test_a_worker_that_serves_run_after_run_comes_back_to_one_that_goes_on() -> None:
    """A run that was over is looked at again once its ledger was written to."""
    log = FaultyLog("none", {}, Counter())
    topic = names.physical("schedule", names.LEDGER)
    log.create([topic])
    ledger = Ledger(log, topic)
    ledger.start("m1")
    ledger.commit((OPENED,), (), 1)
    ledger.commit((RunStopped("stopped", Reason("requested")),), (), 2)
    seen: dict[str, int] = {}

    def look() -> str | None:
        return wait_for_run(log, None, seen, 60.0, lambda _pause: True)

    assert look() is None
    assert seen == {"schedule": 3}
    ledger.commit((RunReopened(OPENED.settings, Reason("asked")),), (), 3)
    assert look() == "schedule"
