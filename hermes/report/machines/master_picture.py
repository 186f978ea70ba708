"""How does the master's machine look? Who decides in the middle, what it gives on either side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from hermes.report.machines.svg import Picture

ROW, HIGH = 29.0, 23.0
LEFT, MIDDLE, RIGHT = (20.0, 178.0), (388.0, 212.0), (778.0, 202.0)
"""(x, width) of the three columns."""
TOP = 84.0
ROUNDS = 12


class Decider(NamedTuple):
    """An event's handler, a message's, or a standing duty."""

    name: str
    kind: str
    """"event", "body" (what an envelope holds) or "duty"."""
    entries: tuple[str, ...]
    actions: tuple[str, ...]


def draw(deciders: list[Decider], entries: list[str], actions: dict[str, tuple[str, ...]]) -> str:
    """The picture. `actions` names the events that tell the outcome of each."""
    rows = _rows(_untangled(deciders, entries))
    bottom = max(rows.values()) + ROW
    left = _spread(entries, _entries_of, rows)
    right = _spread(list(actions), _actions_of, rows)
    picture = Picture(
        1000, bottom + 22, "The master's machine: events and duties, entries, actions"
    )
    _heads(picture, rows)
    hues = {decider: _hue(decider, place) for place, decider in enumerate(rows)}
    for decider, y in rows.items():
        hue = hues[decider]
        for name in decider.entries:
            _link(picture, (MIDDLE[0] + _indent(decider), y), (LEFT[0] + LEFT[1], left[name]), hue)
        for name in decider.actions:
            _link(picture, (MIDDLE[0] + MIDDLE[1], y), (RIGHT[0], right[name]), hue)
    for decider, y in rows.items():
        _decider(picture, decider, y, hues[decider])
    written = {name for decider in deciders for name in decider.entries}
    for name, y in left.items():
        picture.box(
            (LEFT[0], y - HIGH / 2), (LEFT[1], HIGH), "plain", "line", dashed=name not in written
        )
        picture.text((LEFT[0] + LEFT[1] / 2, y + 4), name, 12, font="mono", anchor="middle")
    for name, y in right.items():
        _action(picture, name, actions[name], y)
    return picture.render()


def _rows(deciders: list[Decider]) -> dict[Decider, float]:
    """Where each stands: events, then a gap, then duties."""
    found: dict[Decider, float] = {}
    y = TOP
    for decider in deciders:
        if decider.kind == "duty" and all(other.kind != "duty" for other in found):
            y += ROW * 1.5
        found[decider] = y
        y += ROW
    return found


def _entries_of(decider: Decider) -> tuple[str, ...]:
    return decider.entries


def _actions_of(decider: Decider) -> tuple[str, ...]:
    return decider.actions


def _spread(
    names: list[str], given: Callable[[Decider], tuple[str, ...]], rows: dict[Decider, float]
) -> dict[str, float]:
    """Where the boxes of a side stand: evenly, in the order of the mean of those who give them."""
    middle = {n: _mean([y for d, y in rows.items() if n in given(d)], 0.0) for n in names}
    order = sorted(names, key=lambda name: middle[name])
    step = (max(rows.values()) - TOP) / max(1, len(order) - 1)
    return {name: TOP + step * place for place, name in enumerate(order)}


def _mean(values: list[float], empty: float) -> float:
    return sum(values) / len(values) if values else empty


def _untangled(deciders: list[Decider], entries: list[str]) -> list[Decider]:
    """Events in an order in which few lines cross; each with its bodies. Duties keep theirs: it is
    the order in which they are done."""
    groups: list[list[Decider]] = []
    for decider in deciders:
        if decider.kind == "body":
            groups[-1].append(decider)
        else:
            groups.append([decider])
    best = deciders
    for _ in range(ROUNDS):
        rows = _rows([decider for group in groups for decider in group])
        if _crossings(rows, entries) < _crossings(_rows(best), entries):
            best = list(rows)
        places = _spread(entries, _entries_of, rows)

        def weight(group: list[Decider], places: dict[str, float] = places) -> tuple[bool, float]:
            ends = [places[name] for decider in group for name in decider.entries]
            return group[0].kind == "duty", _mean(ends, 0.0) if group[0].kind != "duty" else 0.0

        groups.sort(key=weight)
    return best


def _crossings(rows: dict[Decider, float], entries: list[str]) -> int:
    """How many pairs of lines to the left cross."""
    left = _spread(entries, _entries_of, rows)
    lines = [(y, left[name]) for decider, y in rows.items() for name in decider.entries]
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(lines, 2))


def _heads(picture: Picture, rows: dict[Decider, float]) -> None:
    heads = (
        (LEFT, "what it may write", "entries of the ledger", "grey"),
        (MIDDLE, "who decides", "first, an event's handler", "blue-line"),
        (RIGHT, "what it may ask for", "actions → their outcome, an event", "grey"),
    )
    for (x, wide), head, below, colour in heads:
        picture.text((x + wide / 2, 26), head, 15, anchor="middle", bold=True)
        picture.text((x + wide / 2, 45), below, 11.5, anchor="middle", colour=colour)
    first = min(y for decider, y in rows.items() if decider.kind == "duty")
    at = (MIDDLE[0] + MIDDLE[1] / 2, first - 22)
    words = "then, every time, the standing duties"
    picture.text(at, words, 11.5, anchor="middle", colour="orange-line")


def _indent(decider: Decider) -> float:
    return 26.0 if decider.kind == "body" else 0.0


def _hue(decider: Decider, place: int) -> str:
    """Neighbours differ, so that a line can be followed."""
    if decider.kind == "duty":
        return "orange-line"
    return ("blue-line", "teal-line", "violet-line")[place % 3]


def _decider(picture: Picture, decider: Decider, y: float, hue: str) -> None:
    fill = "orange" if decider.kind == "duty" else "blue"
    indent = _indent(decider)
    wide = MIDDLE[1] - indent
    picture.box((MIDDLE[0] + indent, y - HIGH / 2), (wide, HIGH), fill, hue)
    words = decider.name if decider.kind == "event" else decider.name.strip("_").replace("_", " ")
    font = "sans" if decider.kind == "duty" else "mono"
    picture.text((MIDDLE[0] + indent + wide / 2, y + 4), words, 12, font=font, anchor="middle")


def _action(picture: Picture, name: str, outcome: tuple[str, ...], y: float) -> None:
    high = 36.0 if outcome else HIGH
    picture.box((RIGHT[0], y - high / 2), (RIGHT[1], high), "green", "green-line")
    center = RIGHT[0] + RIGHT[1] / 2
    picture.text((center, y - 3 if outcome else y + 4), name, 12, font="mono", anchor="middle")
    if outcome:
        text = f"→ {', '.join(outcome)}"
        picture.text((center, y + 12), text, 9.5, font="mono", anchor="middle", colour="grey")


def _link(picture: Picture, start: tuple[float, float], end: tuple[float, float], hue: str) -> None:
    bend = (end[0] - start[0]) * 0.5
    points = [start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end]
    picture.curve(points, hue)
