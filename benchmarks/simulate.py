"""How many events does the simulator get through in a second? Without training, references stand
for tensors, devices and links are modelled, every ledger record is folded by the master and by a
second reader that looks at each invariant; what is said is encoded and decoded as on a broker, or
stands for itself. The last case trains the digits. An event is a callback of the queue of virtual
time. CPU seconds; each case in a process of its own, which tells its memory at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks import common
from hermes.jobfile import build, load_source
from hermes.perform import ledger
from hermes.policy.presets import resolve, to_tree
from hermes.report.words import count as grouped
from hermes.simulate import driver as driver_module
from hermes.simulate import master as master_module
from hermes.simulate import worker as worker_module
from hermes.simulate.charges import Modelled
from hermes.simulate.devices import Loaded, World, read
from hermes.simulate.driver import Driver
from hermes.simulate.modelled import ModelledRun
from hermes.simulate.schedules import Schedule, setup_of

ROOT = Path(__file__).parents[1]

CASES = (
    ("fedavg", 12, 100_000, "encoded"),
    ("fedavg", 12, 100_000, "bare"),
    ("hermes-paper", 12, 100_000, "encoded"),
    ("hermes-paper", 12, 100_000, "bare"),
    ("fedavg", 1000, 2_500_000, "encoded"),
    ("fedavg", 1000, 2_500_000, "bare"),
    ("fedavg", 1000, 2_500_000, "digits"),
)
"""Strategy, workers, events, and what is done with messages and tensors."""

SPOKEN = (ledger, driver_module, master_module, worker_module)
"""Where messages are encoded and decoded."""

HOW = {"encoded": "encoded", "bare": "not encoded", "digits": "encoded, digits trained"}

NEEDED = "10 000 encoded, 50 000 not"

SPEEDS = (1, 1, 1, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5, 0.25, 0.25, 0.1)


def world_of(names: Mapping[str, float]) -> World:
    """Devices as in conf/devices/edge12.json, again and again."""
    link = {"latency_ms": 20, "up_mbit": 10, "down_mbit": 10}
    devices = [{"name": name, "speed": speed} for name, speed in names.items()]
    tree = {"samples_per_second": 200, "links": {"default": link}, "devices": devices}
    return read(json.dumps(tree).encode(), "devices")


def unspoken() -> None:
    """Messages stand for themselves: bytes only say which one is meant."""
    said: list[Any] = []

    def encode(message: Any) -> bytes:
        said.append(message)
        return b"%d" % (len(said) - 1)

    for module in SPOKEN:
        for name, instead in (("encode", encode), ("decode", lambda data: said[int(data)])):
            if hasattr(module, name):
                setattr(module, name, instead)


def trained(strategy: str, workers: int, folder: Path) -> Driver:
    """The digits, on as many devices."""
    source = load_source(ROOT / "examples" / "digits.py")
    job = build(source.text, source.name)
    small = {"size.first": 64, "round.steps": None, "round.epochs": 1, "workers.max": workers}
    small["stop.samples"] = 10**9
    names = {f"device-{n + 1:04d}": SPEEDS[n % len(SPEEDS)] for n in range(workers)}
    loaded = Loaded("devices", "", world_of(names))
    return ModelledRun(job, resolve(strategy, [small]), 0, folder, loaded).driver()


def told(driver: Driver, events: int) -> dict[str, Any]:
    """Go through so many events."""
    gc.freeze()  # as a cell of a matrix, which forks once all is imported
    begun = time.process_time()
    driver.run(steps=events)
    seconds = time.process_time() - begun
    newest = driver.watch.state.newest
    members = driver.watch.state.members.values()
    return {
        "rate": events / seconds,
        "records": driver.ledger_end() / seconds,
        "rounds": sum(member.rounds for member in members),
        "versions": newest.version if newest else 0,
        "virtual": driver.queue.now / 1e9,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(strategy: str, workers: int, events: int, how: str) -> dict[str, Any]:
    """One case."""
    if how == "digits":
        with common.scratch() as folder:
            return told(trained(strategy, workers, folder), events)
    if how == "bare":
        unspoken()
    speeds = tuple(SPEEDS[index % len(SPEEDS)] for index in range(workers))
    setup = setup_of(Schedule(1, strategy, 10**6, speeds, (0,) * workers, ()))
    settings = resolve(
        strategy, [{"workers.max": workers, "size.first": 16, "stop.versions": 10**6}]
    )
    opened = replace(setup.run, settings=to_tree(settings), expect=workers)
    setup = setup._replace(run=opened)
    world = world_of(setup.speeds)
    return told(Driver(setup, charges=lambda driver: Modelled(driver, world, 1)), events)


def row(strategy: str, workers: int, events: int, how: str) -> list[str]:
    """A line of the table."""
    found = common.in_a_process("benchmarks.simulate", "--one", strategy, workers, events, how)
    return [
        strategy,
        HOW[how],
        grouped(workers),
        grouped(events),
        f"**{grouped(round(found['rate']))}**",
        grouped(round(found["records"])),
        grouped(found["rounds"]),
        grouped(found["versions"]),
        f"{found['virtual']:.0f}",
        f"{found['mib']:.0f}",
    ]


def main() -> None:
    """All cases."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--quick", action="store_true", help="a hundredth of the events")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    wishes = parser.parse_args()
    if wishes.one:
        strategy, workers, events, how = wishes.one
        print(json.dumps(measure(strategy, int(workers), int(events), how)))
        return
    scale = 100 if wishes.quick else 1
    rows = [row(who, many, events // scale, how) for who, many, events, how in CASES]
    head = (
        "strategy",
        "messages",
        "workers",
        "events",
        f"events a CPU second (>= {NEEDED})",
        "ledger records",
        "rounds",
        "versions",
        "virtual s",
        "MiB",
    )
    common.report("simulate", common.table(head, rows), update=wishes.update)


if __name__ == "__main__":
    main()
