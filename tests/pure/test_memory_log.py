"""What the memory log does beyond the contract (tests/broker/test_log_contract.py)."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import BrokerRefused, Defect, NoSuchTopic
from hermes.transport.flight import Budget
from hermes.transport.log import Log, Reader
from hermes.transport.memory import MemoryLog, MemoryReader


def test_it_is_a_log() -> None:
    log: Log = MemoryLog()
    reader: Reader = log.reader()
    log.create(["a"], {"flush.messages": "1"})
    assert log.append("a", b"x").offset() == 0
    reader.follow("a", 0)
    assert [record.value for record in reader.poll(0.0)] == [b"x"]


def test_connections_share_the_records_and_close_alone() -> None:
    log = MemoryLog()
    other = log.connect()
    log.create(["a"])
    other.append("a", b"x")
    log.close()
    assert other.ends(["a"]) == {"a": 1}
    with pytest.raises(Defect):
        log.ends(["a"])
    reader = other.reader()
    reader.close()
    with pytest.raises(Defect):
        reader.poll(0.0)


def test_what_is_appended_later_changed_stays_as_it_was() -> None:
    log = MemoryLog()
    log.create(["a"])
    value = bytearray(b"before")
    log.append("a", value)  # type: ignore[arg-type]  # what a careless caller may do
    value[:] = b"after!"
    reader = log.reader()
    reader.follow("a", 0)
    assert reader.poll(0.0)[0].value == b"before"


def test_a_busy_topic_does_not_starve_another() -> None:
    log = MemoryLog()
    log.create(["busy", "quiet"])
    for _ in range(10):
        log.append("busy", b"b")
    log.append("quiet", b"q")
    reader = log.reader()
    reader.follow("busy", 0)
    reader.follow("quiet", 0)
    assert [record.topic for _ in range(3) for record in reader.poll(0.0, limit=1)].count(
        "quiet"
    ) == 1


def test_a_poll_wakes_when_its_topic_is_deleted() -> None:
    log = MemoryLog()
    log.create(["a"])
    reader = log.reader()
    reader.follow("a", 0)
    threading.Timer(0.02, log.delete, (["a"],)).start()
    with pytest.raises(NoSuchTopic):
        reader.poll(10.0)


def test_trim_moves_the_beginning() -> None:
    log = MemoryLog()
    log.create(["a"])
    for value in (b"a", b"b", b"c"):
        log.append("a", value)
    log.trim("a", 2)
    log.trim("a", 1)
    assert log.append("a", b"d").offset() == 3
    reader = log.reader()
    reader.follow("a", 1)
    with pytest.raises(BrokerRefused, match=r"2 \.\. 3"):
        reader.poll(0.0)
    log.trim("a", 100)
    assert log.ends(["a"]) == {"a": 4}


def test_a_budget_holds_back_what_does_not_fit() -> None:
    budget = Budget(10)
    budget.take(100)  # alone it goes, however large
    waiting = threading.Thread(target=budget.take, args=(6,))
    waiting.start()
    assert not budget.idle(0.01)
    with budget.alone(0.01) as alone:
        assert not alone
    budget.give(100)
    waiting.join(5.0)
    budget.give(6)
    with budget.alone(5.0) as alone:
        assert alone
        late = threading.Thread(target=budget.take, args=(1,))
        late.start()
        late.join(0.02)
        assert late.is_alive()
    late.join(5.0)
    budget.give(1)
    assert budget.idle(5.0)


Step = st.one_of(
    st.tuples(st.just("append"), st.sampled_from("ab")),
    st.tuples(st.just("poll"), st.integers(1, 4)),
    st.tuples(st.just("move"), st.sampled_from("ab")),
)


@given(st.lists(Step, max_size=40))
def test_every_record_is_read_once_in_order(steps: list[tuple[str, object]]) -> None:
    log = MemoryLog()
    log.create(["a", "b"])
    sent: dict[str, list[bytes]] = {"a": [], "b": []}
    read: dict[str, list[bytes]] = {"a": [], "b": []}
    reader = log.reader()
    for name in sent:
        reader.follow(name, 0)
    for number, (what, argument) in enumerate([*steps, ("poll", 1000)]):
        if what == "append":
            sent[str(argument)].append(b"%d" % number)
            log.append(str(argument), b"%d" % number)
        elif what == "move":
            read[str(argument)].clear()
            reader.follow(str(argument), 0)
        else:
            _poll_into(reader, int(str(argument)), read)
    assert read == sent


def _poll_into(reader: MemoryReader, limit: int, read: dict[str, list[bytes]]) -> None:
    records = reader.poll(0.0, limit)
    assert len(records) <= limit
    for record in records:
        assert record.offset == len(read[record.topic])
        read[record.topic].append(record.value)
