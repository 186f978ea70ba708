"""Which files of the kernel's say what a machine may take? Both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import shares
from shares import Hierarchy


def tree(place: Hierarchy) -> dict[str, str]:
    files = [file for file in place.root.rglob("*") if file.is_file()]
    return {str(file.relative_to(place.root)): file.read_text() for file in files}


@pytest.mark.parametrize(
    ("controller", "version", "value", "written"),
    [
        ("cpu", 1, 25, {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000"}),
        ("cpu", 2, 150, {"cpu.max": "150000 100000"}),
        ("memory", 1, 1 << 20, {"memory.limit_in_bytes": "1048576"}),
        ("memory", 2, 1 << 20, {"memory.max": "1048576", "memory.swap.max": "0"}),
    ],
)
def test_a_limit_is_written_where_the_kernel_reads_it(
    tmp_path: Path, controller: str, version: int, value: float, written: dict[str, str]
) -> None:
    place = Hierarchy(controller, version, tmp_path)
    (tmp_path / "bed").mkdir()
    shares.write(shares.make(place, "bed", "worker-1"), place, value)
    handed_down = {f"{parent}cgroup.subtree_control": f"+{controller}" for parent in ("", "bed/")}
    limits = {f"bed/worker-1/{file}": text for file, text in written.items()}
    assert tree(place) == (limits | handed_down if version == 2 else limits)


def test_there_is_a_place_for_each_controller_at_most_once() -> None:
    for controller in ("cpu", "memory"):
        place = shares.hierarchy(controller)
        assert place is None or (place.root / "cgroup.procs").exists()
