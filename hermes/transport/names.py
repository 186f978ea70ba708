"""How are topics called? Short names in the ledger, physical names at the broker. Pure.

A run's topics have the short names `ledger`, `data`, `model`, `state`, `lobby`, `logs` and
`from.<worker>`. At the broker they are `hermes.<run>.<short>` for generation 0; a rotated topic's
generation k > 0 appends `.g<k>`. Run ids and worker names hold no dot, so reading back is exact.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from hermes.errors import UsageError

LEDGER, DATA, MODEL, STATE, LOBBY, LOGS = "ledger", "data", "model", "state", "lobby", "logs"
RUN_TOPICS = (LEDGER, DATA, MODEL, STATE, LOBBY, LOGS)
"""The short names that every run has; `from.<worker>` comes with each worker."""

_IDENTIFIER = r"[a-z0-9-]{1,40}"
_SHORT = rf"(?:{'|'.join(RUN_TOPICS)}|from\.{_IDENTIFIER})"
_PHYSICAL = re.compile(
    rf"hermes\.(?P<run>{_IDENTIFIER})\.(?P<short>{_SHORT})(?:\.g(?P<generation>[1-9][0-9]{{0,8}}))?"
)
_RULE = "use 1 to 40 of a-z, 0-9 and -"


class Name(NamedTuple):
    """A topic's name, taken apart."""

    run: str
    short: str
    generation: int = 0


def checked_run(run: str) -> str:
    """`run` if it is a run id; raises `UsageError` otherwise."""
    if not re.fullmatch(_IDENTIFIER, run):
        raise UsageError(f"{run!r} is not a run id", remedy=_RULE)
    return run


def checked_worker(worker: str) -> str:
    """`worker` if it is a worker's name; raises `UsageError` otherwise."""
    if not re.fullmatch(_IDENTIFIER, worker):
        raise UsageError(f"{worker!r} is not a worker's name", remedy=_RULE)
    return worker


def from_worker(worker: str) -> str:
    """The short name of the topic that `worker` writes. Raises `UsageError` for a bad name."""
    return f"from.{checked_worker(worker)}"


def worker_of(short: str) -> str | None:
    """The worker that writes the topic of this short name; None for a topic of the run."""
    return short.removeprefix("from.") if short.startswith("from.") else None


def prefix_of(run: str) -> str:
    """What the physical names of all topics of `run` begin with. Raises `UsageError`."""
    return f"hermes.{checked_run(run)}."


@functools.lru_cache(1 << 13)
def physical(run: str, short: str, generation: int = 0) -> str:
    """The topic's name at the broker. Raises `UsageError` for a bad run, topic or generation."""
    suffix = f".g{generation}" if generation else ""
    name = f"{prefix_of(run)}{short}{suffix}"
    if parse(name) != Name(run, short, generation):
        raise UsageError(f"{short!r}, generation {generation}, is not a topic of a run")
    return name


def parse(name: str) -> Name | None:
    """The parts of a physical name; None for a topic that is not ours."""
    match = _PHYSICAL.fullmatch(name)
    if match is None:
        return None
    return Name(match["run"], match["short"], int(match["generation"] or 0))
