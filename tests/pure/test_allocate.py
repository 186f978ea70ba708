"""Sizes of shards: worked examples by hand, and what must hold for any cluster."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hermes.errors import SettingError
from hermes.policy.allocate import (
    BATCHES,
    Keep,
    Quartiles,
    SizeSettings,
    Sizing,
    Timing,
    Work,
    WorkerTimes,
    check_size,
    first_size,
    fit,
    fitting_batch,
    quartiles_of,
    resize,
    samples_per_second,
    shares,
    total,
)
from hermes.policy.ranges import shown
from hermes.values import SECOND

few = settings(max_examples=25, deadline=None)
IQR = SizeSettings(rule="iqr")
SPEED = SizeSettings(rule="speed")
WORK = Work(batch=32, epochs=5, largest=60_000, total=10_000)


def worker(
    *rounds: tuple[int, float], name: str = "me", size: int = 2500, batch: int = 32
) -> WorkerTimes:
    """From rounds of (steps, seconds)."""
    timings = tuple(Timing(steps, round(seconds * SECOND)) for steps, seconds in rounds)
    return WorkerTimes(name, timings, size, batch)


def others(*seconds: float) -> list[WorkerTimes]:
    """Workers whose latest round lasted that long, and an earlier one that must not count."""
    return [
        worker((400, 999), (400, time), name=f"worker-{i}") for i, time in enumerate(seconds, 1)
    ]


# --- iqr: worked by hand --------------------------------------------------------------------------


def test_quartiles_are_numpys_linear_ones() -> None:
    """Four times: Q1 lies a quarter from the second down to the first."""
    assert quartiles_of([4 * SECOND, SECOND, 2 * SECOND, 3 * SECOND]) == Quartiles(1.75, 2.5, 3.25)


@given(st.lists(st.integers(1, 10**18), min_size=1, max_size=20))
def test_quartiles_are_numpys_to_the_last_bit(times: list[int]) -> None:
    known = np.percentile(np.array(times, np.float64), [25, 50, 75], method="linear")
    assert quartiles_of(times) == Quartiles(*(float(value) / SECOND for value in known))


def test_a_straggler_meets_the_median_of_the_others() -> None:
    """Q1 9.5, Q3 10.5, fences 8 and 12. 40 s for 400 steps is 0.1 s a step, so 10 s are 100
    steps: 20 a pass, 640 samples."""
    answer = resize(IQR, worker((400, 40.0)), others(9, 10, 11), WORK)
    assert isinstance(answer, Sizing)
    assert (answer.size, answer.batch, answer.reason.code) == (640, 32, "outlier")
    assert answer.reason.facts == pytest.approx(
        {
            "time": 40.0,
            "q1": 9.5,
            "q3": 10.5,
            "iqr": 1.0,
            "median": 10.0,
            "a": 0.0,
            "b": 0.1,
            "steps": 100.0,
            "size": 640,
            "batch": 32,
        }
    )
    assert list(answer.reason.facts) == [
        *("time", "q1", "q3", "iqr", "median"),
        *("a", "b", "steps", "size", "batch"),
    ]


def test_two_step_counts_show_the_fixed_part() -> None:
    """2 s and 0.1 s a step: 10 s are 80 steps, 16 a pass, 512 samples."""
    me = worker((400, 42.0), (200, 22.0))
    answer = resize(IQR, me, others(9, 10, 11), WORK)
    assert isinstance(answer, Sizing)
    assert answer.reason.facts["a"] == pytest.approx(2)
    assert answer.reason.facts["b"] == pytest.approx(0.1)
    assert answer.size == 512


def test_a_fast_worker_gets_more_up_to_the_train_set() -> None:
    """0.01 s a step: 10 s are 1000 steps, 200 a pass, 6400 samples."""
    me = worker((400, 4.0))
    assert resize(IQR, me, others(9, 10, 11), WORK)[0] == 6400
    answer = resize(IQR, me, others(9, 10, 11), WORK._replace(largest=5000))
    assert isinstance(answer, Sizing)
    assert (answer.size, answer.batch) == (5000, 32)


@pytest.mark.parametrize(
    ("seconds", "times", "code"),
    [
        (40.0, (10, 10), "too-few"),
        (40.0, (), "too-few"),
        (10.9, (10, 10, 10), "near-median"),
        (9.1, (10, 10, 10), "near-median"),
        (11.1, (10, 10, 10), "outlier"),
        (12.0, (9, 10, 11), "inside"),  # Q3 + 1.5 IQR itself
        (8.0, (9, 10, 11), "inside"),
        (12.1, (9, 10, 11), "outlier"),
        (7.9, (9, 10, 11), "outlier"),
        (40.0, (0.4, 0.4, 0.4), "nothing-fits"),  # 4 steps for 5 passes
        (40.0, (0.5, 0.5, 0.5), "outlier"),  # 5 steps: one batch a pass
    ],
)
def test_who_is_an_outlier(seconds: float, times: tuple[float, ...], code: str) -> None:
    assert resize(IQR, worker((400, seconds)), others(*times), WORK).reason.code == code


def test_where_half_of_the_cluster_is_slow_nobody_is_an_outlier() -> None:
    assert resize(IQR, worker((400, 10.0)), others(1, 1, 10), WORK).reason.code == "inside"
    assert resize(IQR, worker((400, 1.0)), others(1, 10, 10), WORK).reason.code == "inside"


def test_one_batch_a_pass_is_the_least_that_fits() -> None:
    assert resize(IQR, worker((400, 40.0)), others(0.5, 0.5, 0.5), WORK)[:2] == (32, 32)


def test_a_train_set_below_a_batch_shrinks_the_batch() -> None:
    work = WORK._replace(largest=20)
    assert resize(IQR, worker((400, 4.0)), others(10, 10, 10), work)[:2] == (20, 16)


def test_others_that_have_not_finished_a_round_do_not_count() -> None:
    waiting = worker(name="new")
    assert resize(IQR, worker((9, 40.0)), [waiting, *others(9, 9)], WORK).reason.code == "too-few"
    assert resize(IQR, waiting, others(9, 9, 9), WORK).reason.code == "no-timing"


def test_nothing_new_is_no_answer() -> None:
    """Asked again before the new size shows in a time, the rule says the same."""
    me = worker((400, 40.0), size=640)
    answer = resize(IQR, me, others(9, 10, 11), WORK)
    assert isinstance(answer, Keep)
    assert answer.reason.code == "same-size"
    assert answer.reason.facts["size"] == 640


def test_steps_count_in_the_batch_that_they_were_measured_with() -> None:
    """0.1 s for 8 samples: 10 s are 100 steps, 20 a pass, 160 samples, a whole batch again."""
    me = worker((50, 5.0), size=20, batch=8)
    assert resize(IQR, me, others(10, 10, 10), WORK)[:2] == (160, 32)


# --- the fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "target", "line"),
    [
        ([(100, 10.0), (100, 14.0)], 5.0, (0.0, 0.12)),  # one step count: through the origin
        ([(100, 11.0), (200, 21.0), (300, 31.0)], 5.0, (1.0, 0.1)),
        ([(100, 20.0), (200, 10.0)], 5.0, (0.0, 0.08)),  # more steps in less time
        ([(100, 20.0), (200, 10.0)], 50.0, (0.0, 0.08)),  # ... of a worker that is to get more
        ([(100, 5.0), (200, 15.0)], 5.0, (0.0, 0.07)),  # a = -5 s is no time
        ([(100, 16.0), (200, 26.0)], 5.0, (0.0, 0.136)),  # a = 6 s is beyond the target
    ],
)
def test_the_line_is_the_best_that_makes_sense(
    rounds: list[tuple[int, float]], target: float, line: tuple[float, float]
) -> None:
    assert fit(worker(*rounds).timings, target) == pytest.approx(line)


def test_only_the_last_eight_rounds_count() -> None:
    old, new = [(100, 500.0)] * 3, [(400, 40.0)] * 8
    answer = resize(IQR, worker(*old, *new), others(9, 10, 11), WORK)
    assert answer.reason.facts["b"] == pytest.approx(0.1)


# --- iqr: what must hold --------------------------------------------------------------------------

seconds = st.floats(0.01, 1000)


@few
@given(
    offset=st.floats(0, 5),
    step=st.floats(0.001, 1),
    counts=st.lists(st.integers(1, 2000), min_size=2, max_size=8, unique=True),
    times=st.lists(st.floats(1, 500), min_size=3, max_size=9),
    batch=st.sampled_from([1, 16, 32, 100]),
)
def test_an_outlier_lands_within_a_step_of_the_median(
    offset: float, step: float, counts: list[int], times: list[float], batch: int
) -> None:
    """In steps' worth of samples, for a true time of offset + step * steps."""
    me = worker(*((n, offset + step * n) for n in counts), batch=batch)
    work = Work(batch, epochs=5, largest=10**9, total=0)
    answer = resize(IQR, me, others(*times), work)
    if isinstance(answer, Keep):
        return
    facts = {name: float(fact or 0) for name, fact in answer.reason.facts.items()}
    assume(facts["a"] != 0)  # with an offset of the median or more there is no such size
    took = offset + step * answer.size * 5 / batch
    # 5 samples of each batch at most are rounded away; the fit itself is good to a millionth.
    assert abs(took - facts["median"]) <= step * max(1, 5 / batch) + 1e-4


@few
@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats(0, 500)), max_size=9),
    st.lists(seconds, max_size=6),
    st.integers(1, 300),
    st.integers(1, 6),
    st.integers(1, 5000),
    st.sampled_from(["fixed", "iqr", "speed"]),
)
def test_whatever_was_measured_an_answer_is_within_bounds(
    rounds: list[tuple[int, float]],
    times: list[float],
    batch: int,
    epochs: int,
    largest: int,
    rule: str,
) -> None:
    work = Work(batch, epochs, largest, total=largest)
    gate = SizeSettings(rule=rule)
    answer = resize(gate, worker(*rounds, batch=batch), others(*times), work)
    assert len(msgspec.msgpack.encode(answer.reason)) < 256
    if isinstance(answer, Sizing):
        assert 1 <= answer.size <= largest
        assert 1 <= answer.batch <= min(batch, answer.size)


@few
@given(st.lists(seconds, min_size=3, max_size=8), seconds)
def test_two_identical_workers_get_identical_answers(times: list[float], mine: float) -> None:
    first, second = worker((400, mine), name="a"), worker((400, mine), name="b")
    rest = others(*times)
    for rule in (IQR, SPEED):
        one = resize(rule, first, [second, *rest], WORK)
        two = resize(rule, second, [*rest, first], WORK)
        assert one == two


@pytest.mark.parametrize(
    ("size", "batch", "fits"),
    [(32, 32, 32), (500, 100, 100), (99, 100, 32), (31, 32, 16), (3, 32, 2), (1, 32, 1)],
)
def test_the_batch_is_the_jobs_or_the_largest_that_fits(size: int, batch: int, fits: int) -> None:
    assert fitting_batch(size, batch) == fits


@given(st.integers(1, 300), st.integers(1, 300))
@few
def test_a_batch_is_never_above_the_size_or_the_jobs(size: int, batch: int) -> None:
    fits = fitting_batch(size, batch)
    assert fits <= min(size, batch)
    assert fits == batch or fits in BATCHES


# --- speed ----------------------------------------------------------------------------------------


def paced(*rates: float, size: int = 2500) -> list[WorkerTimes]:
    """Workers of so many samples a second."""
    return [worker((1000, 32_000 / r), name=f"worker-{i}", size=size) for i, r in enumerate(rates)]


def test_sizes_go_with_samples_a_second() -> None:
    """Speeds 1, 1, 0.5, 0.1 share 10,000 samples: 10,000 / 2.6 = 3846.15 to each whole one."""
    workers = paced(1000, 1000, 500, 100)
    assert shares(workers, WORK) == [3846, 3846, 1923, 384]
    for me, size in zip(workers, (3846, 3846, 1923, 384), strict=True):
        answer = resize(SPEED, me, [other for other in workers if other is not me], WORK)
        assert isinstance(answer, Sizing)
        assert (answer.size, answer.batch, answer.reason.code) == (size, 32, "by-speed")


def test_speed_is_the_median_of_the_last_eight_rounds() -> None:
    rounds = [(100, 500.0)] * 5 + [(100, 10.0), (100, 1.0)] + [(50, 4.0)] * 5 + [(100, 9.0)]
    assert samples_per_second(worker(*rounds)) == pytest.approx(12.5 * 32)
    assert samples_per_second(worker((100, 10.0), (100, 5.0))) == pytest.approx(15 * 32)
    assert samples_per_second(worker()) is None


@pytest.mark.parametrize(
    ("size", "code"), [(5000, "dead-band"), (5250, "dead-band"), (4762, "dead-band")]
)
def test_a_change_within_the_dead_band_is_not_made(size: int, code: str) -> None:
    me, other = paced(700, 700, size=size)
    answer = resize(SPEED, me, [other], WORK)
    assert isinstance(answer, Keep)
    assert answer.reason.code == code


@pytest.mark.parametrize("size", [4761, 5264])
def test_a_change_beyond_the_dead_band_is_made(size: int) -> None:
    me, other = paced(700, 700, size=size)
    assert resize(SPEED, me, [other], WORK)[0] == 5000


def test_a_whole_share_loses_nothing_to_rounding() -> None:
    """Nanoseconds make 700 samples a second 699.99999999."""
    assert shares(paced(700, 300), WORK) == [7000, 3000]


def test_a_worker_alone_takes_all() -> None:
    assert shares(paced(3), WORK) == [10_000]


def test_a_worker_not_measured_yet_keeps_its_size_out_of_the_total() -> None:
    new = worker(name="new", size=2000)
    assert shares([*paced(1000, 250), new], WORK) == [5332, 1333, 2000]
    assert resize(SPEED, new, paced(1, 2), WORK).reason.code == "no-timing"


def test_the_slowest_gets_one_batch_at_least_and_the_rest_share_what_is_left() -> None:
    assert shares(paced(1000, 1000, 1), WORK) == [4984, 4984, 32]


def test_the_fastest_gets_the_train_set_at_most_and_the_rest_share_what_is_left() -> None:
    assert shares(paced(8, 1, 1), WORK._replace(largest=6000)) == [6000, 2000, 2000]


def test_a_total_that_does_not_reach_for_a_batch_each_is_still_shared() -> None:
    assert shares(paced(5, 5, 5, 5), WORK._replace(total=40)) == [10] * 4
    assert shares(paced(5, 1), WORK._replace(total=1)) == [1, 1]


@few
@given(
    st.lists(st.floats(0.1, 1e5), min_size=1, max_size=12),
    st.integers(1, 64),
    st.integers(64, 5000),
    st.integers(0, 60_000),
)
def test_the_total_is_preserved(rates: list[float], batch: int, largest: int, extra: int) -> None:
    """To the rounding: less than a sample each, and never more than the total."""
    total = min(len(rates) * batch + extra, len(rates) * largest)
    work = Work(batch, 5, largest, total)
    sizes = shares(paced(*rates), work)
    assert total - len(rates) < sum(sizes) <= total
    assert all(batch <= size <= largest for size in sizes)
    ranked = [size for _, size in sorted(zip(rates, sizes, strict=True))]
    assert ranked == sorted(ranked)


@few
@given(st.lists(st.floats(100, 1000), min_size=2, max_size=10))
def test_all_rounds_take_the_same_time(rates: list[float]) -> None:
    workers = paced(*rates)
    speeds = [samples_per_second(w) or math.nan for w in workers]
    sizes = shares(workers, WORK)
    longest = WORK.total / math.fsum(speeds)
    for size, rate in zip(sizes, speeds, strict=True):
        assert longest - 1 / rate - 1e-9 <= size / rate <= longest + 1e-9


# --- fixed, first size, settings ------------------------------------------------------------------


def test_fixed_never_changes_anything() -> None:
    answer = resize(SizeSettings(rule="fixed"), worker((400, 40.0)), others(1, 1, 1), WORK)
    assert isinstance(answer, Keep)
    assert answer.reason.code == "fixed"


@pytest.mark.parametrize(
    ("train", "expected", "size"), [(60_000, 4, 2500), (1258, 4, 314), (3, 4, 1), (100, 0, 100)]
)
def test_the_first_size(train: int, expected: int, size: int) -> None:
    assert first_size(SizeSettings(), train, expected) == size


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rule", "random"),
        ("first", 0),
        ("fence", -1.0),
        ("fence", math.inf),
        ("near", 1.0),
        ("near", math.nan),
        ("deadband", -0.01),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        check_size(msgspec.convert({key: value}, SizeSettings))
    assert caught.value.what == f"size.{key} is {shown(value)}"


def test_the_defaults_pass() -> None:
    assert check_size(SizeSettings()) == []


def test_a_mean_size_is_shared_out_once_speeds_are_known() -> None:
    """Not more than one pass over the train set, nor than anybody's bound."""
    firsts, most = [100, 100, 50], [600, 600, 50]
    assert total(SizeSettings(), firsts, most, 600) == 250
    assert total(SizeSettings(mean=150), firsts, most, 600) == 350
    assert total(SizeSettings(mean=500), firsts, most, 600) == 600
