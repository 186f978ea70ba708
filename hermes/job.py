"""What does a user write, and is it sound? The `Job`, and how a job file becomes one.

Everything that a user's own code raises ends as one `JobError`: what happened, FILE:LINE of the
user's innermost line, and what to do about it.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import io
import linecache
import math
import re
import sys
import tokenize
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hermes.errors import HermesError, JobError

if TYPE_CHECKING:
    from hermes.train.protocol import Batch, Trainer

MODULE = "hermes_job"
"""The name under which a job file is executed; its `__name__` is thus not "__main__"."""

Result = TypeVar("Result")


# --- what a user writes -------------------------------------------------------------------------


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
    """A factory of the model."""
    data: Callable[[], Any]
    """Gives the samples (`hermes.data`); called once, on the master."""
    optimizer: Callable[[Any], Any]
    """Gives the optimizer of these parameters."""
    loss: Any
    """Of outputs and labels, such as `hermes.nn.CrossEntropy()`."""
    batch: int = 32
    """Samples of an optimizer step."""
    stop: Stop = field(default_factory=Stop)
    round: Round | None = None
    """None: the strategy's."""
    schedule: Callable[[float], float] | None = None
    """Progress (0 to 1: samples merged over the samples that the job will use) -> factor of the
    learning rate."""
    metric: str | Callable[[Any, Any], float] | None = "accuracy"
    """Beside the loss: "accuracy", a function of (outputs, labels) that gives a batch's mean, or
    None."""
    split: Split = field(default_factory=Split)
    """Also given as a plain tuple of four."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:0", "mps"."""
    include: Sequence[str] = ()
    """Files beside the job that travel with it."""
    requires: Sequence[str] = ()
    """Python packages, as pip names them, that master and workers must have."""
    init: str | Path | None = None
    """A .safetensors file of starting weights, on the master; None: drawn from the seed."""
    place: str = field(default="", init=False, repr=False, compare=False)
    """FILE:LINE of the job file where it was made; "" elsewhere."""

    def __post_init__(self) -> None:
        # Not `replace`: a frozen value may settle its own form while it is made.
        object.__setattr__(self, "place", _line_now())
        object.__setattr__(self, "split", _split_of(self.split))
        for name in ("include", "requires"):
            object.__setattr__(self, name, _texts_of(name, getattr(self, name)))
        _check_callables(self)
        _check_count("Job", "batch", self.batch, optional=False)
        _check_type("stop", self.stop, Stop, "For example: stop=hermes.Stop(samples=200_000).")
        if self.round is not None:
            _check_type("round", self.round, Round, "For example: round=hermes.Round(epochs=1).")
        _require(
            self.metric in (None, "accuracy") or callable(self.metric),
            f"Job.metric is {self.metric!r}",
            'It is "accuracy", None, or a function of (outputs, labels).',
        )
        _require(
            isinstance(self.device, str)
            and re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is not None,
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
        return {
            f"{section}.{part.name}": getattr(values, part.name)
            for section, values in layers.items()
            if values is not None
            for part in fields(values)
            if getattr(values, part.name) is not None
        }

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
        "optimizer": "a function of the parameters: lambda params: hermes.nn.SGD(params, lr=0.1)",
    }
    for name, meant in examples.items():
        value = getattr(job, name)
        _require(callable(value), f"Job.{name} is {_kind(value)}", f"It is {meant}.")
    _require(
        job.loss is not None and not isinstance(job.loss, type | str),
        f"Job.loss is {job.loss!r}",
        "It is a loss, made: loss=hermes.nn.CrossEntropy() (with its parentheses).",
    )
    _require(
        job.schedule is None or callable(job.schedule),
        f"Job.schedule is {_kind(job.schedule)}",
        "It is a function of the progress, 0 to 1, that gives a factor; or None.",
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
    _require(isinstance(value, wanted), f"Job.{name} is {_kind(value)}", remedy)


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


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


# --- a job file becomes a job -------------------------------------------------------------------


class Source(NamedTuple):
    """A job file, as it travels."""

    name: str
    """As the user named it; what messages show."""
    text: str


def load_source(path: str | Path) -> Source:
    """Read a job file. Raises `JobError` if it is missing or is not Python text."""
    where = str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise JobError("there is no such job file", where=where, remedy="Check the path.") from None
    except IsADirectoryError:
        raise JobError(
            "this is a folder, not a job file", where=where, remedy="Name the .py file in it."
        ) from None
    except OSError as error:
        raise JobError(
            f"the job file cannot be read: {error.strerror}",
            where=where,
            remedy="Check that it is an ordinary file that you may read.",
        ) from None
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        text = "\0"
    if "\0" in text:
        raise JobError(
            "the job file is not text", where=where, remedy="It is Python source, saved as UTF-8."
        )
    return Source(where, text)


def build(source: str, filename: str, args: Sequence[str] = ()) -> Job:
    """The job in this source: its `job`, or what its function `job(args)` gives.

    Raises `JobError` with FILE:LINE for whatever is wrong with it.
    """
    code = _compile(source, filename)
    # So that a traceback shows the user's lines even where the file itself is not.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = ModuleType(MODULE)
    module.__file__ = filename
    sys.modules[MODULE] = module  # dataclasses, among others, look their own module up
    call_user("the job file", exec, code, vars(module))
    job = _job_of(module, filename, args)
    _check_requires(job, filename)
    return job


def _compile(source: str, filename: str) -> Any:
    try:
        return compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte, before Python 3.12
        line = getattr(error, "lineno", None) or 1
        text = (getattr(error, "text", None) or "").strip()
        raise JobError(
            f"the job file is not Python: {getattr(error, 'msg', None) or error}",
            where=f"{filename}:{line}",
            remedy=f"Mend this line: {text}" if text else "Mend this line.",
        ) from None


def _job_of(module: ModuleType, filename: str, args: Sequence[str]) -> Job:
    found = vars(module).get("job")
    if found is None:
        others = [name for name, value in vars(module).items() if isinstance(value, Job)]
        raise JobError(
            "the job file defines no `job`",
            where=filename,
            remedy=f"It has a Job named {others[0]!r}: name it `job`."
            if others
            else "End it with: job = hermes.Job(model=..., data=..., optimizer=..., loss=...)",
        )
    if isinstance(found, Job):
        if args:
            raise JobError(
                f"the job takes no ARGS, and was given: {' '.join(args)}",
                where=filename,
                remedy="Leave them out, or write a function: def job(args): return hermes.Job(...)",
            )
        return found
    if not callable(found) or isinstance(found, type):
        raise JobError(
            f"`job` is {_kind(found)}",
            where=filename,
            remedy="It is a hermes.Job, or a function job(args) that returns one.",
        )
    made = call_user("job(args)", found, list(args))
    if not isinstance(made, Job):
        raise JobError(
            f"job(args) returned {'None' if made is None else f'a {type(made).__name__}'}",
            where=place_of(found),
            remedy="It returns a hermes.Job.",
        )
    return made


def _check_requires(job: Job, filename: str) -> None:
    """Names alone: which release is wanted is pip's to judge."""
    for wanted in job.requires:
        name = re.split(r"[^A-Za-z0-9._-]", wanted.strip(), maxsplit=1)[0]
        try:
            importlib.metadata.distribution(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            raise JobError(
                f"the job requires {wanted!r}, which is not installed here",
                where=filename,
                remedy=_pip(f"'{wanted}'"),
            ) from None


# --- whose line was it? -------------------------------------------------------------------------


def call_user(doing: str, function: Callable[..., Result], *args: Any) -> Result:
    """Call what the user wrote. What it raises becomes a `JobError` (see `blame`)."""
    try:
        return function(*args)
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise blame(doing, error, place_of(function)) from error


def blame(doing: str, error: BaseException, otherwise: str = "") -> HermesError:
    """What user code raised, as one message that names the user's innermost line.

    `otherwise`: the place to name where no line of the user's was running.
    Errors of ours that are not a mistake in the job (a full disk) keep their kind.
    """
    line = _line_of(error.__traceback__)
    where = line or otherwise
    if isinstance(error, JobError):
        if not line or error.where in ("", line):
            return JobError(error.what, where=error.where or where, remedy=error.remedy)
        return JobError(f"{error.where}: {error.what}", where=line, remedy=error.remedy)
    if isinstance(error, HermesError):
        return type(error)(error.what, where=error.where, remedy=error.remedy)
    if isinstance(error, SystemExit):
        return JobError(
            f"{doing} leaves the program (exit code {error.code})",
            where=where,
            remedy="A job file only defines a job: guard what else it does with "
            'if __name__ == "__main__":',
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_module(doing, error.name, where)
    text = " ".join(str(error).split())[:500]
    return JobError(
        f"{doing} raises {type(error).__name__}{': ' if text else ''}{text}",
        where=where,
        remedy="Mend that line; `hermes run JOB.py` tries the job before it starts anything.",
    )


def blame_batch(job: Job, error: Exception, batch: Batch) -> HermesError:
    """As `blame`, for what a model, loss or metric raises on a batch; tells the batch's shapes."""
    x, y = batch
    found = blame("the model", error)
    if not isinstance(found, JobError):
        return found
    what = f"{found.what}; the batch is x {x.dtype} {x.shape}, y {y.dtype} {y.shape}"
    return JobError(what, where=found.where or place_of(job.model), remedy=found.remedy)


def place_of(function: Any) -> str:
    """FILE:LINE where a function of the job file begins; "" where that is not known."""
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def _line_of(traceback: TracebackType | None) -> str:
    """FILE:LINE of the innermost frame that runs the job file; "" if there is none."""
    place = ""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__") == MODULE:
            place = f"{frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _line_now() -> str:
    """FILE:LINE of the job file that is being run just now; "" if none is."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") != MODULE:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


PIP_NAMES: Mapping[str, str] = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Modules whose package has another name."""


def _missing_module(doing: str, name: str, where: str) -> JobError:
    root = name.partition(".")[0]
    folder = Path(where.rpartition(":")[0]).parent
    what = f"{doing} needs the module {name!r}, which is not here"
    if root in sys.modules:  # the package is there, that part of it is not
        remedy = f"{root!r} is installed; check the rest of the name, and its release."
    elif where and ((folder / f"{root}.py").is_file() or (folder / root).is_dir()):
        remedy = (
            f"{root!r} lies beside the job file, but only the job file travels: move what it "
            "defines into the job file, or install it as a package on the master and all workers."
        )
    else:
        remedy = _pip(PIP_NAMES.get(root, root))
    return JobError(what, where=where, remedy=remedy)


def _pip(name: str) -> str:
    return f"pip install {name}, on the master and all workers."


# --- does it fit together? ----------------------------------------------------------------------


def check_fit(job: Job, trainer: Trainer, batch: Batch) -> float:
    """Train one step on `batch` and evaluate it; the loss. The trainer is then as it was.

    Raises `JobError` where shapes do not fit (names both), labels are out of range, the loss is
    not finite, or the schedule, loss or metric raises.
    """
    for progress in (0.0, 0.5, 1.0):
        job.factor(progress)
    before = trainer.weights()
    try:
        loss = trainer.step(*batch, 1.0)
        trainer.evaluate([batch])
    finally:
        trainer.load(before)
        trainer.reset_optimizer()
    if not math.isfinite(loss):
        raise JobError(
            f"the loss of the first step is {loss}",
            where=place_of(job.model),
            remedy="Scale x to about 0 .. 1, and look for a log or a division by zero in the "
            "model and the loss.",
        )
    return loss
