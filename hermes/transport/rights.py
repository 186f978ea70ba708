"""Who may do what at a broker that checks rights? Pure.

A run's master may do all. A worker reads what it trains from (ledger, data, model) and the logs,
where the master's heart beats, and writes its own topic, the lobby and the logs: nothing else. It
cannot read another worker's topic or the master's state, nor write the ledger, the job or a model.
In the logs, though, everybody writes, and what is there is signed by nobody: who writes there can
beat in the master's name, and put lines into anybody's mouth.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from hermes.transport import names

EVERYONE = "*"
"""Whoever has proved to be a user of this broker."""

READ = (names.LEDGER, names.DATA, names.MODEL, names.LOGS)
WRITTEN = (names.LOBBY, names.LOGS)


class Right(NamedTuple):
    """One user may read, or write, a topic, or all topics that begin so."""

    user: str
    topic: str
    may: Literal["read", "write"]
    prefix: bool = False


def of_run(run: str) -> tuple[Right, ...]:
    """What every user of the broker may do with a run. Raises `UsageError` for a bad id."""
    reads = [right for short in READ for right in _all_generations(EVERYONE, run, short, "read")]
    writes = [r for short in WRITTEN for r in _all_generations(EVERYONE, run, short, "write")]
    return (*reads, *writes)


def of_worker(run: str, worker: str) -> tuple[Right, ...]:
    """What a worker, whose user is called as itself, may do beyond that."""
    return _all_generations(worker, run, names.from_worker(worker), "write")


def _all_generations(
    user: str, run: str, short: str, may: Literal["read", "write"]
) -> tuple[Right, ...]:
    """A prefix alone would give worker-1 the topic of worker-10."""
    topic = names.physical(run, short)
    return Right(user, topic, may), Right(user, f"{topic}.g", may, prefix=True)
