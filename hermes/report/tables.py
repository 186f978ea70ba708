"""What does a person see of a run? Tables for the terminal: at its end, and while it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hermes.machine.state import MasterState, Member
from hermes.report import words
from hermes.report.story import Story
from hermes.values import SECOND

RESIZES = 6
"""Re-sizings that a status shows, beside each worker's first."""

STYLE = {"alive": "green", "lost": "red", "left": "dim"}


def plain_table(*columns: str, left: int = 1) -> Table:
    """A table without frames; all but the first `left` columns are numbers."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=True)
    return table


def output() -> Console:
    """A console for results; to a file or a pipe they are as wide as they need to be."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def fact_lines(facts: Mapping[str, str]) -> list[Text]:
    """Names in bold and texts, one a line; never broken, so that a path can be copied."""
    width = max(map(len, facts), default=0) + 2
    return [
        Text.assemble((f"{name:<{width}}", "bold"), text, no_wrap=True, overflow="ignore")
        for name, text in facts.items()
    ]


# --- at the end ---------------------------------------------------------------------------------


def result_table(result: Mapping[str, Any], story: Story | None = None) -> Table:
    """One row a worker, from a result and (for the shard at first) the run's story."""
    table = plain_table(
        "worker", "rounds", "pushes", "quiet", "samples", "shard: first", "-> last", "waiting"
    )
    for name, row in result["workers"].items():
        first = story.first_shard(name) if story else None
        table.add_row(
            name,
            words.count(row["rounds"]),
            words.count(row["pushes"]),
            words.count(row["quiet"]),
            words.count(row["samples"]),
            words.count(first),
            words.count(row["final_shard"]),
            waiting_share(row["busy_seconds"], row["waiting_seconds"]),
        )
    return table


def result_view(result: Mapping[str, Any], story: Story | None = None) -> RenderableType:
    """A run that is over: table, scores, bytes, and where things lie."""
    return Group(Text(), result_table(result, story), Text(), *fact_lines(_result_facts(result)))


def _result_facts(result: Mapping[str, Any]) -> dict[str, str]:
    accuracy, loss = result["accuracy"], result["loss"]
    moved = {kind: both["sent"] + both["received"] for kind, both in result["bytes"].items()}
    paths = result["paths"]
    version = "none" if result["version"] is None else result["version"]
    return {
        "run": f"{result['run']} ({result['strategy']}, seed {result['seed']}): "
        f"{result['status']}, {result['reason']}",
        "test": f"accuracy {words.score(accuracy['test'])}, loss {words.score(loss['test'])}",
        "validation": f"accuracy {words.score(accuracy['validation'])}, "
        f"loss {words.score(loss['validation'])}",
        "model": f"version {version}, {words.count(result['samples'])} samples in "
        f"{words.duration(result['seconds'])}, {result['reallocations']} re-sizings",
        "moved": ", ".join(f"{kind} {words.size(number)}" for kind, number in moved.items()),
        "folder": str(paths.get("folder")),
        "weights": str(paths.get("model") or "none"),
        "picture": str(paths.get("picture") or "none"),
    }


def waiting_share(busy: float, waited: float) -> str:
    """The share of a worker's time that it waited."""
    total = busy + waited
    return f"{100 * waited / total:.0f} %" if total else "-"


# --- while it goes ------------------------------------------------------------------------------


def worker_rows(state: MasterState, *, ages: Mapping[str, float] | None = None) -> Table:
    """One row a worker: what the ledger says of it, and its last decision."""
    columns = ["worker", "state", "shard", "rounds", "pushes", "quiet", "samples", "waiting"]
    table = plain_table(*columns, left=2)
    table.add_column("last decision", justify="left", no_wrap=True, overflow="ellipsis")
    if ages is not None:
        table.add_column("ago", justify="right", no_wrap=True)
    for name, member in sorted(state.members.items()):
        row: list[str | Text] = [
            name,
            Text(member.status, style=STYLE.get(member.status, "")),
            words.count(member.size),
            words.count(member.rounds),
            words.count(member.pushes),
            words.count(member.quiet),
            words.count(member.samples),
            waiting_share(member.busy, member.waited),
            words.short(member.last),
        ]
        if ages is not None:
            row.append(f"{ages.get(name, 0.0):.1f} s")
        table.add_row(*row)
    return table


def status_view(
    state: MasterState,
    story: Story,
    *,
    run: str,
    place: str,
    condition: str,
    storage: str,
    quarantined: str,
) -> RenderableType:
    """What `hermes status` shows."""
    known = state.evaluations
    opened, newest = state.opened, state.newest
    lines = {
        "run": f"{run} ({place})",
        "strategy": f"{state.settings.strategy}, seed {opened.seed}" if opened else "-",
        "state": condition,
        "term": str(state.authority.term),
        "version": f"{newest.version}" if newest else "-",
        "samples": _samples(state),
        "validation": f"loss {words.score(known.last_loss)}, accuracy "
        f"{words.score(known.last_accuracy)} (version {known.last_version})"
        if known.count
        else "-",
        "storage": storage,
        "quarantined": quarantined,
    }
    if state.scored:
        scores = state.scores
        lines["test"] = (
            f"loss {words.score(scores.get('test_loss'))}, "
            f"accuracy {words.score(scores.get('test_accuracy'))}"
        )
    return Group(*fact_lines(lines), Text(), worker_rows(state), *_resize_lines(story))


def _resize_lines(story: Story) -> list[Text]:
    """Each worker's first re-sizing, and the last few of all."""
    first = {resize.worker: resize for resize in reversed(story.resizes)}
    shown = [
        r
        for i, r in enumerate(story.resizes)
        if r is first[r.worker] or i >= len(story.resizes) - RESIZES
    ]
    left = len(story.resizes) - len(shown)
    lines = [Text(words.resize_line(resize)) for resize in shown]
    if left:
        lines.append(Text(f"(and {left} between; --json has all of them)", style="dim"))
    return [Text(), Text("re-sized", style="bold"), *lines] if lines else []


def _samples(state: MasterState) -> str:
    merged = state.newest.samples if state.newest else 0
    limit = state.settings.stop.samples
    return f"{words.count(merged)} of {words.count(limit)}" if limit else words.count(merged)


# --- as JSON ------------------------------------------------------------------------------------


def status_json(state: MasterState, story: Story) -> dict[str, Any]:
    """What `hermes status --json` prints of a ledger; keys are only ever added."""
    known, newest = state.evaluations, state.newest
    stopped = state.stopped
    return {
        "strategy": state.settings.strategy,
        "seed": state.opened.seed if state.opened else None,
        "expect": state.opened.expect if state.opened else None,
        "status": state.status,
        "training": state.started is not None and stopped is None,
        "stop": {"code": stopped.code, "facts": stopped.facts} if stopped else None,
        "term": state.authority.term,
        "version": newest.version if newest else None,
        "samples": newest.samples if newest else 0,
        "seconds": round(story.seconds(story.stopped or story.end), 3),
        "accuracy": {
            "validation": state.scores.get("validation_accuracy", known.last_accuracy),
            "test": state.scores.get("test_accuracy"),
        },
        "loss": {
            "validation": state.scores.get("validation_loss", known.last_loss),
            "test": state.scores.get("test_loss"),
        },
        "workers": {name: _worker_json(m) for name, m in sorted(state.members.items())},
        "reallocations": state.resizes,
        "resizings": [
            {
                "worker": resize.worker,
                "seconds": round(story.seconds(resize.at), 3),
                "before": resize.before,
                "after": resize.after,
                "batch": resize.batch,
                "code": resize.reason.code,
                "facts": resize.reason.facts,
            }
            for resize in story.resizes
        ],
    }


def _worker_json(member: Member) -> dict[str, Any]:
    return {
        "status": member.status,
        "rounds": member.rounds,
        "pushes": member.pushes,
        "quiet": member.quiet,
        "vetoed": member.vetoed,
        "applied": member.applied,
        "rejected": member.rejected,
        "samples": member.samples,
        "trained": member.trained,
        "busy_seconds": round(member.busy / SECOND, 3),
        "waiting_seconds": round(member.waited / SECOND, 3),
        "shard": member.size,
        "last": {"code": member.last.code, "facts": member.last.facts},
    }
