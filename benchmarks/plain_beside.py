"""examples/mnist.py, where each tenth optimiser step is followed by one of a plain loop of torch,
on a model and samples of its own: as fast as the machine is just then. A job, whose first word
names the folder where it writes down, by process, how many those were and what they took."""

import dataclasses
import os
import struct
import time
from pathlib import Path

import torch

from benchmarks.plain import job_of, of_job

EXAMPLE = Path(__file__).parents[1] / "examples" / "mnist.py"
EVERY = 10
"""Steps of the job for one of the plain loop."""
FORM = "=qqdd"
"""Steps, their samples and CPU seconds, and those of what came before the first."""


class Beside:
    """A plain loop's steps, one at a time."""

    def __init__(self, folder, job):
        began = time.process_time()
        self._plain = of_job(job)
        self._order = torch.randperm(self._plain.count)
        self._batch = job.batch
        self._file = os.open(Path(folder) / str(os.getpid()), os.O_WRONLY | os.O_CREAT, 0o600)
        self._steps, self._took = 0, 0.0
        self._before = time.process_time() - began

    def step(self):
        began = time.process_time()
        place = self._steps * self._batch % (self._plain.count - self._batch)
        self._plain.step(self._order[place : place + self._batch])
        self._steps += 1
        self._took += time.process_time() - began
        told = (self._steps, self._steps * self._batch, self._took, self._before)
        os.pwrite(self._file, struct.pack(FORM, *told), 0)


class Watched(torch.optim.SGD):
    """The example's optimiser; now and then a step of the plain loop comes after one of its own."""

    beside = None
    done = 0

    def step(self, closure=None):
        loss = super().step(closure)
        Watched.done += 1
        if Watched.beside is not None and Watched.done % EVERY == 0:
            with torch.enable_grad():
                Watched.beside.step()
        return loss


def job(args):
    folder, *rest = args
    whole = job_of(EXAMPLE, rest)

    def optimizer(parameters):
        if Watched.beside is None:
            Watched.beside = Beside(folder, whole)
        parameters = list(parameters)
        return Watched(parameters, **whole.optimizer(parameters).defaults)

    return dataclasses.replace(whole, optimizer=optimizer)
