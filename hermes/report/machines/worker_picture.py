"""How does the worker's machine look? Its phases, and what moves it from one to another.

Where the phases stand is chosen here; which arrows there are is what was seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hermes.report.machines.svg import Picture, Point

WIDTH, HEIGHT = 1000.0, 570.0
SIZE: Point = (124.0, 42.0)

PLACES: dict[str, Point] = {
    "knocking": (80, 300),
    "idle": (400, 300),
    "loading": (400, 120),
    "training": (700, 132),
    "stepped": (895, 62),
    "pushing": (895, 255),
    "waiting": (700, 398),
    "scoring": (330, 420),
    "gone": (400, 520),
}
"""The middle of each phase's box."""

INSIDE = ("idle", "loading", "training", "stepped", "pushing", "waiting", "scoring")
"""Phases of a worker that has been admitted; they lie in a panel, and leave it alike."""
PANEL: tuple[Point, Point] = ((250, 24), (730, 432))

FIRST, LAST = "knocking", "gone"

EVENT, ENTRY, DUE = "blue-line", "green-line", "orange-line"
"""Colours of what moves a worker."""


class Word(NamedTuple):
    """What an arrow says: an event, an entry of the ledger, or what is due."""

    text: str
    colour: str


class Arrow(NamedTuple):
    """From one phase to another, with what it says."""

    before: str
    after: str
    words: tuple[Word, ...]


class Route(NamedTuple):
    """How an arrow goes: its ends as steps from the middles of its boxes, and its bends."""

    start: Point
    end: Point
    bends: tuple[Point, ...]
    words: Point
    """Where its words stand."""
    anchor: str = "middle"


W, H = SIZE[0] / 2, SIZE[1] / 2
LINE = 16.0
LETTERS = 12

ROUTES: dict[tuple[str, str], Route] = {
    ("knocking", "idle"): Route((W, 0), (-W, 0), (), (198, 288)),
    ("idle", "loading"): Route((-20, -H), (-20, H), (), (372, 214), "end"),
    ("loading", "idle"): Route((20, H), (20, -H), (), (428, 172), "start"),
    ("idle", "training"): Route((W, -8), (-30, H), ((620, 285), (690, 225)), (598, 256), "end"),
    ("training", "idle"): Route((-W, 0), (44, -H), ((580, 132), (500, 180)), (548, 116)),
    ("training", "stepped"): Route((W, -12), (-W, 10), (), (790, 118), "start"),
    ("stepped", "idle"): Route((-W, -8), (52, -H), ((600, 54), (500, 150)), (690, 46), "end"),
    ("stepped", "pushing"): Route((24, H), (24, -H), (), (912, 160), "end"),
    ("training", "pushing"): Route((W, 6), (-20, -H), ((820, 140), (870, 190)), (852, 214), "end"),
    ("pushing", "waiting"): Route((0, H), (W, 0), ((895, 350), (850, 398)), (806, 422), "start"),
    ("waiting", "idle"): Route((-W, 0), (44, H), ((540, 398), (450, 370)), (540, 418)),
    ("idle", "waiting"): Route((W, 10), (-30, -H), ((590, 312), (670, 330)), (596, 308), "start"),
    ("idle", "scoring"): Route((-50, H), (-20, -H), (), (322, 344), "end"),
    ("scoring", "idle"): Route((30, -H), (-20, H), (), (376, 366), "start"),
    ("waiting", "scoring"): Route((-30, H), (W, 12), ((640, 446), (500, 446)), (470, 446)),
    ("scoring", "waiting"): Route((W, -4), (-W, 10), ((450, 412), (560, 430)), (470, 402)),
    ("knocking", "gone"): Route((0, H), (-W, 0), ((84, 420), (84, 520)), (112, 432), "start"),
}
"""Arrows that are known; any other is drawn straight."""


def draw(arrows: Iterable[Arrow], leave: tuple[Word, ...]) -> str:
    """The picture: arrows between phases, and what is said of those that leave the panel."""
    picture = Picture(WIDTH, HEIGHT, "The worker's machine: its phases and what moves it")
    picture.box(*PANEL, "panel", "line", round_=14, dashed=True)
    picture.text((PANEL[0][0] + 18, PANEL[0][1] + 26), "admitted", 13, colour="grey")
    for arrow in arrows:
        _arrow(picture, arrow)
    x, bottom = PLACES[LAST][0], PANEL[0][1] + PANEL[1][1]
    picture.curve([(x, bottom), (x, PLACES[LAST][1] - H)], "line")
    _words(picture, (x + W + 14, PLACES[LAST][1] - LINE + 4), leave, "start")
    for phase, at in PLACES.items():
        fill = {FIRST: "plain", LAST: "red"}.get(phase, "blue")
        line = {FIRST: "line", LAST: "red-line"}.get(phase, "blue-line")
        picture.box((at[0] - W, at[1] - H), SIZE, fill, line, round_=10)
        picture.text((at[0], at[1] + 5), phase, 15, anchor="middle", bold=True)
    _legend(picture)
    return picture.render()


def _arrow(picture: Picture, arrow: Arrow) -> None:
    start, end = PLACES[arrow.before], PLACES[arrow.after]
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    route = ROUTES.get((arrow.before, arrow.after), Route((0, 0), (0, 0), (), middle))
    a = (start[0] + route.start[0], start[1] + route.start[1])
    b = (end[0] + route.end[0], end[1] + route.end[1])
    picture.curve([a, *route.bends, b], "line")
    _words(picture, route.words, arrow.words, route.anchor)


def _words(picture: Picture, at: Point, words: tuple[Word, ...], anchor: str) -> None:
    for place, word in enumerate(words):
        below = (at[0], at[1] + LINE * place)
        picture.text(below, word.text, LETTERS, font="mono", anchor=anchor, colour=word.colour)


LEGEND = (
    Word("an event", EVENT),
    Word("what the ledger says (LedgerSeen)", ENTRY),
    Word("what is due to one who is idle", DUE),
)


def _legend(picture: Picture) -> None:
    for place, word in enumerate(LEGEND):
        at = (WIDTH - 24, PLACES[LAST][1] - LINE + 4 + LINE * place)
        picture.text(at, word.text, LETTERS, anchor="end", colour=word.colour)
