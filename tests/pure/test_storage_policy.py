"""Is a run held to its limit, and is that limit what was asked for?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.errors import SettingError
from hermes.policy.presets import parse_assignment, resolve
from hermes.policy.storage import DEFAULT, PUSHED, bytes_of, far_off, level, limit_of, pace
from hermes.policy.sync import CloseSettings
from hermes.transport.held import Held, read_log_dirs


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("1GB", 10**9),
        ("500MB", 500 * 10**6),
        ("1.5 gb", 1_500_000_000),
        ("1GiB", 1 << 30),
        ("100kB", 100_000),
        ("2tb", 2 * 10**12),
        ("123456 B", 123_456),
        (250_000, 250_000),
        ("250000", 250_000),
    ],
)
def test_a_size_is_what_people_mean(typed: int | str, count: int) -> None:
    assert bytes_of(typed) == count


@pytest.mark.parametrize("typed", ["", "GB", "1 G B", "-1GB", "1,5GB", "1XB", "much", "1e9", 3, 0])
def test_a_bad_size_says_what_is_meant(typed: int | str) -> None:
    with pytest.raises(SettingError) as caught:
        bytes_of(typed)
    assert "storage.max=" in caught.value.remedy


@pytest.mark.parametrize("typed", ["1GB", "2000000", "auto", "off"])
def test_the_setting_takes_them_all(typed: str) -> None:
    settings = resolve("bsp", [dict([parse_assignment(f"storage.max={typed}")])])
    limit = limit_of(settings.storage.max, None)
    assert limit == {"auto": DEFAULT, "off": None}.get(typed, limit)


def test_the_limit_is_a_share_of_the_disk_where_that_is_known() -> None:
    assert limit_of("auto", None) == 10**9
    assert limit_of("auto", 80 * 10**9) == 16 * 10**9
    assert limit_of("auto", 70 * 10**9, used=10 * 10**9) == 16 * 10**9, "what is ours counts"
    assert limit_of("3MB", 80 * 10**9) == 3 * 10**6
    assert limit_of(None, 80 * 10**9) is None


def test_no_limit_lies_above_what_the_disk_can_hold() -> None:
    """A run stops by its limit, never by a broker that has died of a full disk."""
    assert limit_of("1TB", 10 * 10**9) == 9 * 10**9


@given(st.integers(0, 10**13), st.integers(1, 10**13))
def test_far_then_near_then_full(used: int, limit: int) -> None:
    found = level(used, limit)
    assert (found == "full") == (used >= limit)
    assert (found == "near") == (0.9 * limit <= used < limit)
    assert level(used, None) == ""


def test_the_pace_of_a_barrier_is_that_of_its_slowest() -> None:
    """Four workers, a version for every four updates."""
    found = pace(4_000_000, [0.1, 0.1, 0.1, 0.95], "open", CloseSettings(rule="all"))
    assert found.versions == pytest.approx(1800), "a second of it goes into moving 20 MB"
    assert found.pushes == pytest.approx(4 * 1800)
    assert found.bytes == pytest.approx(5 * 1800 * 4 * 10**6, rel=0.01)


def test_the_pace_of_some_is_between_that_of_each_and_that_of_all() -> None:
    """Three of four are no slower than the third; two updates in a version are half as many."""
    rounds = [0.45, 0.45, 0.45, 9.5]
    some = pace(0, rounds, "open", CloseSettings(rule="quorum", share=0.7))
    assert some.versions == pytest.approx(7200)
    assert some.pushes == pytest.approx(3 * 7200 + 3600 / 9.5)
    one = pace(0, rounds, "open", CloseSettings(rule="each"))
    two = pace(0, rounds, "open", CloseSettings(rule="count", count=2))
    assert (two.pushes, two.versions) == pytest.approx((one.pushes, one.versions / 2))


def test_the_pace_of_a_gate_is_its_share_of_the_rounds() -> None:
    opened = pace(1_000_000, [9.98], "open", CloseSettings(rule="each"))
    assert opened.rounds == pytest.approx(360)
    assert opened.bytes == pytest.approx(2 * 360 * 10**6, rel=0.01)
    gated = pace(1_000_000, [9.98], "zscore", CloseSettings(rule="each"))
    assert gated.pushes == pytest.approx(360 * PUSHED["zscore"])
    assert gated.rounds == pytest.approx(360)


def test_the_pace_is_bounded_by_what_a_master_can_publish() -> None:
    found = pace(0, [1e-6] * 64, "open", CloseSettings(rule="each"))
    assert found.versions == pytest.approx(72_000)
    assert found.rounds == pytest.approx(found.pushes)
    large = pace(10**8, [1e-6] * 64, "zscore", CloseSettings(rule="each"))
    assert large.versions == pytest.approx(3600 / 10.05)
    assert large.bytes == pytest.approx(72e9, rel=0.01), "not more than can be moved"


def test_far_off_is_more_than_twice() -> None:
    assert not far_off(100, 200)
    assert not far_off(100, 50)
    assert far_off(100, 201)
    assert far_off(100, 49)


ANSWER = [
    {
        "broker": 1,
        "log_dirs": [
            {
                "error_code": 0,
                "log_dir": "/a",
                "topics": [
                    {
                        "name": "hermes.r.data",
                        "partitions": [{"partition_index": 0, "partition_size": 1070}],
                    },
                    {
                        "name": "hermes.other.data",
                        "partitions": [{"partition_index": 0, "partition_size": 5}],
                    },
                ],
                "total_bytes": 100,
                "usable_bytes": 40,
            },
            {"error_code": 56, "log_dir": "/broken", "topics": [], "usable_bytes": 1},
            {"error_code": 0, "log_dir": "/b", "topics": [], "usable_bytes": 30},
        ],
    }
]
"""As kafka-python 3.0.12 decodes version 4 of Apache Kafka 4.3.1, shortened."""


def test_what_the_broker_says_is_read() -> None:
    assert read_log_dirs(ANSWER, "hermes.r.") == Held({"hermes.r.data": 1070}, 30)
    assert read_log_dirs(ANSWER, "hermes.").bytes == 1075


def test_an_older_broker_says_nothing_of_its_disk() -> None:
    """Before Kafka 3.3; and -1 stands for unknown."""
    folder = {"error_code": 0, "log_dir": "/a", "topics": []}
    for told in ({}, {"usable_bytes": -1, "total_bytes": -1}):
        assert read_log_dirs([{"broker": 1, "log_dirs": [{**folder, **told}]}], "x").free is None
