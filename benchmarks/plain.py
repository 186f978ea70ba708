"""A plain loop of torch over an example's own samples, without Hermes: what others are held
against. One thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hermes.jobfile import build, load_source


class Plain(NamedTuple):
    """Its samples, and what trains some of them."""

    count: int
    """Samples."""
    step: Callable[[Any], float]
    """One optimiser step on the samples of these indices (a tensor); its loss."""


def of_example(job_file: Path, args: list[str]) -> Plain:
    """That of this job."""
    import torch

    torch.set_num_threads(1)
    source = load_source(job_file)
    job = build(source.text, source.name, args)
    data = job.data()
    x, y = data[0] if isinstance(data[0], tuple) else data
    x, y = torch.tensor(x), torch.tensor(y).long()
    model, criterion = job.model(), job.loss
    optimizer = job.optimizer(model.parameters())

    def step(chosen: Any) -> float:
        optimizer.zero_grad()
        loss = criterion(model(x[chosen]), y[chosen])
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return Plain(len(x), step)
