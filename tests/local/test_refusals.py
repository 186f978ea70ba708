"""A broker's log of refusals, read as Apache Kafka 4.3.1 writes it, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes.broker.refusals import NAME, Refusal, refusals, told
from hermes.cli import refused

CHANNEL = "channelId=10.0.0.1:9092-10.0.0.4:5-1-1"
AT = f"[SocketServer listenerType={{}}, nodeId=1] {{}} /10.0.0.4 ({CHANNEL})"
NO_HANDSHAKE = " (SSL handshake failed) | "
FAILED = AT.format("BROKER", "Failed authentication with")
BROKE = AT.format("BROKER", "Unexpected error from")
TLS = f"SslTransportLayer [SslTransportLayer {CHANNEL} key=k] "
RIGHT = (
    "logger Principal = User:{} is Denied operation = {} from host = 10.0.0.4 on resource = {} for "
    "request = {} with resourceRefCount = 1 based on rule {}"
)
NO_RIGHT, DENY = "DefaultDeny", "MatchingAcl(acl=StandardAcl[permissionType=DENY])"


def one(*texts: str) -> Refusal:
    (found,) = told(f"{1000 * (100 + i)} {text}\n" for i, text in enumerate(texts))
    return found


CONNECTIONS = {
    "a password": (
        f"Selector {FAILED} (Authentication failed during authentication due to invalid "
        "credentials with SASL mechanism SCRAM-SHA-512) | ",
        "unknown user, or wrong password",
    ),
    "a greeting of TLS": (
        f"Selector {BROKE}; closing connection | Invalid receive (size = 369295618 larger than "
        "104857600)",
        "came with TLS to a port without",
    ),
    "rubbish": (
        f"Selector {BROKE}; closing connection | Invalid receive (size = 1195725856 larger than "
        "104857600)",
        "came with what is no request",
    ),
    "no user": (
        f"Selector {BROKE}; closing connection | Invalid request, potential reasons: kafka client "
        "configured with the wrong security protocol",
        "did not say who it is",
    ),
}
HANDSHAKES = {
    "Unrecognized SSL message, plaintext connection?": "came without TLS",
    "Empty client certificate chain": "showed no certificate",
    "PKIX path building failed: unable to find valid certification path to requested target": (
        "its certificate is of another authority"
    ),
    "PKIX path validation failed: signature check failed": (
        "its certificate is of another authority"
    ),
    "PKIX path validation failed: validity check failed": (
        "its certificate has expired, or is not valid yet"
    ),
    "Insufficient buffer remaining for AEAD cipher fragment (2).": (
        "it does not trust this broker's certificate"
    ),
    "something new": "TLS: something new",
}


@pytest.mark.parametrize("case", CONNECTIONS)
def test_a_connection_that_is_refused(case: str) -> None:
    line, why = CONNECTIONS[case]
    assert one(line) == Refusal(100, 100, "10.0.0.4", None, "the connection", why, 1)


@pytest.mark.parametrize("cause", HANDSHAKES)
def test_a_handshake_that_fails(cause: str) -> None:
    """Its cause stands on the line before, under the same channel."""
    lines = (
        f"{TLS} SSL Handshake failed | {cause}",
        f"Selector {FAILED} (SSL handshake failed) | ",
    )
    assert one(*lines).why == HANDSHAKES[cause]


def test_a_cause_is_that_of_its_own_channel() -> None:
    elsewhere = TLS.replace("10.0.0.4:5", "10.0.0.9:7")
    lines = (
        f"{elsewhere} SSL Handshake failed | x",
        f"Selector {FAILED} (SSL handshake failed) | ",
    )
    assert one(*lines).why == "TLS: no common ground"


RIGHTS = {
    "write": (("w1", "WRITE", "Topic:LITERAL:hermes.r.ledger", "Produce"), "write hermes.r.ledger"),
    "read": (("w1", "READ", "Topic:LITERAL:hermes.r.state", "Fetch"), "read hermes.r.state"),
    "see": (("w1", "DESCRIBE", "Topic:LITERAL:t", "Metadata"), "see t"),
    "users": (
        ("w1", "ALTER", "Cluster:LITERAL:kafka-cluster", "AlterUserScramCredentials"),
        "set a password",
    ),
    "an unknown request": (
        ("w1", "ALTER", "Cluster:LITERAL:kafka-cluster", "Something"),
        "Something",
    ),
    "an odd topic": (("a is Denied", "WRITE", "Topic:LITERAL:a:b | c", "Produce"), "write a:b | c"),
}


@pytest.mark.parametrize("case", RIGHTS)
def test_an_operation_that_is_denied(case: str) -> None:
    facts, what = RIGHTS[case]
    found = one(RIGHT.format(*facts, NO_RIGHT) + " | ")
    assert (found.user, found.what, found.why) == (facts[0], what, "no right to it")
    assert one(RIGHT.format(*facts, DENY) + " | ").why == "revoked"


def test_alike_ones_are_counted_and_the_latest_is_first() -> None:
    ledger, state = (RIGHT.format(*RIGHTS[case][0], NO_RIGHT) + " | " for case in ("write", "read"))
    lines = [f"{time} {line}" for time, line in enumerate([ledger, ledger, state, ledger], 1000)]
    newest, other = told(lines)
    assert (newest.first, newest.last, newest.times) == (1.0, 1.003, 3)
    assert other.times == 1
    assert told(["rubbish", "", "1000 Selector something else | "]) == []


def test_the_file_before_it_was_rotated_counts_too(tmp_path: Path) -> None:
    line = RIGHT.format(*RIGHTS["write"][0], NO_RIGHT) + " | \n"
    assert refusals(tmp_path / "broker.log") == []
    (tmp_path / f"{NAME}.1").write_text(f"1000 {line}")
    (tmp_path / NAME).write_text(f"2000 {line}3000 cut of")
    (found,) = refusals(tmp_path / "broker.log")
    assert (found.first, found.last, found.times) == (1.0, 2.0, 2)


def test_how_it_is_shown() -> None:
    found = [Refusal(0, 100 + i, "10.0.0.4", f"w{i}", "read x", "revoked", i) for i in range(1, 11)]
    shown = refused.lines(found, now=400)
    assert shown[0] == "  refused: w1 at 10.0.0.4: read x: revoked (once, last 5 min ago)"
    assert shown[-1] == "  refused: 19 times more, in other ways (--json has all)"
    assert refused.line(found[1]._replace(user=None), 99) == (
        "10.0.0.4: read x: revoked (2 times, last 0 s ago)"
    )
    assert refused.as_json(found[:1])[0]["times"] == 1


def test_a_run_is_told_what_is_about_it() -> None:
    whats = ["write hermes.a.ledger", "write hermes.b.ledger", "the connection"]
    found = [Refusal(0, 100, "h", None, what, "w", 1) for what in whats]
    assert [one.what for one in refused.of_run(found, "a")] == [whats[0], whats[2]]
    assert refused.of_run(found, "a", since=101) == []
