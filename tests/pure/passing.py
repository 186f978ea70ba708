"""How does time pass for a master, and its workers beat? For the tests of who is missing."""

from __future__ import annotations

from stage import MasterStage, of

from hermes.machine.events import (
    EvaluationFinished,
    ReadToEnd,
    Ticked,
    TopicRead,
)
from hermes.machine.master import Decision
from hermes.messages import Heartbeat, WorkerLost
from hermes.values import SECOND

LOST, LONGEST = 10, 600


def beat(stage: MasterStage, worker: str, steps: int = 0) -> Decision:
    """A heartbeat that tells of so many steps."""
    last = stage.numbers.get(stage.state.members[worker].incarnation, 0)
    return stage.say(worker, Heartbeat(steps, last))


def wakes(stage: MasterStage, until: int, found: list[Decision]) -> None:
    """Time passes, with a tick whenever the machine asks for one; topics hold nothing unread."""
    while stage.wake is not None and stage.wake < until:
        stage.now = max(stage.wake, stage.now)
        decision = stage.put(Ticked())
        found.append(decision)
        for action in of(ReadToEnd, decision):
            found.append(stage.put(TopicRead(action.worker)))
    stage.now = until


def live(
    stage: MasterStage, seconds: float, signs: dict[str, float], steps: int | None = None
) -> list[Decision]:
    """So many seconds in which each of these workers beats every so many seconds; it tells of so
    many steps (None: of more each second)."""
    found: list[Decision] = []
    start = stage.now
    due = {worker: start + int(every * SECOND) for worker, every in signs.items()}
    end = start + int(seconds * SECOND)
    while due and min(due.values()) <= end:
        worker = min(due, key=lambda name: (due[name], name))
        wakes(stage, due[worker], found)
        found.append(beat(stage, worker, stage.now // SECOND if steps is None else steps))
        due[worker] += int(signs[worker] * SECOND)
    wakes(stage, end, found)
    return found


def losses(found: list[Decision]) -> list[WorkerLost]:
    return [entry for decision in found for entry in of(WorkerLost, decision)]


def calm(strategy: str = "hermes-paper", workers: int = 2, **settings: object) -> MasterStage:
    """A run in which nothing else asks to be woken."""
    stage = MasterStage(strategy, workers=workers, **settings)
    stage.put(EvaluationFinished(0, 1.0, 0.5, stage.now, 1))
    return stage


def trained(workers: int = 2, **settings: object) -> MasterStage:
    """w1 has finished five rounds, as `stage.round` tells them, and goes on with a sixth."""
    stage = calm(workers=workers, **settings)
    for _ in range(5):
        stage.say("w1", stage.round("w1"))
        live(stage, 2, {"w1": 1.0, "w2": 1.0}, steps=9)
    return stage
