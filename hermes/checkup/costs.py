"""What will the topics and the links carry? From the sizes that records really have. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from hermes.checkup.facts import DataFacts, LinkFacts, TimeFacts, TopicFacts
from hermes.codec import encode
from hermes.coded import encode_update, encode_version
from hermes.data.prepare import Prepared
from hermes.messages import Block, JobSource, Manifest
from hermes.policy import storage
from hermes.policy.presets import Settings
from hermes.transport.counting import size_of
from hermes.transport.tensors import CHUNK, Chunk
from hermes.values import Tensors

LINKS = (1.0, 10.0, 100.0)
"""Mbit/s: a poor radio link, a fair one, and a cable."""


class Records(NamedTuple):
    """Records of a topic, and their bytes with headers."""

    number: int
    bytes: int


def in_chunks(length: int) -> Records:
    """A payload of so many bytes, as it travels."""
    count = max(1, -(-length // CHUNK))
    header = size_of(b"", Chunk("00" * 16, 0, count, length).headers())
    return Records(count, length + count * header)


class Upload(NamedTuple):
    """What the data topic gets."""

    source: Records
    blocks: dict[str, tuple[int, ...]]
    """Bytes of each block, by split."""
    manifest: Records

    @property
    def records(self) -> Records:
        """All of it."""
        number = self.source.number + self.manifest.number + sum(map(len, self.blocks.values()))
        each = sum(sum(lengths) for lengths in self.blocks.values())
        return Records(number, self.source.bytes + self.manifest.bytes + each)

    def first_download(self, data: DataFacts) -> int:
        """What a worker reads before its first step, the model apart."""
        shard = self.blocks["train"][: -(-data.shard // data.block)]
        return self.source.bytes + self.manifest.bytes + sum(self.blocks["probe"]) + sum(shard)


def upload_of(source: JobSource, prepared: Prepared) -> Upload:
    """What it takes, about (`Prepared.lengths`)."""
    blocks = {split: tuple(prepared.lengths(split)) for split in prepared.parts}
    first = in_chunks(len(encode(source)))
    offset, entries = first.number, {}
    for split, lengths in blocks.items():
        entries[split] = tuple(
            Block(offset + index, length, "0" * 64) for index, length in enumerate(lengths)
        )
        offset += len(lengths)
    return Upload(first, blocks, in_chunks(len(encode(Manifest(entries)))))


class Encoded(NamedTuple):
    """Bytes of tensors, as they travel."""

    version: int
    update: int


def encoded_of(model: Tensors, settings: Settings, buffers: Collection[str]) -> Encoded:
    """Of this model."""
    codec = settings.codec
    update = encode_update(model, model, codec.up, buffers)
    return Encoded(len(encode_version(model, codec.down)), len(update))


def topics_of(
    upload: Upload, encoded: Encoded, settings: Settings, time: TimeFacts, batch: int, workers: int
) -> TopicFacts:
    """What a run of so many workers, each as fast as this machine alone, keeps at its broker."""
    payload, push, data = in_chunks(encoded.version), in_chunks(encoded.update), upload.records
    rounds = [time.round] * workers
    pace = storage.pace(payload.bytes, rounds, settings.gate.rule, settings.close, push.bytes)
    pushed = pace.pushes / pace.rounds
    hour = pace.bytes
    limit = storage.limit_of(settings.storage.max, None)
    once = data.bytes + payload.bytes
    left = None if limit is None else max(0, limit - once)
    told = pace.pushes * push.bytes + pace.versions * payload.bytes
    each = int(told / pace.rounds) + storage.ROUND_BYTES
    samples = settings.stop.samples
    return TopicFacts(
        data=data.bytes,
        records=data.number,
        version=payload.bytes,
        update=push.bytes,
        chunks=payload.number,
        update_chunks=push.number,
        pushed=pushed,
        round=each,
        rounds_hour=pace.rounds,
        hour=hour,
        limit=limit,
        lasts=None if left is None else 3600 * left / hour,
        whole=None if samples is None else once + each * math.ceil(samples / (time.steps * batch)),
    )


def links_of(
    topics: TopicFacts, time: TimeFacts, first: int, mbits: Sequence[float] = LINKS
) -> tuple[LinkFacts, ...]:
    """What a round costs on links of such speeds; `first`: bytes of a worker's first download,
    the model apart."""
    return tuple(_link(mbit, topics, time, first) for mbit in mbits)


def _link(mbit: float, topics: TopicFacts, time: TimeFacts, first: int) -> LinkFacts:
    rate = mbit * 1e6 / 8
    fetch, push = topics.version / rate, topics.update / rate
    transfer = topics.pushed * (fetch + push) + storage.ROUND_BYTES / rate
    return LinkFacts(
        mbit=mbit,
        fetch=fetch,
        push=push,
        train=time.round,
        transfer=transfer,
        bottleneck=transfer > time.round,
        first=(first + topics.version) / rate,
        upload=(topics.data + topics.version) / rate,
    )
