"""A plain loop of torch over an example's own samples, without Hermes: what others are held
against. One thread."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hermes import Job


class Plain(NamedTuple):
    """Its samples, and what trains some of them."""

    count: int
    """Samples."""
    step: Callable[[Any], float]
    """One optimiser step on the samples of these indices (a tensor); its loss."""


def job_of(file: Path, args: list[str]) -> Job:
    """The job of an example, with these words."""
    found: Job = runpy.run_path(str(file))["job"](args)
    return found


def of_job(job: Job) -> Plain:
    """Its loop. It trains in place: each has a model of its own."""
    import torch

    torch.set_num_threads(1)
    data: Any = job.data() if job.data else None
    x, y = data[0] if isinstance(data[0], tuple) else data
    x, y = torch.tensor(x), torch.tensor(y).long()
    model, criterion = job.model(), job.loss
    optimizer = job.optimizer(model.parameters()) if job.optimizer else None
    assert optimizer is not None

    def step(chosen: Any) -> float:
        optimizer.zero_grad()
        loss = criterion(model(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return Plain(len(x), step)
