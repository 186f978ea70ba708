"""What lies in which topic? The figure of docs/concepts.md: who writes where, and who reads."""

from __future__ import annotations

from typing import NamedTuple

from hermes.report.machines.svg import Picture, Point
from hermes.transport import names

WIDTH, HEIGHT = 1000.0, 508.0


class Topic(NamedTuple):
    """What a topic holds, by whom it is written, and by whom it is read."""

    holds: str
    writers: str
    readers: str


M, W, A = "m", "w", "mw"
"""The master, the workers, or both."""

TOPICS: dict[str, Topic] = {
    names.LEDGER: Topic("every decision, in one order: the run", M, W),
    names.DATA: Topic("the job's source, and the samples in blocks", M, W),
    names.MODEL: Topic("the tensors of each version", M, W),
    names.from_worker("worker-1"): Topic("its rounds, and the tensors of its updates", W, M),
    names.from_worker("worker-2"): Topic("the same; one such topic a worker", W, M),
    names.LOBBY: Topic("hello; please stop", W, M),
    names.LOGS: Topic("lines of the central log; the master's beats", A, A),
}
"""Topics as they are built (`state` is not yet)."""

BROKER: tuple[Point, Point] = ((300, 52), (400, 426))
MASTER: tuple[Point, Point] = ((20, 52), (178, 426))
WORKERS: tuple[Point, Point] = ((802, 52), (178, 426))
ROW, HIGH = 58.0, 48.0

MASTER_IS: dict[str, tuple[str, ...]] = {
    "in memory": ("the newest version,", "the best one,", "what the ledger says", "(a fold of it)"),
    "on disk": ("runs/<run>/: results,", "its copy of the ledger,", "the central log"),
    "does": (
        "decides, merges,",
        "publishes, evaluates,",
        "sizes each shard by its",
        "worker's speed",
    ),
}
WORKERS_ARE: dict[str, tuple[str, ...]] = {
    "in memory": ("the local model,", "a grant of samples", "(a large one: on disk)"),
    "on disk": ("blocks, in a cache;", "an outbox: what is", "pushed, not decided"),
    "do": ("fetch blocks, train,", "ask the gate: push, or", "stay quiet"),
}


def draw() -> str:
    """The figure."""
    picture = Picture(WIDTH, HEIGHT, "Topics of a run: who writes them, and who reads them")
    heads = ((MASTER, "the master", "green-line"), (WORKERS, "workers", "violet-line"))
    for (at, size), words, colour in (*heads, (BROKER, "topics at the broker", "ink")):
        center = (at[0] + size[0] / 2, 32.0)
        picture.text(center, words, 16, anchor="middle", bold=True, colour=colour)
    picture.box(*BROKER, "panel", "line", round_=12, dashed=True)
    _device(picture, MASTER, "green", "green-line", MASTER_IS)
    _device(picture, WORKERS, "blue", "violet-line", WORKERS_ARE)
    for place, (name, topic) in enumerate(TOPICS.items()):
        _topic(picture, BROKER[0][1] + 38 + ROW * place, name, topic)
    text = "thick: writes; thin: reads. Each topic has one writer, but for lobby and logs."
    picture.text((WIDTH / 2, HEIGHT - 10), text, 12, anchor="middle", colour="grey")
    return picture.render()


def _topic(picture: Picture, y: float, name: str, topic: Topic) -> None:
    left, wide = BROKER[0][0] + 16, BROKER[1][0] - 32
    picture.box((left, y - HIGH / 2), (wide, HIGH), "plain", "line")
    picture.text((left + 14, y - 4), name, 13.5, font="mono", bold=True)
    picture.text((left + 14, y + 14), topic.holds, 12, colour="grey")
    sides = (
        (M, (MASTER[0][0] + MASTER[1][0], left), "green-line"),
        (W, (WORKERS[0][0], left + wide), "violet-line"),
    )
    for who, (device, edge), hue in sides:
        both = 8 if who in topic.writers and who in topic.readers else 0
        if who in topic.writers:
            picture.curve([(device, y - both), (edge, y - both)], hue, width=2.4)
        if who in topic.readers:
            picture.curve([(edge, y + both), (device, y + both)], "line")


def _device(
    picture: Picture,
    at: tuple[Point, Point],
    fill: str,
    line: str,
    told: dict[str, tuple[str, ...]],
) -> None:
    picture.box(*at, fill, line, round_=12)
    (x, y), (_, high) = at
    rows = sum(len(words) + 2 for words in told.values()) - 1
    y += (high - 17 * rows) / 2 + 12
    for head, words in told.items():
        picture.text((x + 14, y), head, 12.5, bold=True, colour=line)
        for place, text in enumerate(words):
            picture.text((x + 14, y + 17 * (place + 1)), text, 12.5)
        y += 17 * (len(words) + 2)
