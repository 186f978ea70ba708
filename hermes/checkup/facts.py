"""What did a check find? The values that the table shows and `--json` prints. Pure.

Sizes are bytes, times are seconds; None where something could not be measured because of a mistake.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """What keeps the job from being trained."""

    stage: str
    """What was tried: "job", "settings", "device", "data", "model", "fit", "worker"."""
    what: str
    where: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f"\n  {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class ModelFacts:
    """The model, as the master built it."""

    framework: str
    device: str
    parameters: int
    """Numbers that are learned."""
    trainable: int
    """Those that the first steps changed; nothing uses the others."""
    buffers: int
    """Numbers that travel and are not learned: running means and the like, frozen layers."""
    tensors: int
    bytes: int


@dataclass(frozen=True)
class ArrayFacts:
    """x or y; least, most, mean and deviation of the first thousand samples of the train split."""

    dtype: str
    shape: tuple[int, ...]
    """Of one sample."""
    least: float
    most: float
    mean: float
    std: float


@dataclass(frozen=True)
class ClassFacts:
    """Class labels of all splits together."""

    count: int
    fewest: int
    """Samples of the rarest class, ..."""
    rarest: int
    """... and its label."""
    most: int
    commonest: int


@dataclass(frozen=True)
class DataFacts:
    """The data, in splits and blocks."""

    samples: dict[str, int]
    """By split."""
    x: ArrayFacts
    y: ArrayFacts
    classes: ClassFacts | None
    """None where y is no class label."""
    bytes: int
    block: int
    """Samples of a block."""
    blocks: int
    shard: int
    """Samples of a worker's first shard."""


@dataclass(frozen=True)
class LearningFacts:
    """Whether the model learns at all: a few steps on one and the same batch."""

    first_loss: float
    chance: float | None
    """What guessing gives: the logarithm of the classes under cross entropy; None elsewhere."""
    last_loss: float
    steps: int
    unmoved: tuple[str, ...]
    """Parameters that no step has changed."""


@dataclass(frozen=True)
class TimeFacts:
    """Measured in this process, alone."""

    step: float
    threads: int
    """Of the CPU, that it was computed with."""
    steps: int
    """Of a round, with the first shard."""
    probe: float
    """The look at the probe that ends a round; 0 where the gate does not look."""
    round: float
    """Training and probe."""
    evaluation: float
    """Of one version, on the validation split."""
    grid: float
    """Between two points of the evaluation grid."""


@dataclass(frozen=True)
class MemoryFacts:
    """What was measured, and what is to be expected."""

    check: int
    """The most that this process has taken."""
    accelerator: int | None
    """The most that it has taken of a GPU's."""
    worker: int | None
    """The most that a process took that did a worker's work, plus two grants in memory."""
    master: int
    """This process before the model was built, seven models, one block of the validation split."""
    free: int | None
    """What this machine has left now."""


@dataclass(frozen=True)
class TopicFacts:
    """What the topics get: bytes of records with their headers."""

    data: int
    """Once: job, blocks, manifest."""
    records: int
    """Of the data topic."""
    version: int
    update: int
    chunks: int
    """Of a version."""
    update_chunks: int
    """Of an update."""
    pushed: float
    """Share of the rounds that push (for `zscore` an estimate)."""
    round: int
    """A round of one worker on average: its update, its share of the versions, small messages."""
    rounds_hour: float
    """Of all workers."""
    hour: int
    limit: int | None
    """`storage.max`, as an embedded broker has it; None: none."""
    lasts: float | None
    """Seconds until the limit is reached."""
    whole: int | None
    """All that is there once `stop.samples` are merged, about: by rounds of the first shards. None:
    the run may go on longer."""

    def ends_below(self, limit: int) -> bool:
        """Whether the run ends before so many bytes are there."""
        return self.whole is not None and self.whole <= limit


@dataclass(frozen=True)
class LinkFacts:
    """What a round costs one worker that has such a link."""

    mbit: float
    fetch: float
    """A version."""
    push: float
    """An update."""
    train: float
    """A round's training, its probe included."""
    transfer: float
    """A round on average: only some rounds push, and only then is a version fetched."""
    bottleneck: bool
    """Whether the link takes longer than the training."""
    first: float
    """Until the first step: job, probe, first shard, first version."""
    upload: float
    """The master's, over such a link: all data, and the first version."""


@dataclass(frozen=True)
class Checkup:
    """All that a check found."""

    job: str
    ok: bool
    mistakes: tuple[Mistake, ...]
    warnings: tuple[str, ...]
    strategy: str
    workers: int
    seed: int
    seconds: float
    model: ModelFacts | None
    data: DataFacts | None
    learning: LearningFacts | None
    time: TimeFacts | None
    memory: MemoryFacts | None
    topics: TopicFacts | None
    links: tuple[LinkFacts, ...]
