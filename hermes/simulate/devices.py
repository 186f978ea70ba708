"""Which devices take part in a simulated run, on which links? Data, in a JSON file, checked.

Rates are of decimal units: 1 Mbit/s is 1,000,000 bits a second, 1 MB is 1,000,000 bytes.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hermes.errors import SettingError, UsageError
from hermes.policy.ranges import LONGEST, Allowed, number, shown, whole
from hermes.transport.names import checked_worker

MASTER = "master"
"""Under which the master's bytes are told, beside the devices'."""

FASTEST = "fastest"
"""What `--only` takes beside a device's name."""

CENTRAL = "central"
"""The strategy that trains at the master's place, and the device that it trains on there."""

BESIDE = "beside the master"
"""That device's link: there is none."""

COPIES = 5
"""Models that training one holds at the same time: weights, gradients, momentum, what arrives and
what is sent."""


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file may hold, and nothing else."""


class Throttling(Struct, frozen=True, kw_only=True):
    """A device that runs hot is slower for a while: two states, left at random."""

    factor: float
    """Its speed while hot, as a share of its speed."""
    hot: float
    """Seconds that it stays hot, in the mean (exponential) ..."""
    normal: float
    """... and that it then is not."""


class Device(Struct, frozen=True, kw_only=True):
    """One worker's machine."""

    name: str
    speed: float = 1.0
    """1 trains the file's samples a second."""
    link: str = "default"
    """Its link, by its name in `links`."""
    jitter: float = 0.0
    """Sigma of a lognormal factor of mean 1 on each round's time."""
    throttling: Throttling | None = None
    memory_mb: float | None = None
    """What it has for training; None: enough."""
    round_ms: float = 0.0
    """What each of its rounds takes beside its steps, whatever its speed: the look at the probe of
    a device that was measured, its loop."""
    start_seconds: float = 0.0
    """From the start of the training until it can train: a job is built, a framework loaded."""
    outages: tuple[tuple[float, float], ...] = ()
    """(from, to) in seconds of virtual time: nothing passes its link; it trains on."""


class Link(Struct, frozen=True, kw_only=True):
    """A device's way to the broker."""

    latency_ms: float = 0.0
    """One way."""
    up_mbit: float
    down_mbit: float


class Shared(Struct, frozen=True, kw_only=True):
    """The link of the place where master and broker stand; all devices share it fairly."""

    up_mbit: float = 1000.0
    """From the broker."""
    down_mbit: float = 1000.0
    """To the broker."""


class MasterMachine(Struct, frozen=True, kw_only=True):
    """The master's machine. Only what a strategy needs is charged: the evaluation grid is not."""

    samples_per_second: float = 2000.0
    """That it scores."""
    samples: int | None = None
    """Of the set on which a strategy's losses are charged; None: the run's validation set."""
    merge_ms: float = 2.0
    """To merge one version."""
    commit_ms: float = 0.0
    """From a decision until the broker gives the record of it to those who wait: the append, its
    disk, the fetch."""


class World(Struct, frozen=True, kw_only=True):
    """A file of devices."""

    devices: tuple[Device, ...]
    links: dict[str, Link]
    samples_per_second: float | None = None
    """That a device of speed 1 trains, its steps for nothing; or ..."""
    step_seconds: float | None = None
    """... seconds of its optimiser step, its samples for nothing; or both: it takes the sum."""
    scoring: float = 3.0
    """Samples that a device scores in the time that it trains one."""
    shared: Shared = Shared()
    master: MasterMachine = MasterMachine()
    evaluate_seconds: float = 1.0
    """Virtual time between two points of the evaluation grid."""


class Loaded(NamedTuple):
    """A file that was read."""

    file: str
    digest: str
    """SHA-256 of its bytes."""
    world: World


def load(path: Path) -> Loaded:
    """Read and check a file of devices. Raises `UsageError` where it cannot be read, and
    `SettingError` naming file and key for what it may not say."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the file of devices cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="conf/devices/ has some, such as conf/devices/edge12.json.",
        ) from None
    world = read(data, str(path))
    return Loaded(str(path), hashlib.sha256(data).hexdigest(), world)


def read(data: bytes, file: str) -> World:
    """The devices in these bytes. Raises `SettingError`."""
    tree = tree_of(data, file, "See docs/simulate.md.")
    try:
        world = msgspec.convert(tree, World)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        key = place.strip("`.")
        where = f"{file}: {key}" if key else file
        raise SettingError(text, where=where, remedy=_meant(text)) from None
    for key, value, allowed in _values(world):
        if not allowed.fits(value):
            raise SettingError(
                f"it is {shown(value)}", where=f"{file}: {key}", remedy=f"It is {allowed.words}."
            )
    _check_whole(world, file)
    return world


def _meant(text: str) -> str:
    """What may help where msgspec says this of a file."""
    found = re.search("unknown field `(.*)`", text)
    kinds = (World, Device, Link, Shared, MasterMachine, Throttling)
    known = {field.name for kind in kinds for field in msgspec.structs.fields(kind)}
    near = difflib.get_close_matches(found[1].lower(), sorted(known), n=1) if found else []
    return "".join(f"Did you mean {name}? " for name in near) + "See docs/simulate.md."


def tree_of(data: bytes, file: str, remedy: str) -> Any:
    """What JSON says in which every key stands once, and every number is one. Raises
    `SettingError`."""
    try:
        return json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise SettingError(
            f"it is not JSON as it must be: {error}", where=file, remedy=remedy
        ) from None


def only(loaded: Loaded, which: str) -> Loaded:
    """With one device alone: the fastest (the first of several), or the one of this name."""
    devices = loaded.world.devices
    if which == FASTEST:
        found = [max(devices, key=lambda device: device.speed)]
    else:
        found = [device for device in devices if device.name == which]
    if not found:
        names = ", ".join(device.name for device in devices)
        raise UsageError(
            f"there is no device {which!r} in {loaded.file}",
            where="--only",
            remedy=f"It is {FASTEST}, or one of: {names}.",
        )
    return loaded._replace(world=msgspec.structs.replace(loaded.world, devices=tuple(found)))


def taking_part(loaded: Loaded, strategy: str, which: str | None) -> Loaded:
    """Those that train under this strategy: all of the file, or the one that `which` names as for
    `only`; under `central` a device of speed 1 that stands beside the master. Raises
    `UsageError`."""
    if strategy != CENTRAL:
        return loaded if which is None else only(loaded, which)
    if which is not None:
        raise UsageError(
            f"{which!r} alone, and central trains on no device of {loaded.file}",
            where="--only",
            remedy="Leave one of the two out.",
        )
    free = 1e7
    world = msgspec.structs.replace(
        loaded.world,
        devices=(Device(name=CENTRAL, link=BESIDE),),
        links={BESIDE: Link(up_mbit=free, down_mbit=free)},
        shared=Shared(up_mbit=free, down_mbit=free),
        master=msgspec.structs.replace(loaded.world.master, merge_ms=0.0),
    )
    return loaded._replace(world=world)


def check_memory(loaded: Loaded, model: int, shard: int) -> None:
    """Raise `SettingError` for a device too small to train: bytes of the model and of a first
    shard."""
    needed = COPIES * model + shard
    for index, device in enumerate(loaded.world.devices):
        has = math.inf if device.memory_mb is None else device.memory_mb * 1e6
        if has < needed:
            raise SettingError(
                f"{device.name} has {has / 1e6:g} MB, and training takes "
                f"{needed / 1e6:.3g} MB there: {COPIES} times the model, {model / 1e6:.3g} MB "
                f"each, and a shard of {shard / 1e6:.3g} MB",
                where=f"{loaded.file}: devices[{index}].memory_mb",
                remedy=("A smaller first shard (size.first), a" if COPIES * model < has else "A")
                + " smaller model, or leave this device out.",
            )


# --- checks -------------------------------------------------------------------------------------

_RATE = number(least=0.001, most=1e9)
_PATIENCE = 1e4
"""Seconds that one sample, or a step beside its samples, may take: beats alone would fill a run."""
_MEGABITS = number(least=0.001, most=1e7)
_SPEED = number(least=1e-4, most=1e4)
_SECONDS = number(above=0, most=LONGEST)
_MILLIS = number(least=0, most=1e6)


def _values(world: World) -> Iterator[tuple[str, Any, Allowed]]:
    """Every number of the file: where it stands, what it is, what it may be."""
    yield "samples_per_second", world.samples_per_second, number(least=0.001, most=1e9, off=True)
    yield "step_seconds", world.step_seconds, number(above=0, most=_PATIENCE, off=True)
    yield "scoring", world.scoring, number(least=0.01, most=1000)
    yield "evaluate_seconds", world.evaluate_seconds, number(least=0.5, most=LONGEST)
    yield "shared.up_mbit", world.shared.up_mbit, _MEGABITS
    yield "shared.down_mbit", world.shared.down_mbit, _MEGABITS
    yield "master.samples_per_second", world.master.samples_per_second, _RATE
    yield "master.samples", world.master.samples, whole(1, off=True)
    yield "master.merge_ms", world.master.merge_ms, _MILLIS
    yield "master.commit_ms", world.master.commit_ms, _MILLIS
    for name, link in world.links.items():
        yield f"links.{name}.latency_ms", link.latency_ms, _MILLIS
        yield f"links.{name}.up_mbit", link.up_mbit, _MEGABITS
        yield f"links.{name}.down_mbit", link.down_mbit, _MEGABITS
    for index, device in enumerate(world.devices):
        yield from _of_device(f"devices[{index}]", device)


def _of_device(at: str, device: Device) -> Iterator[tuple[str, Any, Allowed]]:
    yield f"{at}.speed", device.speed, _SPEED
    yield f"{at}.jitter", device.jitter, number(least=0, most=3)
    yield f"{at}.round_ms", device.round_ms, _MILLIS
    yield f"{at}.start_seconds", device.start_seconds, number(least=0, most=LONGEST)
    yield f"{at}.memory_mb", device.memory_mb, number(above=0, off=True)
    if device.throttling is not None:
        yield f"{at}.throttling.factor", device.throttling.factor, number(least=0.001, most=1)
        yield f"{at}.throttling.hot", device.throttling.hot, number(least=0.001, most=LONGEST)
        yield f"{at}.throttling.normal", device.throttling.normal, number(least=0.001, most=LONGEST)
    for place, (begin, end) in enumerate(device.outages):
        yield f"{at}.outages[{place}][0]", begin, number(least=0, most=LONGEST)
        yield f"{at}.outages[{place}][1]", end, _SECONDS


def _check_whole(world: World, file: str) -> None:
    """What no number tells by itself."""

    def refuse(key: str, what: str, remedy: str) -> SettingError:
        return SettingError(what, where=f"{file}: {key}", remedy=remedy)

    if not world.devices:
        raise refuse("devices", "there is none", "At least one device has to train.")
    if world.samples_per_second is None and world.step_seconds is None:
        raise refuse(
            "samples_per_second, step_seconds",
            "neither is given",
            "Say how fast a device of speed 1 trains in one of the two, or in both.",
        )
    sample = 0.0 if world.samples_per_second is None else 1 / world.samples_per_second
    slowest = max(sample, world.step_seconds or 0.0)
    seen: set[str] = set()
    for index, device in enumerate(world.devices):
        key = f"devices[{index}]"
        if slowest / device.speed > _PATIENCE:
            raise refuse(
                f"{key}.speed",
                f"at {device.speed:g} a step of one sample takes {slowest / device.speed:.3g} s",
                f"It may take {_PATIENCE:g} s: make it faster, or leave this device out.",
            )
        try:
            checked_worker(device.name)
        except UsageError as error:
            raise refuse(f"{key}.name", error.what, f"{error.remedy}.") from None
        if device.name == MASTER:
            raise refuse(f"{key}.name", f"{MASTER!r} is the master's name", "Choose another.")
        if device.name in seen:
            raise refuse(f"{key}.name", f"{device.name!r} is there twice", "Name each once.")
        seen.add(device.name)
        if device.link not in world.links:
            known = ", ".join(sorted(world.links)) or "none"
            raise refuse(f"{key}.link", f"there is no link {device.link!r}", f"Links: {known}.")
        last = 0.0
        for place, (begin, end) in enumerate(device.outages):
            if not last <= begin < end:
                raise refuse(
                    f"{key}.outages[{place}]",
                    f"it is [{begin:g}, {end:g}]",
                    "Each begins before it ends, and after the one before it.",
                )
            last = end


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key stands twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
