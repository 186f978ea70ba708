"""What is a person told of a run's storage? Why it was stopped, and how much it has used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes.errors import RunFailed

if TYPE_CHECKING:
    from hermes.runtime.folder import RunFolder

IN_MEMORY = (
    "Or keep the records on disk: hermes broker start --kind apache, and --broker 127.0.0.1:9092"
)
ON_DISK = "Or make room on the broker's disk: hermes runs, then hermes clean OLD-RUN"


MOST = 8
"""Topics that are told one by one."""


class Used(NamedTuple):
    """Bytes that a run has at its broker, and may have (0: no limit, or not known)."""

    used: int
    limit: int
    topics: Mapping[str, int] = {}
    """By topic (short names), of `used`."""
    hourly: int = 0
    """Bytes an hour that come, as measured; 0: not known."""
    of: str = ""
    """The broker's "disk" or "memory"; "": not known."""

    def __str__(self) -> str:
        """`2.1 MB of 1.0 GB`."""
        from hermes.report.words import size

        return f"{size(self.used)} of {size(self.limit)}" if self.limit else size(self.used)

    def told(self, *, growing: bool = True) -> str:
        """`2.1 MB of 1.0 GB of the broker's memory (gone when it ends); 12.0 MB an hour come`: the
        latter of a run that goes on (`growing`)."""
        from hermes.report.words import size

        text = f"{self} of the broker's {self.of}" if self.of else str(self)
        if self.of == "memory":
            text += " (gone when it ends)"
        return f"{text}; {size(self.hourly)} an hour come" if self.hourly and growing else text

    def by_topic(self) -> str:
        """`model 1.2 MB, from.worker-1 300.0 kB, ledger 20.0 kB`: the largest first."""
        from hermes.report.words import size

        largest = sorted(self.topics.items(), key=lambda item: -item[1])
        shown = [f"{topic} {size(count)}" for topic, count in largest[:MOST] if count]
        rest = sum(count for _, count in largest[MOST:])
        return ", ".join(shown + ([f"others {size(rest)}"] if rest else []))


def stopped_short(result: Mapping[str, Any]) -> RunFailed:
    """The message of a run that met its storage limit, from its result."""
    from hermes.report.words import size

    storage, needed = result["storage"], result["reason_facts"].get("needed")
    limit, of = storage["limit"], f"the broker's {storage['of']}"
    if needed:
        what = f"data and first model take {size(needed)}; storage.max is {size(limit)} of {of}"
        less, more = "send less data, or a smaller model", storage["used"] + 2 * needed
    else:
        used = Used(storage["used"], limit)
        what = f"stopped at its storage limit: {used} of {of} are used"
        kept = result["paths"].get("model")
        what += f"; its model, version {result['version']}, is in {kept}" if kept else ""
        less, more = "let it write less (docs/commands.md, Storage)", 2 * limit
    return RunFailed(
        what,
        where=f"run {result['run']}",
        remedy=f"Give it more: --set storage.max={rounded(more)}; or {less}.\n  "
        f"{IN_MEMORY if storage['of'] == 'memory' else ON_DISK}",
    )


def used_at_end(folder: RunFolder) -> Used | None:
    """As the run's result says, where it has one."""
    try:
        storage = json.loads(folder.result.read_bytes())["storage"]
        topics = {str(topic): int(size) for topic, size in storage.get("topics", {}).items()}
        limit, hourly = int(storage["limit"] or 0), int(storage.get("measured_per_hour") or 0)
        return Used(int(storage["used"]), limit, topics, hourly, str(storage.get("of", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def rounded(count: int) -> str:
    """A number of bytes as it is typed, rounded up: `2GB`, `6MB`."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if count >= scale:
            return f"{-(-count // scale)}{unit}"
    return f"{-(-count // 1000)}kB"
