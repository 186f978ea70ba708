"""On what does Keras compute? One backend a run, the master's: it travels with the job.

Keras takes its backend when it is first imported, from KERAS_BACKEND or its own settings file; a
process has one.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from hermes.errors import JobError

VARIABLE = "KERAS_BACKEND"

BACKENDS = ("tensorflow", "torch")
"""Those that Hermes trains on; the extra `keras-NAME` brings each."""

OF_KERAS = frozenset(["keras", "keras_hub", "tensorflow"])
"""Packages that a job with Keras imports."""


def backend_now() -> str:
    """The backend of the Keras that is loaded; "" where none is."""
    keras: Any = sys.modules.get("keras")
    return str(keras.backend.backend()) if hasattr(keras, "backend") else ""


def load_quietly(text: str, filename: str) -> None:
    """Load the Keras of a job that is about to be read. What goes wrong is left to the job's own
    import, but for a backend that we cannot train on: that is a `JobError`."""
    lines = _imports(text)
    if "keras" not in lines or _chooses(text):
        return
    said = os.environ.get(VARIABLE, "")
    if said and said not in BACKENDS:
        raise _unfit(said, f"{filename}:{lines['keras']}")
    load()


def load() -> None:
    """Load Keras, if it is here, without the greetings that TensorFlow writes to stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _stderr_held(), contextlib.suppress(Exception):
        importlib.import_module("keras")
    logging.getLogger("tensorflow").addFilter(_wanted)


def _wanted(record: logging.LogRecord) -> bool:
    """Not what TensorFlow says of models that are built one after the other, as we do: that each
    is compiled anew."""
    return "tf.function retracing" not in record.getMessage()


def _chooses(text: str) -> bool:
    """Whether a job may choose its backend itself: the variable stands in its code, and not only
    in its comments."""
    constants = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return any(node.value == VARIABLE for node in constants)


@contextlib.contextmanager
def _stderr_held() -> Iterator[None]:
    """What is written to the process's stderr meanwhile, by whatever library, is not shown."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # of Python's own, too
        sys.stderr.flush()
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def take(backend: str, filename: str) -> None:
    """Have Keras take the run's backend when the job is built; "": the job has no Keras, or this
    process is the one to choose. Raises `JobError` where this process has another."""
    if not backend:
        return
    here = backend_now() or os.environ.get(VARIABLE, "") or backend
    if here != backend:
        raise JobError(
            f"the run computes with Keras on {backend}, and {VARIABLE} is {here} here",
            where=filename,
            remedy=f"Start this worker without {VARIABLE}, or with {VARIABLE}={backend}.",
        )
    os.environ[VARIABLE] = backend


def check(text: str, filename: str, said: str) -> None:
    """Raise `JobError` where the job that was just built has Keras on another backend than the
    environment `said` before ("": it said nothing), on one that we cannot train on, or beside a
    framework that is not its backend."""
    lines = _imports(text)
    ours = {name: line for name, line in lines.items() if name in OF_KERAS}
    if not ours:
        return
    if "keras" in ours and not backend_now():  # it is imported later, in a function
        load()
    backend = backend_now()
    if not backend:
        return
    where = f"{filename}:{min(ours.values())}"
    if said and said != backend:
        raise JobError(
            f"{VARIABLE} is {said} here, and the job has Keras on {backend}",
            where=where,
            remedy=f"Start it with {VARIABLE}={backend}, or let the job leave that to the "
            "environment.",
        )
    if backend not in BACKENDS:
        raise _unfit(backend, where)
    other = next(name for name in BACKENDS if name != backend)
    if other in lines and (ours.keys() - {other}):
        raise JobError(
            f"two frameworks in one job: Keras on {backend}, and {other}",
            where=f"{filename}:{lines[other]}",
            remedy=f"A worker loads one: start with {VARIABLE}={other}, or write with keras.ops "
            f"what line {lines[other]} is for.",
        )


def _unfit(backend: str, where: str) -> JobError:
    return JobError(
        f"the job has Keras on {backend}, where Hermes cannot train it",
        where=where,
        remedy=f"{VARIABLE}=tensorflow or {VARIABLE}=torch.",
    )


def _imports(text: str) -> dict[str, int]:
    """Packages that the source imports anywhere, each with its first line."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in names:
            root = name.partition(".")[0]
            found[root] = min(node.lineno, found.get(root, node.lineno))
    return found
