"""`hermes export`: a run's model, its curves or its whole log, as files for others."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hermes.cli import options
from hermes.cli.seen import see
from hermes.errors import RunFailed, UsageError

if TYPE_CHECKING:
    from hermes.cli.seen import Seen
    from hermes.report.series import Series

MODELS = ("safetensors", "pt", "keras")
"""Formats of a model, and what their files end with."""

LOG = "log"
FORMATS = (*MODELS, "csv", "tensorboard", LOG)
TABLES = ("evaluations", "rounds", "shards")

Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        envvar="HERMES_EXPORT_VERSION",
        metavar="last|best|vN",
        show_default="last",
        help="Which version of the model.",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        envvar="HERMES_EXPORT_FORMAT",
        metavar="|".join(FORMATS),
        help="A model, the run's curves, or its whole log.",
    ),
]
To = Annotated[
    str | None,  # a path would forget the / at its end
    typer.Option(
        "--to",
        envvar="HERMES_EXPORT_TO",
        metavar="FILE|DIR",
        show_default="here, by the run's id",
        help="A file, or a folder to put it in.",
    ),
]
What = Annotated[
    str | None,
    typer.Option(
        "--what",
        envvar="HERMES_EXPORT_WHAT",
        metavar="|".join(TABLES),
        show_default="all, a file each",
        help="Of csv: which table.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", envvar="HERMES_EXPORT_FORCE", help="Replace what is there.")
]


class Wish(NamedTuple):
    """What was asked for."""

    format: str
    version: str
    to: str | None
    what: str | None
    force: bool


class Written(NamedTuple):
    """A file (or folder) that was written, and the line that loads it."""

    path: Path
    size: int
    digest: str | None
    load: str
    about: dict[str, Any]


def export(
    run: options.Run = None,
    version: Version = None,
    format_: Format = "safetensors",
    to: To = None,
    what: What = None,
    force: Force = False,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a run's model (safetensors, pt, keras), its curves (csv, tensorboard) or its log.

    `last` and `best` come from the run's folder or from the broker; any other version from the
    broker, as long as that keeps it. A model is checked against the ledger's digest. `log`: all
    topics as the broker has them, for `hermes verify DIR`, which then needs no broker.
    """
    wish = _wish(format_, version, to, what, force)
    if wish.format == LOG:
        from hermes.cli.export_log import export_log

        name, one = export_log(wish, run, out, broker, quiet=quiet or json_)
        _tell(wish, name, [one], json_=json_, quiet=quiet)
        return
    from hermes.report.series import Series

    series = Series()
    seen = see(run, out, broker, series.read)
    if wish.format in MODELS:
        from hermes.cli.export_model import export_model

        written = [export_model(wish, seen, series.versions, quiet=quiet or json_)]
    elif wish.format == "csv":
        written = _csv(wish, seen, series)
    else:
        written = [_tensorboard(wish, seen, series)]
    _tell(wish, seen.view.run, written, json_=json_, quiet=quiet)


def _wish(format_: str, version: str | None, to: str | None, what: str | None, force: bool) -> Wish:
    if format_ not in FORMATS:
        raise UsageError(
            f"unknown format {format_!r}", where="--format", remedy=f"One of: {', '.join(FORMATS)}."
        )
    if version is not None and format_ not in MODELS:
        raise UsageError(
            f"what is asked for is of the whole run: --format {format_} takes no version",
            where="--version",
            remedy="Leave it out; or for a model: --format safetensors",
        )
    if what is not None and format_ != "csv":
        raise UsageError(
            "only csv has tables", where="--what", remedy="Leave it out, or --format csv."
        )
    if what is not None and what not in TABLES:
        raise UsageError(
            f"unknown table {what!r}", where="--what", remedy=f"One of: {', '.join(TABLES)}."
        )
    wanted = version or "last"
    if wanted not in ("last", "best") and not re.fullmatch(r"v?[0-9]{1,15}", wanted):
        raise UsageError(
            f"{wanted!r} is no version", where="--version", remedy="last, best, or such as v12."
        )
    return Wish(format_, wanted, to, what, force)


# --- places -------------------------------------------------------------------------------------


def place_of(wish: Wish, name: str, *, folder: bool = False) -> Path:
    """The file that `--to` means (`folder`: which can only be a folder). Raises `UsageError` where
    it is there, or cannot be."""
    to = wish.to
    if to is None:
        path = Path(name)
    elif folder or Path(to).is_dir() or to.endswith(("/", os.sep)):
        path = Path(to) / name
    else:
        path = Path(to)
    path = path.absolute()
    if path.is_dir():
        raise UsageError("this is a folder", where=str(path), remedy="Name a file with --to.")
    if path.exists() and not wish.force:
        raise UsageError(
            "the file is there already",
            where=str(path),
            remedy="Name another with --to, or replace it with --force.",
        )
    return path


# --- curves -------------------------------------------------------------------------------------


def _csv(wish: Wish, seen: Seen, series: Series) -> list[Written]:
    from hermes.runtime.export import csv_text, digest_of_file, put

    wanted = (wish.what,) if wish.what else TABLES
    names = {name: f"{seen.view.run}-{name}.csv" for name in wanted}
    places = {name: place_of(wish, names[name], folder=len(wanted) > 1) for name in wanted}
    written = []
    for name, path in places.items():
        columns, rows = series.tables()[name]
        put(path, csv_text(columns, rows))
        about = {"table": name, "rows": len(rows), "columns": list(columns)}
        load = f'pandas.read_csv("{shown(path)}")'
        written.append(Written(path, path.stat().st_size, digest_of_file(path), load, about))
    return written


def _tensorboard(wish: Wish, seen: Seen, series: Series) -> Written:
    from hermes.report import tensorboard

    if not tensorboard.can_write():
        raise missing("tensorboard", tensorboard.REMEDY)
    run, opened = seen.view.run, seen.view.state.opened
    folder = Path(wish.to or f"{run}-tensorboard").absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError("this is a file", where=str(folder), remedy="Name a folder with --to.")
    # Our own files of this run alone: a folder may hold those of many.
    before = tensorboard.event_files(folder / run)
    if before and not wish.force:
        raise UsageError(
            "events of this run are there already",
            where=str(folder / run),
            remedy="Name another folder with --to, or replace them with --force.",
        )
    try:
        for path in before:
            path.unlink()
        tensorboard.write_events(folder, run, opened.opened if opened else "", series)
    except OSError as error:
        raise unwritable(folder, error) from None
    files = tensorboard.event_files(folder / run)
    size = sum(path.stat().st_size for path in files)
    about = {"files": len(files)}
    return Written(folder, size, None, f"tensorboard --logdir {shown(folder)}", about)


# --- telling ------------------------------------------------------------------------------------


def missing(package: str, remedy: str) -> UsageError:
    """A package that this format needs is not here."""
    return UsageError(f"the package {package} is not installed here", remedy=remedy)


def unwritable(path: Path, error: OSError) -> RunFailed:
    """The machine will not have it."""
    return RunFailed(
        f"this cannot be written: {error.strerror or error}",
        where=str(path),
        remedy="Make room there, or choose another place with --to.",
    )


def shown(path: Path) -> str:
    """A path as it is typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _tell(wish: Wish, run: str, written: list[Written], *, json_: bool, quiet: bool) -> None:
    if json_:
        told = {"run": run, "format": wish.format, "files": [_json(w) for w in written]}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    elif not quiet:
        from rich.text import Text

        from hermes.report.tables import fact_lines, output

        console = output()
        for index, one in enumerate(written):
            if index:
                console.print(Text())
            for line in fact_lines(_lines(one)):
                console.print(line, soft_wrap=True)


def _lines(one: Written) -> dict[str, str]:
    from hermes.report.words import size

    about = one.about
    lines = {"written": f"{one.path} ({size(one.size)})"}
    if "version" in about:
        lines["version"] = f"{about['version']}{about['said']}, from {about['source']}"
    if "records" in about:
        lines["records"] = f"{about['records']} of {len(about['topics'])} topics"
    if "rows" in about:
        lines["rows"] = f"{about['rows']}: {', '.join(about['columns'])}"
    if one.digest is not None:
        lines["sha256"] = one.digest
    return {**lines, "load": one.load}


def _json(one: Written) -> dict[str, Any]:
    about = {key: value for key, value in one.about.items() if key != "said"}
    return {
        "path": str(one.path),
        "bytes": one.size,
        "sha256": one.digest,
        "load": one.load,
        **about,
    }
