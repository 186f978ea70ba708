"""How fast do tensors travel, and at what cost, against the bare client library?

Both sides cut a payload into the same chunks, wait for every acknowledgement of one payload before
the next, hash it on both ends, and put it together in one buffer. Sending and fetching are measured
in processes of their own; ours and the peer's take turns, and the order is turned round each time.
The peer has the same settings of the client (but fetches twice as much at once, which is the better
for it), all records of a topic in one stream, and neither announcements nor verification beyond the
hash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import statistics
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import common
from hermes.transport import tensors
from hermes.transport.counting import CountingLog
from hermes.transport.kafka import KafkaLog
from hermes.transport.settings import MAX_RECORD, TOPIC_CONFIG
from hermes.values import Payload

CELLS = (("embedded", 0.4), ("embedded", 4.0), ("apache", 0.4), ("apache", 4.0), ("apache", 43.0))
TOTAL = 120
"""MB that one measurement moves, at least two payloads."""
ROUNDS = 5
WARM = 2
"""Payloads that are moved before the clock starts."""

FIELDS = struct.Struct(">II")


class Clock:
    """Wall and CPU seconds (of all threads of this process)."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def result(self, moved: int) -> dict[str, float]:
        """MB/s and CPU seconds a GB, of `moved` bytes."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"rate": moved / 1e6 / wall, "cpu": cpu / (moved / 1e9)}


def payloads(size: int, count: int) -> list[bytes]:
    """Random bytes; a few, in turn, so that they are not in the processor's cache."""
    few = [os.urandom(size) for _ in range(min(count, max(2, 20_000_000 // size)))]
    return [few[index % len(few)] for index in range(count)]


def measured(count: int, size: int, one: Callable[[int], None]) -> dict[str, float]:
    """Move payloads one by one; the first few are not counted."""
    for index in range(WARM):
        one(index)
    clock = Clock()
    for index in range(WARM, count):
        one(index)
    return clock.result((count - WARM) * size)


def ours_send(address: str, topic: str, size: int, count: int) -> dict[str, object]:
    """Send by `send_payload`; the payloads' announcements are for `ours_fetch`."""
    data = payloads(size, count)
    announced = []

    def one(index: int) -> None:
        announced.append(tensors.send_payload(log, topic, "model", 0, data[index]))

    with KafkaLog(address) as plain:
        log = CountingLog(plain)
        log.create([topic])
        found = measured(count, size, one)
    return {**found, "announced": [msgspec.to_builtins(payload) for payload in announced]}


def ours_fetch(address: str, topic: str, announced: list[list[object]]) -> dict[str, float]:
    """Fetch by `fetch_payload`, which checks the digest."""
    wanted = msgspec.convert(announced, list[Payload])
    with KafkaLog(address) as plain:
        reader = CountingLog(plain).reader()
        found = measured(
            len(wanted),
            wanted[0].length,
            lambda index: (tensors.fetch_payload(reader, topic, wanted[index]), None)[1],
        )
        reader.close()
    return found


def _library() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import kafka
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    return kafka


def raw_send(address: str, topic: str, size: int, count: int) -> dict[str, object]:
    """Send with the bare library."""
    kafka = _library()
    data = payloads(size, count)
    digests = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        admin = kafka.KafkaAdminClient(bootstrap_servers=address)  # type: ignore[attr-defined]
    spec = {"num_partitions": 1, "replication_factor": 1, "configs": dict(TOPIC_CONFIG)}
    admin.create_topics({topic: spec})
    admin.close()
    time.sleep(0.5)
    producer = kafka.KafkaProducer(  # type: ignore[attr-defined]
        bootstrap_servers=address,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        batch_size=1 << 20,
        max_request_size=MAX_RECORD,
        metrics_enabled=False,
    )

    def one(index: int) -> None:
        view = memoryview(data[index])
        chunks = max(1, -(-size // tensors.CHUNK))
        futures = [
            producer.send(
                topic,
                value=bytes(view[i * size // chunks : (i + 1) * size // chunks]),
                headers=[("chunk", FIELDS.pack(i, chunks))],
                partition=0,
            )
            for i in range(chunks)
        ]
        digests.append(hashlib.sha256(view).hexdigest())
        for future in futures:
            future.get(60)

    found = measured(count, size, one)
    producer.close()
    return {**found, "announced": [size, digests]}


def raw_fetch(address: str, topic: str, announced: list[object]) -> dict[str, float]:
    """Fetch with the bare library: the topic as one stream, chunk after chunk."""
    kafka = _library()
    size, digests = announced
    assert isinstance(size, int)
    assert isinstance(digests, list)
    chunks = max(1, -(-size // tensors.CHUNK))
    place = kafka.TopicPartition(topic, 0)  # type: ignore[attr-defined]
    consumer = kafka.KafkaConsumer(  # type: ignore[attr-defined]
        bootstrap_servers=address,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_bytes=8 << 20,
        max_partition_fetch_bytes=4 << 20,
        fetch_max_wait_ms=20,
        metrics_enabled=False,
    )
    consumer.assign([place])
    consumer.seek(place, 0)
    waiting: list[object] = []

    def one(index: int) -> None:
        buffer = bytearray(size)
        for _ in range(chunks):
            while not waiting:
                for batch in consumer.poll(timeout_ms=1000, max_records=500).values():
                    waiting.extend(batch)
            record = waiting.pop(0)
            i, _ = FIELDS.unpack(record.headers[0][1])  # type: ignore[attr-defined]
            buffer[i * size // chunks : (i + 1) * size // chunks] = record.value  # type: ignore[attr-defined]
        assert hashlib.sha256(buffer).hexdigest() == digests[index]

    found = measured(len(digests), size, one)
    consumer.close(autocommit=False)
    return found


SEND = {"ours": ours_send, "raw": raw_send}
FETCH = {"ours": ours_fetch, "raw": raw_fetch}


def one_process(side: str, address: str, topic: str, size: int, count: int) -> None:
    """The body of one measuring process: sends (and keeps what it announced), or fetches."""
    name, way, kept = side.split(":")
    if way == "send":
        found = SEND[name](address, topic, size, count)
        Path(kept).write_text(json.dumps(found.pop("announced")), "utf-8")
    else:
        announced = json.loads(Path(kept).read_text("utf-8"))
        found = FETCH[name](address, topic, announced)  # type: ignore[assignment]
    print(json.dumps(found))


def cell(kind: str, megabytes: float, rounds: int) -> list[list[object]]:
    """Both ways of one size on one broker."""
    size = int(megabytes * 1e6)
    count = WARM + max(2, round(TOTAL / megabytes))
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for turn in range(rounds):
        with common.broker(kind) as child, common.scratch() as folder:
            order = ["ours", "raw"][:: 1 if turn % 2 == 0 else -1]
            for way in ("send", "fetch"):
                for name in order:
                    side = f"{name}:{way}:{folder / name}"
                    where = (child.address, f"hermes.bench.{name}", size, count)
                    result = common.in_a_process("benchmarks.transport", "--one", side, *where)
                    found.setdefault((way, name), []).append(result)
    return [row(kind, megabytes, way, found) for way in ("send", "fetch")]


def row(
    kind: str, megabytes: float, way: str, found: dict[tuple[str, str], list[dict[str, float]]]
) -> list[object]:
    """A line of the table: medians, and the median of the ratios pair by pair."""
    mine, peer = found[way, "ours"], found[way, "raw"]

    def median(of: list[dict[str, float]], key: str) -> float:
        return statistics.median(one[key] for one in of)

    def ratio(key: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(mine, peer, strict=True))

    return [
        kind, f"{megabytes:g} MB", way,
        f"{median(mine, 'rate'):.0f}", f"{median(peer, 'rate'):.0f}", f"**{ratio('rate'):.2f}**",
        f"{median(mine, 'cpu'):.2f}", f"{median(peer, 'cpu'):.2f}", f"**{ratio('cpu'):.2f}**",
    ]  # fmt: skip


HEAD = (
    "broker", "payload", "way", "MB/s", "raw MB/s", "ratio (>= 0.9)",
    "CPU s/GB", "raw CPU s/GB", "ratio (<= 1.2)",
)  # fmt: skip


def main() -> None:
    """All cells, or one process of one."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", help="cells of this broker or size, for example apache or 4")
    parser.add_argument("--one", nargs=5, help=common.HIDDEN)
    wishes = parser.parse_args()
    if wishes.one:
        side, address, topic, size, count = wishes.one
        one_process(side, address, topic, int(size), int(count))
        return
    rows: list[list[object]] = []
    for kind, megabytes in CELLS:
        if wishes.only in (None, kind, f"{megabytes:g}"):
            rows += cell(kind, megabytes, wishes.rounds)
            print(*rows[-2], sep="\t", flush=True)
            print(*rows[-1], sep="\t", flush=True)
    common.report("transport", common.table(HEAD, rows), update=wishes.update)


if __name__ == "__main__":
    main()
