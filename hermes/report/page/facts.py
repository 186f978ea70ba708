"""What does the head of a report say, and what stands at its foot? Words and numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hermes.errors import SettingError
from hermes.machine.state import MasterState
from hermes.messages import SIMULATED, RunOpened
from hermes.policy.presets import resolve, to_tree
from hermes.report import words
from hermes.report.charts.chart import Table, table
from hermes.report.charts.course import Run
from hermes.report.charts.moved import avoided
from hermes.report.scores import in_words, is_measured, metric_of
from hermes.report.story import Point, Story, Version
from hermes.values import SECOND, Reason


class Beside(NamedTuple):
    """What is known of a run beside its ledger."""

    run: str
    place: str
    """Where it was read: HOST:PORT, or a path."""
    written: str
    """Wall time, ISO 8601, UTC."""
    lives: bool = False
    """Whether its master lives."""
    traffic: Mapping[str, tuple[int, ...]] = {}
    """Bytes moved, as heartbeats have them, by process."""
    storage: str = ""
    aside: int | None = None
    """Records that were set aside; None where nobody has said."""
    reload: float = 0.0
    """Seconds after which the page is there anew; 0 for never."""


class Tile(NamedTuple):
    """A number of the head."""

    name: str
    value: str
    detail: str = ""


def headline(state: MasterState, beside: Beside) -> str:
    """How the run stands, in one sentence."""
    if state.opened is None:
        return "This run was never opened: its ledger holds nothing yet."
    if state.stopped is not None:
        return f"{state.status.capitalize()}: {_why(state.stopped)}.{_scores(state)}"
    if not beside.lives:
        return "Broken off: there is no sign of its master."
    if state.started is None:
        return (
            f"Waiting for workers: {len(state.alive())} of {state.opened.expect} are here, "
            f"as of {clock(beside.written)}."
        )
    workers = words.counted(len(state.alive()), "worker")
    return f"Running with {workers}, as of {clock(beside.written)}."


STOPS = {
    "samples": "{samples} samples were merged, the limit was {limit}",
    "versions": "the limit of {limit} versions was reached",
    "accuracy": "the accuracy on validation reached {limit}",
    "loss": "the loss on validation reached {limit}",
    "seconds": "the limit of {limit} s was reached",
    "patience": "no version was better for a while",
    "interrupted": "interrupted with Ctrl-C",
    "storage": "the run was at its storage limit",
    "no-worker-left": "no worker was left",
}
"""Why a run was stopped -> how that is said, where the facts are there."""


def _why(reason: Reason) -> str:
    said = {key: _counted(value) for key, value in reason.facts.items()}
    try:
        return STOPS[reason.code].format_map(said)
    except KeyError:
        return words.short(reason)


def _counted(value: float | int | str | bool | None) -> str:
    return words.count(value) if isinstance(value, int) else words.number(value)


def _scores(state: MasterState) -> str:
    if not state.scored:
        return ""
    accuracy, loss = state.scores.get("test_accuracy"), state.scores.get("test_loss")
    return f" On the test set: {in_words(loss, accuracy, metric_of(state.data))}."


def clock(written: str) -> str:
    """An ISO time for people: `14:29:30 UTC`."""
    return f"{written[11:19]} UTC" if len(written) > 19 else written


def tiles(run: Run, state: MasterState, beside: Beside) -> list[Tile]:
    """The numbers of the head, the most wanted first."""
    story, known, scores = run.story, state.evaluations, state.scores
    accuracy = scores.get("validation_accuracy", known.last_accuracy)
    loss = scores.get("validation_loss", known.last_loss)
    tested = state.scored
    gate = avoided(run)
    limit = state.settings.stop.samples
    samples = state.newest.samples if state.newest else 0
    moved = sum(sum(flat) for flat in beside.traffic.values())
    best = known.best
    whose = "of the last version" if tested else "scored at the end"
    metric, measured = metric_of(state.data), is_measured(loss, accuracy)
    if measured:
        first = [Tile(f"test {metric}", words.score(scores.get("test_accuracy")), whose)]
        validation = Tile(
            f"validation {metric}", words.score(accuracy), f"loss {words.score(loss)}"
        )
    else:
        first, validation = [], Tile("validation loss", words.score(loss))
    return [
        *first,
        Tile("test loss", words.score(scores.get("test_loss")), whose),
        validation,
        Tile(
            "best on validation",
            f"loss {words.score(best.loss)}" if best else "-",
            f"version {best.version}"
            + (f", {metric} {words.score(best.accuracy)}" if measured else "")
            if best
            else "",
        ),
        Tile("versions", str(state.newest.version) if state.newest else "-"),
        Tile("samples", words.count(samples), f"of {words.count(limit)}" if limit else ""),
        Tile(
            "training time",
            words.duration(run.seconds) if story.started is not None else "-",
            "virtual: it is simulated" if state.opened and state.opened.virtual else "",
        ),
        Tile("bytes moved", words.size(moved) if moved else "-", "by all processes"),
        Tile(
            "rounds pushed",
            f"{words.count(gate.pushes)} of {words.count(gate.rounds)}",
            f"{100 * gate.share:.0f} % of update bytes avoided" if gate.every else "",
        ),
        Tile("re-sizings", words.count(state.resizes)),
    ]


# --- tables -------------------------------------------------------------------------------------


def versions(run: Run) -> Table:
    """One row a version."""
    story = run.story
    scored = {point.version: point for point in story.points}
    measured = not scored or any(point.accuracy is not None for point in scored.values())
    rows = [_version_row(run, one, scored.get(one.version), measured) for one in story.versions]
    metric = [metric_of(story.data)] if measured else []
    columns = ("version", "time", "samples", "loss", *metric, "bytes", "updates (weight)")
    note = ""
    if story.versions.stride > 1:
        note = f"Every {story.versions.stride}th of {words.count(story.versions.seen)} versions."
    return Table((*columns, "reason", "digest"), tuple(rows), left=1, note=note)


def _version_row(run: Run, one: Version, point: Point | None, measured: bool) -> tuple[str, ...]:
    """`measured`: whether the job has a metric."""
    members = [f"{worker} ({_weight(weight)})" for worker, weight in one.members]
    return (
        str(one.version),
        words.duration(run.story.seconds(one.at)),
        words.count(one.samples),
        words.score(point.loss if point else None),
        *([words.score(point.accuracy if point else None)] if measured else []),
        words.size(one.length),
        ", ".join(members) or "-",
        one.reason.code,
        one.digest[:12],
    )


def _weight(value: float) -> str:
    return words.count(round(value)) if value >= 100 else f"{value:.3g}"


def resizes(run: Run) -> Table:
    """One row a re-sizing, with its numbers."""
    rows = [
        (
            one.worker,
            words.duration(run.story.seconds(one.at)),
            words.count(one.before),
            words.count(one.after),
            str(one.batch),
            words.decided(one.reason),
        )
        for one in run.story.resizes
    ]
    return table(("worker", "time", "before", "after", "batch", "why"), rows)


def workers(run: Run, state: MasterState) -> Table:
    """One row a worker: how it stands, what it runs, its last decision."""
    rows = []
    for name in run.workers:
        member = state.members.get(name)
        if member is None:
            continue
        rows.append(
            (
                name,
                member.status,
                _runs(run.story, name),
                words.count(run.story.first_shard(name)),
                words.count(member.size),
                str(member.batch),
                words.count(member.samples),
                words.decided(member.last),
            )
        )
    columns = ("worker", "state", "software and device", "first shard", "last", "batch")
    return Table((*columns, "samples merged", "last decision"), tuple(rows), left=3)


def _runs(story: Story, worker: str) -> str:
    """Framework and device, machine and versions: as far as the worker has said them."""
    known = story.software.get(worker)
    said = [story.trainers.get(worker, known.framework if known else "")]
    if known is not None and known.hermes == SIMULATED.hermes:
        return "simulated"
    if known is not None:
        said += [known.machine, f"Python {known.python}", f"hermes {known.hermes}"]
    return ", ".join(text for text in said if text) or "not known"


def decisions(run: Run) -> Table:
    """How often each gate gave which reason."""
    known = run.story.decisions
    kinds = sorted({what for counts in known.values() for what in counts})
    rows = [
        (name, *(words.count(known[name][what] if name in known else 0) for what in kinds))
        for name in run.workers
    ]
    return Table(("worker", *kinds), tuple(rows))


class Setting(NamedTuple):
    """A setting in force, and what it would be without anybody's wish."""

    key: str
    value: str
    default: str

    @property
    def changed(self) -> bool:
        """Whether somebody set it."""
        return self.value != self.default


def settings(state: MasterState) -> list[Setting]:
    """All settings of the run beside those of its strategy; first those that differ."""
    if state.opened is None:
        return []
    ours = _flat(to_tree(state.settings))
    try:
        theirs = _flat(to_tree(resolve(state.settings.strategy, [])))
    except SettingError:  # a strategy that this release does not know
        theirs = ours
    found = [
        Setting(key, value, theirs.get(key, "-"))
        for key, value in sorted(ours.items())
        if key != "strategy"
    ]
    return sorted(found, key=lambda one: not one.changed)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _shown(value)
    return found


def _shown(value: object) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _begun(opened: RunOpened) -> list[tuple[str, str]]:
    if opened.virtual:
        return [("time", "virtual: the run is simulated")]
    software = opened.software
    return [
        ("opened", opened.opened),
        ("hermes", f"{software.hermes} (protocol {software.protocol})"),
        ("master runs", f"{software.framework}, Python {software.python}"),
    ]


def about(run: Run, state: MasterState, beside: Beside) -> list[tuple[str, str]]:
    """Names and texts at the foot."""
    opened, data, story = state.opened, state.data, run.story
    found = [("run", beside.run), ("read from", beside.place), ("written", beside.written)]
    if opened is not None:
        found += _begun(opened)
        found += [
            ("strategy", state.settings.strategy),
            ("seed", str(opened.seed)),
            ("workers expected", str(opened.expect)),
        ]
    terms = [
        f"term {term}" + (f" from {words.duration(at / SECOND)} of run time" if index else "")
        for index, (at, term) in enumerate(story.terms)
    ]
    found.append(("masters", words.listed(terms, 6) or "-"))
    if data is not None:
        samples = (f"{split} {words.count(count)}" for split, count in data.samples.items())
        found.append(("samples", ", ".join(samples)))
        found.append(("batch", f"{data.batch}; blocks of {data.block} samples"))
    if beside.storage:
        found.append(("storage", beside.storage))
    if beside.aside is not None:
        found.append(("records set aside", words.count(beside.aside)))
    return found
