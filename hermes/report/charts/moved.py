"""Where did the bytes of a run go, and which did the gate avoid? Charts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hermes.report import words
from hermes.report.charts.chart import Bar, Bars, Chart, Head, Lines, Series, table
from hermes.report.charts.course import Run, running_sum, total
from hermes.report.charts.scales import axis, in_order
from hermes.report.story import Pushed

KINDS = ("data", "model", "update", "control", "logs")
"""Purposes, in the order of a flat traffic (`transport.counting.KINDS`; a test says so)."""


class Avoided(NamedTuple):
    """What a gate kept from being sent, from the ledger alone."""

    rounds: int
    pushes: int
    length: float
    """Bytes of an update, on average."""

    @property
    def sent(self) -> int:
        """Bytes of the updates pushed."""
        return round(self.pushes * self.length)

    @property
    def every(self) -> int:
        """Bytes, had every round been pushed."""
        return round(max(self.rounds, self.pushes) * self.length)

    @property
    def share(self) -> float:
        """Of the bytes of pushing every round, the part that was not sent."""
        return 1 - self.sent / self.every if self.every else 0.0


def avoided(run: Run, worker: str | None = None) -> Avoided:
    """Of one worker, or of all. A worker that never pushed would have sent updates as long as the
    others'."""
    story = run.story
    names = run.workers if worker is None else (worker,)
    pushed = [story.pushed.get(name, Pushed()) for name in names]
    everyone = list(story.pushed.values())
    known = pushed if any(one.updates for one in pushed) else everyone
    count, length = sum(one.updates for one in known), sum(one.length for one in known)
    rounds = sum(total(story.rounds.get(name, ())).rounds for name in names)
    return Avoided(rounds, sum(one.updates for one in pushed), length / count if count else 0.0)


def said(known: Avoided) -> str:
    """What the gate avoided, in words."""
    if not known.rounds:
        return "No round is finished yet."
    if not known.pushes:
        return f"Of {words.count(known.rounds)} rounds none was pushed."
    return (
        f"Of {words.count(known.rounds)} rounds {words.count(known.pushes)} were pushed: "
        f"{words.size(known.sent)} of updates instead of {words.size(known.every)}; "
        f"{100 * known.share:.0f} % ({words.size(known.every - known.sent)}) was not sent."
    )


def byte_charts(run: Run, traffic: Mapping[str, tuple[int, ...]]) -> list[Chart]:
    """Bytes by purpose and process (where anybody has said), over time, and what was avoided."""
    found: list[Chart] = []
    if traffic:
        found.append(by_process(traffic))
    if run.story.moved:
        found.append(over_time(run))
    if run.workers:
        found.append(gate(run))
    return found


def by_process(traffic: Mapping[str, tuple[int, ...]]) -> Bars:
    """Bytes that each process sent and received, by purpose."""
    names = [name for name in ("master",) if name in traffic]
    names += in_order([name for name in traffic if name not in names])
    bars, rows = [], []
    for name in names:
        flat = (*traffic[name], *(0,) * 10)[: 2 * len(KINDS)]
        both = tuple(float(flat[2 * i] + flat[2 * i + 1]) for i in range(len(KINDS)))
        bars.append(Bar(name, both, words.size(sum(both))))
        rows.append((name, *(words.size(number) for number in (*flat, sum(flat)))))
    sums = [sum(bar.parts[i] for bar in bars) for i in range(len(KINDS))]
    whole = sum(sums)
    most = max(range(len(KINDS)), key=sums.__getitem__)
    says = f"{words.size(whole)} were sent and received by all processes together; most of it, "
    says += f"{100 * sums[most] / whole:.0f} %, was {NAMES[most]}." if whole else "nothing yet."
    columns = ("process", *(f"{kind} {way}" for kind in KINDS for way in ("sent", "received")))
    head = Head(
        "traffic",
        "Bytes by purpose and process",
        says,
        table((*columns, "all"), rows),
        "Sent and received together: what one process sends another receives.",
    )
    across = axis("bytes sent and received", "bytes", [sum(b.parts) for b in bars], zero=True)
    return Bars(head, across, KINDS, tuple(bars))


NAMES = ("the dataset", "versions of the model", "updates", "messages and the ledger", "log lines")


def over_time(run: Run) -> Lines:
    """Bytes of updates and versions stored, and of updates had every round been pushed."""
    story = run.story
    xs = (0.0, *(story.seconds(one.at) for one in story.moved), run.seconds)
    last = story.moved[-1]
    updates = (0.0, *(float(one.updates) for one in story.moved), float(last.updates))
    versions = (0.0, *(float(one.versions) for one in story.moved), float(last.versions))
    series = [
        Series("updates", xs, updates, 1, step=True),
        Series("versions", xs, versions, 0, step=True),
    ]
    known = avoided(run)
    if known.length and known.rounds > known.pushes:
        parts = [(s.end, float(s.rounds)) for all_of in story.rounds.values() for s in all_of]
        times, sums = running_sum(parts)
        every = tuple(amount * known.length for amount in sums)
        at = tuple(story.seconds(time) for time in times)
        name = "updates, had every round been pushed"
        series.append(Series(name, (0.0, *at), (0.0, *every), 11, step=True))
    rows = [
        (words.duration(story.seconds(one.at)), words.size(one.updates), words.size(one.versions))
        for one in story.moved
    ]
    stride = story.moved.stride
    note = f"One change of {stride} is kept." if stride > 1 else ""
    says = f"{words.size(last.updates)} of updates and {words.size(last.versions)} of versions "
    says += "were stored in the log."
    head = Head(
        "stored",
        "Bytes stored over time",
        says,
        table(("time", "updates", "versions"), rows, note=note),
        "Lengths as the ledger has them; each version is stored once and read by many.",
    )
    values = [series_[-1] for series_ in (one.ys for one in series)]
    vertical = axis("bytes stored so far", "bytes", values, zero=True)
    return Lines(head, run.time, vertical._replace(high=vertical.high * 1.06), tuple(series))


def gate(run: Run) -> Bars:
    """Bytes of updates sent, and those that quiet rounds did not send."""
    bars, rows = [], []
    for name in (None, *run.workers):
        known = avoided(run, name)
        label = name or "all workers"
        sent, left = float(known.sent), float(known.every - known.sent)
        text = f"{100 * known.share:.0f} % avoided" if known.every else "nothing yet"
        if name is not None:
            bars.append(Bar(label, (sent, left), text))
        numbers = (words.count(known.rounds), words.count(known.pushes), words.size(known.sent))
        share = f"{100 * known.share:.1f} %"
        rows.append((label, *numbers, words.size(known.every), words.size(round(left)), share))
    columns = ("worker", "rounds", "pushes", "sent", "every round pushed", "avoided", "share")
    head = Head(
        "gate",
        "What the gate avoided",
        said(avoided(run)),
        table(columns, rows),
        "Pushes by the length of an update, against rounds by the same length.",
    )
    across = axis("bytes of updates", "bytes", [sum(bar.parts) for bar in bars], zero=True)
    return Bars(head, across, ("sent", "not sent"), tuple(bars))
