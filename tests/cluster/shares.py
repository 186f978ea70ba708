"""How much of the processor, and of the memory, may a machine of the bed take?

Control groups, of version 1 or 2, whichever this machine has for the controller in question. They
outlive their processes, so whoever makes one removes it, or the next bed does (see `leftovers`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PERIOD = 100_000
"""Microseconds over which a share of the processor is counted."""


class Hierarchy(NamedTuple):
    """A place where groups with this controller can be made."""

    controller: str
    version: int
    root: Path


def hierarchy(controller: str) -> Hierarchy | None:
    """Where groups with this controller ("cpu", "memory") are made on this machine, if anywhere."""
    return next((place for place in hierarchies() if place.controller == controller), None)


def hierarchies() -> Iterator[Hierarchy]:
    """All places where groups can be made."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        root = Path(folder)
        if kind == "cgroup":
            for controller in {"cpu", "memory"} & set(options.split(",")):
                yield Hierarchy(controller, 1, _own(root, controller))
        elif kind == "cgroup2":
            for controller in (root / "cgroup.controllers").read_text().split():
                if controller in ("cpu", "memory"):
                    yield Hierarchy(controller, 2, root)


def limit(bed: str, name: str, share: float | None, memory: int | None) -> list[Path]:
    """Make the groups of a machine: a share of one core in percent, bytes of memory.

    Returns the folders that its first process is to join. Raises `OSError` where there are none.
    """
    groups = []
    for controller, value in (("cpu", share), ("memory", memory)):
        if value is None:
            continue
        place = hierarchy(controller)
        if place is None:
            raise OSError(f"this machine has no control groups with the controller {controller!r}")
        group = make(place, bed, name)
        write(group, place, value)
        if group not in groups:
            groups.append(group)
    return groups


def make(place: Hierarchy, bed: str, name: str) -> Path:
    """A group of this bed's; it may be there."""
    group = place.root / bed / name
    group.mkdir(parents=True, exist_ok=True)
    if place.version == 2:  # a group has the controllers that its parents hand down
        for parent in (place.root, place.root / bed):
            (parent / "cgroup.subtree_control").write_text(f"+{place.controller}")
    return group


def write(group: Path, place: Hierarchy, value: float) -> None:
    """Set the limit of one controller."""
    quota = int(value * PERIOD / 100)
    settings: dict[tuple[str, int], dict[str, str]] = {
        ("cpu", 1): {"cpu.cfs_period_us": f"{PERIOD}", "cpu.cfs_quota_us": f"{quota}"},
        ("cpu", 2): {"cpu.max": f"{quota} {PERIOD}"},
        ("memory", 1): {"memory.limit_in_bytes": f"{int(value)}"},
        ("memory", 2): {"memory.max": f"{int(value)}", "memory.swap.max": "0"},
    }
    for file, text in settings[place.controller, place.version].items():
        (group / file).write_text(text)


def remove(bed: str) -> None:
    """Remove every group of a bed, as soon as its last process is gone."""
    for folder in found(bed):
        for group in [*(entry for entry in folder.iterdir() if entry.is_dir()), folder]:
            _remove(group)


def found(pattern: str) -> list[Path]:
    """The folders of beds of this name."""
    return sorted({path for place in hierarchies() for path in place.root.glob(pattern)})


def members(bed: str) -> list[int]:
    """The pids of all processes in a bed's groups."""
    files = [file for folder in found(bed) for file in folder.glob("*/cgroup.procs")]
    return [int(pid) for file in files for pid in file.read_text().split()]


def _remove(group: Path) -> None:
    until = time.monotonic() + 5
    while True:  # the kernel lets go of a dead process a little later
        try:
            return group.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _own(root: Path, controller: str) -> Path:
    """The group that we are in: a limit of ours must hold for the bed, too."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and (root / path.lstrip("/")).is_dir():
                return root / path.lstrip("/")
    return root
