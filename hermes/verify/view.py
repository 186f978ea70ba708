"""How is it told what was verified? As tables for a person, and as one JSON object."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hermes.report import words
from hermes.report.tables import fact_lines, plain_table
from hermes.report.words import count, counted
from hermes.verify.findings import Finding
from hermes.verify.payloads import NO_BROKER, RETENTION
from hermes.verify.run import Report
from hermes.verify.versions import WORDS, Looked

SHOWN = 8
"""Of findings, voids, bars of a histogram: what a page shows."""


def summary(report: Report) -> str:
    """`verified: 120 records, 800 decisions, 25 versions (20 recomputed, 5 trimmed)`."""
    looked = any(one.outcome in ("recomputed", "checked") for one in report.versions)
    head = "verified" if looked or not report.versions else "verified, but for the versions"
    head = "does not hold" if report.findings else head
    return (
        f"{head}: {counted(report.records, 'record')}, "
        f"{counted(report.decisions.total, 'decision')}, "
        f"{counted(len(report.versions), 'version')}"
        + (f" ({_versions(report)})" if report.versions else "")
    )


OUTCOMES = {
    "recomputed": "recomputed",
    "checked": "by their bytes alone",
    RETENTION: "trimmed",
    NO_BROKER: "not at hand",
    "rewound": "lost and done again",
    "lost": "lost",
    "differs": "differing",
}
"""Of a version, for people."""


def page(report: Report, notes: list[str]) -> RenderableType:
    """What `hermes verify` shows; `notes`: what else is to be said, a line each."""
    lines = {
        "run": f"{report.source.called} ({report.source.kind}; {report.source.place})",
        "ledger": _ledger(report),
        "decisions": _decisions(report),
        "versions": _versions(report),
    }
    if report.states:
        lines["momentum"] = _states(report)
    if report.forked:
        first = report.versions[0].version if report.versions else "-"
        lines["forked"] = f"from version {first} of {report.forked}: verify that run, too"
    lines["tensors"] = _tensors(report)
    lines["updates"] = _updates(report)
    lines["blocks"] = _blocks(report)
    rows: list[RenderableType] = [*fact_lines(lines), Text(), _table(report)]
    told = [histogram_line(report), *_not_recomputed(report.versions), *notes]
    told = [line for line in told if line]
    if told:
        rows += [Text(), *(Text(line, no_wrap=True, overflow="ignore") for line in told)]
    return Group(*rows, Text(), Text(summary(report), style="red" if report.findings else "green"))


def _ledger(report: Report) -> str:
    voids = Counter(void.why for void in report.voids)
    told = f"{counted(report.records, 'record')} count, {counted(len(report.terms), 'master')}"
    if not voids:
        return f"{told}; none is void"
    first = ", ".join(str(void.offset) for void in report.voids[:SHOWN])
    whys = ", ".join(f"{why} {n}" for why, n in voids.most_common(SHOWN))
    more = " ..." if len(report.voids) > SHOWN else ""
    return f"{told}; {counted(len(report.voids), 'void record')} ({whys}) at offset {first}{more}"


def _decisions(report: Report) -> str:
    agrees, not_again, differs = report.decisions.outcomes().values()
    told = f"{count(agrees)} agree, {count(not_again)} are inputs (scores, words from outside)"
    return f"{told}, {count(differs)} differ"


def _versions(report: Report) -> str:
    outcomes = Counter(one.outcome for one in report.versions)
    parts = [f"{count(outcomes[k])} {said}" for k, said in OUTCOMES.items() if outcomes[k]]
    return ", ".join(parts) or "none"


def _states(report: Report) -> str:
    parts = [f"{count(n)} {WORDS.get(name, name)}" for name, n in Counter(report.states).items()]
    return f"{counted(len(report.states), 'snapshot')}: {', '.join(parts)}"


def _tensors(report: Report) -> str:
    if report.source.tensors is None:
        return f"none could be read: {report.source.why}"
    stored = sum(not one.stored for one in report.versions)
    told = f"{words.size(report.bytes)} read; {count(stored)} versions lie there as they must"
    again = [f"{counted(report.norms, 'norm')} measured again"] if report.norms else []
    again += [f"{counted(report.scores, 'score')}, too"] if report.scores else []
    return "; ".join([told, *again])


def _updates(report: Report) -> str:
    rows = report.updates.table().values()
    total = {key: sum(row[key] for row in rows) for key in ("pushed", "applied", "rejected")}
    undecided = sum(row["undecided"] for row in rows)
    why = Counter[str]()
    for row in rows:
        why.update(row["reasons"])
    reasons = ", ".join(f"{code} {n}" for code, n in why.most_common(SHOWN))
    return (
        f"{count(total['pushed'])} pushed = {count(total['applied'])} applied + "
        f"{count(total['rejected'])} rejected{f' ({reasons})' if reasons else ''} + "
        f"{count(undecided)} undecided"
    )


def _blocks(report: Report) -> str:
    blocks, data = report.blocks, report.state.data
    if data is not None and data.shares:
        return (
            "none: the data stay with the workers; their sums were put together again, and what "
            "each of them measured cannot be measured here"
        )
    if not blocks.count:
        return "none"
    passes = blocks.passes()
    told = (
        f"{counted(blocks.count, 'block')}: {count(int(blocks.granted.sum()))} grants = "
        f"{count(int(passes.sum()))} trained + {count(int(blocks.returned.sum()))} returned + "
        f"{count(int(blocks.held().sum()))} held"
    )
    return f"{told}; passes {passes.min()} .. {passes.max()}, mean {passes.mean():.2f}"


def _table(report: Report) -> Table:
    """Updates and blocks by worker, and how often the blocks were trained."""
    table = plain_table(
        *("worker", "pushed", "applied", "rejected", "undecided", "blocks trained", "of them once"),
        "most",
    )
    updates = report.updates.table()
    for name in sorted({*updates, *report.blocks.trained}):
        row = updates.get(name, {})
        mine = report.blocks.trained.get(name)
        numbers = [count(row.get(key, 0)) for key in ("pushed", "applied", "rejected", "undecided")]
        if mine is None:
            table.add_row(name, *numbers, "0", "0", "0")
            continue
        several = (int(mine.sum()), int((mine == 1).sum()), int(mine.max(initial=0)))
        table.add_row(name, *numbers, *(count(number) for number in several))
    return table


def histogram(report: Report) -> dict[int, int]:
    """How many blocks were trained so and so often."""
    return dict(sorted(Counter(int(n) for n in report.blocks.passes()).items()))


def histogram_line(report: Report) -> str:
    """`blocks by passes: 2 x 10, 3 x 110`."""
    found = histogram(report)
    if not found:
        return ""
    bars = words.sparkline(list(found.values()), zero=True)
    parts = [f"{passes} times {count(blocks)}" for passes, blocks in found.items()]
    more = f" ... {parts[-1]}" if len(parts) > SHOWN else ""
    return f"blocks by how often they were trained: {', '.join(parts[:SHOWN])}{more}  {bars}"


def _not_recomputed(versions: list[Looked]) -> list[str]:
    """What could not be recomputed, as ranges of versions, with the cause."""
    lines: list[str] = []
    for why, first, last, lacks in _stretches(versions):
        span = f"version {first}" if first == last else f"versions {first} .. {last}"
        because = WORDS.get(why, why)
        detail = f" ({lacks})" if lacks else ""
        lines.append(f"not recomputed: {span}: {because}{detail}")
    return lines


def _stretches(versions: list[Looked]) -> list[tuple[str, int, int, str]]:
    """(why, first, last, what was missing for the first), of those next to each other."""
    found: list[tuple[str, int, int, str]] = []
    for one in versions:
        if not one.formed:
            continue
        if found and found[-1][0] == one.formed and found[-1][2] == one.version - 1:
            found[-1] = (*found[-1][:2], one.version, found[-1][3])
        else:
            found.append((one.formed, one.version, one.version, one.lacks))
    return found


# --- json ---------------------------------------------------------------------------------------


def as_json(report: Report, notes: list[str]) -> dict[str, Any]:
    """All of it."""
    return {
        "run": report.source.called,
        "source": report.source.kind,
        "place": report.source.place,
        "holds": not report.findings,
        "summary": summary(report),
        "end": report.end,
        "records": report.records,
        "terms": report.terms,
        "voids": [void._asdict() for void in report.voids],
        "decisions": {
            "total": report.decisions.total,
            **{name.replace(" ", "_"): n for name, n in report.decisions.outcomes().items()},
            "kinds": {kind: dict(found) for kind, found in report.decisions.counts.items()},
        },
        "versions": [_version(one) for one in report.versions],
        "outcomes": dict(Counter(one.outcome for one in report.versions)),
        "snapshots": dict(Counter(report.states)),
        "norms": report.norms,
        "scores": report.scores,
        "bytes": report.bytes,
        "tensors": report.source.why or "read",
        "updates": _all_updates(report),
        "blocks": _all_blocks(report),
        "forked_from": report.forked or None,
        "notes": notes,
        "findings": [_finding(one) for one in report.findings],
    }


def _version(one: Looked) -> dict[str, Any]:
    return {
        "version": one.version,
        "offset": one.offset,
        "outcome": one.outcome,
        "not_recomputed": one.formed or None,
        "not_stored": one.stored or None,
        "lacks": one.lacks or None,
    }


def _finding(one: Finding) -> dict[str, Any]:
    found = one._asdict()
    return {**found, "offset": one.offset if one.offset >= 0 else None, "text": one.text}


def _all_updates(report: Report) -> dict[str, Any]:
    table = report.updates.table()
    keys = ("pushed", "applied", "rejected", "undecided")
    each = [
        {
            "worker": worker,
            "incarnation": birth.incarnation,
            "number": birth.number,
            "offset": fate.offset,
            "outcome": fate.outcome,
            "version": fate.version,
            "reason": fate.why or None,
        }
        for (worker, birth), fate in report.updates.fates.items()
    ]
    totals = {key: sum(row[key] for row in table.values()) for key in keys}
    return {**totals, "workers": table, "each": each}


def _all_blocks(report: Report) -> dict[str, Any]:
    blocks = report.blocks
    passes, held = blocks.passes(), blocks.held()
    each = [
        {
            "block": index,
            "granted": int(blocks.granted[index]),
            "trained": int(passes[index]),
            "returned": int(blocks.returned[index]),
            "held": int(held[index]),
            "by": {name: int(n[index]) for name, n in blocks.trained.items() if n[index]},
        }
        for index in range(blocks.count)
    ]
    spread = None
    if blocks.count:
        spread = {"min": int(passes.min()), "max": int(passes.max()), "mean": float(passes.mean())}
    return {
        "count": blocks.count,
        "granted": int(blocks.granted.sum()),
        "trained": int(passes.sum()),
        "returned": int(blocks.returned.sum()),
        "held": int(held.sum()),
        "passes": spread,
        "histogram": {str(n): found for n, found in histogram(report).items()},
        "each": each,
    }
