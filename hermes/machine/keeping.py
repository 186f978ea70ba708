"""What may go, and when does a topic begin anew? The duties of retention. Pure.

Protocol 13. Where the broker can forget the first records of a topic they are trimmed; where it
cannot, the topic goes on in a new generation, and an old one goes once nothing in it is needed.
Every trim is a record of the ledger first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hermes.machine.draft import Draft
from hermes.machine.events import AddGeneration, GenerationAdded, LogsRead, Trim
from hermes.machine.state import MasterState
from hermes.messages import Rotated, Trimmed
from hermes.policy import retention
from hermes.policy.retention import Fill
from hermes.values import Payload, Position

LINES_KEPT = 2000
"""Records of `logs` that stay, at least: the central log has them all."""

LINES_BETWEEN = 500
"""Records of a new generation of `logs` after which the one before goes: by then everybody writes
to the new one."""

LOGS = "logs"


class Extent(NamedTuple):
    """A topic: the first place that is needed, and its end as far as it is known."""

    floor: Position
    end: Position


def duties(draft: Draft) -> None:
    """Let go of what nobody needs, once it is worth a record."""
    state, soft = draft.state, draft.soft
    if state.newest is None or state.stopped is not None:
        return
    now = (state.newest.version, soft.logs.offset if soft.logs else 0)
    if now == soft.tidied or retention.keeps_all(state.settings.retention):
        return
    draft.remember(tidied=now)
    for topic, extent in sorted(extents(state, soft.logs).items()):
        if draft.soft.trims:
            _trim(draft, topic, extent)
        else:
            _rotate(draft, topic, extent)


def again(draft: Draft) -> None:
    """After a restart: what the ledger lets go of may still be there; but where a broker had lost
    the whole topic, what was stored since lies there now."""
    state = draft.state
    needed = extents(state, draft.soft.logs) if state.newest is not None else {}
    for topic, place in sorted(state.trimmed.items()):
        if topic in needed and needed[topic].floor < place:
            continue
        draft.actions.append(Trim(topic, place.generation, place.offset))


def on_generation(draft: Draft, event: GenerationAdded) -> None:
    """The topic goes on in the generation that is there now."""
    draft.remember(adding=draft.soft.adding - {event.topic})
    now = draft.state.generations.get(event.topic, 0)
    if event.generation == now + 1 and draft.state.stopped is None:
        draft.add(Rotated(event.topic, event.generation))


def on_logs(draft: Draft, event: LogsRead) -> None:
    """The central log has grown."""
    draft.remember(logs=event.position)


# --- what is needed -----------------------------------------------------------------------------


def extents(state: MasterState, logs: Position | None) -> Mapping[str, Extent]:
    """By topic, of those that something may be let go of."""
    found: dict[str, Extent] = {}
    assert state.newest is not None
    _add(found, [v.payload for v in state.versions.values()], state.newest.payload)
    if state.snapshots:
        _add(found, [s.payload for s in state.snapshots], state.snapshots[0].payload)
    needed: dict[str, list[Position]] = {}
    for payload in _updates(state):
        needed.setdefault(payload.topic, []).append(_start(payload))
    for topic, place in state.consumed.items():
        after = Position(topic, place.generation, place.offset + 1)
        found[topic] = Extent(min([after, *needed.get(topic, ())]), after)
    if logs is not None:
        found[LOGS] = Extent(_lines(logs), logs)
    return found


def _add(found: dict[str, Extent], payloads: list[Payload], newest: Payload) -> None:
    end = Position(newest.topic, newest.generation, newest.last + 1)
    found[newest.topic] = Extent(min(map(_start, payloads)), end)


def _start(payload: Payload) -> Position:
    return Position(payload.topic, payload.generation, payload.first)


def _updates(state: MasterState) -> Iterator[Payload]:
    """Updates that are not decided, and those that the kept versions were made of."""
    for pending in state.pending:
        yield pending.update.payload
    for recipe in state.recipes.values():
        for pending in recipe:
            yield pending.update.payload


def _lines(logs: Position) -> Position:
    if logs.offset <= LINES_BETWEEN and logs.generation:
        return Position(LOGS, logs.generation - 1, 0)
    return Position(LOGS, logs.generation, max(0, logs.offset - LINES_KEPT))


# --- letting go ---------------------------------------------------------------------------------


def _trim(draft: Draft, topic: str, extent: Extent) -> None:
    floor = extent.floor
    gone = draft.state.trimmed.get(topic, Position(topic, 0, 0))
    if floor <= gone:
        return
    fill = Fill(floor.offset - gone.offset, extent.end.offset - floor.offset)
    if floor.generation > gone.generation or retention.worth_trimming(fill):
        _let_go(draft, floor)


def _rotate(draft: Draft, topic: str, extent: Extent) -> None:
    state, floor = draft.state, extent.floor
    gone = state.trimmed.get(topic, Position(topic, 0, 0))
    if floor.generation > gone.generation:
        _let_go(draft, Position(topic, floor.generation, 0))
        return
    now = state.generations.get(topic, 0)
    if topic in draft.soft.adding or extent.end.generation != now or floor.generation != now:
        return
    worker = topic.removeprefix("from.")
    if worker != topic and state.members[worker].status != "alive":
        return  # nobody would write to the new one
    if topic == "lobby":
        return  # anyone writes to it, and little
    if retention.worth_rotating(Fill(floor.offset, extent.end.offset - floor.offset)):
        draft.remember(adding=draft.soft.adding | {topic})
        draft.actions.append(AddGeneration(topic, now + 1))


def _let_go(draft: Draft, place: Position) -> None:
    draft.add(Trimmed(place.topic, place.generation, place.offset))
    draft.actions.append(Trim(place.topic, place.generation, place.offset))
