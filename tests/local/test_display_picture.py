"""Does the picture fit the terminal, whatever its size, and say what the ledger says?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from steps import Step, whole_run

from hermes.machine.state import Evaluations, MasterState
from hermes.policy.presets import resolve
from hermes.report import words
from hermes.report.live.columns import Column, table
from hermes.report.live.picture import Moment, picture
from hermes.report.live.plot import BLANK, braille
from hermes.report.live.progress import others, progress
from hermes.report.live.recent import POINTS, Recent
from hermes.report.live.workers import worker_lines
from hermes.values import SECOND, Reason


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """A whole run."""
    return whole_run("hermes-paper", tmp_path_factory.mktemp("simulated"))


SIZES = [(40, 10), (60, 14), (80, 24), (100, 30), (120, 36), (200, 50)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_picture_fits_and_does_not_jump(records: list[Step], width: int, height: int) -> None:
    recent, heights = Recent(), set()
    for number, step in enumerate(records):
        recent.read(step.record)
        if (number % 20 and number + 1 < len(records)) or step.state.opened is None:
            continue
        moment = Moment("a-run", step.state, recent, step.record.time + SECOND, used=10**6)
        lines = picture(moment, width, height)
        assert len(lines) < height
        assert all(cell_len(line.plain) < width for line in lines)
        if len(step.state.members) == 4 and len(recent.points) > 1:
            heights.add(len(lines))
    assert len(heights) == 1
    text = "\n".join(line.plain for line in lines)
    assert "finished: samples" in text
    if height >= 24:
        assert all(name in text for name in step.state.members)


def test_all_columns_stand_in_120_letters(records: list[Step]) -> None:
    recent = Recent()
    for step in records:
        recent.read(step.record)
    recent.hear(dict.fromkeys(step.state.members, (10**7,) * 10), step.record.time)
    (head, *rows) = worker_lines(step.state, recent, step.record.time, width=119)
    for name in ("speed", "shard", "rounds", "push/quiet/veto", "samples", "sent", "received"):
        assert name in head.plain
    assert "last decision" in head.plain
    member = step.state.members["worker-1"]
    assert f"{member.pushes}/{member.quiet}/{member.vetoed}" in rows[0].plain
    assert "50.0 MB" in rows[0].plain
    narrow = worker_lines(step.state, recent, step.record.time, width=50)[0].plain
    assert narrow.split()[:2] == ["worker", "state"]


def test_twelve_workers_on_few_lines(records: list[Step]) -> None:
    state, recent = records[-1].state, Recent()
    one = state.members["worker-1"]
    many = {f"worker-{n}": one.__class__(f"worker-{n}", "i") for n in range(1, 13)}
    crowd = MasterState(opened=state.opened, started=1, members=many)
    lines = [line.plain for line in worker_lines(crowd, recent, 1, width=79, height=8)]
    assert len(lines) == 8
    assert lines[-1] == "and 6 more"
    names = [line.plain.split()[0] for line in worker_lines(crowd, recent, 1, width=79)[1:]]
    assert names == [f"worker-{n}" for n in range(1, 13)], "2 before 10"


# --- its parts ----------------------------------------------------------------------------------


@given(
    widths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    width=st.integers(5, 150),
)
def test_no_line_of_a_table_is_too_wide(widths: list[int], width: int) -> None:
    columns = [Column(f"c{n}", ["x" * size], rank=n) for n, size in enumerate(widths)]
    columns.append(Column("words", ["w" * 40], 1, left=True, least=8))
    lines = table(columns, width)
    assert all(cell_len(line.plain) <= width for line in lines)
    assert width < max(2, widths[0]) or lines[0].plain.strip().startswith("c0")
    if sum(widths) + 3 * len(widths) + 60 < width:
        assert "w" * 40 in lines[1].plain
        assert all(f"c{n}" in lines[0].plain for n in range(len(widths)))


@given(
    values=st.lists(st.floats(-10, 10), min_size=2, max_size=40),
    width=st.integers(2, 40),
    height=st.integers(1, 6),
)
def test_a_curve_has_a_dot_in_every_column_of_dots(
    values: list[float], width: int, height: int
) -> None:
    points = list(enumerate(values))
    lines = braille([(float(x), y) for x, y in points], width, height, min(values), max(values))
    assert (len(lines), {len(line) for line in lines}) == (height, {width})
    letters = [[ord(c) - BLANK if c != " " else 0 for c in line] for line in lines]
    for column in range(width):
        together = 0
        for line in letters:
            together |= line[column]
        assert together & 0x47
        assert together & 0xB8


def test_a_rising_curve_goes_from_the_lower_left_to_the_upper_right() -> None:
    assert braille([(0, 0), (1, 1)], 4, 2, 0, 1) == ["  ⡠⠊", "⡠⠊  "]
    assert braille([], 3, 2, 0, 1) == ["   ", "   "]


def test_a_curve_of_a_long_run_is_thinned_out() -> None:
    from hermes.messages import LedgerRecord, VersionEvaluated

    recent = Recent()
    for n in range(5 * POINTS):
        entry = VersionEvaluated(n, float(n), 0.5, n * SECOND, 1)
        recent.read(LedgerRecord(1, "", n, b"", n * SECOND, (), (entry,)))
        assert recent.points[-1].loss == n, "the newest is always there"
    assert POINTS / 2 <= len(recent.points) <= POINTS
    losses = [point.loss for point in recent.points]
    assert losses == sorted(losses)  # type: ignore[type-var]


def test_how_far_a_run_is() -> None:
    def of(**stop: object) -> tuple[str, list[str]]:
        settings = resolve("bsp", [{f"stop.{key}": value for key, value in stop.items()}])
        state = MasterState(settings=settings, evaluations=Evaluations())
        near = progress(state, 30.0)
        return near.text if near else "", others(state, near)

    assert of() == ("", [])
    assert of(samples=1) == ("0 of 1 sample", [])
    assert of(seconds=60, versions=1000) == ("30.0 s of 1 min 00 s", ["1 000 versions"])
    assert of(patience=25, accuracy=0.97) == ("", ["accuracy 0.97", "patience 0 of 25"])


def test_words() -> None:
    assert [words.counted(n, "worker") for n in (0, 1, 2, 1200)] == [
        "0 workers",
        "1 worker",
        "2 workers",
        "1 200 workers",
    ]
    assert [words.listed(list("abcde")[:n]) for n in (1, 2, 3, 5)] == [
        "a",
        "a and b",
        "a, b and c",
        "a, b and 3 more",
    ]
    assert [words.age(s) for s in (-1, 0.44, 9.96, 61, 240, 9000)] == [
        "0.0 s",
        "0.4 s",
        "10 s",
        "61 s",
        "4 min",
        "2 h",
    ]
    below = Reason("below-threshold", {"z": -1.518, "threshold": -1.3})
    assert words.decided(below) == "pushed: z -1.52 <= -1.3"
    assert words.decided(Reason("below-threshold", {"z": 1.0})) == "below-threshold (z 1)"
    assert words.decided(Reason("unheard-of", {"a": 1})) == "unheard-of (a 1)"
