"""How does a run become one page? HTML that opens offline: text, pictures, tables, a small script.

Useful without the script: the pictures are SVG, their numbers tables, the axis is chosen by radio
buttons. Nothing is fetched from anywhere. Every text that comes from a run is escaped.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from html import escape
from importlib import resources

from hermes.machine.state import MasterState
from hermes.report import words
from hermes.report.charts.chart import Chart, Lanes, Lines, Table
from hermes.report.charts.course import XS, Run, courses, curves, run_of
from hermes.report.charts.looks import DARK, FILLS, LIGHT, MARKS, dash, hue
from hermes.report.charts.moved import byte_charts
from hermes.report.charts.numbers import numbers
from hermes.report.charts.svg import SIGNS, drawn
from hermes.report.page import facts
from hermes.report.page.facts import Beside
from hermes.report.story import Story

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

LONG = 100
"""Rows of a table that is not opened for print."""

PARTS = {
    "curves": "How good did the model get, and how soon?",
    "timeline": "What did each worker do?",
    "work": "Who got how much work, and how fast was it done?",
    "bytes": "What was moved, and what was not?",
    "versions": "Which versions were there?",
    "about": "What was it run with?",
}
"""Id of a part -> the question that it answers."""

OVER = {"time": "time", "samples": "samples", "bytes": "bytes"}


def charts_of(story: Story, beside: Beside) -> list[Chart]:
    """All charts of a run, in the order of the page."""
    run = run_of(story)
    return [
        *(chart for x in XS for chart in curves(run, x)),
        *courses(run),
        *byte_charts(run, beside.traffic),
    ]


def page(story: Story, state: MasterState, beside: Beside) -> str:
    """The report of a run, whatever state it is in."""
    run, charts = run_of(story), charts_of(story, beside)
    shown = {chart.head.key: chart for chart in charts}
    body = [
        _header(run, state, beside),
        "<main>",
        _curves(shown, state),
        _part("timeline", _figures(shown, ["timeline"]) or none("No worker was admitted.")),
        _part("work", _work(run, shown)),
        _part("bytes", _bytes(shown)),
        _part("versions", _versions(run)),
        _part("about", _about(run, state, beside)),
        "</main>",
        f"<footer><p>Written by hermes from the ledger of the run, {escape(beside.written)}."
        "</p></footer>",
    ]
    attributes = f'data-run="{escape(beside.run)}" data-written="{escape(beside.written)}"'
    again = ""
    if beside.reload:
        attributes += f' data-reload="{beside.reload:g}"'
        again = f'<noscript><meta http-equiv="refresh" content="{beside.reload:.0f}"></noscript>'
    return document(beside.run, "".join(body), charts, attributes, again)


def document(title: str, body: str, charts: list[Chart], attributes: str, head: str = "") -> str:
    """A whole page: this body, the style sheet, the script and the numbers of these charts.
    `attributes` (of the body, `data-run` among them), `body` and `head` are HTML."""
    numbered = f'<script type="application/json" id="numbers">{numbers(charts)}</script>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · Hermes</title>"
        f'<link rel="icon" href="data:,">{head}<style>{_style()}</style></head>'
        f"<body {attributes}>{body}{numbered}<script>{_asset('page.js')}</script></body></html>\n"
    )


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("hermes.report.page") / name).read_text("utf-8")


@functools.cache
def _style() -> str:
    """The style sheet, with the palettes in it."""
    hues = "".join(f".c{i}{{--c:var(--c{i})}}" for i in range(6))
    fills = "".join(f".f-{name}{{fill:var(--{name})}}" for name in LIGHT)
    marks = "".join(
        f".m-{kind}{{stroke:var(--{colour});stroke-width:1.8;fill:"
        f"{f'var(--{colour})' if kind in ('push', 'lost') else 'none'}}}"
        for kind, (colour, _, _) in MARKS.items()
    )
    sheet = _asset("page.css").replace("@CLASSES@", hues + fills + marks)
    for name, palette in (("@LIGHT@", LIGHT), ("@DARK@", DARK)):
        sheet = sheet.replace(name, ";".join(f"--{key}:{value}" for key, value in palette.items()))
    return sheet


# --- the head -----------------------------------------------------------------------------------


def _header(run: Run, state: MasterState, beside: Beside) -> str:
    said = facts.headline(state, beside)
    kind = said.partition(" ")[0].strip(":.,").lower()
    tone = {"broken": "broken", "waiting": "waiting", "running": "running", "this": "unopened"}
    tiles = "".join(
        f'<div><dt>{escape(tile.name)}</dt><dd class="value">{said_html(tile.value)}</dd>'
        f'<dd class="detail">{said_html(tile.detail)}</dd></div>'
        for tile in facts.tiles(run, state, beside)
    )
    links = "".join(f'<a href="#{key}">{_name(key)}</a>' for key in PARTS)
    strategy = f"{state.settings.strategy}, seed {state.opened.seed}" if state.opened else ""
    follow = ""
    if beside.reload:
        follow = (
            '<p class="script note"><label><input type="checkbox" id="follow" checked> '
            'follow the run</label>&nbsp; <span id="since"></span></p>'
        )
    return (
        '<header><div class="top"><p class="kind">Hermes: report of a run</p>'
        '<button class="script" id="theme" type="button" title="Light or dark">Dark</button></div>'
        f"<h1>{escape(beside.run)}</h1>"
        f'<p class="answer"><span class="state {escape(tone.get(kind, kind))}">'
        f"{escape(tone.get(kind, kind))}</span>{said_html(said)}</p>"
        f'<p class="kind">{escape(strategy)}</p>{follow}'
        f'<dl class="tiles">{tiles}</dl><nav aria-label="Parts">{links}</nav></header>'
    )


def said_html(text: str) -> str:
    """A text to be read, whose numbers and units stay on one line."""
    return escape(_TOGETHER.sub("\N{NO-BREAK SPACE}", text))


_TOGETHER = re.compile(r"(?<=\d) (?=\d{3}\b|(?:s|ms|min|h|B|kB|MB|GB|%|samples/s)\b|%)")


def _name(key: str) -> str:
    return {"work": "Shards and speed", "about": "Settings"}.get(key, key.capitalize())


def _part(key: str, body: str) -> str:
    return f'<section id="{key}"><h2>{escape(PARTS[key])}</h2>{body}</section>'


def none(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


# --- charts -------------------------------------------------------------------------------------


def _curves(shown: dict[str, Chart], state: MasterState) -> str:
    if not any(key.endswith("-time") for key in shown):
        why = "No version was scored on the validation set."
        if state.stopped is None:
            why = "No version has been scored on the validation set yet."
        return _part("curves", none(why))
    radios = "".join(
        f'<label><input type="radio" name="x" id="x-{x}"{" checked" if x == "time" else ""}> '
        f"{OVER[x]}</label>"
        for x in XS
    )
    body = f'<fieldset class="axes"><legend>Over</legend>{radios}</fieldset>'
    for name in ("accuracy", "loss"):
        found = [shown.get(f"{name}-{x}") for x in XS]
        body += figure([chart for chart in found if chart is not None])
    return _part("curves", body)


def _figures(shown: dict[str, Chart], keys: Iterable[str]) -> str:
    return "".join(figure([shown[key]]) for key in keys if key in shown)


def figure(charts: list[Chart]) -> str:
    """A chart (or one chart over several axes) with its words, its legend and its numbers."""
    if not charts:
        return ""
    head = charts[0].head
    if len(charts) == 1:
        pictures = drawn(charts[0])
    else:
        pictures = "".join(
            f'<div class="over-{chart.head.key.rpartition("-")[2]}">{drawn(chart)}</div>'
            for chart in charts
        )
    remark = f'<p class="remark">{escape(head.remark)}</p>' if head.remark else ""
    return (
        f"<figure><figcaption><h3>{escape(head.title)}</h3>"
        f'<p class="says">{said_html(head.says)}</p></figcaption>{pictures}{_legend(charts[0])}'
        f"{remark}{_details('Numbers', head.table)}</figure>"
    )


def _legend(chart: Chart) -> str:
    if isinstance(chart, Lines):
        if len(chart.series) < 2:
            return ""
        items = "".join(
            f'<li><button type="button" aria-pressed="true" data-plain="{escape(one.name)}">'
            f"{_stroke(one.look)}{escape(one.name)}</button></li>"
            for one in {one.name: one for one in chart.series}.values()
        )
        return f'<ul class="legend" aria-label="Shown; click to hide">{items}</ul>'
    if isinstance(chart, Lanes):
        return f'<p class="legend">{_signs()}</p>'
    colours = FILLS[len(chart.kinds)]
    items = "".join(
        f"<span>{_swatch(f'f-{colour}')}{escape(kind)}</span>"
        for kind, colour in zip(chart.kinds, colours, strict=True)
    )
    return f'<p class="legend">{items}</p>'


def _stroke(look: int) -> str:
    dashed = f' stroke-dasharray="{dash(look)}"' if dash(look) else ""
    line = f'<path class="curve c{hue(look)}"{dashed} d="M0 7H26"/>'
    return f'<svg viewBox="0 0 26 14" aria-hidden="true">{line}</svg>'


def _swatch(fill: str) -> str:
    box = f'<rect class="{fill}" width="16" height="14"/>'
    return f'<svg class="swatch" viewBox="0 0 16 14" aria-hidden="true">{box}</svg>'


def _signs() -> str:
    fills = (("f-train", "training"), ("f-move", "transfer"), ("f-wait", "waiting"))
    found = [f"<span>{_swatch(fill)}{name}</span>" for fill, name in fills]
    found.append(f"<span>{_swatch('f-away')}away</span>")
    for kind, (_, _, name) in MARKS.items():
        sign = f'<path class="m-{kind}" d="M8 7{SIGNS[kind]}"/>'
        picture = f'<svg class="swatch" viewBox="0 0 16 14" aria-hidden="true">{sign}</svg>'
        found.append(f"<span>{picture}{escape(name)}</span>")
    return "".join(found)


# --- tables -------------------------------------------------------------------------------------


def _details(title: str, known: Table, kind: str = "") -> str:
    if not known.rows:
        return ""
    count = words.counted(len(known.rows), "row")
    long = ' class="long"' if len(known.rows) > LONG else ""
    note = f'<p class="note">{escape(known.note)}</p>' if known.note else ""
    printed = ""
    if long:
        printed = f'<p class="note printed">{escape(title)}: {count}, on the screen.</p>'
    table = table_of(known, kind)
    return f"<details{long}><summary>{title} ({count})</summary>{table}{note}</details>{printed}"


def table_of(known: Table, kind: str = "", identity: str = "") -> str:
    heads = "".join(f'<th scope="col"{_column(name)}>{escape(name)}</th>' for name in known.columns)
    marks = {i: _column(name) for i, name in enumerate(known.columns)}
    rows = "".join(
        "<tr>" + "".join(f"<td{marks[i]}>{escape(cell)}" for i, cell in enumerate(row))
        for row in known.rows
    )
    name = f' id="{identity}"' if identity else ""
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="Table"><table{name} '
        f'class="l{known.left} {kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _column(name: str) -> str:
    if name in ("why", "last decision", "updates (weight)", "software and device"):
        return ' class="wide"'
    return ' class="mono"' if name == "digest" else ""


def _work(run: Run, shown: dict[str, Chart]) -> str:
    body = _figures(shown, ["shards", "speeds"])
    if not body:
        return none("No worker was admitted.")
    resizes = facts.resizes(run)
    if resizes.rows:
        body += f"<h3>Re-sizings</h3>{_details('Each with its numbers', resizes, 'tl sortable')}"
    return body


def _bytes(shown: dict[str, Chart]) -> str:
    body = _figures(shown, ["gate", "stored", "traffic"])
    if "traffic" not in shown:
        body += none("No process has said yet how many bytes it sent and received.")
    return body


def _versions(run: Run) -> str:
    known = facts.versions(run)
    if not known.rows:
        return none("No version was published.")
    note = f'<p class="note">{escape(known.note)}</p>' if known.note else ""
    count = f"{len(known.rows)} of {len(known.rows)} rows"
    tools = (
        '<p class="tools script"><label>Filter <input type="search" id="find" '
        'data-table="t-versions" data-count="n-versions" placeholder="worker-3"></label> '
        f'<span class="note" id="n-versions" role="status">{count}</span></p>'
    )
    table = table_of(known, "sortable", "t-versions")
    if len(known.rows) > LONG:
        table = table.replace('class="box"', 'class="box screen"', 1)
        last = Table(known.columns, known.rows[-20:], known.left)
        table += f'<div class="printed"><p class="note">The last 20 of {len(known.rows)}:</p>'
        table += f"{table_of(last)}</div>"
    return f"{note}{tools}{table}"


# --- the foot -----------------------------------------------------------------------------------


def _about(run: Run, state: MasterState, beside: Beside) -> str:
    known = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
        for name, text in facts.about(run, state, beside)
    )
    body = f'<dl class="facts">{known}</dl>'
    settings = facts.settings(state)
    if settings:
        changed = sum(one.changed for one in settings)
        body += f"<h3>Settings</h3><p>{_settings_say(changed, state)}</p>"
        rows = "".join(
            f"<tr{' class=set' if one.changed else ''}><td>{escape(one.key)}<td>"
            f"{escape(one.value)}<td>{escape(one.default)}<td>{'set' if one.changed else ''}"
            for one in settings
        )
        heads = "".join(
            f'<th scope="col">{name}</th>' for name in ("setting", "value", "default", "")
        )
        body += (
            '<div class="box" tabindex="0" role="region" aria-label="Settings">'
            f'<table class="all"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
    workers = facts.workers(run, state)
    if workers.rows:
        body += f"<h3>Workers</h3>{table_of(workers, 'tl')}"
    decisions = facts.decisions(run)
    if len(decisions.columns) > 1:
        body += f"<h3>Decisions</h3>{_details('How often each reason was given', decisions)}"
    return body


def _settings_say(changed: int, state: MasterState) -> str:
    strategy = escape(state.settings.strategy)
    if not changed:
        return f"All as the strategy {strategy} has them."
    what = words.counted(changed, "setting")
    differ = "differs" if changed == 1 else "differ"
    return f"{what} {differ} from what the strategy {strategy} stands for: first, and in bold."
