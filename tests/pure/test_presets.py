"""What a strategy's name stands for, and what is said about a setting that cannot be."""

from __future__ import annotations

from typing import Any

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
from hermes.policy.sync import Close, CloseSettings, Scene, Wait, Waiting, closes, since
from hermes.values import SECOND, Reason


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
    assert resolve("hermes-paper", []) == Settings()


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
        ({"close.rule": "some"}, "each, all, count, quorum"),
        ({"close.rule": "count"}, "interpolate merges one at a time"),
        ({"close.rule": "quorum"}, "interpolate merges one at a time"),
        ({"close.count": 0}, "at least 1"),
        ({"close.share": 1.1}, "above 0 and of at most 1"),
        ({"close.share": 0}, "above 0 and of at most 1"),
        ({"close.grace": -1}, "of at least 0"),
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


@pytest.mark.parametrize("rule", ["at-once", "bounded"])
def test_who_goes_on_at_once_has_no_model_to_weigh(rule: str) -> None:
    """What it sends is what is unsent, alone."""
    with pytest.raises(SettingError, match=f"continue.rule={rule} sends what is unsent alone"):
        resolve("hermes-paper", [{"continue.rule": rule}])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"continue.rule": "at-once"}, True),
        ({"continue.rule": "bounded"}, True),
        ({"continue.rule": "bounded", "continue.slack": None}, True),
        ({"continue.rule": "bounded", "continue.slack": 0}, False),
        ({"continue.rule": "on-version"}, False),
        ({"continue.rule": "at-once", "merge.max_staleness": 1}, False),
    ],
)
def test_work_that_will_be_thrown_away_is_told(changes: dict[str, object], told: bool) -> None:
    """bsp takes nothing that is stale, and only who waits is never stale."""
    found = [text for text in check(resolve("bsp", [changes])) if "thrown away" in text]
    assert bool(found) == told


# --- when a version closes ----------------------------------------------------------------------


def closing(
    pushed: str, alive: str, settings: CloseSettings, quiet: str = "", **more: Any
) -> Close | Wait:
    """What the rule says; workers are letters, in the order of their updates."""
    waiting = [Waiting(one, at) for at, one in enumerate(pushed)]
    return closes(settings, Scene(waiting, list(alive), dict.fromkeys(quiet, 2), **more))


def members(answer: Close | Wait) -> int | None:
    """How many of those that wait it takes, in order; None while it waits."""
    if isinstance(answer, Wait):
        return None
    assert answer.members == tuple(range(len(answer.members)))
    return len(answer.members)


def test_each_push_closes_a_version() -> None:
    """The first one that waits, alone."""
    each = CloseSettings(rule="each")
    assert members(closing("ba", "abc", each)) == 1
    assert members(closing("", "a", each)) is None


def test_all_alive_close_a_version() -> None:
    """It names who is missing; the pushes of those that are gone are in it too."""
    settings = CloseSettings(rule="all")
    answer = closing("xa", "ab", settings)
    assert isinstance(answer, Wait)
    assert answer.reason.facts == {"pushed": 2, "missing": 1, "first_missing": "b"}
    assert members(closing("xa", "a", settings)) == 2
    assert members(closing("", "", settings)) is None


@pytest.mark.parametrize(
    ("pushed", "alive", "taken"),
    [
        ("ab", "abcd", None),
        ("abc", "abcd", 3),
        ("abcd", "abcd", 3),
        ("aaa", "abcd", 3),
        ("ab", "ab", 2),
        ("abb", "ab", 3),
        ("a", "b", 1),
        ("x", "", 1),
        ("", "", None),
    ],
)
def test_a_count_closes_a_version(pushed: str, alive: str, taken: int | None) -> None:
    """The first three; as many as are alive where those are fewer; one worker may have several."""
    assert members(closing(pushed, alive, CloseSettings(rule="count", count=3))) == taken


@pytest.mark.parametrize(
    ("pushed", "alive", "quiet", "taken"),
    [
        ("abc", "abcde", "", None),
        ("abca", "abcde", "", None),
        ("abcx", "abcde", "", None),
        ("abcd", "abcde", "", 4),
        ("abcdx", "abcde", "", 5),
        ("ab", "abcde", "cd", 2),
        ("", "abcde", "abcde", None),
        ("x", "", "", 1),
        ("abcdefg", "abcdefghij", "", None),
        ("abcdefgh", "abcdefghij", "", 8),
    ],
)
def test_a_quorum_closes_a_version(pushed: str, alive: str, quiet: str, taken: int | None) -> None:
    """Different workers alive count, once each, and those that were quiet; it takes all."""
    settings = CloseSettings(rule="quorum", share=0.8)
    assert members(closing(pushed, alive, settings, quiet)) == taken
    nine = CloseSettings(rule="quorum", share=0.7)
    assert members(closing("abcdefg", "abcdefghij", nine)) == 7, "not eight: 0.7 * 10 > 7"


def test_a_quorum_waits_for_its_grace() -> None:
    """A tenth of the median round; not where all are heard, nor where no round was measured."""
    settings, rounds = CloseSettings(rule="quorum", share=0.5, grace=0.1), [1.0, 2.0, 9.0]
    answer = closing("ab", "abc", settings, rounds=rounds, now=1 + SECOND // 5 - 1)
    assert isinstance(answer, Wait)
    assert answer.reason.code == "grace"
    answer = closing("ab", "abc", settings, rounds=rounds, now=1 + SECOND // 5)
    assert isinstance(answer, Close)
    facts = {"quorum": 2, "pushed": 2, "quiet": 0, "alive": 3, "grace": 0.2, "waited": 0.2}
    assert answer.reason == Reason("quorum", facts)
    assert members(closing("abc", "abc", settings, rounds=rounds, now=2)) == 3
    assert members(closing("ab", "abc", settings, "c", rounds=rounds, now=2)) == 2
    assert members(closing("ab", "abc", settings, now=1)) == 2


def test_since_when_a_quorum_is_there() -> None:
    """Since enough are heard, each for the first time, and there is something to merge."""
    half, alive = CloseSettings(rule="quorum", share=0.5), list("abcd")

    def began(*waiting: tuple[str, int], **quiet: int) -> int | None:
        return since(half, Scene([Waiting(*one) for one in waiting], alive, quiet))

    assert began(("a", 3), ("a", 5)) is began(a=1, b=2, c=3) is began(("x", 1), ("b", 2)) is None
    assert began(("a", 3), ("a", 5), ("b", 7), ("c", 9)) == 7
    assert began(("a", 3), b=4) == 4
    assert began(("a", 9), b=4, c=5, d=6) == 9
    assert since(half, Scene([Waiting("x", 8)], [])) == 8
