"""How much may a run keep at its broker, and how long does that last? Pure.

A run only ever adds records: versions, updates, reports. So it has a limit, says at its start how
soon it expects to reach it, warns before it, and stops at it while its model can still be saved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from hermes.errors import SettingError
from hermes.policy.ranges import Allowed
from hermes.policy.sync import CloseSettings, quorum

AUTO = "auto"

DEFAULT = 10**9
"""Bytes: the limit where nothing is known of the broker's disk, as with the embedded one."""
SHARE = 0.2
"""Of the broker's free disk: the limit where that is known."""
ROOM = 0.9
"""Of the broker's free disk: no limit lies above, whatever was asked for. The rest is for the
last version, and for what is under way when the stop is decided."""
NEAR = 0.9
"""Of the limit: from here on a run warns."""
LEAST = 100_000
"""Bytes: a limit below is a number that lacks its unit."""

UNITS = {"": 1, "b": 1}
UNITS |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}

PUSHED = {"open": 1.0, "zscore": 0.1, "innovation": 0.25}
"""Gate -> share of the rounds that it pushes. (On noise the paper's gate fires on one in ten;
measured on digits: 0.097.)"""

TURN = 0.02
"""Seconds that a round takes at least: its report, its grant, the decision."""
VERSION = 0.05
"""Seconds that a version takes at least: fetch, merge, publish, load. Both are measured on two
cores, with the pieces of a run sharing them."""
RATE = 20e6
"""Bytes a second of tensors that go through one master; measured likewise."""
ROUND_BYTES = 1000
"""A round's report, its grant, and the decision in the ledger."""
WORKER_BYTES = 350 * 3600
"""An hour's heartbeats of a worker, one a second."""


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run may keep at its broker."""

    max: int | str | None = AUTO
    """Bytes, or with a unit: `500MB`, `2GB`, `1GiB`. At 90 % the run warns, at 100 % it stops, its
    model saved. `auto`: 20 % of the broker's free disk where the broker tells it, else 1GB; `off`:
    no limit. Never more than 90 % of the free disk."""


RANGES: dict[str, Allowed] = {
    "max": Allowed(
        "a number with its unit (500MB, 2GB, 1GiB), auto, or off",
        lambda value: (
            value is None or (isinstance(value, int | str) and not isinstance(value, bool))
        ),
    )
}
"""What `StorageSettings` may be; `check_storage` looks closer."""


def check_storage(settings: StorageSettings) -> None:
    """Raise `SettingError` for what is no number of bytes."""
    if settings.max is not None and settings.max != AUTO:
        bytes_of(settings.max)


def bytes_of(value: int | str) -> int:
    """`1GB`, `1.5 MiB` or a number of bytes. Raises `SettingError`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
    if match is None or match[2] not in UNITS:
        raise SettingError(
            f"storage.max is {value!r}",
            remedy="A number with its unit: storage.max=500MB, 2GB, 1GiB; or auto, or off.",
        )
    count = int(float(match[1]) * UNITS[match[2]])
    if count < LEAST:
        raise SettingError(
            f"storage.max is {count} bytes",
            remedy="At least 100kB; did you leave out its unit? For example: storage.max=1GB",
        )
    return count


def limit_of(asked: int | str | None, free: int | None, used: int = 0) -> int | None:
    """Bytes that a run may keep, of which it keeps `used` already; None: no limit.

    `free` is what the broker's disk has left, None where that is not known.
    """
    if asked is None:
        return None
    room = None if free is None else free + used
    if asked == AUTO:
        return DEFAULT if room is None else int(SHARE * room)
    wanted = bytes_of(asked)
    return wanted if room is None else min(wanted, int(ROOM * room))


def level(used: int, limit: int | None) -> str:
    """How near the limit is: "" (far), "near" or "full"."""
    if limit is None or used < NEAR * limit:
        return ""
    return "near" if used < limit else "full"


class Pace(NamedTuple):
    """What an hour of a run is expected to bring: an estimate, from a step's time."""

    model: int
    """Bytes of a version."""
    workers: int
    rounds: float
    """An hour, of all workers."""
    pushes: float
    versions: float
    update: int
    """Bytes of an update."""

    @property
    def bytes(self) -> int:
        """An hour."""
        tensors = self.pushes * self.update + self.versions * self.model
        return int(tensors + self.rounds * ROUND_BYTES + self.workers * WORKER_BYTES)


def pace(
    model: int, rounds: Sequence[float], gate: str, close: CloseSettings, update: int | None = None
) -> Pace:
    """The pace of a run whose versions have `model` bytes, its updates as many or `update`, and
    whose workers train so many seconds a round each; `gate` is the rule."""
    update = model if update is None else update
    share, workers = PUSHED.get(gate, 1.0), len(rounds)
    if close.rule in ("all", "quorum", "flagged"):  # the last: at most, where every step is flagged
        need = quorum(close, workers) if close.rule == "quorum" else workers
        moved = workers * update + model
        seconds = sorted(rounds)[need - 1] + VERSION + moved / RATE
        all_rounds = sum(3600 / max(seconds, own) for own in rounds)
        return Pace(model, workers, all_rounds, all_rounds, 3600 / seconds, update)
    together = min(close.count, workers) if close.rule == "count" else 1
    all_rounds = sum(3600 / (seconds + TURN) for seconds in rounds)
    most = 3600 * together / (VERSION + (together * update + model) / RATE)
    pushes = min(share * all_rounds, most)
    all_rounds = min(all_rounds, most / share)
    return Pace(model, workers, all_rounds, pushes, pushes / together, update)


def far_off(expected: float, measured: float) -> bool:
    """Whether what was measured is another order than what was expected: more than twice off."""
    return not expected / 2 <= measured <= 2 * expected
