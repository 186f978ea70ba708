"""What do the benchmarks share? Brokers, tables, and the place where results are kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from hermes.broker.control import Child, Kind

README = Path(__file__).with_name("README.md")
KINDS: tuple[Kind, ...] = ("embedded", "apache")
HIDDEN = argparse.SUPPRESS
"""Help of what a benchmark calls itself with."""

_LOAD, _TIMES = os.getloadavg()[0], psutil.cpu_times()
"""As it began."""


@contextmanager
def broker(kind: Kind) -> Iterator[Child]:
    """A broker of this kind, with its records in a folder that is gone afterwards."""
    with scratch() as data, Child(kind, data=data if kind == "apache" else None) as child:
        yield child


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder:
        yield Path(folder)


def in_a_process(module: str, *arguments: object) -> Any:
    """What `python -m MODULE ARGUMENTS` prints as its last line, read as JSON: each measurement in
    a process of its own, so that none pays for another's garbage or connections."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{found.stdout}{found.stderr}")
    return json.loads(found.stdout.strip().splitlines()[-1])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def withheld() -> str:
    """How much of the processors' time since this began the host gave to its other guests ("steal";
    "" where no system tells). Beyond a few per cent, times and rates are theirs as much as ours."""
    now = psutil.cpu_times()
    if not hasattr(now, "steal"):
        return ""
    whole = sum(now) - sum(_TIMES)
    gone = (now.steal - _TIMES.steal) / whole if whole else 0.0
    return f"; the host withheld {gone:.0%} of the processors' time"


def machine() -> str:
    """Where this was measured."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def arguments(about: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--update", action="store_true", help=f"keep the result in {README.name}")
    return parser


def report(name: str, text: str, *, update: bool) -> None:
    """Print a result; with `update`, put it between the marks of this name in the README."""
    text = f"{text}\n\n({machine()}; load before: {_LOAD:.1f}{withheld()})"
    print(text, flush=True)
    if not update:
        return
    old = README.read_text("utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{README}: there are no marks {begin} ... {end}")
    README.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old), "utf-8")
