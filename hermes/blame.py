"""Whose line was it? What a user's own code raises, as one `JobError`: what happened, FILE:LINE of
the user's innermost line, and what to do about it."""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from hermes.errors import HermesError, JobError
from hermes.travels import only_as_main

if TYPE_CHECKING:
    from hermes.job import Job
    from hermes.train.protocol import Batch

MODULE = "hermes_job"
"""The name under which a job file is executed; its `__name__` is thus not "__main__"."""

Result = TypeVar("Result")


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
    if isinstance(error, NameError) and line:
        guarded = only_as_main(_text_of(line.rpartition(":")[0])).get(error.name or "")
        if guarded is not None:
            return _only_as_main(doing, str(error.name), where, guarded)
    text = " ".join(str(error).split())[:500]
    return JobError(
        f"{doing} raises {type(error).__name__}{': ' if text else ''}{text}",
        where=where,
        remedy="Mend that line; `hermes run JOB.py` tries the job before it starts anything.",
    )


def blame_batch(job: Job, error: Exception, batch: Batch, part: str = "") -> HermesError:
    """As `blame`, for what a part of the job raises on a batch; tells the batch's shapes.

    `part`: the field that was at work, "loss" or "metric" and so on; "": the model.
    """
    x, y = batch
    otherwise = place_of(getattr(job, part or "model")) or job.place
    found = blame(DOING.get(part, f"the {part or 'model'}"), error, otherwise)
    if not isinstance(found, JobError):
        return found
    what = f"{found.what}; the batch is x {x.dtype} {x.shape}, y {y.dtype} {y.shape}"
    return JobError(what, where=found.where, remedy=found.remedy)


DOING = {
    "optimizer": "the optimizer's step",
    "clip": "clip(params)",
    "autocast": "autocast()",
    "step": "step(model, x, y)",
}
"""What a part of the job is said to do; the others are called by their names."""


def place_of(function: Any) -> str:
    """FILE:LINE where a function, or class, of the job file begins; "" where that is not known."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):
        function = getattr(function, "__init__", None)
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


def line_now() -> str:
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

TORCH = (
    "pip install 'hermes-edge[torch]', on this machine as on all others of the run. For a PC "
    "without a GPU, PyTorch's own index has wheels a tenth as large: add --extra-index-url "
    "https://download.pytorch.org/whl/cpu"
)


def _keras_missing(root: str) -> str:
    """What to do where Keras, or what it computes on, is missing."""
    if root in ("jax", "jaxlib", "openvino"):
        return (
            "Keras takes it as its backend, from KERAS_BACKEND or ~/.keras/keras.json, and Hermes "
            "cannot train there: set KERAS_BACKEND=tensorflow or KERAS_BACKEND=torch."
        )
    everywhere = "on this machine as on all others of the run"
    if root == "tensorflow":
        return (
            f"pip install 'hermes-edge[keras-tensorflow]', {everywhere}; or, where Keras is to "
            "compute with PyTorch, start the master with KERAS_BACKEND=torch."
        )
    backend = os.environ.get("KERAS_BACKEND", "")
    if backend in ("tensorflow", "torch"):
        return f"pip install 'hermes-edge[keras-{backend}]', {everywhere}."
    return f"pip install 'hermes-edge[keras-tensorflow]', or [keras-torch], {everywhere}."


KERAS = frozenset(["keras", "tensorflow", "jax", "jaxlib", "openvino"])


def _text_of(filename: str) -> str:
    """The source that a job was built from."""
    return "".join(linecache.getlines(filename))


def _only_as_main(doing: str, name: str, where: str, line: int) -> JobError:
    return JobError(
        f'{doing} uses {name!r}, which line {line} defines under if __name__ == "__main__": alone',
        where=where,
        remedy="Master and workers build the job from the file's text, and do not run that part: "
        f"define {name!r} above it.",
    )


def lies_beside(name: str) -> str:
    """What to do about a module that does not travel."""
    return (
        f"{name!r} lies beside the job file, but only the job file travels: move what it "
        "defines into the job file, or install it as a package on the master and all workers."
    )


def _missing_module(doing: str, name: str, where: str) -> JobError:
    root = name.partition(".")[0]
    folder = Path(where.rpartition(":")[0]).parent
    what = f"{doing} needs the module {name!r}, which is not here"
    if root in sys.modules:  # the package is there, that part of it is not
        remedy = f"{root!r} is installed; check the rest of the name, and its release."
    elif where and ((folder / f"{root}.py").is_file() or (folder / root).is_dir()):
        remedy = lies_beside(root)
    elif root == "torch" and os.environ.get("KERAS_BACKEND") == "torch":
        remedy = (
            "KERAS_BACKEND is torch: pip install 'hermes-edge[keras-torch]', on this machine as on "
            "all others of the run; or set KERAS_BACKEND=tensorflow."
        )
    elif root == "torch":
        remedy = TORCH
    elif root in KERAS:
        remedy = _keras_missing(root)
    else:
        remedy = pip_install(PIP_NAMES.get(root, root))
    return JobError(what, where=where, remedy=remedy)


def pip_install(name: str) -> str:
    return f"pip install {name}, on the master and all workers."


def kind_of(value: object) -> str:
    """What a value is, for people: "None", "of type tuple"."""
    return "None" if value is None else f"of type {type(value).__name__}"
