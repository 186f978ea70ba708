"""What is compared? A JSON file, checked: strategies x devices x seeds, to one target.

Paths in it are relative to the file. Raises `SettingError` and `UsageError` that name file and key.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hermes.compare.form import (
    REMEDY,
    Struct,
    check_all,
    check_numbers,
    check_seeds,
    converted,
    refused,
)
from hermes.compare.score import TEST
from hermes.compare.space import Search, Space, Tuned, check_apart, read_spaces
from hermes.errors import SettingError, UsageError
from hermes.policy.presets import PRESETS, Layer, Settings, resolve, warnings
from hermes.policy.ranges import LONGEST, number, whole
from hermes.simulate.devices import Loaded, load, taking_part, tree_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
"""Of a strategy in the file, and of a file of devices: they become names of files."""


class Target(Struct, frozen=True, kw_only=True):
    """What a model is to reach, on the test set."""

    accuracy: float


class Limit(Struct, frozen=True, kw_only=True):
    """When a cell ends: the first that holds. Nothing else ends it."""

    samples: int | None = None
    """Sample passes merged."""
    seconds: float | None = None
    """Virtual, since training started."""
    target: bool = False
    """Whether it also ends once it holds the target."""


class Contender(Struct, frozen=True, kw_only=True):
    """A strategy with its settings."""

    strategy: str
    set: dict[str, Any] = msgspec.field(default_factory=dict)
    args: tuple[str, ...] = ()
    """Of the job, after those of the file."""
    only: str | None = None
    """One device alone, as `hermes simulate --only` has it."""


class Written(Struct, frozen=True, kw_only=True):
    """The file; its inner objects are read by themselves, so that errors name their keys."""

    job: str
    args: tuple[str, ...] = ()
    target: dict[str, Any]
    devices: tuple[str, ...]
    seeds: tuple[int, ...]
    strategies: dict[str, dict[str, Any]]
    set: dict[str, Any] = msgspec.field(default_factory=dict)
    baseline: str
    limit: dict[str, Any]
    grid: float = 0.5
    """Virtual seconds between two points at which every cell is scored."""
    search: dict[str, Any] | None = None
    tuned: dict[str, Any] | None = None


class Matrix(NamedTuple):
    """A file that was read and checked; its job is not looked at yet."""

    file: str
    digest: str
    """SHA-256 of its bytes."""
    job: Path
    job_name: str
    """As the file has it; what the ledger says."""
    args: tuple[str, ...]
    target: float
    worlds: dict[str, Loaded]
    """By name: the stem of their file. Their grid is the matrix's."""
    seeds: tuple[int, ...]
    contenders: dict[str, Contender]
    common: dict[str, Any]
    baseline: str
    limit: Limit
    grid: float
    search: Search | None = None
    spaces: Mapping[str, Space] = {}
    """Of the search, by strategy."""
    tuned: Tuned | None = None
    """Where its settings come from, where a search has written it."""
    places: Mapping[str, str] = {}
    """Where a strategy stands in the file, if not under its name."""
    on: str = TEST
    """Which accuracy is held against the target."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return Path(self.file).stem

    def args_of(self, name: str) -> tuple[str, ...]:
        """What the job is given for this strategy: those of the file, then its own."""
        return self.args + self.contenders[name].args

    def place(self, name: str) -> str:
        """Of a strategy in the file."""
        return self.places.get(name, f"strategies.{name}")


class Until(NamedTuple):
    """An accuracy at which a cell ends, once it is held."""

    on: str
    accuracy: float


class Cell(NamedTuple):
    """One simulated run of the matrix."""

    strategy: str
    """Its name in the file."""
    devices: str
    seed: int
    settings: Settings
    args: tuple[str, ...]
    """Of the job."""
    loaded: Loaded
    """Already with one device alone, where that is wanted."""
    until: Until | None = None
    """What ends it beside its limit."""


# --- the file -----------------------------------------------------------------------------------


def load_matrix(path: Path) -> Matrix:
    """Read a file and the files of devices that it names."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the file cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="conf/compare/ has some, such as conf/compare/digits.json.",
        ) from None
    file = str(path)
    if not NAME.fullmatch(path.stem):
        raise UsageError(
            "its results would lie in a folder of its name, which is none",
            where=file,
            remedy="Name it with letters, digits, '.', '-' and '_', such as digits.json.",
        )
    written = converted(tree_of(data, file, REMEDY), Written, file, "")
    target = converted(written.target, Target, file, "target")
    limit = converted(written.limit, Limit, file, "limit")
    contenders = {
        name: converted(tree, Contender, file, f"strategies.{name}")
        for name, tree in written.strategies.items()
    }
    _check_numbers(written, target, limit, file)
    _check_names(written, contenders, file)
    search = None if written.search is None else converted(written.search, Search, file, "search")
    spaces = {} if search is None else read_spaces(search, contenders, target.accuracy, file)
    tuned = None if written.tuned is None else converted(written.tuned, Tuned, file, "tuned")
    if search is not None:
        check_apart(file, "search.seeds", search.seeds, written.seeds)
    if tuned is not None:
        check_apart(file, "tuned.seeds", tuned.seeds, written.seeds)
    if limit.samples is None and limit.seconds is None:
        remedy = 'Give one, such as {"seconds": 120}: without it a cell may never end.'
        raise refused(file, "limit", "no limit is set", remedy)
    return Matrix(
        file,
        hashlib.sha256(data).hexdigest(),
        _tidy(path.parent / written.job),
        written.job,
        written.args,
        target.accuracy,
        _worlds(written, path, file),
        written.seeds,
        contenders,
        written.set,
        written.baseline,
        limit,
        written.grid,
        search,
        spaces,
        tuned,
    )


def _tidy(path: Path) -> Path:
    """The same file, by a shorter name where there is one."""
    short = Path(os.path.normpath(path))
    with contextlib.suppress(OSError, ValueError):  # it is not there, which is told later
        return short if short.samefile(path) else path
    return path


def _check_numbers(written: Written, target: Target, limit: Limit, file: str) -> None:
    checks = [
        ("target.accuracy", target.accuracy, number(above=0, most=1)),
        ("limit.samples", limit.samples, whole(1, off=True)),
        ("limit.seconds", limit.seconds, number(least=0.001, most=LONGEST, off=True)),
        ("grid", written.grid, number(least=0.5, most=LONGEST)),
    ]
    check_numbers(file, checks)
    check_seeds(file, "seeds", written.seeds)


def _check_names(written: Written, contenders: Mapping[str, Contender], file: str) -> None:
    check_all(file, "devices", written.devices)
    for name, contender in contenders.items():
        if not NAME.fullmatch(name) or "--" in name:
            raise refused(
                file,
                f"strategies.{name}",
                f"{name!r} is no name for one",
                "Up to 40 letters, digits, '.', '_', '+' and single '-': fedavg-by-speed.",
            )
        if contender.strategy not in PRESETS:
            near = difflib.get_close_matches(contender.strategy, list(PRESETS), n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise refused(
                file,
                f"strategies.{name}.strategy",
                f"unknown strategy {contender.strategy!r}",
                f"It is one of: {', '.join(PRESETS)}.{meant}",
            )
    if written.baseline not in contenders:
        known = ", ".join(contenders) or "none"
        raise refused(
            file,
            "baseline",
            f"there is no strategy {written.baseline!r} in this file",
            f"It is one of its own: {known}.",
        )


def _worlds(written: Written, path: Path, file: str) -> dict[str, Loaded]:
    found: dict[str, Loaded] = {}
    for index, one in enumerate(written.devices):
        key, name = f"devices[{index}]", Path(one).stem
        if not NAME.fullmatch(name) or "--" in name:
            raise refused(file, key, f"{name!r} is no name for results", "Rename the file.")
        if name in found:
            raise refused(file, key, f"two files are called {name!r}", "Rename one.")
        try:
            loaded = load(path.parent / one)
        except SettingError:
            raise  # it names that file, and its key
        except UsageError as error:
            raise UsageError(
                f"{error.where}: {error.what}", where=f"{file}: {key}", remedy=error.remedy
            ) from None
        world = msgspec.structs.replace(loaded.world, evaluate_seconds=written.grid)
        found[name] = loaded._replace(world=world)
    return found


# --- its cells ----------------------------------------------------------------------------------


def cells_of(
    matrix: Matrix, of_job: Mapping[tuple[str, ...], Layer]
) -> tuple[list[Cell], list[str]]:
    """All cells, and what is odd about their settings; `of_job`: what the job says, by what it is
    given. Seeds are outermost, so that what is there at any time can be compared."""
    settings: dict[str, Settings] = {}
    worlds: dict[tuple[str, str], Loaded] = {}
    found_odd: list[str] = []
    for name, contender in matrix.contenders.items():
        own = of_job[matrix.args_of(name)]
        settings[name], told = _settings(matrix, name, contender, own)
        found_odd += [text for text in told if text not in found_odd]
        for devices, loaded in matrix.worlds.items():
            worlds[name, devices] = _alone(matrix, name, contender, loaded)
            _check_room(matrix, name, settings[name], worlds[name, devices])
    until = Until(matrix.on, matrix.target) if matrix.limit.target else None
    cells = [
        Cell(
            *(name, devices, seed, settings[name], matrix.args_of(name), worlds[name, devices]),
            until,
        )
        for seed in matrix.seeds
        for devices in matrix.worlds
        for name in matrix.contenders
    ]
    return cells, found_odd


def _settings(
    matrix: Matrix, name: str, contender: Contender, of_job: Layer
) -> tuple[Settings, list[str]]:
    own = f"{matrix.file}: {matrix.place(name)}.set"
    common = f"{matrix.file}: set"
    limits = {
        **dict.fromkeys(msgspec.structs.asdict(Settings().stop)),
        "samples": matrix.limit.samples,
        "seconds": matrix.limit.seconds,
    }
    layers = [
        of_job,
        Layer(common, _values(matrix.common, common), typed=False),
        Layer(own, _values(contender.set, own)),
        Layer(f"{matrix.file}: limit", {f"stop.{key}": value for key, value in limits.items()}),
    ]
    settings = resolve(contender.strategy, layers)
    # What the job or all cells say may well be in vain for some.
    return settings, warnings(settings, layers[2:])


def _values(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in said:
        if key.startswith("stop."):
            raise SettingError(
                f"{key} is set, and only `limit` ends a cell: one that stops by its own scores "
                "could not be compared",
                where=where,
                remedy='Leave it out, and say {"limit": {"samples": N, "seconds": S}}.',
            )
    return {key: None if value == "off" else value for key, value in said.items()}


def _alone(matrix: Matrix, name: str, contender: Contender, loaded: Loaded) -> Loaded:
    try:
        return taking_part(loaded, contender.strategy, contender.only)
    except UsageError as error:
        key = f"{matrix.file}: {matrix.place(name)}.only"
        raise SettingError(error.what, where=key, remedy=error.remedy) from None


def _check_room(matrix: Matrix, name: str, settings: Settings, loaded: Loaded) -> None:
    devices = len(loaded.world.devices)
    if devices > settings.workers.max:
        raise SettingError(
            f"{loaded.file} has {devices} devices, and workers.max={settings.workers.max} admits "
            "fewer: the run would never start",
            where=f"{matrix.file}: {matrix.place(name)}.set",
            remedy=f'"workers.max": {devices}, or fewer devices.',
        )
