"""`hermes init` and `hermes config`: the folder of a cluster, made and looked at."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.status import print_json
from hermes.cli.trouble import note, warn

if TYPE_CHECKING:
    from hermes.cluster.conf import Cluster
    from hermes.cluster.effective import Asked, InForce, Value


class Framework(str, Enum):
    """What a job may be written in."""

    numpy = "numpy"
    torch = "torch"
    keras_tensorflow = "keras-tensorflow"
    keras_torch = "keras-torch"


NewFolder = Annotated[
    Path,
    typer.Argument(metavar="DIR", show_default="here", help="The folder; made where it is not."),
]
Folder = Annotated[
    Path,
    typer.Argument(
        metavar="[DIR]",
        envvar="HERMES_CLUSTER",
        show_default="here",
        help="The cluster's folder, which contains conf/.",
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        "--workers",
        envvar="HERMES_INIT_WORKERS",
        metavar="HOST[:PORT],...",
        show_default=False,
        help="The nodes, with commas between: HOST, HOST:PORT (of SSH), USER@HOST; [IPv6]:PORT.",
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        envvar="HERMES_INIT_USER",
        metavar="NAME",
        show_default="your name here",
        help="Who logs in at every node that names no user itself.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        envvar="HERMES_INIT_KEY",
        metavar="FILE",
        show_default="the SSH agent, and the usual files of ~/.ssh",
        help="The private SSH key; its path is written down, not the key.",
    ),
]
WhichFramework = Annotated[
    Framework,
    typer.Option(
        "--framework",
        envvar="HERMES_INIT_FRAMEWORK",
        help="Of the job file to begin with; nodes install the extra that it needs.",
    ),
]
JobToo = Annotated[
    str | None,
    typer.Option(
        "--job",
        envvar="HERMES_CONFIG_JOB",
        metavar="JOB.py",
        show_default=False,
        help="Look at what this job asks for, too.",
    ),
]
Check = Annotated[
    bool,
    typer.Option("--check", envvar="HERMES_CONFIG_CHECK", help="Only say what is wrong or odd."),
]


def init(
    workers: Workers,
    folder: NewFolder = Path(),
    user: User = None,
    key: Key = None,
    framework: WhichFramework = Framework.numpy,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the folder of a cluster: conf/, a job file, a README. Overwrites nothing."""
    from hermes.cluster.init import Wanted, make, parse_workers

    wanted = Wanted(parse_workers(workers), user, key, framework.value)
    written = make(folder, wanted)
    if json_:
        nodes = [f"worker-{number}" for number in range(1, len(wanted.workers) + 1)]
        files = [str(path) for path in written]
        print_json({"folder": str(folder.absolute()), "files": files, "nodes": nodes})
    elif not quiet:
        typer.echo("\n".join(f"written: {path}" for path in written))
        to = "" if folder == Path() else f" {folder}"
        note(f"look at conf/, then: hermes doctor{to}")


def config(
    folder: Folder = Path(),
    check: Check = False,
    job: JobToo = None,
    strategy: options.Strategy = None,
    set_: options.Set = None,
    json_: options.Json = False,
) -> None:
    """Show what is in force in a cluster, and where each value comes from.

    Reads conf/config.json, conf/master.json and conf/settings.json, and tells every mistake in
    them with its line; then what is odd, with what to do about it.
    """
    from hermes.cluster.conf import load
    from hermes.cluster.effective import in_force

    cluster = load(folder)
    asked = _asked(job, strategy, tuple(set_ or ()))
    found = in_force(cluster, asked)
    if json_:
        print_json(_facts(cluster, found))
    else:
        for text in found.odd:
            warn(text)
        if check:
            count = len(cluster.nodes)
            nodes = "1 node" if count == 1 else f"{count} nodes"
            typer.echo(f"{folder / 'conf'}: no mistake ({nodes}, {found.settings[0].value})")
        else:
            _print(cluster, found)


def _asked(job: str | None, strategy: str | None, set_: tuple[str, ...]) -> Asked:
    from hermes.cli.prepare import job_layer, typed_layers
    from hermes.cli.train import job_talks_aside
    from hermes.cluster.effective import Asked
    from hermes.jobfile import build, load_source

    layer = None
    if job is not None:
        source = load_source(job)
        with job_talks_aside():
            layer = job_layer(build(source.text, source.name, ()), job)
    by_variable = strategy is not None and os.environ.get("HERMES_STRATEGY") == strategy
    origin = "HERMES_STRATEGY" if by_variable else "--strategy"
    return Asked(strategy, origin, layer, typed_layers(set_))


# --- told -----------------------------------------------------------------------------------------


def _facts(cluster: Cluster, found: InForce) -> dict[str, Any]:
    import msgspec

    every = (*(value for node in found.nodes for value in node), *found.master, *found.settings)
    return {
        "folder": str(cluster.folder.absolute()),
        "nodes": msgspec.to_builtins(cluster.nodes),
        "master": msgspec.to_builtins(cluster.master),
        "settings": {value.key: value.value for value in found.settings},
        "from": {value.key: value.origin for value in every},
        "odd": list(found.odd),
    }


def _print(cluster: Cluster, found: InForce) -> None:
    from hermes.cluster.effective import meant
    from hermes.report.tables import output, plain_table

    table = plain_table("", "key", "value", "from", left=4)
    for who, value in _rows(found):
        key = value.key.rpartition("].")[2].removeprefix("master.")
        table.add_row(who, key, meant(value, cluster), value.origin)
    output().print(table)


def _rows(found: InForce) -> list[tuple[str, Value]]:
    """Whom a value is of, where that is another than in the row before, and the value. What holds
    for every node alike is told once."""
    rows: list[tuple[str, Value]] = []
    for values in zip(*found.nodes, strict=True):
        if len({(str(value.value), value.origin) for value in values}) == 1 < len(values):
            rows.append(("all nodes", values[0]))
    shared = {value.key.rpartition(".")[2] for _, value in rows}
    for node in found.nodes:
        own = [value for value in node if value.key.rpartition(".")[2] not in shared]
        rows += [(node[0].value, value) for value in own if not value.key.endswith(".name")]
    rows += [("master", value) for value in found.master]
    rows += [("settings", value) for value in found.settings]
    before = ["", *(who for who, _ in rows)]
    return [("" if who == last else who, v) for (who, v), last in zip(rows, before, strict=False)]
