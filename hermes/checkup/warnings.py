"""What will not go well, though it can be trained? Pure: functions of what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from hermes.checkup.facts import (
    DataFacts,
    LearningFacts,
    LinkFacts,
    MemoryFacts,
    TimeFacts,
    TopicFacts,
)
from hermes.policy.allocate import fitting_batch
from hermes.policy.gate import first_possible_push
from hermes.policy.presets import Settings
from hermes.report.words import count, duration, size

EMULATED = 0.002
"""Seconds that a step of speed 1 lasts at least where speeds are emulated."""

LATE = 20
"""Rounds that a worker's first push may take, before a person is told."""

SLOW = 0.5
"""Seconds of an evaluation, beyond which a person is told: the grid's own, at the least."""

FAR = 10.0
"""Of x: |mean| or deviation of floats beyond, which nets do not like."""

UNEVEN = 20
"""The commonest class has so many times the samples of the rarest."""


def of_data(data: DataFacts, batch: int) -> Iterator[str]:
    """Scale, labels, shards."""
    x, classes = data.x, data.classes
    if x.dtype.startswith("float") and (abs(x.mean) > FAR or x.std > FAR):
        yield (
            f"x is not scaled: mean {x.mean:.4g}, deviation {x.std:.4g} (of the first samples); "
            "nets learn best from about 0 .. 1: divide it in data(), or normalise in the model"
        )
    elif x.std == 0:
        yield f"x is {x.mean:.4g} everywhere (in the first samples): there is nothing to learn from"
    if classes is not None and classes.count == 1:
        yield f"all labels are {classes.commonest}: with one class there is nothing to learn"
    elif classes is not None and classes.most > UNEVEN * classes.fewest:
        yield (
            f"classes are uneven: {count(classes.most)} samples of class {classes.commonest}, "
            f"{count(classes.fewest)} of class {classes.rarest}; accuracy hides the rare ones"
        )
    if data.shard < batch:
        yield (
            f"a first shard holds {data.shard} samples, fewer than the job's batch of {batch}: "
            f"workers will use batches of {fitting_batch(data.shard, batch)}. Take fewer workers, "
            "a smaller batch, or more data"
        )


def of_learning(learning: LearningFacts) -> Iterator[str]:
    """The first loss, and whether it falls."""
    first, last, chance = learning.first_loss, learning.last_loss, learning.chance
    if chance is not None and chance > 0 and first > 2 * chance:
        yield (
            f"the first loss is {first:.3g}, guessing gives {chance:.3g}: the outputs are too "
            "large at the start; scale x (bytes: x.float() / 255), or the last layer's weights"
        )
    if not last < first:
        yield (
            f"{learning.steps} steps on one and the same batch took the loss from {first:.3g} to "
            f"{last:.3g}: it should fall. Try a smaller learning rate, and look at the loss and "
            "the optimizer"
        )
    if learning.unmoved:
        shown = ", ".join(learning.unmoved[:3]) + (", ..." if len(learning.unmoved) > 3 else "")
        yield (
            f"no step changes {count(len(learning.unmoved))} of the parameters ({shown}): they are "
            "frozen, nothing uses them, or the optimizer was not given them; they travel all the "
            "same"
        )


def of_time(time: TimeFacts, settings: Settings) -> Iterator[str]:
    """Steps, rounds, evaluations."""
    if time.step < EMULATED:
        yield (
            f"a step takes {duration(time.step)}: where speeds are emulated (--speeds) it is "
            f"stretched to {duration(EMULATED)}, so that a run with speeds is slower than one "
            "without"
        )
    if time.evaluation <= SLOW:
        return
    slow = (
        f"an evaluation takes {duration(time.evaluation)}: the grid has a point every "
        f"{duration(time.grid)}, and stop.patience counts those"
    )
    if settings.merge.rule == "interpolate":
        slow += "; each merge waits for one, too"
    if time.evaluation > time.round:
        slow += ", and takes longer than a round. A smaller validation split (Job.split) helps"
    yield slow


def of_gate(settings: Settings, time: TimeFacts) -> Iterator[str]:
    """A gate that opens late, or not at all before the run is over."""
    first = first_possible_push(settings.gate)
    if first is None:
        return
    reached = first * time.round
    if settings.stop.seconds is not None and settings.stop.seconds < reached:
        yield (
            f"the gate cannot fire before round {first}, after about {duration(reached)} on a "
            f"device like this one, and stop.seconds is {settings.stop.seconds:g}: nothing would "
            "be pushed"
        )
    elif first > LATE:
        yield f"the gate cannot fire before round {first}: about {duration(reached)} of silence"


def of_memory(memory: MemoryFacts, workers: int) -> Iterator[str]:
    """What does not fit into this machine."""
    if memory.free is None:
        return
    if memory.master > memory.free:
        yield (
            f"a master needs about {size(memory.master)} of memory, and this machine has "
            f"{size(memory.free)} left"
        )
    elif memory.worker is not None and (whole := memory.master + workers * memory.worker) > (
        memory.free
    ):
        yield (
            f"a master and {workers} workers on this machine need about {size(whole)} of memory, "
            f"and it has {size(memory.free)} left: take fewer workers (--workers)"
        )


def of_topics(topics: TopicFacts, links: tuple[LinkFacts, ...]) -> Iterator[str]:
    """Storage, and links."""
    limit = topics.limit
    if limit is not None and topics.data + topics.version > limit:
        yield (
            f"data and first model take {size(topics.data + topics.version)}, and storage.max is "
            f"{size(limit)}: a run would stop before it starts"
        )
    elif (
        limit is not None
        and topics.lasts is not None
        and topics.lasts < 600
        and not topics.ends_below(limit)
    ):
        yield (
            f"storage.max is {size(limit)}, reached in about {duration(topics.lasts)}: "
            "the run stops there, its model saved. Take longer rounds (round.epochs), or more "
            "storage"
        )
    slow = [link for link in links if link.bottleneck]
    if links and len(slow) == len(links):
        yield (
            f"even on {slow[-1].mbit:g} Mbit/s a round takes longer on the link "
            f"({duration(slow[-1].transfer)}) than in training ({duration(slow[-1].train)}): take "
            "longer rounds (round.epochs, round.steps), or a smaller model"
        )
