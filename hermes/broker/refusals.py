"""Who was refused at a broker of this machine, why, and how often? Its own log tells.

Apache Kafka says it in three loggers, which `LOGGING` sends to a file of their own, each refusal on
a line that starts with its time. Who comes with a wrong password is told by address alone: the
broker does not write which name was tried. The file is bounded, so that a flood leaves the newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

NAME = "refused.log"
"""Of the folder of a broker's files."""

REVOKED = "revoked"
"""Why a user whom somebody has locked out was refused a topic."""

SIZE = 1 << 20
"""Bytes of that before it is rotated; one old one is kept."""

LOGGING = f"""\
appender.refused.type = RollingFile
appender.refused.name = refused
appender.refused.fileName = {{file}}
appender.refused.filePattern = {{file}}.%i
appender.refused.layout.type = PatternLayout
appender.refused.layout.pattern = \
%d{{{{UNIX_MILLIS}}}} %c{{{{1}}}} %enc{{{{%m}}}}{{{{CRLF}}}} | \
%enc{{{{%ex{{{{short.message}}}}}}}}{{{{CRLF}}}}%ex{{{{none}}}}%n
appender.refused.policies.type = Policies
appender.refused.policies.size.type = SizeBasedTriggeringPolicy
appender.refused.policies.size.size = {SIZE}
appender.refused.strategy.type = DefaultRolloverStrategy
appender.refused.strategy.max = 1
logger.rights.name = kafka.authorizer.logger
logger.rights.level = info
logger.rights.additivity = false
logger.rights.appenderRef.refused.ref = refused
logger.connections.name = org.apache.kafka.common.network.Selector
logger.connections.level = info
logger.connections.additivity = false
logger.connections.appenderRef.refused.ref = refused
# Only here, at DEBUG, does it say why a handshake failed.
logger.tls.name = org.apache.kafka.common.network.SslTransportLayer
logger.tls.level = debug
logger.tls.additivity = false
logger.tls.appenderRef.refused.ref = refused
logger.tls.filter.failed.type = RegexFilter
logger.tls.filter.failed.regex = .*SSL Handshake failed.*
logger.tls.filter.failed.onMatch = ACCEPT
logger.tls.filter.failed.onMismatch = DENY
"""
"""Lines of the log's configuration, with a place for `file`."""

_LINE = re.compile(r"(?P<time>\d+) (?P<logger>\w+) (?P<text>.*) \| (?P<cause>.*)")
_RIGHT = re.compile(
    r"Principal = \w+:(?P<user>.*) is Denied operation = (?P<operation>\w+) from host = "
    r"(?P<host>\S+) on resource = (?P<kind>\w+):\w+:(?P<name>.*) for request = (?P<request>\w+) "
    r"with resourceRefCount = \d+ based on rule (?P<rule>.*)"
)
_CONNECTION = re.compile(
    r"\[SocketServer listenerType=(?P<listener>\w+), nodeId=\d+\] (?P<what>Failed authentication "
    r"with|Unexpected error from) [^/]*/(?P<host>\S+) \(channelId=(?P<channel>\S+?)\)"
)
_CHANNEL = re.compile(r"channelId=(\S+)")
_RECEIVED = re.compile(r"Invalid receive \(size = (-?\d+)")

_TLS_HELLO = range(0x16030000, 0x16030500)
"""The first four bytes of a TLS greeting, read as the length of a request."""


class Refusal(NamedTuple):
    """Refusals of one kind."""

    first: float
    last: float
    """When: seconds since the epoch."""
    host: str
    """From where."""
    user: str | None
    """As whom; None where that was not proved."""
    what: str
    why: str
    times: int


def refusals(log: Path) -> list[Refusal]:
    """All that a broker's log still tells (`log`: any file in its folder), the latest first."""
    newest = log.with_name(NAME)
    return told(line for file in (newest.with_name(f"{NAME}.1"), newest) for line in _lines(file))


def told(lines: Iterable[str]) -> list[Refusal]:
    """The refusals in lines of such a file, alike ones counted, the latest first."""
    found: dict[tuple[str, str | None, str, str], Refusal] = {}
    causes: dict[str, str] = {}
    for line in lines:
        one = _refusal(line, causes)
        if one is None:
            continue
        kind = (one.host, one.user, one.what, one.why)
        before = found.pop(kind, None)
        if before is not None:
            one = one._replace(first=before.first, times=before.times + 1)
        found[kind] = one
    return sorted(found.values(), key=lambda one: one.last, reverse=True)


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            yield from text
    except OSError:
        return


def _refusal(line: str, causes: dict[str, str]) -> Refusal | None:
    """What a line tells; None for one that only gives the cause of the next one's."""
    match = _LINE.fullmatch(line.rstrip("\n"))
    if match is None:
        return None
    when, text, cause = int(match["time"]) / 1000, match["text"], match["cause"]
    if match["logger"] == "SslTransportLayer":
        channel = _CHANNEL.search(text)
        if channel is not None:
            causes.clear()  # the line that it belongs to comes next, of the same channel
            causes[channel[1]] = cause
        return None
    right = _RIGHT.fullmatch(text)
    if right is not None:
        what, why = _of_right(right)
        return Refusal(when, when, right["host"], right["user"], what, why, 1)
    connection = _CONNECTION.search(text)
    if connection is None:
        return None
    what = "the connection"
    if connection["listener"] == "CONTROLLER":
        what = "a connection to its controller"
    why = _of_connection(text, cause or causes.pop(connection["channel"], ""))
    return Refusal(when, when, connection["host"], None, what, why, 1)


def _of_right(match: re.Match[str]) -> tuple[str, str]:
    verb = _VERBS.get(match["operation"], match["operation"].lower())
    thing = match["name"] if match["kind"] == "Topic" else _THINGS.get(match["kind"], match["kind"])
    if match["kind"] == "Cluster":
        verb = _REQUESTS.get(match["request"], match["request"])
    revoked = "permissionType=DENY" in match["rule"]
    return f"{verb} {thing}".strip(), REVOKED if revoked else "no right to it"


_VERBS = {
    "DESCRIBE": "see",
    "READ": "read",
    "WRITE": "write",
    "CREATE": "create",
    "DELETE": "delete",
    "ALTER": "alter",
    "DESCRIBE_CONFIGS": "see the settings of",
    "ALTER_CONFIGS": "set",
}
_THINGS = {"Cluster": "", "Group": "a consumer group", "TransactionalId": "a transaction"}
_REQUESTS = {
    "CreateAcls": "give rights",
    "DeleteAcls": "take rights",
    "DescribeAcls": "see rights",
    "AlterUserScramCredentials": "set a password",
    "DescribeUserScramCredentials": "see users",
}


def _of_connection(text: str, cause: str) -> str:
    if "invalid credentials" in text:
        return "unknown user, or wrong password"
    received = _RECEIVED.search(cause)
    if received is not None:
        hello = int(received[1]) in _TLS_HELLO
        return "came with TLS to a port without" if hello else "came with what is no request"
    for mark, why in _CAUSES.items():
        if mark in cause or mark in text:
            return why
    return f"TLS: {cause}" if cause else "TLS: no common ground"


_CAUSES = {
    "plaintext connection": "came without TLS",
    "Unsupported or unrecognized SSL message": "came without TLS",
    "during SASL handshake": "did not say who it is",
    "Invalid request, potential reasons": "did not say who it is",
    "Empty client certificate chain": "showed no certificate",
    "unable to find valid certification path": "its certificate is of another authority",
    "Path does not chain with any of the trust anchors": "its certificate is of another authority",
    "signature check failed": "its certificate is of another authority",
    "NotAfter": "its certificate has expired",
    "validity check failed": "its certificate has expired, or is not valid yet",
    # A client that breaks the handshake off says why under TLS 1.3 in a record that Java cannot
    # read.
    "Insufficient buffer remaining for AEAD": "it does not trust this broker's certificate",
    "Received fatal alert": "it does not trust this broker's certificate",
}
