"""What lies in a topic, from a place up to an end that is known? A silence is not the end."""

from __future__ import annotations

from collections.abc import Generator

from hermes.errors import BrokerUnreachable
from hermes.transport.log import Log, Record

SILENCE = 60
"""Seconds without a record that should be there."""


def records_in(log: Log, topic: str, first: int, end: int) -> Generator[Record]:
    """The records of a topic from an offset up to, without it, another one. Raises
    `BrokerUnreachable` where they do not come, `BrokerRefused` where they are gone."""
    reader = log.reader()
    try:
        reader.follow(topic, first)
        place, silent = first, 0
        while place < end:
            found = reader.poll(1.0)
            silent = 0 if found else silent + 1
            if silent > SILENCE:
                raise BrokerUnreachable(
                    f"record {place} of {end} did not come for {SILENCE} s",
                    where=topic,
                    remedy="Once its broker answers again, the same command begins anew.",
                )
            for record in found:
                place = record.offset + 1
                if record.offset < end:
                    yield record
    finally:
        reader.close()
