"""Which settings are tried for each strategy, with the same number of trials for all? Pure.

Values are drawn without replacement, from a stream that is named by the strategy: what is tried for
one does not depend on the others. A space of fewer points than trials is tried whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hermes.chance import generator, permutation
from hermes.compare.form import Struct, check_all, check_numbers, check_seeds, converted, refused
from hermes.policy.ranges import number, whole

LARGEST = 1_000_000
"""Points of a space, at most: they are shuffled in memory."""


class Space(Struct, frozen=True, kw_only=True):
    """Values to choose from: each of one with each of the others."""

    set: dict[str, tuple[Any, ...]] = msgspec.field(default_factory=dict)
    """By setting; they take the place of the strategy's own."""
    args: dict[str, tuple[str | int | float, ...]] = msgspec.field(default_factory=dict)
    """By what stands before the `=`: `"lr": [0.1]` is the argument `lr=0.1`, `"--lr"` `--lr=0.1`.
    They stand after the strategy's own."""

    @property
    def axes(self) -> list[tuple[str, str, tuple[Any, ...]]]:
        """("set" or "args", key, values)."""
        own = [("set", key, values) for key, values in self.set.items()]
        return own + [("args", key, values) for key, values in self.args.items()]

    @property
    def size(self) -> int:
        """Its points."""
        return math.prod(len(values) for _, _, values in self.axes)


class Search(Struct, frozen=True, kw_only=True):
    """The key `search`; its spaces are read by themselves, so that errors name their keys."""

    trials: int
    """For each strategy that has a space."""
    seeds: tuple[int, ...]
    """On which the trials are run: others than those that are reported."""
    spaces: dict[str, Any]
    accuracy: float | None = None
    """On validation, the time to which is what settings are chosen by; None: the target. At most
    that: a trial may end there."""
    draw: int = 0
    """Seed of what is drawn."""


class Tuned(Struct, frozen=True, kw_only=True):
    """Where the settings of a file come from: its key `tuned`, which a search writes."""

    file: str
    digest: str
    """SHA-256 of the file with the spaces."""
    hermes: str
    trials: int
    seeds: tuple[int, ...]
    accuracy: float | None = None
    """On validation, the time to which chose them."""
    strategies: dict[str, Any]
    """What was tried for each; for people."""


class Point(NamedTuple):
    """What one trial sets."""

    set: dict[str, Any]
    args: tuple[str, ...]
    edges: tuple[str, ...]
    """Keys whose value is the least or the greatest number of its list: a better one may lie
    beyond."""


def read_spaces(
    search: Search, strategies: Collection[str], target: float, file: str
) -> dict[str, Space]:
    """The spaces of a search to a target, checked. Raises `SettingError`."""
    check_numbers(
        file,
        [
            ("search.trials", search.trials, whole(1, 100_000)),
            ("search.draw", search.draw, whole(0)),
        ],
    )
    if search.accuracy is not None:
        allowed = number(above=0, most=target)
        check_numbers(file, [("search.accuracy", search.accuracy, allowed)])
    check_seeds(file, "search.seeds", search.seeds)
    check_all(file, "search.spaces", list(search.spaces))
    found: dict[str, Space] = {}
    for name, tree in search.spaces.items():
        place = f"search.spaces.{name}"
        if name not in strategies:
            known = ", ".join(strategies)
            raise refused(
                file, place, f"there is no strategy {name!r} in this file", f"There are: {known}."
            )
        space = found[name] = converted(tree, Space, file, place)
        _check_space(space, file, place)
    return found


def _check_space(space: Space, file: str, place: str) -> None:
    if not space.axes:
        raise refused(
            file, place, "there is nothing to try", 'Such as {"set": {"round.steps": [8, 16]}}.'
        )
    for kind, key, values in space.axes:
        check_all(file, f"{place}.{kind}.{key}", values)
    if space.size > LARGEST:
        raise refused(
            file, place, f"it has {space.size:,} points", f"At most {LARGEST:,} can be shuffled."
        )


def check_apart(file: str, key: str, tuning: Sequence[int], seeds: Sequence[int]) -> None:
    """Raise `SettingError` where a seed that settings were chosen on is reported, too."""
    both = [str(seed) for seed in tuning if seed in seeds]
    if both:
        raise refused(
            file,
            key,
            f"{', '.join(both)} is among `seeds`, too: what was chosen on a seed looks better on "
            "it than it is",
            "Search on other seeds than those that are reported.",
        )


def points(search: Search, spaces: Mapping[str, Space]) -> dict[str, list[Point]]:
    """What is tried, by strategy, in the order in which it was drawn."""
    return {name: _drawn(search, name, space) for name, space in spaces.items()}


def _drawn(search: Search, name: str, space: Space) -> list[Point]:
    order = permutation(generator(search.draw, "search", name), space.size)
    return [_point(space, int(index)) for index in order[: search.trials]]


def _point(space: Space, index: int) -> Point:
    settings: dict[str, Any] = {}
    args: list[str] = []
    edges: list[str] = []
    for kind, key, values in space.axes:
        index, place = divmod(index, len(values))
        value = values[place]
        if kind == "set":
            settings[key] = value
        else:
            args.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
        if _at_edge(value, values):
            edges.append(f"{kind}.{key}")
    return Point(settings, tuple(args), tuple(edges))


def _at_edge(value: Any, values: Sequence[Any]) -> bool:
    """Among three or more values that are numbers; others have no order."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < 3 or value not in numbers:
        return False
    return bool(value in (min(numbers), max(numbers)))
