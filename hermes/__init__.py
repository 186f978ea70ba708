"""Hermes: a trainer for clusters of unequal edge devices, driven by Kafka: the run is the log.

What a job file needs is here (`Job`, `Stop`, `Round`, `Split`, `data`, `nn`, `main`), and
`worker_main`, for a worker as a program. All of it is imported at its first use, so that `import
hermes` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes import data as data
    from hermes import nn as nn
    from hermes.job import Job, Round, Split, Stop

    __version__: str

__all__ = ["Job", "Round", "Split", "Stop", "__version__", "data", "main", "nn", "worker_main"]


def main(job: Job) -> None:
    """Run this job as its own program (`python JOB.py`): a master, its log, its report."""
    from hermes.cli.entry import job_main

    job_main(job)


def worker_main() -> None:
    """Be a worker (`python WORKER.py`), with the flags of `hermes worker`."""
    from hermes.cli.entry import worker_main

    worker_main()


def __getattr__(name: str) -> object:
    if name in ("data", "nn"):
        return import_module(f"hermes.{name}")
    if name in ("Job", "Round", "Split", "Stop"):
        return getattr(import_module("hermes.job"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("hermes-edge")
    raise AttributeError(f"module 'hermes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
