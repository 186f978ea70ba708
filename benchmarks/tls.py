"""What do TLS and passwords cost a transfer?

Two brokers of Apache Kafka stand side by side, one open, one as `hermes broker start --secure`
starts it. Payloads are sent to each and fetched from each as `benchmarks.transport` does it for our
side, each measurement in a process of its own, in turns; the order is turned round each time. The
first turns are not counted: Java compiles what it does often, and so far a broker encrypts slowly.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from benchmarks.transport import TOTAL, WARM, ours_fetch, ours_send
from hermes.broker.control import Child
from hermes.broker.secured import Secure
from hermes.transport.access import write_access

SIZES = (0.4, 4.0, 43.0)
"""MB of a payload."""
ROUNDS = 5
UNCOUNTED = 6
"""Turns before the first that counts."""
BAR = 1.35


def one_process(way: str, kept: str, address: str, size: int, count: int) -> None:
    """The body of one measuring process: sends (and keeps what it announced), or fetches. The
    topic is called as the file of the announcements."""
    topic = f"hermes.bench.{Path(kept).name}"
    if way == "send":
        found = ours_send(address, topic, size, count)
        Path(kept).write_text(json.dumps(found.pop("announced")), "utf-8")
    else:
        announced = json.loads(Path(kept).read_text("utf-8"))
        found = dict(ours_fetch(address, topic, announced))
    print(json.dumps(found))


@contextmanager
def entered(access: Path | None) -> Iterator[None]:
    """Processes that are started within get in by this access file."""
    if access is not None:
        os.environ["HERMES_ACCESS"] = str(access)
    try:
        yield
    finally:
        os.environ.pop("HERMES_ACCESS", None)


class Pair(NamedTuple):
    """An open broker and a secure one."""

    folder: Path
    plain: Child
    safe: Child

    def measure(self, name: str, way: str, kept: Path, megabytes: float) -> dict[str, float]:
        """One measurement at one of them: `plain` or `tls`."""
        size, count = int(megabytes * 1e6), WARM + max(2, round(TOTAL / megabytes))
        broker = self.plain if name == "plain" else self.safe
        access = self.folder / "access" / "access.json"
        with entered(access if name == "tls" else None):
            where = (way, kept, broker.address, size, count)
            found: dict[str, float] = common.in_a_process("benchmarks.tls", "--one", *where)
        return found


@contextmanager
def pair() -> Iterator[Pair]:
    """Both, until it is left."""
    with (
        common.scratch() as folder,
        common.broker("apache") as plain,
        Child("apache", data=folder / "data", secure=Secure(folder / "secrets")) as safe,
    ):
        write_access(folder / "access", safe.address, safe.access)
        yield Pair(folder, plain, safe)


def cell(brokers: Pair, megabytes: float, rounds: int, uncounted: int) -> list[list[object]]:
    """Both ways of one size."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for turn in range(uncounted + rounds):
        for way in ("send", "fetch"):
            for name in ("plain", "tls")[:: (-1) ** turn]:
                kept = brokers.folder / f"{name}-{int(1000 * megabytes)}-{turn}"
                result = brokers.measure(name, way, kept, megabytes)
                if turn >= uncounted:
                    found.setdefault((way, name), []).append(result)
    ways = ("send", "fetch")
    return [row(megabytes, way, found[way, "tls"], found[way, "plain"]) for way in ways]


def row(
    megabytes: float, way: str, tls: list[dict[str, float]], plain: list[dict[str, float]]
) -> list[object]:
    """A line of the table: medians, and the median of the ratios pair by pair."""

    def median(of: list[dict[str, float]], key: str) -> str:
        return f"{statistics.median(one[key] for one in of):.4g}"

    longer = statistics.median(b["rate"] / a["rate"] for a, b in zip(tls, plain, strict=True))
    return [
        f"{megabytes:g} MB", way, median(tls, "rate"), median(plain, "rate"), f"**{longer:.2f}**",
        median(tls, "cpu"), median(plain, "cpu"),
    ]  # fmt: skip


HEAD = (
    "payload", "way", "MB/s", "plain MB/s", f"time, in times the plain one's (<= {BAR})",
    "CPU s/GB", "plain CPU s/GB",
)  # fmt: skip


def main() -> None:
    """All cells, or one process of one."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", type=float, help="MB of a payload: this size alone")
    parser.add_argument("--one", nargs=5, help=common.HIDDEN)
    wishes = parser.parse_args()
    if wishes.one:
        way, kept, address, size, count = wishes.one
        one_process(way, kept, address, int(size), int(count))
        return
    rows: list[list[object]] = []
    with pair() as brokers:
        for megabytes in SIZES:
            if wishes.only in (None, megabytes):
                rows += cell(brokers, megabytes, wishes.rounds, 1 if rows else UNCOUNTED)
                print(*rows[-2], sep="\t", flush=True)
                print(*rows[-1], sep="\t", flush=True)
    common.report("tls", common.table(HEAD, rows), update=wishes.update)


if __name__ == "__main__":
    main()
