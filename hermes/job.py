"""What does a user write, and is it sound? The `Job`."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from hermes.blame import call_user, kind_of, line_now, place_of
from hermes.errors import JobError

DEVICES = r"auto|cpu|mps|cuda(:\d+)?"
"""How a device is spelt."""


class Split(NamedTuple):
    """Shares of the samples; they add up to 1. An official test set stays the test set: the other
    three then share the rest in their proportion."""

    train: float = 0.70
    probe: float = 0.05
    validation: float = 0.10
    test: float = 0.15


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When the run is finished: the first rule that holds. None: this rule is off."""

    accuracy: float | None = None
    """On validation, above 0, at most 1."""
    loss: float | None = None
    """On validation: at most this."""
    patience: int | None = None
    """Points of the evaluation grid without a new best validation loss."""
    samples: int | None = None
    """Sample passes merged into the last version."""
    versions: int | None = None
    """Published versions."""
    seconds: float | None = None
    """Run time since training started."""

    def __post_init__(self) -> None:
        for name in ("patience", "samples", "versions"):
            _check_count("Stop", name, getattr(self, name), optional=True)
        for name in ("accuracy", "loss", "seconds"):
            value, most = getattr(self, name), 1 if name == "accuracy" else math.inf
            _require(
                value is None or (_is_number(value) and 0 < value <= most),
                f"Stop.{name} is {value!r}",
                f"It is a number above 0{', at most 1' if name == 'accuracy' else ''}, or None.",
            )


@dataclass(frozen=True, kw_only=True)
class Round:
    """How long a worker trains between two gate decisions: passes over its shard, or steps."""

    epochs: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        _check_count("Round", "epochs", self.epochs, optional=True)
        _check_count("Round", "steps", self.steps, optional=True)
        _require(
            (self.epochs is None) != (self.steps is None),
            f"Round has epochs {self.epochs} and steps {self.steps}",
            "Set one of the two; without a Round it is the strategy's.",
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that there is to know about one training; see the table of fields below.

    Raises `JobError` that names the field for a value that cannot be.
    """

    model: Callable[[], Any]
    """A factory of the model: of torch, of `hermes.nn`, or of Keras, where it is compiled."""
    data: Callable[[], Any] | None
    """Gives the samples (`hermes.data`); called once, on the master. None: each worker brings its
    own (`hermes worker --data FILE.npz`), and they never travel."""
    optimizer: Callable[[Any], Any] | None = None
    """Gives the optimizer of these parameters: `lambda params: torch.optim.SGD(params, lr=0.1)`.
    A compiled model of Keras has its own; all others need one."""
    loss: Any = None
    """Of outputs and labels, such as `torch.nn.CrossEntropyLoss()`; for a model of `hermes.nn`,
    `hermes.nn.CrossEntropy()`. A compiled model of Keras has its own; all others need one."""
    batch: int = 32
    """Samples of an optimizer step."""
    stop: Stop = field(default_factory=Stop)
    round: Round | None = None
    """None: the strategy's."""
    schedule: Callable[[float], float] | None = None
    """Progress (0 to 1: samples merged over the samples that the job will use) -> factor of the
    learning rate."""
    metric: str | Callable[[Any, Any], float | tuple[float, float]] | None = "accuracy"
    """Beside the loss: "accuracy" (with Keras any of the compiled metrics), a function of (outputs,
    labels) that gives a batch's mean (or a pair: a sum, and what it is to be divided by once all
    batches are added up), or None."""
    clip: Callable[[Any], Any] | None = None
    """Called with the parameters between backward and step:
    `lambda params: nn.utils.clip_grad_norm_(params, 1.0)`."""
    callbacks: Callable[[], Sequence[Any]] | None = None
    """Keras only: gives the callbacks that a worker trains with; an epoch is to them a round."""
    autocast: Callable[[], Any] | None = None
    """Gives the context of forward and loss: `lambda: torch.autocast("cpu", torch.bfloat16)`."""
    step: Callable[[Any, Any, Any], Any] | None = None
    """Of (model, x, y), the loss to learn from, in place of `loss(model(x), y)`: several losses,
    augmentation; models are scored by `loss` all the same. PyTorch only."""
    validation: Callable[[], Any] | None = None
    """With data=None: gives samples on which the master scores versions beside the workers (and,
    as `((x, y), (x_test, y_test))`, a test set). These do travel: to the broker."""
    split: Split = field(default_factory=Split)
    """Also given as a plain tuple of four."""
    device: str = "auto"
    """"auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:0", "mps"; --device beats it."""
    include: Sequence[str] = ()
    """Files beside the job that travel with it: not built yet, none may be named."""
    requires: Sequence[str] = ()
    """Python packages, as pip names them, that master and workers must have."""
    init: str | Path | None = None
    """A .safetensors file of starting weights, on the master; None: drawn from the seed."""
    place: str = field(default="", init=False, repr=False, compare=False)
    """FILE:LINE of the job file where it was made; "" elsewhere."""
    device_from: str = field(default="", init=False, repr=False, compare=False)
    """Who names the device: FILE:LINE, or the flag that beats it."""

    def __post_init__(self) -> None:
        # Not `replace`: a frozen value may settle its own form while it is made.
        object.__setattr__(self, "place", line_now())
        object.__setattr__(self, "device_from", self.place)
        object.__setattr__(self, "split", _split_of(self.split))
        for name in ("include", "requires"):
            object.__setattr__(self, name, _texts_of(name, getattr(self, name)))
        _require(
            not self.include,
            f"Job.include names {', '.join(self.include)}",
            "Only the job file travels yet: move what they define into it, or install them as a "
            "package on the master and all workers.",
        )
        _check_callables(self)
        _check_count("Job", "batch", self.batch, optional=False)
        _check_type("stop", self.stop, Stop, "For example: stop=hermes.Stop(samples=200_000).")
        if self.round is not None:
            _check_type("round", self.round, Round, "For example: round=hermes.Round(epochs=1).")
        _require(
            self.metric is None or isinstance(self.metric, str) or callable(self.metric),
            f"Job.metric is {self.metric!r}",
            'It is "accuracy", None, or a function of (outputs, labels).',
        )
        _require(
            isinstance(self.device, str) and re.fullmatch(DEVICES, self.device) is not None,
            f"Job.device is {self.device!r}",
            "It is auto, cpu, cuda, cuda:N or mps.",
        )
        _require(
            self.init is None or isinstance(self.init, str | Path),
            f"Job.init is {self.init!r}",
            "It is the path of a .safetensors file, or None.",
        )

    def settings(self) -> dict[str, Any]:
        """What the job itself sets, as dotted keys: `{"stop.samples": 200000, ...}`."""
        layers = {"stop": self.stop, "round": self.round}
        brought = {"data.resident": True} if self.data is None else {}
        return brought | {
            f"{section}.{part.name}": getattr(values, part.name)
            for section, values in layers.items()
            if values is not None
            for part in fields(values)
            if getattr(values, part.name) is not None
        }

    def on(self, device: str | None) -> Job:
        """The same job on this device; None: on its own."""
        if device is None:
            return self
        moved = copy.copy(self)
        object.__setattr__(moved, "device", device)
        object.__setattr__(moved, "device_from", "--device")
        return moved

    def factor(self, progress: float) -> float:
        """The schedule's factor of the learning rate at this progress; 1 without a schedule."""
        if self.schedule is None:
            return 1.0
        value = call_user(f"schedule({progress:g})", self.schedule, progress)
        if not (_is_number(value) and value >= 0):
            raise JobError(
                f"schedule({progress:g}) gave {value!r}",
                where=place_of(self.schedule),
                remedy="It gives a finite number from 0 up: the factor of the learning rate.",
            )
        return float(value)


def _check_callables(job: Job) -> None:
    examples = {
        "model": "a function that builds the model, not the model itself",
        "data": "a function that gives the samples, not the samples themselves",
        "optimizer": "a function of the parameters: lambda params: torch.optim.SGD(params, "
        "lr=0.1); a compiled model of Keras has its own, and needs none here",
    }
    for name, meant in examples.items():
        value = getattr(job, name)
        if name != "model" and value is None:
            continue
        _require(callable(value), f"Job.{name} is {kind_of(value)}", f"It is {meant}.")
    _require(
        not isinstance(job.loss, type | str),
        f"Job.loss is {job.loss!r}",
        "It is a loss, made: loss=torch.nn.CrossEntropyLoss() (with its parentheses).",
    )
    meanings = {
        "validation": "a function that gives samples, as data would",
        "callbacks": "a function that gives a list of Keras' callbacks",
        "schedule": "a function of the progress, 0 to 1, that gives a factor",
        "clip": "a function of the parameters: lambda params: nn.utils.clip_grad_norm_(params, 1)",
        "autocast": 'a function that gives a context: lambda: torch.autocast("cpu")',
        "step": "a function of (model, x, y) that gives the loss to learn from",
    }
    for name, meant in meanings.items():
        value = getattr(job, name)
        _require(
            value is None or callable(value),
            f"Job.{name} is {kind_of(value)}",
            f"It is {meant}; or None.",
        )


def _split_of(value: Any) -> Split:
    try:
        split = Split(*value)
        sound = len(value) == 4 and all(_is_number(share) and share > 0 for share in split)
        sound = sound and math.isclose(math.fsum(split), 1)
    except TypeError:
        sound = False
    _require(
        sound,
        f"Job.split is {value!r}",
        "It is four shares above 0 (train, probe, validation, test) that add up to 1, such as "
        "(0.7, 0.05, 0.1, 0.15).",
    )
    return split


def _texts_of(name: str, value: Any) -> tuple[str, ...]:
    listed = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    _require(listed, f"Job.{name} is {value!r}", "It is a list of texts.")
    return tuple(value)


def _check_type(name: str, value: object, wanted: type, remedy: str) -> None:
    _require(isinstance(value, wanted), f"Job.{name} is {kind_of(value)}", remedy)


def _check_count(owner: str, name: str, value: object, *, optional: bool) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    _require(
        whole or (optional and value is None),
        f"{owner}.{name} is {value!r}",
        f"It is a whole number from 1 up{', or None' if optional else ''}.",
    )


def _is_number(value: object) -> bool:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        return False
    return math.isfinite(float(value))


def _require(holds: bool, what: str, remedy: str) -> None:
    if not holds:
        raise JobError(what, remedy=remedy)
