"""How does a run look while it goes? One picture, for its master and for whoever watches. Pure.

Above how far it is and how well it does, then the curves, the workers, and who waits for what. The
picture fits the terminal, and keeps its height from one moment to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

from hermes.machine.state import MasterState
from hermes.report import words
from hermes.report.live.plot import braille
from hermes.report.live.progress import Progress, others, progress
from hermes.report.live.recent import Recent, Scored
from hermes.report.live.waits import SHOWN, Around, Wait, waits
from hermes.report.live.workers import worker_lines
from hermes.report.scores import in_words, is_measured, metric_of

CURVE = 4
"""Lines of a curve, at least; its axis is one more ..."""
CURVE_MOST = 8
"""... and at most."""

HEAD = 3
"""Lines above the curves and the workers, with a blank one before them."""

WAITS = 3
"""Lines kept for waits; more on a terminal of `HIGH` lines."""
WAITS_MOST = 5
HIGH = 28

SPARE = 6
"""One line in so many of the terminal is left to the log above."""

TWO = 76
"""Letters from which two curves stand beside each other."""


STATUS = {"running": "green", "finished": "green", "stopped": "yellow"}


class Moment(NamedTuple):
    """What is known of a run just now."""

    run: str
    state: MasterState
    recent: Recent
    now: int
    """Run time, nanoseconds."""
    around: Around = Around()
    used: int = 0
    """Bytes that the run has at its broker ..."""
    limit: int = 0
    """... and may have; 0: not known."""


def picture(moment: Moment, width: int, height: int) -> list[Text]:
    """The run as it is, at most `width` letters wide and `height` lines high."""
    width = max(width - 1, 20)  # a full last column wraps on some terminals
    room = max(height - max(2, height // SPARE), 6)
    state, recent, now, around = moment.state, moment.recent, moment.now, moment.around
    told = waits(state, recent, now, around)
    waiting = WAITS if room < HIGH else WAITS_MOST
    table = worker_lines(
        state, recent, now, around, width=width, height=max(2, room - HEAD - waiting - 1)
    )
    left = room - HEAD - 1 - len(table) - waiting
    metric = metric_of(state.data)
    curves = _curves(recent, metric, width, min(CURVE_MOST, left - 3))
    title, bar, scores = _title(moment, width), _bar(moment, width), _scores(moment)
    if not curves:
        _add_sparks(scores, recent, metric, width)
    _add_best(scores, state, width)
    lines = [Text(), title, bar, scores]
    lines += [Text(), *curves] if curves else []
    lines += [Text(), *table] if left > 0 else table
    lines += _wait_lines(told, waiting)
    for line in lines:
        line.truncate(width)
        line.no_wrap, line.overflow = True, "crop"
    return lines


# --- how far, and how well ----------------------------------------------------------------------


def _title(moment: Moment, width: int) -> Text:
    state, recent = moment.state, moment.recent
    version = f"version {state.newest.version}" if state.newest else "no version yet"
    title = Text.assemble((moment.run, "bold"), f"  {state.settings.strategy}  ")
    title.append(_status(moment), STATUS.get(state.status, "red"))
    title.append(f"  {version}  {_clock(recent.seconds(moment.now))}")
    rate = recent.version_rate(moment.now)
    told = f"  {rate:.3g} versions/s" if rate is not None else ""
    title.append(told if title.cell_len + len(told) <= width else "")
    storage = words.size(moment.used) if moment.used else ""
    storage += f" of {words.size(moment.limit)}" if storage and moment.limit else ""
    if storage and title.cell_len + len(storage) + 10 <= width:
        title.append(" " * (width - title.cell_len - len(storage) - 8))
        title.append(f"storage {storage}", "dim")
    return title


def _status(moment: Moment) -> str:
    """Running, waiting for its first workers, or how it ended."""
    state = moment.state
    if state.stopped is not None:
        return f"{state.status}: {state.stopped.code}"
    return "running" if state.started is not None else "waiting"


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 1 else words.duration(seconds)


def _bar(moment: Moment, width: int) -> Text:
    """How far to the stopping rule that is nearest, and what else would stop the run."""
    seconds = moment.recent.seconds(moment.now)
    near = progress(moment.state, seconds)
    if near is None:
        samples = moment.state.newest.samples if moment.state.newest else 0
        line = Text(words.counted(samples, "sample"))
    else:
        line = _drawn(near, max(10, min(40, width // 3)))
    rest = ", ".join(others(moment.state, near))
    if rest and line.cell_len + len(rest) + 10 <= width:
        line.append(f"   or {rest}" if near else f"   until {rest}", "dim")
    return line


def _drawn(near: Progress, width: int) -> Text:
    full = min(width, int(near.share * width))
    line = Text("━" * full, "green")
    line.append("─" * (width - full), "bright_black")
    return line.append(f" {near.share * 100:3.0f} %  {near.text}", "default")


def _scores(moment: Moment) -> Text:
    known, metric = moment.state.evaluations, metric_of(moment.state.data)
    if moment.state.scored:
        scores = moment.state.scores
        loss, value = scores.get("validation_loss"), scores.get("validation_accuracy")
        text = in_words(loss, value, metric, "  ")
        tested = in_words(scores.get("test_loss"), scores.get("test_accuracy"), metric)
        return Text(f"{text}   test: {tested}")
    line = Text.assemble("loss ", (words.score(known.last_loss), "bold cyan"))
    if is_measured(known.last_loss, known.last_accuracy):
        line.append(f"  {metric} ").append(words.score(known.last_accuracy), "bold green")
    return line


def _add_best(line: Text, state: MasterState, width: int) -> None:
    best = state.evaluations.best
    if best is None or state.scored:
        return
    scores = in_words(best.loss, best.accuracy, metric_of(state.data))
    text = f"   best: {scores} (version {best.version})"
    line.append(text if line.cell_len + len(text) <= width else "", "dim")


# --- the curves ---------------------------------------------------------------------------------


def _curves(recent: Recent, metric: str, width: int, rows: int) -> list[Text]:
    """Metric and loss beside each other, or what there is, with the ends of their axes; nothing
    where `rows` are too few."""
    if rows < CURVE:
        return []
    accuracy = [(p.at, p.accuracy) for p in recent.points if p.accuracy is not None]
    loss = [(p.at, p.loss) for p in recent.points if p.loss is not None]
    both = width >= TWO or not accuracy
    shown = [(metric[:8], accuracy, "green")] if accuracy else []
    shown += [("loss", loss, "cyan")] if both else []
    each = (width - 3 * (len(shown) - 1)) // len(shown)
    drawn = [_curve(name, points, min(each, 90), rows, style) for name, points, style in shown]
    return [_beside(lines) for lines in zip(*drawn, strict=True)]


def _beside(parts: Sequence[Text]) -> Text:
    line = Text()
    for index, part in enumerate(parts):
        line.append("   " if index else "")
        line.append_text(part)
    return line


def _curve(
    name: str, points: Sequence[tuple[float, float]], width: int, rows: int, style: str
) -> list[Text]:
    """`rows` lines and the time axis, each exactly `width` letters."""
    low, high = _range([y for _, y in points], name)
    letters = width - 9
    drawn = braille(points, letters, rows, low, high)
    labels = [""] * rows
    cut = "≥" if any(y > high for _, y in points) else ""
    labels[0] = f"{cut}{high:.3g}" if len(points) > 1 else ""
    labels[-1] = f"{low:.3g}" if points else ""
    labels[rows // 2] = name
    lines = []
    for label, text in zip(labels, drawn, strict=True):
        tone = "bold" if label == name else "dim"
        lines.append(Text.assemble((f"{label:>8} ", tone), (text, style)))
    start, end = (f"{points[0][0]:.0f} s", _clock(points[-1][0])) if points else ("", "")
    axis = f"{start}{end:>{max(0, letters - len(start))}}"
    return [*lines, Text.assemble(" " * 9, (f"{axis:<{letters}}", "dim"))]


def _range(values: Sequence[float], name: str) -> tuple[float, float]:
    """The ends of the axis. A loss that starts far above would press the rest flat: the first
    points may leave it at the top."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if name == "loss" and len(values) > 8:
        high = max(values[len(values) // 8 :])
    return low, high if high > low else low + 1e-9


def _add_sparks(line: Text, recent: Recent, metric: str, width: int) -> None:
    """The curves in one line, where there is no room for more."""
    for name, called, style in (("accuracy", metric, "green"), ("loss", "loss", "cyan")):
        letters = min(16, width - line.cell_len - len(called) - 4)
        values = _column(recent.points, name)
        if values and letters >= 8:
            line.append(f"   {called} ", "dim").append(words.sparkline(values, letters), style)


def _column(points: Sequence[Scored], name: str) -> list[float]:
    return [value for point in points if (value := getattr(point, name)) is not None]


# --- the waits ----------------------------------------------------------------------------------


def _wait_lines(told: Sequence[Wait], room: int) -> list[Text]:
    """Always `room` lines, so that nothing jumps."""
    shown = list(told) if len(told) <= room else list(told[: room - 1])
    lines = [Text(wait.text, "yellow") for wait in shown]
    if len(told) > len(shown):
        lines.append(Text(f"and {words.counted(len(told) - len(shown), 'wait')} more", "yellow"))
    if not lines:
        lines.append(Text(f"nobody waits longer than {SHOWN:g} s", "bright_black"))
    return lines + [Text() for _ in range(room - len(lines))]
