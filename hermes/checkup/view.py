"""What does a person see of a check? Facts first, then what things cost, in tables with units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hermes.checkup.facts import (
    ArrayFacts,
    Checkup,
    ClassFacts,
    DataFacts,
    LearningFacts,
    LinkFacts,
    MemoryFacts,
    ModelFacts,
    TimeFacts,
    TopicFacts,
)
from hermes.checkup.memory import MODELS
from hermes.report.tables import plain_table
from hermes.report.words import count, duration, size

NAMES = 10
"""Columns that the names of facts take."""


def view(checkup: Checkup) -> RenderableType:
    """All that was found, mistakes and warnings apart."""
    parts: list[RenderableType] = [Text(), *_lines(_facts(checkup))]
    if checkup.topics is not None:
        parts += [Text(), _topics_table(checkup.topics, checkup.workers)]
        parts += [Text(), *_lines(_storage(checkup.topics, checkup.workers))]
    if checkup.links and checkup.topics is not None:
        parts += [Text(), _links_table(checkup.links), *_links_note(checkup.topics)]
    return Group(*parts)


def _lines(facts: Iterable[tuple[str, str]]) -> list[Text]:
    """Names in bold and texts; a line without a name goes on with the one above."""
    return [
        Text.assemble((f"{name:<{NAMES}}", "bold"), text, no_wrap=True, overflow="ignore")
        for name, text in facts
    ]


def _facts(checkup: Checkup) -> Iterator[tuple[str, str]]:
    workers = f"{checkup.workers} worker{'s' * (checkup.workers != 1)}"
    yield "job", f"{checkup.job}, for {workers} under {checkup.strategy}, seed {checkup.seed}"
    if checkup.model is not None:
        yield from _model(checkup.model)
    if checkup.data is not None:
        yield from _data(checkup.data)
    if checkup.learning is not None:
        yield "learning", _learning(checkup.learning)
    if checkup.time is not None:
        yield from _time(checkup.time)
    if checkup.memory is not None:
        yield from _memory(checkup.memory)


def _model(model: ModelFacts) -> Iterator[tuple[str, str]]:
    still = model.parameters - model.trainable
    text = f"{count(model.parameters)} parameters"
    text += f", {count(still)} of them unmoved" if still else ", all of them learn"
    if model.buffers:
        text += f"; {count(model.buffers)} numbers beside them (buffers, frozen layers)"
    yield "model", f"{text}; {model.tensors} tensors, {size(model.bytes)}"
    yield "", f"{model.framework}, on {model.device}"


def _data(data: DataFacts) -> Iterator[tuple[str, str]]:
    splits = ", ".join(f"{name} {count(number)}" for name, number in data.samples.items())
    yield "data", f"{splits} samples; {size(data.bytes)}"
    yield "  x", _array(data.x)
    yield "  y", _array(data.y) + (f"; {_classes(data.classes)}" if data.classes else "")
    yield (
        "  blocks",
        f"{count(data.blocks)} of {count(data.block)} samples; a worker's first shard is "
        f"{count(data.shard)} samples",
    )


def _array(array: ArrayFacts) -> str:
    shape = " × ".join(map(str, array.shape)) if array.shape else "one number"
    if array.dtype == "bool":
        return f"{shape}, bool"
    text = f"{shape}, {array.dtype}, {array.least:.4g} .. {array.most:.4g}"
    return f"{text} (mean {array.mean:.3g}, deviation {array.std:.3g})" if array.shape else text


def _classes(classes: ClassFacts) -> str:
    if classes.fewest == classes.most:
        return f"{classes.count} classes of {count(classes.most)} samples"
    return (
        f"{classes.count} classes of {count(classes.fewest)} (class {classes.rarest}) to "
        f"{count(classes.most)} (class {classes.commonest}) samples"
    )


def _learning(learning: LearningFacts) -> str:
    text = f"first loss {learning.first_loss:.3g}"
    if learning.chance is not None:
        text += f" (guessing gives {learning.chance:.3g})"
    return (
        f"{text}; {learning.steps} steps on one batch take it from {learning.first_loss:.3g} to "
        f"{learning.last_loss:.3g}"
    )


def _time(time: TimeFacts) -> Iterator[tuple[str, str]]:
    probe = f" and a look at the probe, {duration(time.probe)}" if time.probe else ""
    threads = f"{time.threads} thread{'s' * (time.threads != 1)}"
    yield "time", f"a step {duration(time.step)}, on this machine alone with {threads}"
    yield "", f"a round {duration(time.round)}: {count(time.steps)} steps{probe}"
    yield (
        "",
        f"an evaluation {duration(time.evaluation)}: a point of the grid every "
        f"{duration(time.grid)}",
    )


def _memory(memory: MemoryFacts) -> Iterator[tuple[str, str]]:
    text = f"master about {size(memory.master)} (a process with the data, {MODELS} models, a block)"
    if memory.worker is not None:
        text += f"; worker about {size(memory.worker)} (measured, and two grants)"
    yield "memory", text
    text = f"this check took {size(memory.check)}"
    if memory.accelerator is not None:
        text += f", and {size(memory.accelerator)} of the accelerator's"
    if memory.free is not None:
        text += f"; this machine has {size(memory.free)} left"
    yield "", text


def _topics_table(topics: TopicFacts, workers: int) -> Table:
    table = plain_table("what travels", "bytes", "records")
    table.add_row("data and job, once", size(topics.data), count(topics.records))
    table.add_row("a version of the model", size(topics.version), count(topics.chunks))
    table.add_row("an update of a worker", size(topics.update), count(topics.update_chunks))
    table.add_row("a round of a worker, on average", size(topics.round), "")
    table.add_row(f"an hour of {workers} such workers, about", size(topics.hour), "")
    return table


def _storage(topics: TopicFacts, workers: int) -> Iterator[tuple[str, str]]:
    pushed = "all" if topics.pushed >= 1 else f"about 1 in {1 / topics.pushed:.0f}"
    yield (
        "pace",
        f"{topics.rounds_hour / 3600:.3g} rounds a second of {workers} workers as fast as this "
        f"machine alone, {pushed} pushed (a guess, as at a run's start)",
    )
    if topics.limit is None or topics.lasts is None:
        yield "storage", "no limit (storage.max=off)"
        return
    yield (
        "storage",
        f"storage.max is {size(topics.limit)} on an embedded broker: enough for about "
        f"{duration(topics.lasts)}",
    )


def _links_table(links: tuple[LinkFacts, ...]) -> Table:
    table = plain_table(
        "a worker's link", "fetch a version", "push an update", "train a round", "link a round"
    )
    table.add_column("slower", justify="left", no_wrap=True)
    table.add_column("until its first step", justify="right", no_wrap=True)
    table.add_column("the master's upload", justify="right", no_wrap=True)
    for link in links:
        table.add_row(
            f"{link.mbit:g} Mbit/s",
            duration(link.fetch),
            duration(link.push),
            duration(link.train),
            duration(link.transfer),
            Text("the link", style="yellow") if link.bottleneck else Text("training"),
            duration(link.first),
            duration(link.upload),
        )
    return table


def _links_note(topics: TopicFacts) -> list[Text]:
    if topics.pushed >= 1:
        return []
    text = "(link a round: on average; only rounds that push move an update and a version)"
    return [Text(text, style="dim")]
