"""How many events does the simulator get through in a second, without training? References stand
for tensors, devices and links are modelled, every ledger record is encoded, appended, folded by the
master and by a second reader that looks at each invariant. An event is a callback of the queue of
virtual time. CPU seconds; each case in a process of its own, which tells its memory at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from benchmarks import common
from hermes.policy.presets import resolve, to_tree
from hermes.report.words import count as grouped
from hermes.simulate.charges import Modelled
from hermes.simulate.devices import World, read
from hermes.simulate.driver import Driver
from hermes.simulate.schedules import Schedule, setup_of

CASES = (("fedavg", 12, 100_000), ("hermes-paper", 12, 100_000), ("fedavg", 1000, 1_500_000))
"""Strategy, workers, events."""

NEEDED = 10_000
"""Events a second, with the ledger's encoding."""

SPEEDS = (1, 1, 1, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5, 0.25, 0.25, 0.1)


def world_of(names: Mapping[str, float]) -> World:
    """Devices as in conf/devices/edge12.json, again and again."""
    link = {"latency_ms": 20, "up_mbit": 10, "down_mbit": 10}
    devices = [{"name": name, "speed": speed} for name, speed in names.items()]
    tree = {"samples_per_second": 200, "links": {"default": link}, "devices": devices}
    return read(json.dumps(tree).encode(), "devices")


def measure(strategy: str, workers: int, events: int) -> dict[str, Any]:
    """One case."""
    speeds = tuple(SPEEDS[index % len(SPEEDS)] for index in range(workers))
    setup = setup_of(Schedule(1, strategy, 10**6, speeds, (0,) * workers, ()))
    settings = resolve(
        strategy, [{"workers.max": workers, "size.first": 16, "stop.versions": 10**6}]
    )
    opened = replace(setup.run, settings=to_tree(settings), expect=workers)
    setup = setup._replace(run=opened)
    world = world_of(setup.speeds)
    driver = Driver(setup, charges=lambda driver: Modelled(driver, world, 1))
    begun = time.process_time()
    driver.run(steps=events)
    seconds = time.process_time() - begun
    newest = driver.watch.state.newest
    return {
        "rate": events / seconds,
        "records": driver.ledger_end() / seconds,
        "versions": newest.version if newest else 0,
        "virtual": driver.queue.now / 1e9,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def row(strategy: str, workers: int, events: int) -> list[str]:
    """A line of the table."""
    found = common.in_a_process("benchmarks.simulate", "--one", strategy, workers, events)
    return [
        strategy,
        grouped(workers),
        grouped(events),
        f"**{grouped(round(found['rate']))}**",
        grouped(round(found["records"])),
        grouped(found["versions"]),
        f"{found['virtual']:.0f}",
        f"{found['mib']:.0f}",
    ]


def main() -> None:
    """All cases."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--quick", action="store_true", help="a hundredth of the events")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    wishes = parser.parse_args()
    if wishes.one:
        strategy, workers, events = wishes.one
        print(json.dumps(measure(strategy, int(workers), int(events))))
        return
    scale = 100 if wishes.quick else 1
    rows = [row(strategy, workers, events // scale) for strategy, workers, events in CASES]
    head = (
        "strategy",
        "workers",
        "events",
        f"events a CPU second (>= {grouped(NEEDED)})",
        "ledger records",
        "versions",
        "virtual s",
        "MiB",
    )
    common.report("simulate", common.table(head, rows), update=wishes.update)


if __name__ == "__main__":
    main()
