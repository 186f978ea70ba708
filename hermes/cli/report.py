"""`hermes report`: a run as one page, and as pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hermes.cli import options
from hermes.cli.seen import Seen, see
from hermes.cli.trouble import note
from hermes.errors import UsageError

if TYPE_CHECKING:
    from hermes.report.page.facts import Beside
    from hermes.report.story import Story

To = Annotated[
    Path | None,
    typer.Option(
        "--to",
        envvar="HERMES_REPORT_TO",
        metavar="FILE",
        show_default="report.html in the run's folder; of a run elsewhere RUN-report.html, here",
        help="The page.",
    ),
]
Png = Annotated[
    Path | None,
    typer.Option(
        "--png",
        envvar="HERMES_REPORT_PNG",
        metavar="DIR",
        show_default=False,
        help="Each chart as a PNG, too.",
    ),
]
Svg = Annotated[
    Path | None,
    typer.Option(
        "--svg",
        envvar="HERMES_REPORT_SVG",
        metavar="DIR",
        show_default=False,
        help="Each chart as an SVG, too.",
    ),
]
Open = Annotated[
    bool, typer.Option("--open", envvar="HERMES_REPORT_OPEN", help="Show it in the browser.")
]


def report(
    run: options.Run = None,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    to: To = None,
    png: Png = None,
    svg: Svg = None,
    open_: Open = False,
    json_: options.Json = False,
) -> None:
    """Write a run's report: one page that opens offline, with every chart and its numbers.

    Of a run that goes on (its master rewrites the page every few seconds anyway) or of a saved one.
    """
    from hermes.report.page.page import page
    from hermes.report.story import MOST, Story

    _refuse_without_matplotlib(png, svg)
    story = Story(MOST)
    seen = see(run, out, broker, story.read)
    path = (to or _usual(seen)).absolute()
    beside = _beside(seen, path)
    _write(path, page(story, seen.view.state, beside).encode("utf-8", "replace"))
    charts = _draw(story, beside, png, svg)
    if json_:
        told = {"run": seen.view.run, "report": str(path), "charts": [str(c) for c in charts]}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        typer.echo(str(path))
        for chart in charts:
            typer.echo(str(chart))
    if open_:
        _show(path)


def _usual(seen: Seen) -> Path:
    if seen.folder is not None:
        return seen.folder.report
    return Path(f"{seen.view.run}-report.html")


def _beside(seen: Seen, path: Path) -> Beside:
    from hermes.report.page.facts import Beside
    from hermes.runtime.logs import utc_now
    from hermes.runtime.reporter import EVERY

    view = seen.view
    # Only the page that its master rewrites comes anew.
    rewritten = seen.folder is not None and path == seen.folder.report
    again = seen.lives and view.state.stopped is None and rewritten
    return Beside(
        view.run,
        view.place,
        utc_now(),
        seen.lives,
        seen.traffic,
        str(seen.storage) if seen.storage else "",
        seen.quarantined.total if seen.quarantined else None,
        EVERY if again else 0.0,
    )


# --- files --------------------------------------------------------------------------------------


def _write(path: Path, data: bytes) -> None:
    """Replace the page; its folder is made."""
    from hermes.runtime.at_once import write_at_once

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_at_once(path, data)
    except OSError as error:
        raise UsageError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="Choose another place with --to FILE.",
        ) from None


def _refuse_without_matplotlib(png: Path | None, svg: Path | None) -> None:
    from hermes.report import picture

    if (png or svg) and not picture.can_draw():
        raise UsageError(
            "charts are drawn by matplotlib, and it is not installed",
            where="--png" if png else "--svg",
            remedy="pip install 'hermes-edge[plots]'; the page itself needs none of it.",
        )


def _draw(story: Story, beside: Beside, png: Path | None, svg: Path | None) -> list[Path]:
    if png is None and svg is None:
        return []
    from hermes.report.charts.figures import save_all
    from hermes.report.page.page import charts_of

    charts = charts_of(story, beside)
    if not charts:
        note("There is nothing to draw yet: nobody has trained, and no version is there.")
    found = []
    for folder, kind in ((png, "png"), (svg, "svg")):
        if folder is not None:
            found += save_all(charts, folder.absolute(), kind)
    return found


def _show(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.as_uri()):
        note(f"No browser could be opened here; the page is {path}")
