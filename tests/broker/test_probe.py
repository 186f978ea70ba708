"""Whatever listens at the address, the user is told what is wrong, within seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hermes.broker.control import Child
from hermes.broker.places import free_port
from hermes.errors import BrokerUnreachable, UsageError
from hermes.transport.address import Address, parse_address
from hermes.transport.kafka import KafkaLog
from hermes.transport.probe import probe


@contextmanager
def service(answer: bytes | None) -> Iterator[str]:
    """A listener that takes a request and gives this answer, or hangs up; None: stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.append(connection)
                if answer is not None:
                    with connection:
                        connection.recv(1000)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in kept:
            connection.close()


def complaint(broker: str) -> BrokerUnreachable:
    begun = time.monotonic()
    with pytest.raises(BrokerUnreachable) as caught:
        probe(broker)
    assert time.monotonic() - begun < 3.0
    assert caught.value.where == broker
    return caught.value


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "localhost:", ":9092", "host:0", "host:65536", "http://host:9092", "h:x"],
)
def test_bad_text(text: str) -> None:
    with pytest.raises(UsageError, match="not HOST:PORT"):
        probe(text)


def test_addresses() -> None:
    assert parse_address("host.local:9092") == Address("host.local", 9092)
    assert parse_address("[::1]:9092") == Address("::1", 9092)
    assert str(Address("::1", 9092)) == "[::1]:9092"


def test_refused() -> None:
    error = complaint(f"127.0.0.1:{free_port()}")
    assert "connection refused" in error.what
    assert "hermes broker start" in error.remedy
    assert error.retriable


def test_nothing_there_is_said_within_five_seconds() -> None:
    log = KafkaLog(f"127.0.0.1:{free_port()}")
    begun = time.monotonic()
    with pytest.raises(BrokerUnreachable, match="refused"):
        log.connect()
    assert 3.0 < time.monotonic() - begun < 5.0  # it waits for a broker that is starting
    log.close()


def test_a_name_that_does_not_resolve() -> None:
    error = complaint("no-such-host.invalid:9092")
    assert "does not resolve" in error.what
    assert not error.retriable


def test_a_silent_port() -> None:
    with service(None) as broker:
        assert "does not answer as a Kafka broker does" in complaint(broker).what


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it is a web server"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it expects TLS"),
        (b"", "it hangs up"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not one of the Kafka protocol"),
        (b"\x00\x00\x00\x06\x00\x00\x00\x12\x00\x00", "not one of the Kafka protocol"),
    ],
)
def test_what_is_not_kafka(answer: bytes, words: str) -> None:
    with service(answer) as broker:
        error = complaint(broker)
    assert ("not a Kafka broker" in error.what) == ("TLS" not in words)  # it may well be one
    assert words in error.what
    assert error.retriable == (not answer)  # a forwarded port hangs up while its broker starts


def test_a_web_server_that_waits_for_a_line() -> None:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        error = complaint(f"127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert "it is a web server" in error.what


@pytest.mark.broker
def test_an_advertised_address_that_cannot_be_reached() -> None:
    with Child("embedded", advertise=f"127.0.0.1:{free_port()}") as broker:
        error = complaint(broker.address)
        assert "says that it is to be reached at" in error.what
        assert "Connection refused" in error.what
        assert "--advertise" in error.remedy


@pytest.mark.broker
def test_a_broker_in_clear_that_sends_us_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at the end of a tunnel: the address that was typed is this machine's."""
    monkeypatch.delenv("HERMES_INSECURE", raising=False)
    with Child("embedded", advertise="192.0.2.1:9092") as broker:
        with pytest.raises(UsageError, match=r"sends its clients to 192\.0\.2\.1:9092"):
            KafkaLog(broker.address).connect()
        monkeypatch.setenv("HERMES_INSECURE", "1")
        with pytest.raises(BrokerUnreachable, match="cannot be reached from here"):
            KafkaLog(broker.address).connect()


@pytest.mark.broker
def test_both_brokers_are_known(embedded: Child, apache: Child) -> None:
    assert probe(embedded.address).embedded
    assert not probe(apache.address).embedded
    assert str(probe(apache.address).advertised[0]) == apache.address
