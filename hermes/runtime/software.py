"""What does this process run? Versions, for the hello and the run's opening."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import version
from pathlib import Path

from hermes.messages import PROTOCOL, Software

BOARD = Path("/proc/device-tree/model")
"""Where Linux on a single-board computer tells its model."""


def software(framework: str) -> Software:
    """Versions of this process."""
    python = platform.python_version()
    return Software(version("hermes-edge"), PROTOCOL, python, framework, machine())


def machine() -> str:
    """What this process runs on, for people: "Linux x86_64, 2 cores, 24 GiB"."""
    kind = f"{platform.system()} {platform.machine()}".strip()
    with contextlib.suppress(OSError):  # a board says there what it is
        kind = BOARD.read_text("utf-8", "replace").strip("\0 \n")[:60] or kind
    cores = os.cpu_count() or 1
    parts = [kind, f"{cores} core" if cores == 1 else f"{cores} cores"]
    with contextlib.suppress(OSError, ValueError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        parts.append(f"{max(1, round(memory / 2**30))} GiB")
    return ", ".join(parts)
