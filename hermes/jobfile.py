"""How does a job file become a job? Its text is what travels, and every process builds it anew."""

from __future__ import annotations

import importlib.metadata
import io
import linecache
import os
import re
import sys
import tokenize
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hermes import keras_backend
from hermes.blame import MODULE, call_user, kind_of, lies_beside, pip_install, place_of
from hermes.errors import JobError
from hermes.job import Job
from hermes.travels import beside, only_as_main


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
    except (OSError, ValueError) as error:  # the latter: no path at all
        raise JobError(
            f"the job file cannot be read: {getattr(error, 'strerror', error)}",
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


def build(source: str, filename: str, args: Sequence[str] = (), backend: str = "") -> Job:
    """The job in this source: its `job`, or what its function `job(args)` gives.

    `backend`: that of Keras which the run has; "" where this process is the one to choose. Raises
    `JobError` with FILE:LINE for whatever is wrong with it.
    """
    code = _compile(source, filename)
    keras_backend.take(backend, filename)
    said = os.environ.get(keras_backend.VARIABLE, "")
    keras_backend.load_quietly(source, filename)
    # So that a traceback shows the user's lines even where the file itself is not.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = ModuleType(MODULE)
    module.__file__ = filename
    sys.modules[MODULE] = module  # dataclasses, among others, look their own module up
    call_user("the job file", exec, code, vars(module))
    job = _job_of(module, source, filename, args)
    keras_backend.check(source, filename, said)
    _check_requires(job, filename)
    check_travels(source, filename)
    return job


def check_travels(source: str, filename: str, known: Collection[str] | None = None) -> None:
    """Raise `JobError` where what the job imports lies beside its file: it works here, and on no
    other machine. `known`: see `beside`."""
    found = beside(source, filename, known)
    if found is not None:
        raise JobError(
            f"the job file imports {found[0]!r}, which workers do not have",
            where=f"{filename}:{found[1]}",
            remedy=lies_beside(found[0]),
        )


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


def _job_of(module: ModuleType, source: str, filename: str, args: Sequence[str]) -> Job:
    found = vars(module).get("job")
    if found is None:
        guarded = only_as_main(source).get("job")
        if guarded is not None:
            raise JobError(
                'the job file defines `job` under if __name__ == "__main__": alone',
                where=f"{filename}:{guarded}",
                remedy="Master and workers build the job from the file's text, and do not run that "
                "part: define `job` above it, and leave only hermes.main(job) there.",
            )
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
            f"`job` is {kind_of(found)}",
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
                remedy=pip_install(f"'{wanted}'"),
            ) from None
