"""How long do nodes take from nothing to workers that wait for a run?

`hermes up` on the test bed (tests/cluster), a secure Apache Kafka included: with the packages that
the nodes' system has, and with a folder of wheels that is sent to each and installed there. Then
`hermes up` again, which finds nothing to do. All nodes share this computer's cores, which nodes of
their own would not. Needs root, and a computer with nothing else to do.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import common

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))  # the bed, as its own tests find it

SECONDS, TIMES = 30.0, 1.5
"""The bars: for 4 nodes, and for 8 in times that."""

WAYS = ("in the system", "wheels")


def ups(nodes: int, way: str, wheels: Path) -> tuple[float, float]:
    """Seconds of `hermes up` on as many new machines, and of the same once more."""
    from bed import Bed

    with Bed(nodes) as bed:
        names = ",".join(node.name for node in bed.workers)
        _say(bed, f"hermes init lab --workers {names} --framework numpy")
        file = (
            bed.master.home / "lab" / "conf" / ("master.json" if way == "wheels" else "config.json")
        )
        conf = json.loads(file.read_text())
        if way == "wheels":
            conf["wheels"] = str(wheels)
        else:
            conf["defaults"] = {"python": sys.executable, "packages": "system"}
        file.write_text(json.dumps(conf, indent=2))
        took = _say(bed, "hermes up lab"), _say(bed, "hermes up lab")
        _say(bed, "hermes down lab --purge")
    return took


def _say(bed: Any, command: str) -> float:
    began = time.monotonic()
    done = bed.run(bed.master, command, timeout=300)
    took = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return took


def row(way: str, found: dict[int, list[tuple[float, float]]]) -> list[object]:
    """A line of the table: medians, and the median of the ratios round by round."""
    new = {nodes: [took for took, _ in all_] for nodes, all_ in found.items()}
    again = {nodes: statistics.median(took for _, took in all_) for nodes, all_ in found.items()}
    times = statistics.median(b / a for a, b in zip(new[4], new[8], strict=True))
    return [
        way,
        *(f"{statistics.median(new[nodes]):.1f}" for nodes in (4, 8)),
        f"**{times:.2f}**",
        *(f"{again[nodes]:.1f}" for nodes in (4, 8)),
    ]


HEAD = (
    "packages", f"4 nodes, s (<= {SECONDS:g})", "8 nodes, s", f"8 in times 4 (<= {TIMES})",
    "4 again, s", "8 again, s",
)  # fmt: skip


def main() -> None:
    """Both ways, in turns."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--rounds", type=int, default=3)
    wishes = parser.parse_args()
    from bed import reason_against
    from testbed import WHEELS

    if why := reason_against():
        raise SystemExit(f"no test bed here: {why}")
    subprocess.run([ROOT / "scripts" / "testbed", "wheels"], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, dict[int, list[tuple[float, float]]]] = {way: {4: [], 8: []} for way in WAYS}
    for turn in range(wishes.rounds):
        for way in WAYS:
            for nodes in (4, 8)[:: (-1) ** turn]:
                found[way][nodes].append(ups(nodes, way, WHEELS))
                print(way, nodes, *(f"{took:.1f}" for took in found[way][nodes][-1]), flush=True)
    rows = [row(way, found[way]) for way in WAYS]
    common.report("up", common.table(HEAD, rows), update=wishes.update)


if __name__ == "__main__":
    main()
