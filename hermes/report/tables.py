"""What does a person see of a run? Tables for the terminal: at its end, and as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hermes.machine.state import MasterState, Member
from hermes.report import words
from hermes.report.live.health import health
from hermes.report.live.recent import Recent
from hermes.report.live.waits import CALM, Around, standing
from hermes.report.live.workers import waiting_share, worker_lines
from hermes.report.scores import ACCURACY, in_words, is_measured, metric_of
from hermes.report.story import Resize, Story
from hermes.values import SECOND, Superstep

RESIZES = 6
"""Re-sizings that a status shows, beside each worker's first."""


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
        *("worker", "rounds", "pushes", "quiet", "vetoed"),
        *("samples", "shard: first", "-> last", "waiting"),
    )
    for name, row in result["workers"].items():
        first = story.first_shard(name) if story else None
        table.add_row(
            name,
            words.count(row["rounds"]),
            words.count(row["pushes"]),
            words.count(row["quiet"]),
            words.count(row["vetoed"]),
            words.count(row["samples"]),
            words.count(first),
            words.count(row["final_shard"]),
            waiting_share(row["busy_seconds"], row["waiting_seconds"]),
        )
    return table


def result_view(result: Mapping[str, Any], story: Story | None = None) -> RenderableType:
    """A run that is over: table, scores, bytes, and where things lie."""
    facts = fact_lines(_result_facts(result))
    if not result["workers"]:  # it ended before any of them was heard of
        return Group(Text(), *facts)
    return Group(Text(), result_table(result, story), Text(), *facts)


def _result_facts(result: Mapping[str, Any]) -> dict[str, str]:
    moved = {kind: both["sent"] + both["received"] for kind, both in result["bytes"].items()}
    paths = result["paths"]
    version = "none" if result["version"] is None else result["version"]
    resized = words.counted(result["reallocations"], "re-sizing")
    virtual = " of virtual time" if result.get("simulated") else ""
    return {
        "run": f"{result['run']} ({result['strategy']}, seed {result['seed']}): "
        f"{result['status']}, {result['reason']}",
        **_simulated(result),
        **{split: _result_scores(result, split) for split in ("test", "validation")},
        "model": f"version {version}, {words.counted(result['samples'], 'sample')} in "
        f"{words.duration(result['seconds'])}{virtual}, {resized}",
        "moved": ", ".join(f"{kind} {words.size(number)}" for kind, number in moved.items()),
        "folder": str(paths.get("folder")),
        "weights": str(paths.get("model") or "none"),
        "picture": str(paths.get("picture") or "none"),
        "report": str(paths.get("report") or "none"),
    }


def _simulated(result: Mapping[str, Any]) -> dict[str, str]:
    if not result.get("simulated"):
        return {}
    here = words.duration(result["real_seconds"])
    return {"simulated": f"on the devices of {result['devices']['file']}, in {here} here"}


def _result_scores(result: Mapping[str, Any], split: str) -> str:
    loss, value = result["loss"][split], result["accuracy"][split]
    metric = result.get("metric", ACCURACY)  # results of before know no other
    told = f"{metric} {words.score(value)}, " if is_measured(loss, value) else ""
    return f"{told}loss {words.score(loss)}"


# --- as it stands -------------------------------------------------------------------------------


def status_view(
    state: MasterState,
    story: Story | None,
    recent: Recent,
    facts: Mapping[str, str],
    width: int,
    around: Around = CALM,
) -> RenderableType:
    """What `hermes status` shows, at most `width` letters wide; `facts` (run, state, storage,
    topics, quarantined, and where to look: evidence) and `around` have what the ledger does not
    say; the re-sizings are those of `story`, if it is given."""
    known, metric = state.evaluations, metric_of(state.data)
    opened, newest = state.opened, state.newest
    lines = {
        "run": facts["run"],
        "strategy": f"{state.settings.strategy}, seed {opened.seed}" if opened else "-",
        "state": facts["state"],
        "term": str(state.authority.term),
        "version": f"{newest.version}" if newest else "-",
        "samples": _samples(state),
        "time": _time(state, recent, virtual=opened is not None and opened.virtual),
        "validation": _scores(known.last_loss, known.last_accuracy, metric)
        + (f" (version {known.last_version})" if known.count or state.scored else ""),
    }
    if known.best is not None:
        best = _scores(known.best.loss, known.best.accuracy, metric)
        lines["best"] = f"{best} (version {known.best.version})"
    if state.scored:
        loss, value = state.scores.get("test_loss"), state.scores.get("test_accuracy")
        lines["test"] = _scores(loss, value, metric)
    if newest is not None and newest.superstep is not None:
        lines["quotas"] = _quotas(newest.superstep)
    beside = ("storage", "topics", "quarantined", "evidence")
    lines |= {name: facts[name] for name in beside if name in facts}
    workers = worker_lines(state, recent, state.time, around, width=width, moving=False)
    resizes = _resize_lines(story) if story is not None else []
    return Group(*fact_lines(lines), Text(), *workers, *resizes)


def _quotas(planned: Superstep) -> str:
    """How many rounds' work each worker does until the next barrier, and why."""
    quotas = ", ".join(f"{name} {quota}" for name, quota in planned.quotas.items())
    return f"{quotas}: {words.decided(planned.reason)}"


def _scores(loss: float | None, value: float | None, metric: str) -> str:
    return "-" if loss is None and value is None else in_words(loss, value, metric)


def _time(state: MasterState, recent: Recent, *, virtual: bool) -> str:
    """How long it has trained, and how fast."""
    if recent.started is None:
        return "-"
    seconds, version = recent.seconds(state.time), state.newest.version if state.newest else 0
    rate = f", {version / seconds:.3g} versions/s" if seconds and version else ""
    return f"{words.duration(seconds)}{rate}{', virtual: it is simulated' if virtual else ''}"


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
    text = f"{words.count(merged)} of {words.count(limit)}" if limit else words.count(merged)
    trained = sum(member.trained for member in state.members.values())
    return f"{text} merged, {words.count(trained)} trained"


# --- as JSON ------------------------------------------------------------------------------------


def status_json(
    state: MasterState,
    story: Story,
    recent: Recent,
    around: Around = CALM,
) -> dict[str, Any]:
    """What `hermes status --json` prints of a ledger and its last beat; keys are only ever added.

    `samples_per_second` of a worker is while it trains, over its last rounds.
    """
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
        "trained": sum(member.trained for member in state.members.values()),
        "seconds": round(story.seconds(story.stopped or story.end), 3),
        "accuracy": {
            "validation": state.scores.get("validation_accuracy", known.last_accuracy),
            "test": state.scores.get("test_accuracy"),
        },
        "loss": {
            "validation": state.scores.get("validation_loss", known.last_loss),
            "test": state.scores.get("test_loss"),
        },
        "metric": metric_of(state.data)
        if is_measured(known.last_loss, known.last_accuracy)
        else None,
        "best": _best_json(state),
        "workers": {
            name: _worker_json(state, member, recent, around)
            for name, member in sorted(state.members.items())
        },
        "reallocations": state.resizes,
        "resizings": [_resize_json(story, resize) for resize in story.resizes],
    }


def _resize_json(story: Story, resize: Resize) -> dict[str, Any]:
    return {
        "worker": resize.worker,
        "seconds": round(story.seconds(resize.at), 3),
        "before": resize.before,
        "after": resize.after,
        "batch": resize.batch,
        "code": resize.reason.code,
        "facts": resize.reason.facts,
    }


def _best_json(state: MasterState) -> dict[str, Any] | None:
    best = state.evaluations.best
    if best is None:
        return None
    return {"version": best.version, "loss": best.loss, "accuracy": best.accuracy}


def _worker_json(
    state: MasterState, member: Member, recent: Recent, around: Around
) -> dict[str, Any]:
    stands = standing(state, recent, member, state.time, around)
    moved, speed = recent.moved.get(member.name, ()), recent.speed(member.name)
    decided = recent.decided.get(member.name)
    return {
        "status": member.status,
        "doing": stands.word,
        "health": health(state, recent, member, stands, around),
        "returned": recent.returned.get(member.name),
        "samples_per_second": round(speed, 3) if speed is not None else None,
        "first_shard": recent.shards.get(member.name),
        "bytes": {"sent": sum(moved[::2]), "received": sum(moved[1::2])} if moved else None,
        "decided": round(decided / SECOND, 3) if decided is not None else None,
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
