"""What goes wrong, when? Faults of real processes as data: by hand, or drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

Kind = Literal["kill", "pause", "stall", "close"]
"""SIGKILL; SIGSTOP, and SIGCONT once it has lasted; a link that carries nothing, or that resets its
connections and refuses new ones."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fault. It strikes once all that it waits for is so, and its target is there."""

    target: str
    """"master", "broker", "link", or a worker's name."""
    kind: Kind = "kill"
    lasts: float = 0.0
    """Seconds of a pause, or of a link that is down."""
    after: float = 0.0
    """Seconds after the strike before it, at least (and once more where its target had to be waited
    for) ..."""
    more: int = 0
    """... and so many versions after it, ..."""
    version: int = 0
    """... and after this version was published, ..."""
    record: int = 0
    """... and after the record at this offset of the ledger."""


Schedule = tuple[Fault, ...]


def draw(
    seed: int, kills: Mapping[str, int], pace: float, *, pauses: int = 0, cuts: int = 0
) -> Schedule:
    """So many kills of each target, pauses of any process but the broker's, and cuts of the link,
    in any order, at moments that are chance: 0 to twice `pace` seconds after the one before."""
    chance = random.Random(seed)
    living = sorted(target for target in kills if target != "broker")
    faults = [Fault(target=target) for target, count in kills.items() for _ in range(count)]
    for _ in range(pauses):
        lasts = chance.uniform(0.5, 5)
        faults.append(Fault(target=chance.choice(living), kind="pause", lasts=lasts))
    for _ in range(cuts):
        kind: Kind = chance.choice(("stall", "close"))
        faults.append(Fault(target="link", kind=kind, lasts=chance.uniform(0.5, 3)))
    chance.shuffle(faults)
    return tuple(replace(one, after=round(chance.uniform(0, 2 * pace), 3)) for one in faults)


def spread(kills: int, workers: int) -> dict[str, int]:
    """So many kills: 45 in 100 of the master, 15 of the broker, the rest of the workers in turn."""
    master, broker = round(0.45 * kills), round(0.15 * kills)
    left = kills - master - broker
    each = {f"worker-{n + 1}": len(range(n, left, workers)) for n in range(workers)}
    return {"master": master, "broker": broker, **each}


def load(path: Path) -> Schedule:
    """A schedule from a JSON file. Raises `msgspec.DecodeError` for what is none."""
    return msgspec.json.decode(path.read_bytes(), type=Schedule)


def save(schedule: Schedule, path: Path) -> None:
    """Keep it, a fault a line."""
    lines = ",\n".join(msgspec.json.encode(fault).decode() for fault in schedule)
    path.write_text(f"[{lines}]\n", "utf-8")
