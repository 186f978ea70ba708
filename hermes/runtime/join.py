"""How does a worker find its run? It waits for the topics, and sees whether it has the key."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from hermes.codec import decode, same
from hermes.errors import DecodeError, NoSuchTopic, RunError, Unverified
from hermes.messages import LedgerRecord, RunOpened
from hermes.perform.ledger import Ledger
from hermes.perform.upload import Signer
from hermes.transport import names
from hermes.transport.log import Log, Reader

FOR_GOOD = -2
"""Of a run that a worker has no part in any more, however it goes on."""

LOOK_AGAIN = 0.5
"""Seconds between two looks at the broker."""


def runs_at(log: Log) -> list[str]:
    """The runs that have a ledger at this broker."""
    found = [names.parse(topic) for topic in log.topics("hermes.")]
    return sorted(name.run for name in found if name is not None and name.short == names.LEDGER)


def ledger_of(log: Log, run: str) -> str:
    """The topic of a run's ledger. Raises `RunError` where this broker has no such run,
    `UsageError` for a bad run id."""
    topic = names.physical(run, names.LEDGER)
    if topic not in log.topics(topic):
        known = ", ".join(runs_at(log)[:5]) or "none"
        raise RunError(
            f"there is no run {run!r}",
            where=f"the broker {log.place}",
            remedy=f"Runs at this broker: {known}. An embedded broker forgets them all when it "
            "ends.",
        )
    return topic


def wait_for_run(
    log: Log,
    run: str | None,
    seen: dict[str, int],
    patience: float,
    over: Callable[[float], bool],
    asking: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> str | None:
    """The run to take part in: `run`, or one that is open. `seen` are runs that were over, with the
    end of their ledgers then (or `FOR_GOOD`): one that was written to since may have been reopened.

    Waits `patience` seconds; `over` waits and says whether to give up (then None). What the broker
    is asked again and again is asked within `asking()`. Raises `RunError` where none comes, or
    where the run that is named has stopped already.
    """
    end = time.monotonic() + patience
    while True:
        found = _run_at(log, run, seen, asking)
        if found is not None:
            return found
        if time.monotonic() > end:
            what = f"the run {run!r} did not appear" if run else "no run appeared"
            raise RunError(
                f"{what} within {patience:g} s",
                where="the broker",
                remedy="Is the master running, and is this its broker?",
            )
        if over(LOOK_AGAIN):
            return None


def _run_at(
    log: Log,
    run: str | None,
    seen: dict[str, int],
    asking: Callable[[], AbstractContextManager[None]],
) -> str | None:
    """`run`, or the newest that is open; one that is over goes into `seen`. None: not there yet."""
    with asking():
        ends = _ledger_ends(log)
    if run is not None:
        if run in ends and not is_open(log, run):
            raise RunError(
                f"the run {run!r} has stopped already",
                where="the broker",
                remedy="Name another run with --run, or leave it out to wait for the next one, or "
                f"for this one, once somebody goes on with it (hermes resume {run}).",
            )
        return run if run in ends else None
    for name in reversed([name for name in ends if seen.get(name) not in (ends[name], FOR_GOOD)]):
        if is_open(log, name):
            return name
        seen[name] = ends[name]
    return None


def _ledger_ends(log: Log) -> dict[str, int]:
    """The runs that have a ledger at this broker, with its end."""
    topics = {names.physical(run, names.LEDGER): run for run in runs_at(log)}
    try:
        return {topics[topic]: end for topic, end in log.ends(topics).items()} if topics else {}
    except NoSuchTopic:  # one was cleaned away meanwhile: the next look tells
        return {}


def ledger_end(log: Log, run: str) -> int:
    """The end of a run's ledger; -1 where it is gone."""
    return _ledger_ends(log).get(run, -1)


def is_open(log: Log, run: str) -> bool:
    """Whether this run's ledger has no stop that counts."""
    ledger = Ledger(log, names.physical(run, names.LEDGER))
    ledger.fold()
    return ledger.state.stopped is None


def check_key(
    reader: Reader, run: str, key: bytes, patience: float, over: Callable[[float], bool]
) -> bool:
    """Read the run's opening and see that it was signed with our key; False if it is `over`.

    Raises `Unverified` if it was not, `RunError` if no opening comes within `patience` seconds.
    The reader is left at the beginning of the ledger.
    """
    topic = names.physical(run, names.LEDGER)
    reader.follow(topic, 0)
    end = time.monotonic() + patience
    while time.monotonic() < end and not over(0.0):
        for record in reader.poll(0.5, limit=8):
            try:
                message = decode(record.value)
            except DecodeError:
                continue
            for entry in message.entries if isinstance(message, LedgerRecord) else ():
                if isinstance(entry, RunOpened):
                    if not same(entry.key_proof, Signer(run, key).opening()):
                        raise Unverified(
                            "this worker has another cluster key than the run's master",
                            where=f"run {run}",
                            remedy="Copy the master's key file here, and name it with --key-file.",
                        )
                    return True
    if over(0.0):
        return False
    raise RunError("the run was never opened", where=run, remedy="Is its master running?")
