"""Do the charts say what the rounds were? Thinning, axes, colours, and what the gate avoided."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.report.charts.chart import TABLE, Head, Lines, Series, Table, table
from hermes.report.charts.course import courses, curves, run_of, total
from hermes.report.charts.looks import DARK, HUES, LIGHT, dash, hue
from hermes.report.charts.moved import KINDS, avoided, by_process, said
from hermes.report.charts.numbers import numbers
from hermes.report.charts.scales import Axis, axis, in_order
from hermes.report.charts.svg import drawn
from hermes.report.story import Story
from hermes.report.thin import Stretch, Stretches, Thinned, merged
from hermes.transport import counting

# --- thinning -----------------------------------------------------------------------------------


@given(st.integers(2, 40), st.integers(0, 500))
def test_a_thinned_series_is_even_and_ends_with_the_newest(most: int, count: int) -> None:
    series: Thinned[int] = Thinned(most)
    for number in range(count):
        series.put(number)
    assert len(series) <= most
    assert series.seen == count
    assert series[-1:] == list(range(count))[-1:]
    assert series[:-1] == [n for n in range(0, count, series.stride) if n != count - 1]


def rounds(lengths: list[tuple[int, int, int]]) -> list[Stretch]:
    found, now = [], 0
    for busy, moved, waited in lengths:
        end = now + busy + moved + waited
        found.append(Stretch(now, end, busy, moved, waited, pushes=busy % 2, samples=busy))
        now = end
    return found


LENGTHS = st.lists(st.tuples(*(st.integers(0, 1000) for _ in range(3))), max_size=200)


@given(LENGTHS, st.integers(4, 50))
def test_rounds_put_together_keep_every_sum(lengths: list[tuple[int, int, int]], most: int) -> None:
    every, kept = rounds(lengths), Stretches(most)
    for one in every:
        kept.put(one)
    assert len(kept) <= most
    for field in range(2, len(Stretch._fields)):
        assert sum(one[field] for one in kept) == sum(one[field] for one in every)
    assert total(kept)[2:] == total(every)[2:]


@given(LENGTHS, st.integers(0, 5000))
def test_what_is_put_together_is_no_longer_than_asked(
    lengths: list[tuple[int, int, int]], width: int
) -> None:
    for one in merged(rounds(lengths), width):
        assert one.rounds == 1 or one.end - one.start <= width


def test_a_long_table_says_that_it_was_thinned_and_keeps_its_last_row() -> None:
    rows = [(str(number),) for number in range(3 * TABLE + 1)]
    made = table(("n",), rows)
    assert len(made.rows) <= TABLE
    assert made.rows[-1] == rows[-1]
    assert "3001 rows" in made.note


# --- axes ---------------------------------------------------------------------------------------

VALUES = st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=20)


@given(VALUES, st.sampled_from(["time", "samples", "bytes", "rate", "score"]), st.booleans())
def test_an_axis_holds_its_values_and_its_ticks(
    values: list[float], unit: str, may_be_log: bool
) -> None:
    made = axis("x", unit, values, zero=not may_be_log, may_be_log=may_be_log)
    assert all(-1e-9 <= made.place(value) <= 1 + 1e-9 for value in values)
    ticks = made.ticks(6)
    assert len(ticks) <= 16
    assert ticks == sorted(set(ticks))
    assert all(-1e-6 <= made.place(tick) <= 1 + 1e-6 for tick in ticks)
    assert all(made.text(tick) for tick in ticks)


def test_ticks_are_round_numbers_with_units() -> None:
    long = Axis("t", "time", 0, 500)
    assert [long.text(tick) for tick in long.ticks(4)] == ["0", "3 min", "6 min"]
    size = Axis("b", "bytes", 0, 2_200_000)
    told = [size.text(tick).replace("\N{NO-BREAK SPACE}", " ") for tick in size.ticks(3)]
    assert told == ["0", "1 MB", "2 MB"]
    assert [Axis("s", "score", 0.09, 2.5, log=True).text(t) for t in (0.1, 0.2, 1)] == [
        "0.1",
        "0.2",
        "1",
    ]


@pytest.mark.parametrize("values", [[], [0.0], [5.0, 5.0], [math.nan], [0.0, 0.0]])
def test_an_axis_of_little_is_an_axis(values: list[float]) -> None:
    made = axis("x", "score", values)
    assert made.low < made.high
    assert made.ticks(5)


def test_workers_are_in_the_order_that_people_count() -> None:
    names = ["worker-10", "worker-2", "pi", "worker-1", "a" * 40]
    assert in_order(names) == ["a" * 40, "pi", "worker-1", "worker-2", "worker-10"]


# --- colours ------------------------------------------------------------------------------------


def linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(one: str, other: str) -> float:
    """WCAG 2."""
    lights = sorted(
        sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True))
        for c in (one, other)
    )
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_and_texts_are_readable_on_their_ground(palette: dict[str, str]) -> None:
    for name in ("ink", "grey", "accent", "good", "bad"):
        assert contrast(palette[name], palette["ground"]) >= 4.5, name
        assert contrast(palette[name], palette["panel"]) >= 4.5, name
    for name in [f"c{index}" for index in range(HUES)] + ["train", "move"]:
        assert contrast(palette[name], palette["ground"]) >= 3, name


DEUTERANOPIA = ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969))
PROTANOPIA = ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052))
"""Machado, Oliveira and Fernandes 2009, severity 1, in linear light."""


def lab(parts: list[float]) -> tuple[float, float, float]:
    """Oklab."""
    r, g, b = (max(0.0, p) for p in parts)
    long = (0.4122 * r + 0.5363 * g + 0.0514 * b) ** (1 / 3)
    mid = (0.2119 * r + 0.6807 * g + 0.1074 * b) ** (1 / 3)
    short = (0.0883 * r + 0.2817 * g + 0.6300 * b) ** (1 / 3)
    return (
        0.2105 * long + 0.7936 * mid - 0.0041 * short,
        1.9780 * long - 2.4286 * mid + 0.4506 * short,
        0.0259 * long + 0.7828 * mid - 0.8087 * short,
    )


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("eyes", [DEUTERANOPIA, PROTANOPIA], ids=["deutan", "protan"])
def test_hues_are_told_apart_by_those_who_see_fewer(
    palette: dict[str, str], eyes: tuple[tuple[float, ...], ...]
) -> None:
    seen = []
    for index in range(HUES):
        light = linear(palette[f"c{index}"])
        seen.append(lab([sum(w * p for w, p in zip(row, light, strict=True)) for row in eyes]))
    for index, one in enumerate(seen):
        for other in seen[:index]:
            assert math.dist(one, other) > 0.08, (index, palette)


def test_twelve_workers_have_twelve_looks() -> None:
    assert len({(hue(look), dash(look)) for look in range(24)}) == 24


# --- charts of little ---------------------------------------------------------------------------


def test_a_story_of_nothing_has_no_charts() -> None:
    run = run_of(Story())
    assert curves(run, "time") == []
    assert courses(run) == []
    assert avoided(run).share == 0
    assert said(avoided(run)) == "No round is finished yet."


def test_purposes_are_those_that_are_counted() -> None:
    assert KINDS == counting.KINDS


def test_bytes_by_process_add_up_and_short_traffic_counts_as_zeros() -> None:
    chart = by_process({"worker-2": (1, 2, 3), "master": tuple(range(10))})
    assert [bar.name for bar in chart.bars] == ["master", "worker-2"]
    assert [sum(bar.parts) for bar in chart.bars] == [45, 6]
    assert by_process({"master": ()}).head.says.endswith("nothing yet.")


@pytest.mark.parametrize(
    "xs",
    [
        (5.0, 5.0, 5.0, 9.0),
        (5.0, 5.0, 5.055),  # the third lies where the second had to go
        (5.02, 5.022),
        (10.0,) * 36,  # at the edge of the frame
    ],
)
def test_points_that_coincide_lie_side_by_side(xs: tuple[float, ...]) -> None:
    """One of as many strategies each: all are seen, near to their places and in the frame."""
    axes = (axis("time", "time", [0.0, 10.0]), axis("bytes", "bytes", [0.0, 10.0]))
    series = [Series(f"s{at}", (x,), (5.0,), at, scattered=True) for at, x in enumerate(xs)]
    head = Head("front", "A front", "", Table(("x",), ()), "")
    text = drawn(Lines(head, *axes, tuple(series)))
    wide = text[: text.index("</svg>")]
    marks = re.findall(r'<(?:circle|rect) class="dot[^>]*? (c?)x="([0-9.]+)" c?y="([0-9.]+)"', wide)
    half = {"c": 0.0, "": 5.0}  # a square is told by its corner
    places = [(float(x) + half[kind], float(y) + half[kind]) for kind, x, y in marks]
    assert len(places) == len(xs)
    for (x, y), (left, top) in itertools.combinations(places, 2):
        assert max(abs(x - left), abs(y - top)) > 4.8
    frame = re.search(r'data-box="([0-9.]+) ([0-9.]+) ([0-9.]+)', wide)
    assert frame is not None
    left, right = float(frame[1]), float(frame[3])
    for value, (x, _) in zip(xs, places, strict=True):
        assert x <= right + 0.1
        assert abs(x - left - axes[0].place(value) * (right - left)) <= 26


def test_names_cannot_leave_the_drawing_or_the_numbers() -> None:
    evil = '</script><svg onload="alert(1)">&'
    story = Story()
    story.shards[evil] = Thinned()
    story.shards[evil].put((0, 5))
    story.rounds[evil] = Stretches()
    story.rounds[evil].put(Stretch(0, 10, 5, 2, 3, samples=4))
    story.started, story.end = 0, 10
    charts = courses(run_of(story))
    assert len(charts) == 3
    for text in [*(drawn(chart) for chart in charts), numbers(charts)]:
        assert "<svg onload" not in text
        assert "</script" not in text
