"""What does a link cost that is up 5 s and down 5 s? A model of 40 MB, both ways.

Between client and broker is a proxy (`tests/broker/link.py`) that counts the bytes, carries 4 MB/s,
or 1 MB/s, and is down by stalling (nothing passes, connections stay) or by closing (connections are
reset, new ones refused). What an outage may cost is one request: an append's batch, or what a fetch
asks for at once, which is what the link carries in half a second.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from benchmarks import common
from hermes.broker.control import Child, Kind
from hermes.perform.store import Store
from hermes.transport import names
from hermes.transport.flight import SPAN
from hermes.transport.kafka import KafkaLog
from hermes.transport.settings import BATCH, FRAMING
from tests.broker.link import Crossing, Link, Outage, Way

SIZE = 40_000_000
UP = DOWN = 5.0
BAR = 1.05
BOOST = 1e9
"""Bytes a second while nothing is measured."""

How = Literal["stall", "close"]
CELLS: tuple[tuple[Kind, How, float], ...] = (
    ("apache", "stall", 4e6),
    ("apache", "close", 4e6),
    ("apache", "close", 1e6),
    ("embedded", "stall", 4e6),
    ("embedded", "close", 4e6),
)
"""Broker, kind of outage, bytes a second."""

HEAD = (
    "broker", "down by", "link, MB/s", "way", "s", "outages", "bytes / payload",
    "over it, KiB an outage", "a request, KiB", "bytes / allowed (<= 1)",
)  # fmt: skip


def cell(kind: Kind, how: How, rate: float, size: int) -> list[list[object]]:
    """Both ways over one link; a line of the table each."""
    schedule = [Outage(UP, DOWN, how)]
    model = os.urandom(size)
    with common.scratch() as folder, Link(rate) as link, _child(kind, link, folder) as broker:
        link.lead_to(broker.port)
        with KafkaLog(link.address) as log:
            log.create([names.physical("r", names.MODEL)])
            store = Store(log, "r")
            payload, sent = link.crossing("up", schedule, lambda: store.put("model", model))
            link.rate = BOOST
            store.put("model", model)  # the topic goes on behind the payload
            link.rate = rate
            found, fetched = link.crossing("down", schedule, lambda: store.get(payload))
            store.close()
    if found != model:
        raise SystemExit("what came is not what was sent")
    ways: tuple[tuple[Way, Crossing], ...] = (("up", sent), ("down", fetched))
    return [row(kind, how, rate, way, crossing, size) for way, crossing in ways]


def _child(kind: Kind, link: Link, folder: Path) -> Child:
    return Child(kind, advertise=link.address, data=folder if kind == "apache" else None)


def row(kind: str, how: str, rate: float, way: Way, crossing: Crossing, size: int) -> list[object]:
    """A line of the table. All outages were ones: with connections, and nothing through."""
    fired = crossing.fired
    if not fired or any(one.leaked > 0 or not one.caught or not one.before for one in fired):
        raise SystemExit(f"the link was not down as it should have been: {fired}")
    batch = BATCH + FRAMING
    request = batch if way == "up" else max(batch, int(SPAN * rate))
    allowed = BAR * size + request * len(fired)
    return [
        kind, how, f"{rate / 1e6:g}", "put" if way == "up" else "get", f"{crossing.seconds:.0f}",
        len(fired), f"**{crossing.bytes / size:.4f}**",
        f"{(crossing.bytes - size) / len(fired) / 1024:.0f}", f"{request / 1024:.0f}",
        f"**{crossing.bytes / allowed:.3f}**",
    ]  # fmt: skip


def main() -> None:
    """All cells, or those of one broker."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--only", help="cells of this broker: apache or embedded")
    parser.add_argument("--megabytes", type=float, default=SIZE / 1e6)
    wishes = parser.parse_args()
    rows: list[list[object]] = []
    for kind, how, rate in CELLS:
        if wishes.only in (None, kind):
            rows += cell(kind, how, rate, int(wishes.megabytes * 1e6))
            print(*rows[-2], sep="\t", flush=True)
            print(*rows[-1], sep="\t", flush=True)
    common.report("link", common.table(HEAD, rows), update=wishes.update)


if __name__ == "__main__":
    main()
