"""With what settings do we talk to a broker, and what do we ask of a topic? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MAX_RECORD = 2 << 20
"""Bytes: `max.message.bytes` of our topics, and the largest request."""

MAX_VALUE = MAX_RECORD - 4096
"""Bytes of the largest record (value and headers) that fits under `MAX_RECORD` with its framing."""

BATCH = 512 << 10
"""Bytes of records that travel as one: what a lost connection costs an append at most, and the
least that a fetch brings."""

ROOM = 1 << 20
"""Bytes that the client sets aside for such a batch. A second chunk does not fit, so that a batch
is one chunk; but where one alone just does not, the batch is made to grow, and sends cost a fifth
more (measured)."""

FRAMING = 256
"""Bytes that a record may cost on its way beside its value: headers, its share of a batch."""

TOPIC_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str(MAX_RECORD),
}
"""What every topic is created with."""

LEDGER_CONFIG: Mapping[str, str] = {"flush.messages": "1"}
"""On top of that for the ledger: each record is on the disk before it is acknowledged."""


SEGMENT = (1 << 20, 64 << 20)
"""Bytes of a segment, at least (Kafka takes no less) and at most."""


def segment_config(model: int) -> Mapping[str, str]:
    """On top of that for what is trimmed: a broker frees whole segments only, so that one holds a
    few versions of a model of so many bytes."""
    least, most = SEGMENT
    return {"segment.bytes": str(min(max(least, 4 * model), most))}


SCRAM, SCRAM_ITERATIONS = "SCRAM-SHA-512", 8192
"""How users of our brokers prove a password, and how often that is hashed: as Kafka's own tools
take it. (Passwords are random, 256 bits.)"""


class Connection(NamedTuple):
    """How a `KafkaLog` uses its connection. Times in seconds, sizes in bytes."""

    in_flight: int = 16 << 20
    """Unacknowledged bytes of all appends; one more append waits."""
    fetch_bytes: int = 8 << 20
    """Most of one fetch. Rule for a slow link: fetch_bytes / rate < request_timeout / 3."""
    request_timeout: float = 60.0
    outage: float = 600.0
    """How long a broker may be away, once connected, before we give up."""


OF_MASTER = Connection(fetch_bytes=4 << 20)
"""A master reads from all workers and holds the model several times over: smaller pieces."""
