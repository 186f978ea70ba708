"""What things are: the small frozen values that every layer shares. Pure.

Time is run time in integer nanoseconds; sizes are in samples unless a name says bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Tensors: TypeAlias = Mapping[str, npt.NDArray[np.generic]]
"""Named arrays: a model's parameters and buffers under their `state_dict()` names."""

Facts: TypeAlias = dict[str, float | int | str | bool | None]
"""The numbers a decision was made from."""

SECOND = 1_000_000_000
"""Nanoseconds."""


class Value(msgspec.Struct, frozen=True, array_like=True, kw_only=False):
    """Base of values that travel: frozen, compact on the wire (an array; fields only ever added
    at the end, with a default)."""


class Position(Value, frozen=True, order=True):
    """Where a record lies: a topic's short name ("model"), its generation, its offset."""

    topic: str
    generation: int
    offset: int


class Payload(Value, frozen=True):
    """Tensors that lie in chunks in a topic."""

    id: str
    """Random, 32 hex digits; the chunks carry it in their headers."""
    topic: str
    generation: int
    first: int
    """Offset of the first chunk."""
    last: int
    """Offset of the last chunk; foreign chunks between the two are skipped."""
    chunks: int
    length: int
    """Bytes."""
    digest: str
    """SHA-256 of the bytes, hex."""


class Reason(Value, frozen=True):
    """Why: a short code, and the facts the decision was made from."""

    code: str
    facts: Facts = {}


class Base(Value, frozen=True):
    """The version that a local model started from."""

    version: int
    digest: str


class BlockRange(Value, frozen=True):
    """Blocks `first` .. `last` - 1 of the train split, in one pass of the endless walk."""

    first: int
    last: int


class Outer(Value, frozen=True):
    """How the master's momentum v turns the mean difference d into a step: v <- momentum * v + d;
    the step is rate * v, or rate * (d + momentum * v) with nesterov."""

    momentum: float
    rate: float
    nesterov: bool


class Superstep(Value, frozen=True):
    """What each worker trains until the next barrier, and why."""

    quotas: dict[str, int]
    """By worker: how many times `round.steps` steps; of others, 1."""
    reason: Reason


class Birth(Value, frozen=True, order=True):
    """The incarnation that an update was born in, and its number there: never changes."""

    incarnation: str
    number: int
