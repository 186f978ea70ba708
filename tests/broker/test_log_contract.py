"""What every log keeps: one class, run on memory, the embedded broker and Apache Kafka."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from hermes.errors import BrokerError, BrokerRefused, DigestMismatch, NoSuchTopic
from hermes.transport.log import Log, Reader, Record
from hermes.transport.settings import MAX_VALUE
from hermes.transport.tensors import (
    Assembler,
    Chunk,
    fetch_payload,
    is_chunk,
    new_payload_id,
    send_payload,
)

Make = Callable[[int], list[str]]


def read(reader: Reader, number: int, seconds: float = 20.0) -> list[Record]:
    """Poll until `number` records have come."""
    deadline = time.monotonic() + seconds
    records: list[Record] = []
    while len(records) < number and time.monotonic() < deadline:
        records += reader.poll(0.5)
    return records


def append(log: Log, topic: str, *values: bytes) -> list[int]:
    receipts = [log.append(topic, value) for value in values]
    return [receipt.offset() for receipt in receipts]


def values(records: list[Record]) -> list[bytes]:
    return [record.value for record in records]


class TestLog:
    def test_what_is_appended_is_read_back(self, log: Log, topic: str) -> None:
        receipt = log.append(topic, b"first", (("k", b"v"), ("empty", b"")))
        reader = log.reader()
        reader.follow(topic, 0)
        (record,) = read(reader, 1)
        headers = (("k", b"v"), ("empty", b""))
        assert record == Record(topic, receipt.offset(), b"first", headers)
        assert log.append(topic, b"").offset() > record.offset
        assert values(read(reader, 1)) == [b""]

    def test_200_appends_in_flight_keep_their_order(self, log: Log, topic: str) -> None:
        sent = [f"{number}".encode() * 50 for number in range(200)]
        offsets = append(log, topic, *sent)
        assert offsets == sorted(set(offsets))
        reader = log.reader()
        reader.follow(topic, offsets[0])
        records = read(reader, 200)
        assert values(records) == sent
        assert [record.offset for record in records] == offsets

    def test_reading_begins_in_the_middle_and_at_the_end(self, log: Log, topic: str) -> None:
        offsets = append(log, topic, b"a", b"b", b"c")
        reader = log.reader()
        reader.follow(topic, offsets[1])
        assert values(read(reader, 2)) == [b"b", b"c"]
        tail = log.reader()
        tail.follow(topic, log.ends([topic])[topic])
        assert tail.poll(0.05) == []
        append(log, topic, b"d")
        assert values(read(tail, 1)) == [b"d"]

    def test_a_poll_gives_at_most_its_limit_and_loses_nothing(self, log: Log, topic: str) -> None:
        sent = [bytes([number]) for number in range(20)]
        append(log, topic, *sent)
        reader = log.reader()
        reader.follow(topic, 0)
        got: list[bytes] = []
        while len(got) < 20:
            records = reader.poll(5.0, limit=3)
            assert 1 <= len(records) <= 3
            got += values(records)
        assert got == sent

    def test_topics_are_followed_moved_and_dropped(self, log: Log, topics: Make) -> None:
        one, two = topics(2)
        first = append(log, one, b"1a", b"1b")
        reader = log.reader()
        reader.follow(one, first[0])
        assert values(read(reader, 2)) == [b"1a", b"1b"]

        append(log, two, b"2a")
        reader.follow(two, 0)  # does not move the other
        append(log, one, b"1c")
        assert sorted(values(read(reader, 2))) == [b"1c", b"2a"]

        reader.follow(one, first[1])  # back
        assert values(read(reader, 2)) == [b"1b", b"1c"]

        reader.drop(two)
        append(log, two, b"2b")
        append(log, one, b"1d")
        assert values(read(reader, 1)) == [b"1d"]
        assert reader.poll(0.05) == []

        reader.follow(two, 1)
        assert values(read(reader, 1)) == [b"2b"]
        assert reader.poll(0.05) == []
        reader.drop(one)
        reader.drop("never followed")

    def test_what_is_needed_is_had_in_any_order_and_nothing_is_lost(
        self, log: Log, topics: Make
    ) -> None:
        one, two = topics(2)
        sent = {topic: [bytes([number]) * 1000 for number in range(30)] for topic in (one, two)}
        at = {topic: append(log, topic, *sent[topic]) for topic in (one, two)}
        reader, chance = log.reader(), random.Random(7)
        places = [(one, 0, 3), (one, 3, 3), (one, 6, 24), (two, 0, 30), (one, 28, 2)]
        places += [
            (chance.choice([one, two]), first, chance.randint(1, 30 - first))
            for first in chance.choices(range(30), k=20)
        ]
        for topic, first, count in places:
            reader.follow(topic, at[topic][first], need=chance.choice([1, 1000 * count]))
            got: list[Record] = []
            while len(got) < count:
                got += reader.poll(20.0, limit=count - len(got))
            assert values(got) == sent[topic][first : first + count]
            reader.drop(topic)

    def test_a_reader_of_nothing_gets_nothing(self, log: Log, topic: str) -> None:
        reader = log.reader()
        assert reader.poll(0.01) == []
        reader.follow(topic, 0)
        begun = time.monotonic()
        assert reader.poll(0.1) == []
        assert 0.1 <= time.monotonic() - begun < 3.0
        reader.close()
        reader.close()

    def test_a_waiting_poll_returns_when_a_record_comes(self, log: Log, topic: str) -> None:
        reader = log.reader()
        reader.follow(topic, 0)
        append(log, topic, b"old")  # the first takes its time: a connection is made for it
        assert values(read(reader, 1)) == [b"old"]
        assert reader.poll(0.3) == []
        sender = threading.Thread(target=append, args=(log, topic, b"news"))
        begun = time.monotonic()
        sender.start()
        assert values(reader.poll(20.0)) == [b"news"]
        assert time.monotonic() - begun < 2.0
        sender.join()

    def test_two_readers_have_their_own_places(self, log: Log, topic: str) -> None:
        append(log, topic, b"a", b"b")
        one, two = log.reader(), log.reader()
        one.follow(topic, 0)
        assert values(read(one, 2)) == [b"a", b"b"]
        two.follow(topic, 0)
        append(log, topic, b"c")
        assert values(read(two, 3)) == [b"a", b"b", b"c"]
        assert values(read(one, 1)) == [b"c"]

    def test_ends_grow_with_every_record(self, log: Log, topics: Make) -> None:
        one, two = topics(2)
        assert log.ends([one, two]) == {one: 0, two: 0}
        for sent in (1, 7, 2, 30):  # sent at once they lie in one batch
            offsets = append(log, one, *[b"x"] * sent)
            assert log.ends([one, two]) == {one: offsets[-1] + 1, two: 0}
        assert log.ends([]) == {}

    def test_topics_are_listed_by_prefix(self, log: Log, topics: Make) -> None:
        one, two = topics(2)
        assert log.topics(one) == [one]
        assert {one, two} <= set(log.topics("hermes.test."))
        assert log.topics("no such prefix") == []

    def test_creating_again_changes_nothing(self, log: Log, topic: str) -> None:
        append(log, topic, b"kept")
        log.create([topic, topic])
        log.create([])
        assert log.ends([topic]) == {topic: 1}

    def test_unknown_topics_are_refused_and_not_created(self, log: Log, name: str) -> None:
        with pytest.raises(NoSuchTopic, match=name):
            log.append(name, b"x")
        with pytest.raises(NoSuchTopic, match=name):
            log.ends([name])
        reader = log.reader()
        reader.follow(name, 0)
        for _ in range(2):
            with pytest.raises(NoSuchTopic) as caught:
                reader.poll(0.1)
            assert caught.value.where == name
        reader.drop(name)
        assert reader.poll(0.01) == []
        assert log.topics(name) == []

    def test_a_deleted_topic_is_gone_for_everyone(self, log: Log, topics: Make) -> None:
        gone, stays = topics(2)
        append(log, gone, b"x")
        append(log, stays, b"y")
        reader = log.reader()
        reader.follow(gone, 0)
        assert values(read(reader, 1)) == [b"x"]
        log.delete([gone, "hermes.test.never-there"])
        assert log.topics(gone) == []
        with pytest.raises(NoSuchTopic, match=gone):
            log.append(gone, b"x")
        with pytest.raises(NoSuchTopic, match=gone):
            read(reader, 1)
        reader.drop(gone)
        reader.follow(stays, 0)
        assert values(read(reader, 1)) == [b"y"]
        assert log.topics(gone) == []  # nobody's asking has brought it back

    def test_a_topic_can_be_created_again(self, log: Log, topic: str) -> None:
        append(log, topic, b"old", b"old")
        log.delete([topic])
        log.create([topic])
        assert log.ends([topic]) == {topic: 0}
        assert append(log, topic, b"new") == [0]
        reader = log.reader()
        reader.follow(topic, 0)
        assert values(read(reader, 1)) == [b"new"]

    def test_a_place_outside_the_topic_is_an_error(self, log: Log, topic: str) -> None:
        append(log, topic, b"x")
        reader = log.reader()
        reader.follow(topic, 5)
        with pytest.raises(BrokerError, match="outside"):
            reader.poll(0.1)
        reader.follow(topic, 0)
        assert values(read(reader, 1)) == [b"x"]

    def test_a_record_beyond_the_limit_is_refused(self, log: Log, topic: str) -> None:
        largest = random.Random(0).randbytes(MAX_VALUE)
        with pytest.raises(BrokerRefused, match="limit"):
            log.append(topic, largest + b"x")
        assert append(log, topic, largest) == [0]
        reader = log.reader()
        reader.follow(topic, 0)
        assert values(read(reader, 1)) == [largest]

    def test_trim_forgets_the_beginning_where_the_log_can(self, log: Log, topic: str) -> None:
        append(log, topic, b"a", b"b", b"c")
        if not log.can_trim:
            with pytest.raises(BrokerRefused, match="cannot trim"):
                log.trim(topic, 2)
            return
        log.trim(topic, 2)
        assert log.ends([topic]) == {topic: 3}
        reader = log.reader()
        reader.follow(topic, 0)
        with pytest.raises(BrokerError, match="outside"):
            reader.poll(0.1)
        reader.follow(topic, 2)
        assert values(read(reader, 1)) == [b"c"]

    def test_threads_may_append_at_once(self, log: Log, topic: str) -> None:
        def work(number: int) -> None:
            append(log, topic, *(b"%d %d" % (number, step) for step in range(25)))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reader = log.reader()
        reader.follow(topic, 0)
        got = values(read(reader, 100))
        for number in range(4):
            mine = [value for value in got if value.startswith(b"%d " % number)]
            assert mine == [b"%d %d" % (number, step) for step in range(25)]


class TestPayloads:
    def test_a_large_payload_travels_in_chunks(self, log: Log, topic: str) -> None:
        data = random.Random(1).randbytes(5_000_001)
        seen: list[int] = []
        payload = send_payload(log, topic, "model", 0, data, progress=seen.append)
        assert (payload.chunks, payload.length) == (10, len(data))
        assert seen[-1] == len(data)
        got: list[int] = []
        assert fetch_payload(log.reader(), topic, payload, progress=got.append) == data
        assert got == sorted(got)
        assert got[-1] == len(data)

    def test_foreign_chunks_and_messages_in_between_are_skipped(self, log: Log, topic: str) -> None:
        data = bytes(range(256)) * 4
        ours, theirs = (Chunk(new_payload_id(), 0, 2, len(data)) for _ in range(2))
        log.append(topic, b"a message")
        one = send_payload(log, topic, "model", 0, data[:100], ours.id)
        log.append(topic, data[:512], theirs.headers()).offset()
        two = send_payload(log, topic, "model", 0, data, new_payload_id(), chunk_size=300)
        assert (one.chunks, two.chunks) == (1, 4)
        reader = log.reader()
        assert fetch_payload(reader, topic, two) == data
        assert fetch_payload(reader, topic, one) == data[:100]

    def test_a_broken_transfer_goes_on_at_a_chunk(self, log: Log, topic: str) -> None:
        data = random.Random(2).randbytes(10_000)
        payload = send_payload(log, topic, "model", 0, data, chunk_size=1000)
        parts = Assembler(payload)
        reader = log.reader()
        reader.follow(topic, payload.first)
        for record in reader.poll(5.0, limit=4):
            assert is_chunk(record)
            parts.take(record)
        assert list(parts.missing()) == [4, 5, 6, 7, 8, 9]
        again = log.reader()
        assert fetch_payload(again, topic, payload, assembler=parts) == data

    def test_a_wrong_digest_is_seen(self, log: Log, topic: str) -> None:
        import msgspec

        payload = send_payload(log, topic, "model", 0, b"x" * 1000, chunk_size=100)
        lie = msgspec.structs.replace(payload, digest="0" * 64)
        with pytest.raises(DigestMismatch):
            fetch_payload(log.reader(), topic, lie)
