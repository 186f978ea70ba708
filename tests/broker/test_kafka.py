"""What only a broker can do to us: die, come back, hold other settings, lose a connection."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hermes.broker.control import Child
from hermes.errors import BrokerRefused, BrokerUnreachable, Defect, NoSuchTopic, OutcomeUnknown
from hermes.transport import kafka, patience
from hermes.transport.kafka import KafkaLog
from hermes.transport.log import Receipt
from hermes.transport.probe import Greeting, probe
from hermes.transport.settings import LEDGER_CONFIG, Connection

pytestmark = pytest.mark.broker

TOPIC = "hermes.test.outage"


def test_an_outage_is_ridden_out_and_nothing_is_lost(tmp_path: Path) -> None:
    """The broker is killed among appends and comes back: every record is there, in order."""
    sent = [b"%d" % number for number in range(300)]
    receipts: list[Receipt] = []
    half, whole = threading.Event(), threading.Event()

    def send(log: KafkaLog) -> None:
        for number, value in enumerate(sent):
            receipts.append(log.append(TOPIC, value))
            if number % 10 == 0:
                receipts[-1].offset()
            if number == 150:
                half.set()
        whole.set()

    with Child("apache", data=tmp_path) as broker, KafkaLog(broker.address) as log:
        log.create([TOPIC], LEDGER_CONFIG)
        reader = log.reader()
        reader.follow(TOPIC, 0)
        thread = threading.Thread(target=send, args=(log,))
        thread.start()
        assert half.wait(60)
        broker.kill()
        assert not broker.alive()
        got = reader.poll(0.2)  # an outage is no error for a reader
        with pytest.raises(OutcomeUnknown):
            log.append(TOPIC, b"whether this comes is not known").offset(timeout=0.1)
        with Child("apache", port=broker.port, data=tmp_path) as again:
            assert again.address == broker.address
            assert whole.wait(60)
            offsets = [receipt.offset() for receipt in receipts]
            assert offsets == sorted(set(offsets))
            while len(got) < 301:
                got += reader.poll(5.0)
            values = [record.value for record in got]
            assert [value for value in values if value.isdigit()] == sent
            assert log.ends([TOPIC]) == {TOPIC: 301}
        thread.join()


def test_who_is_connected_does_not_connect_again(
    embedded: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection takes the broker a handshake, and some a fifth of a second."""
    probed, opened = list[str](), list[object]()

    def probe_(broker: str, *more: Any) -> Greeting:
        probed.append(broker)
        return probe(broker, *more)

    def open_(opener: Any, kind: type, **settings: Any) -> object:
        opened.append(kind)
        return opening(opener, kind, **settings)

    opening = kafka._Opener.open
    monkeypatch.setattr(patience, "probe", probe_)
    monkeypatch.setattr(kafka._Opener, "open", open_)
    with KafkaLog(embedded.address).connect() as log:
        assert log.topics("no-such") == []
        assert log.connect() is log
    with pytest.raises(Defect, match="closed"):
        log.connect()
    assert probed == [embedded.address]
    assert len(opened) == 1


def test_a_log_can_be_closed_while_its_broker_is_away() -> None:
    with Child("embedded") as broker:
        log = KafkaLog(broker.address, settings=Connection(outage=5.0)).connect()
        log.create([TOPIC])
        reader = log.reader()
        reader.follow(TOPIC, 0)
        receipt = log.append(TOPIC, b"x")
        assert receipt.offset() == 0
        broker.kill()
        lost = log.append(TOPIC, b"y")
        with pytest.raises(BrokerUnreachable):
            log.topics()
        begun = time.monotonic()
        log.close()
        log.close()
        assert time.monotonic() - begun < 15.0
        with pytest.raises(OutcomeUnknown):
            lost.offset(timeout=1.0)


def test_an_append_to_a_topic_that_another_deletes(apache: Child, name: str) -> None:
    # (The embedded broker acknowledges such a record and forgets it: nothing to be done.)
    with KafkaLog(apache.address) as log, KafkaLog(apache.address) as other:
        log.create([name])
        log.append(name, b"x").offset()
        other.delete([name])
        with pytest.raises(NoSuchTopic):
            log.append(name, b"y").offset(timeout=20.0)
        assert other.topics(name) == []


@pytest.mark.parametrize("kind", ["embedded", "apache"])
def test_an_append_to_a_topic_long_gone_waits_for_nothing(
    kind: str, name: str, request: pytest.FixtureRequest
) -> None:
    """The library has written to it, and lost sight of it since: it would look for ten minutes."""
    broker: Child = request.getfixturevalue(kind)
    others = [f"{name}-{number}" for number in range(10)]
    with KafkaLog(broker.address) as log, KafkaLog(broker.address) as other:
        log.create([name])
        log.append(name, b"x").offset()
        other.delete([name])
        begun = time.monotonic()

        def write_until_seen() -> None:
            for topic in others:  # one that was not there when it looked last makes it look again
                other.create([topic])
                log.append(topic, b"x").offset()
                log.append(name, b"y")

        with pytest.raises(NoSuchTopic):
            write_until_seen()
        assert time.monotonic() - begun < 20.0


@pytest.mark.parametrize("kind", ["embedded", "apache"])
def test_a_topic_that_is_gone_costs_no_core(
    kind: str, name: str, request: pytest.FixtureRequest
) -> None:
    """The library's producer asks for it without a pause (rotation deletes topics all the time)."""
    broker: Child = request.getfixturevalue(kind)
    mine, others, kept = (f"{name}-{what}" for what in ("mine", "others", "kept"))
    with KafkaLog(broker.address) as log, KafkaLog(broker.address) as other:
        log.create([mine, others, kept])
        for topic in (mine, others, kept):
            assert log.append(topic, b"x").offset() == 0
        log.delete([mine])
        other.delete([others])
        assert log.append(kept, b"y").offset() == 1
        log.create([mine])
        assert log.append(mine, b"again").offset() == 0
        before = time.process_time()
        assert not threading.Event().wait(1.0)
        assert time.process_time() - before < 0.15


def test_settings_are_compared_with_what_a_run_needs(apache: Child, name: str) -> None:
    with KafkaLog(apache.address) as log:
        log.create([name], LEDGER_CONFIG)
        log.check_topics([name], LEDGER_CONFIG)
        log.create([f"{name}-short"], {"retention.ms": "1000"})
        with pytest.raises(BrokerRefused) as caught:
            log.check_topics([name, f"{name}-short"])
        assert caught.value.where == f"{name}-short"
        assert "retention.ms=1000" in caught.value.what
        assert "retention.ms=-1" in caught.value.what
        assert caught.value.remedy
        with pytest.raises(NoSuchTopic):
            log.check_topics([f"{name}-absent"])
        with pytest.raises(BrokerRefused, match=f"{name}-bad"):
            log.create([f"{name}-bad"], {"cleanup.policy": "nonsense"})


def test_settings_that_the_embedded_broker_does_not_know_are_no_error(
    embedded: Child, name: str
) -> None:
    with KafkaLog(embedded.address) as log:
        log.create([name], LEDGER_CONFIG)
        log.check_topics([name], LEDGER_CONFIG)


def test_bytes_in_flight_are_bounded(embedded: Child, name: str) -> None:
    with KafkaLog(embedded.address, settings=Connection(in_flight=100_000)) as log:
        log.create([name])
        receipts = [log.append(name, bytes(60_000)) for _ in range(50)]
        # Two do not fit at once: when the last is on its way, all others are acknowledged.
        for number, receipt in enumerate(receipts[:-1]):
            assert receipt.offset(timeout=0.0) == number


def test_the_library_says_nothing(
    embedded: Child, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with KafkaLog(embedded.address) as log:
        log.create([name])
        log.append(name, b"secret").offset()
    assert not [record for record in caplog.records if record.name.startswith("kafka")]


@pytest.mark.parametrize(("kind", "most"), [("embedded", 800), ("apache", 250)])
def test_an_idle_reader_rests(
    kind: str,
    most: int,
    name: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How often its connection looks around in four seconds of waiting (some 320 and 100 times;
    thousands where the wait does not grow). What that costs: `./scripts/benchmark idle`."""
    broker: Child = request.getfixturevalue(kind)
    with KafkaLog(broker.address) as log:
        log.create([name])
        reader = log.reader()
        reader.follow(name, 0)
        reader.poll(1.0)
        fetching: Any = reader._client
        its = fetching._consumer._client._net
        turns = count()
        once = its._poll_once

        def counted(*wait: Any) -> None:
            next(turns)
            once(*wait)

        monkeypatch.setattr(its, "_poll_once", counted)
        for _ in range(4):
            assert reader.poll(1.0) == []
    assert 0 < next(turns) < most


def test_a_connection_that_is_given_up_while_it_is_made_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client is closed while it connects: its loop runs no more, and nobody would close that.
    Nobody answers here, as the system keeps no more than one caller waiting, which is there."""
    made: list[socket.socket] = []
    plain = kafka._Socket.socket

    def kept(self: Any, *kind: int) -> socket.socket:
        made.append(plain(self, *kind))
        return made[-1]

    monkeypatch.setattr(kafka._Socket, "socket", kept)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        _give_up(listener, made)


def test_a_handshake_that_is_given_up_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same under TLS, with somebody who takes the connection and says nothing."""
    made: list[socket.socket] = []
    plain = kafka._WideTLS.do_handshake

    def kept(self: Any) -> None:
        made.append(self)
        plain(self)

    monkeypatch.setattr(kafka._WideTLS, "do_handshake", kept)
    context = ssl.create_default_context()
    context.sslsocket_class = kafka._WideTLS
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _give_up(listener, made, security_protocol="SSL", ssl_context=context)


def _give_up(listener: socket.socket, made: list[socket.socket], **security: Any) -> None:
    """Close a client as soon as its connection is in the making, and see what it leaves."""
    address = "{}:{}".format(*listener.getsockname())
    client = kafka._Client(bootstrap_servers=[address], proxy_url="hermes://direct", **security)
    client._manager.bootstrap_async()
    while not made:
        client._net._poll_once(0.1)
    client.close()
    assert [one.fileno() for one in made] == [-1]
