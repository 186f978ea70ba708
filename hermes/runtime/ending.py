"""How does a run end? With its models and its result or, where it cannot go on, with what can be
saved of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from hermes.errors import BrokerError, HermesError, RunFailed
from hermes.machine.state import MasterState
from hermes.messages import RunStopped
from hermes.perform.decider import Decider
from hermes.perform.desk import Desk, Judge
from hermes.perform.store import Store
from hermes.runtime.evaluator import Best
from hermes.runtime.folder import RunFolder
from hermes.runtime.reporter import Reporter
from hermes.runtime.results import build_result, save_models
from hermes.runtime.salvage import reason_code, salvage, untold, with_advice
from hermes.values import Reason


class Counted(NamedTuple):
    """What a result tells beside the state and the models."""

    now: int
    """Run time, nanoseconds."""
    traffic: dict[str, tuple[int, ...]]
    """Bytes by process, as heartbeats carry them: "master", and each worker's name."""
    storage: dict[str, Any]
    aside: dict[str, int]
    """What was set aside, by reason."""


class Holdings(NamedTuple):
    """What the master holds of its run when it ends."""

    folder: RunFolder
    decider: Decider
    desk: Desk | None
    judge: Judge | None
    best: Best
    counted: Callable[[], Counted]
    """Counts what there is now: saving the models adds to it."""
    reporter: Reporter

    @property
    def state(self) -> MasterState:
        """The state that the ledger has."""
        return self.decider.ledger.state


class CutShort(NamedTuple):
    """A run whose master could not go on, but had been asked to stop anyway."""

    result: dict[str, object]
    told: str
    """For whoever looks on."""


def conclude(held: Holdings, store: Store) -> dict[str, object]:
    """Write the models and the result, and return it. Raises `HermesError`."""
    state, best = held.state, held.best
    if state.newest is not None:
        best = save_models(held.folder, state, store, best)
    return _result(held, state, best)


def give_up(
    held: Holdings, error: HermesError, interrupted: str, write_last: Callable[[str], None]
) -> CutShort:
    """The run cannot go on: save what is held. Returns the result if somebody wanted it to stop
    anyway (`interrupted`: why; "" if nobody did), and raises the error with what was saved else.
    `write_last` writes into the central log."""
    left = isinstance(error, BrokerError) and bool(interrupted)
    code = interrupted if left else reason_code(error)
    status, reason = "stopped" if left else "failed", Reason(code, {"why": error.what})
    if not isinstance(error, BrokerError):
        _announce(held, status, reason)
    saved = salvage(held.folder, held.state, held.desk, held.judge, held.best, (status, reason))
    result = None
    with contextlib.suppress(RunFailed):  # a disk that is full takes none of it
        result = _result(held, saved.state, saved.best)
        write_last(f"The run has {status}: {code}: {error.what}. {saved.text}")
    if not left or result is None:
        raise with_advice(error, saved.text)
    return CutShort(
        result,
        f"{error.where}: {error.what}. It could not be told "
        f"{untold(held.state, held.decider.view)}; "
        "workers started elsewhere go on waiting for it: end each with Ctrl-C",
    )


def _announce(held: Holdings, status: str, reason: Reason) -> None:
    """Nobody has to wait for a master that cannot go on, where the broker can still be told."""
    if held.state.stopped is None:
        with contextlib.suppress(HermesError):
            now = held.counted().now
            held.decider.ledger.commit((RunStopped(status, reason),), (), now)


def _result(held: Holdings, state: MasterState, best: Best) -> dict[str, object]:
    counted = held.counted()
    aside = sum(counted.aside.values())
    held.reporter.finish(state, counted.traffic, counted.storage, aside)
    return build_result(
        held.folder,
        state,
        counted.now,
        counted.traffic,
        best,
        counted.storage,
        counted.aside,
    )
