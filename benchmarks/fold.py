"""What does a master that is started again pay for its ledger? Of a thousand to 100,000 records.

The records are those of one run, made by the machines themselves under virtual time: twelve unequal
workers that are killed and come back, a master that is started again, rounds, grants, updates,
versions, evaluations, trims. Shorter ledgers are its beginnings. Each is folded in a process of its
own (CPU seconds: decoding, the rules, the chain, the state, its check), from memory; and once from
Apache Kafka, connecting and reading included (seconds by the clock).
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import common
from hermes.codec import decode
from hermes.messages import LedgerRecord
from hermes.perform.ledger import Ledger
from hermes.report.words import count as grouped
from hermes.simulate.driver import Costs, Driver
from hermes.simulate.faults import records_of
from hermes.simulate.schedules import Fault, Schedule, faults_of, setup_of
from hermes.transport.kafka import KafkaLog
from hermes.transport.log import Log
from hermes.transport.memory import MemoryLog
from hermes.values import SECOND

COUNTS = (1_000, 10_000, 100_000)
FROM_BROKER = 10_000
ROUNDS = 5
WORKERS = 12
BAR = 5.0
"""Seconds for `FROM_BROKER` records."""
TOPIC = "hermes.bench.ledger"


def script(workers: int) -> tuple[Fault, ...]:
    """A worker dies every 20 s and is back after 2 s; the master every 3 minutes, for 1 s."""
    kills = tuple(
        Fault("kill", (20 * k + 10) * SECOND, f"worker-{k % workers + 1}", 2 * SECOND)
        for k in range(1000)
    )
    return (*kills, *(Fault("restart", 180 * k * SECOND, "", SECOND) for k in range(1, 100)))


def ledger_of(count: int, strategy: str) -> list[bytes]:
    """The first `count` records of a long run."""
    speeds = tuple(0.3 + 0.7 * index / (WORKERS - 1) for index in range(WORKERS))
    schedule = Schedule(1, strategy, 10**6, speeds, (0,) * WORKERS, script(WORKERS))
    faults = faults_of(schedule.script)
    driver = Driver(setup_of(schedule), costs=Costs(step=SECOND // 50), faults=faults)
    driver.master.start()
    while driver.ledger_end() < count:
        if not driver.queue.step():
            raise SystemExit(f"the run came to its end after {driver.ledger_end()} records")
    return [record.value for record in records_of(driver.log, driver.topic, 0)][:count]


def fill(log: Log, values: list[bytes]) -> None:
    """Write them, in order."""
    log.create([TOPIC])
    receipts = [log.append(TOPIC, value) for value in values]
    for receipt in receipts:
        receipt.offset()


def fold(log: Log, count: int) -> None:
    """What a master does first; every record counts."""
    ledger = Ledger(log, TOPIC)
    ledger.fold()
    if ledger.read_to != count or ledger.voids:
        raise SystemExit(f"{ledger.read_to} records were read, {len(ledger.voids)} are void")


def from_memory(kept: Path, count: int) -> float:
    """CPU seconds for the first `count` records."""
    log = MemoryLog()
    fill(log, read(kept, count))
    begun = time.process_time()
    fold(log, count)
    return time.process_time() - begun


def from_broker(address: str, count: int) -> float:
    """Seconds by the clock, with connecting and reading."""
    begun = time.perf_counter()
    with KafkaLog(address) as log:
        fold(log, count)
    return time.perf_counter() - begun


def read(kept: Path, count: int) -> list[bytes]:
    """The first records of a ledger that lies in a file."""
    values: list[bytes] = msgspec.msgpack.decode(kept.read_bytes(), type=list[bytes])
    return values[:count]


def mixture(values: list[bytes]) -> str:
    """What they hold, the most frequent first."""
    found: Counter[str] = Counter()
    for value in values:
        record = decode(value)
        assert isinstance(record, LedgerRecord)
        found.update(type(entry).__name__ for entry in record.entries)
    return ", ".join(f"{count} {name}" for name, count in found.most_common())


def one_process(wish: str, place: str, count: int) -> float:
    """The body of one measuring process."""
    return from_memory(Path(place), count) if wish == "memory" else from_broker(place, count)


def measure(values: list[bytes], counts: list[int], folder: Path) -> str:
    """The table; in it the ratio of what a record costs, in the longest to the shortest ledger."""
    kept = folder / "ledger"
    kept.write_bytes(msgspec.msgpack.encode(values))
    rows: list[list[object]] = []
    per_record = []
    for count in counts:
        times = [_measured("memory", kept, count) for _ in range(ROUNDS)]
        seconds = statistics.median(times)
        per_record.append(seconds / count)
        rows.append(["memory", grouped(count), f"{seconds:.2f}", *_rates(seconds, count), ""])
    with common.broker("apache") as child:
        count = min(FROM_BROKER, counts[-1])
        with KafkaLog(child.address) as log:
            fill(log, values[:count])
        seconds = statistics.median(
            _measured("broker", child.address, count) for _ in range(ROUNDS)
        )
        bar = f"**{seconds:.2f}** (< {BAR:g})"
        rows.append(["apache, by the clock", grouped(count), bar, *_rates(seconds, count), ""])
    rows[len(counts) - 1][-1] = f"**{per_record[-1] / per_record[0]:.2f}**"
    head = ("from", "records", "s", "records/s", "us a record", "longest : shortest")
    return common.table(head, rows)


def _measured(wish: str, place: object, count: int) -> float:
    return float(common.in_a_process("benchmarks.fold", "--one", wish, place, count))


def _rates(seconds: float, count: int) -> list[object]:
    return [grouped(round(count / seconds)), f"{1e6 * seconds / count:.0f}"]


def main() -> None:
    """All ledgers, or one process of one."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--strategy", default="hermes-paper")
    parser.add_argument("--longest", type=int, default=COUNTS[-1], help="records of the longest")
    parser.add_argument("--one", nargs=3, help=common.HIDDEN)
    wishes: Any = parser.parse_args()
    if wishes.one:
        wish, place, count = wishes.one
        print(json.dumps(one_process(wish, place, int(count))))
        return
    counts = [count for count in COUNTS if count <= wishes.longest]
    values = ledger_of(counts[-1], wishes.strategy)
    with common.scratch() as folder:
        table = measure(values, counts, folder)
    common.report("fold", f"{table}\n\n{mixture(values)}.", update=wishes.update)


if __name__ == "__main__":
    main()
