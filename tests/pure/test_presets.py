"""What a strategy's name stands for, and what is said about a setting that cannot be."""

from __future__ import annotations

import pytest

from hermes.errors import SettingError
from hermes.policy.presets import (
    DEFAULT_STRATEGY,
    PRESETS,
    Settings,
    check,
    from_tree,
    known_keys,
    parse_assignment,
    resolve,
    to_tree,
)
from hermes.policy.sync import CLOSE, Close, Wait, Waiting


@pytest.mark.parametrize("strategy", PRESETS)
def test_a_strategy_is_five_answers(strategy: str) -> None:
    """Each preset gives all five, and what it gives can work and comes back from the ledger."""
    answers = {"gate.rule", "close.rule", "continue.rule", "merge.rule", "size.rule"}
    assert answers <= set(PRESETS[strategy])
    settings = resolve(strategy, [])
    assert settings.strategy == strategy
    assert from_tree(to_tree(settings)) == settings
    check(settings)


def test_the_default_strategy_is_one() -> None:
    """And a bare `Settings()` is it."""
    assert DEFAULT_STRATEGY in PRESETS
    assert resolve(DEFAULT_STRATEGY, []) == Settings()


def test_later_layers_win() -> None:
    """Defaults, strategy, job, file, environment, flags: the last one that says something."""
    settings = resolve("bsp", [{"size.first": 7, "round.steps": 2}, {"size.first": 9}])
    assert (settings.size.first, settings.round.steps, settings.merge.rule) == (9, 2, "mean")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gate.alpha=-1.6", ("gate.alpha", -1.6)),
        ("stop.samples=100000", ("stop.samples", 100_000)),
        ("stop.patience=off", ("stop.patience", None)),
        ("gate.reset_on_push=false", ("gate.reset_on_push", False)),
        (" size.rule = speed ", ("size.rule", "speed")),
    ],
)
def test_an_assignment_is_read(text: str, found: tuple[str, object]) -> None:
    """As JSON where it is JSON, else as text; "off" is None."""
    assert parse_assignment(text) == found


@pytest.mark.parametrize("text", ["gate.alpha", "=3", ""])
def test_what_assigns_nothing_is_an_error(text: str) -> None:
    """With an example of how to say it."""
    with pytest.raises(SettingError, match="KEY=VALUE"):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"gate.alhpa": 1}, "Did you mean gate.alpha"),
        ({"strategy": "bsp"}, "--strategy"),
        ({"size.first": "many"}, "size.first"),
        ({"close.rule": "some"}, "each, all"),
        ({"continue.rule": "x"}, "on-version"),
        ({"round.steps": 0}, "at least 1"),
        ({"round.epochs": 0}, "at least 1"),
        ({"stop.accuracy": 1.5}, "stop.accuracy is 1.5"),
        ({"stop.samples": 0}, "at least 1"),
        ({"stop.seconds": 0}, "at least 0.001"),
        ({"workers.max": 0}, "at least 1"),
        ({"workers.lost": 2, "workers.heartbeat": 1}, "two heartbeats"),
        ({"workers.lost": 700}, "workers.longest is 600 s, workers.lost 700 s"),
        ({"close.rule": "all"}, "close.rule=all"),
        ({"round.steps": 3}, "size.rule=iqr"),
        ({"gate.beta": 2}, "gate.beta"),
        ({"merge.rule": "x"}, "merge.rule"),
        ({"size.rule": "x"}, "size.rule"),
        ({"cache.max": 0}, "at least 1"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_setting_that_cannot_work_is_named(layer: dict[str, object], words: str) -> None:
    """The error names the key or the remedy, and its exit code is 2."""
    with pytest.raises(SettingError) as caught:
        resolve("hermes-paper", [layer])
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_strategy_is_answered_with_those_there_are() -> None:
    """And the nearest one."""
    with pytest.raises(SettingError) as caught:
        resolve("fedagv", [])
    assert "Did you mean fedavg?" in str(caught.value)


def test_every_key_can_be_set() -> None:
    """Each known key, set to its own default, is accepted."""
    tree = to_tree(Settings())
    for key in known_keys():
        if key != "strategy":
            section, name = key.split(".")
            resolve("hermes-paper", [{key: tree[section][name]}])


# --- when a version closes ----------------------------------------------------------------------


def test_each_push_closes_a_version() -> None:
    """The first one that waits, alone."""
    waiting = [Waiting("b", 0), Waiting("a", 0)]
    answer = CLOSE["each"](waiting, ["a", "b", "c"], 0)
    assert isinstance(answer, Close)
    assert answer.members == (0,)
    assert isinstance(CLOSE["each"]([], ["a"], 0), Wait)


def test_all_alive_close_a_version() -> None:
    """It names who is missing; the pushes of those that are gone are in it too."""
    waiting = [Waiting("gone", 0), Waiting("a", 0)]
    answer = CLOSE["all"](waiting, ["a", "b"], 0)
    assert isinstance(answer, Wait)
    assert answer.reason.facts == {"pushed": 2, "missing": 1, "first_missing": "b"}
    answer = CLOSE["all"](waiting, ["a"], 0)
    assert isinstance(answer, Close)
    assert answer.members == (0, 1)
    assert isinstance(CLOSE["all"]([], [], 0), Wait)
