"""What do a simulation and a process that trains for it say to each other? Frames over its pipes.

A frame is its length (8 bytes) and msgpack. Both ends are ours and of one release; nothing of it
comes from a log but bytes that are verified.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, TypeAlias, TypeVar

import msgspec

from hermes.errors import HermesError
from hermes.machine.events import LoadVersion, Train
from hermes.messages import BlocksGranted, JobSource, Manifest
from hermes.perform.bench import Trained

HEAD = struct.Struct("<Q")

T = TypeVar("T")


class Said(msgspec.Struct, frozen=True, tag=True):
    """To a process: what follows is to be done at `due` (virtual ns); the earliest comes first."""


class Opening(Said, frozen=True):
    """Before all else: the run."""

    source: JobSource
    device: str | None
    settings: dict[str, object]
    seed: int
    threads: int | None
    folder: str
    """Where the blocks lie."""


class Data(Said, frozen=True):
    """The blocks are there."""

    manifest: Manifest


class Begin(Said, frozen=True):
    """A worker by this name begins; one of that name before it is gone."""

    name: str


class Accept(Said, frozen=True):
    """See `WorkerBench.accept`; so are the next ones."""

    grant: BlocksGranted


class Drop(Said, frozen=True):
    """Nothing of this grant is needed any more."""

    grant: int


class Load(Said, frozen=True):
    """A version becomes the local model."""

    action: LoadVersion
    data: bytes


class Work(Said, frozen=True):
    """A round. It is answered."""

    action: Train


class Pack(Said, frozen=True):
    """What would be sent; it is called by this name from now on. It is answered."""

    name: str


Job: TypeAlias = Opening | Data | Begin | Accept | Drop | Load | Work | Pack


class Told(msgspec.Struct, frozen=True):
    """One thing to be done, and for which bench."""

    number: int
    """Of all that the process is told: answers name it."""
    due: int
    bench: int
    what: Job


class Trouble(msgspec.Struct, frozen=True):
    """A `HermesError`, by its class."""

    kind: str
    what: str
    where: str
    remedy: str


class Answer(msgspec.Struct, frozen=True):
    """To the simulation. `trouble`: what went wrong with what was asked; with the number 0, with
    the process."""

    number: int
    trained: Trained | None = None
    data: bytes = b""
    trouble: Trouble | None = None


def send(pipe: BinaryIO, frame: Told | Answer) -> None:
    """Write a frame; raises `OSError` where nobody is there."""
    data = msgspec.msgpack.encode(frame)
    pipe.write(HEAD.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO, kind: type[T]) -> T | None:
    """The next frame; None at the end."""
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    (size,) = HEAD.unpack(head)
    data = pipe.read(size)
    return msgspec.msgpack.decode(data, type=kind) if len(data) == size else None


def trouble_of(error: HermesError) -> Trouble:
    """To be told elsewhere."""
    return Trouble(type(error).__name__, error.what, error.where, error.remedy)


def error_of(trouble: Trouble) -> HermesError:
    """As it was raised there."""
    from hermes import errors

    made: type[HermesError] = getattr(errors, trouble.kind, HermesError)
    if made.__init__ is not HermesError.__init__:  # it is made of other things than words
        made = HermesError
    return made(trouble.what, where=trouble.where, remedy=trouble.remedy)
