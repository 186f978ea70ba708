"""What does a broker hold for us, and how much room has it left? As far as it says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Held(NamedTuple):
    """What a broker says of its storage."""

    topics: Mapping[str, int]
    """Bytes by topic, of those that were asked for."""
    free: int | None
    """Bytes that its disk has left (of several, the fullest); None: it did not say."""

    @property
    def bytes(self) -> int:
        """Of all these topics."""
        return sum(self.topics.values())


def read_log_dirs(answers: Iterable[Mapping[str, Any]], prefix: str) -> Held:
    """The brokers' answers to DescribeLogDirs, as the client gives them; topics that begin with
    `prefix`. Room on disk comes with version 4 of that request (KIP-827, Kafka 3.3)."""
    topics: dict[str, int] = {}
    free: list[int] = []
    for answer in answers:
        for folder in answer["log_dirs"]:
            if folder["error_code"]:
                continue
            room = folder.get("usable_bytes")
            if room is not None and room >= 0:
                free.append(room)
            for topic in folder["topics"]:
                if topic["name"].startswith(prefix):
                    size = sum(part["partition_size"] for part in topic["partitions"])
                    topics[topic["name"]] = topics.get(topic["name"], 0) + size
    return Held(topics, min(free, default=None))
