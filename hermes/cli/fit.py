"""`hermes fit`: which devices and links behave as those of a run did?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.verify import RunOrPath, opened_run

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hermes.replay.fit import Fit

To = Annotated[
    Path,
    typer.Option(
        "--to",
        envvar="HERMES_FIT_TO",
        metavar="FILE",
        help="Where the file of devices is written.",
    ),
]
Mbit = Annotated[
    float,
    typer.Option(
        envvar="HERMES_FIT_MBIT",
        min=0.001,
        max=1e7,
        help="Rate of the links, which a run does not tell.",
    ),
]


def fit(
    run: RunOrPath = None,
    to: To = Path("devices.json"),
    mbit: Mbit = 1000.0,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a file of devices that behave as the workers of a run did, for hermes simulate.

    A device's step, what a round takes on top, and the spread; the latency of the links; what the
    master takes for a version. Says how far single rounds lie from that. Refuses a run with fewer
    than 8 rounds of a worker.
    """
    from hermes.errors import RunFailed
    from hermes.replay.fit import fit as fit_
    from hermes.replay.spans import spans_of
    from hermes.replay.story import Story

    with opened_run(run, out, broker, lambda _what, _done, _total: None) as opened:
        story = Story().read(opened.source.ledger(0))
        found = fit_(spans_of(story), mbit, f"run {opened.source.run}")
    try:
        to.write_bytes(written(found))
    except OSError as error:
        raise RunFailed(
            f"the file of devices cannot be written: {error.strerror or error}",
            where=str(to),
            remedy="Choose another place with --to FILE.",
        ) from None
    if json_:
        sys.stdout.write(json.dumps(as_json(found, to)) + "\n")
        sys.stdout.flush()
    elif not quiet:
        from hermes.report.tables import output

        output().print(page(found, to), soft_wrap=True)


def written(found: Fit) -> bytes:
    """The file: what is not said in it is as it is by default."""
    import msgspec

    tree = _said(msgspec.to_builtins(found.world))
    return msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n"


def _said(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _said(value) for key, value in tree.items() if value not in (None, [], ())}
    return [_said(value) for value in tree] if isinstance(tree, list | tuple) else tree


def page(found: Fit, to: Path) -> RenderableType:
    """What was fitted, with its residuals."""
    from rich.console import Group
    from rich.text import Text

    from hermes.report.tables import fact_lines, plain_table

    table = plain_table("device", "rounds", "speed", "step", "round", "jitter", "residual")
    speeds = {device.name: device.speed for device in found.world.devices}
    for one in found.devices:
        table.add_row(
            one.name,
            str(one.rounds),
            f"{speeds[one.name]:.3f}",
            f"{one.step * 1000:.3f} ms",
            f"{one.round * 1000:.2f} ms",
            f"{one.jitter:.4f}",
            f"{one.residual:.2%}",
        )
    master, link = found.world.master, found.world.links["fitted"]
    lines = {
        "link": f"{link.latency_ms:.2f} ms one way, {link.up_mbit:g} Mbit/s (given)",
        "tensors": _spread(found.moved, found.moved_spread, found.waits),
        "messages": _spread(found.way, found.way_spread, found.waits),
        "master": f"{master.merge_ms:.2f} ms a version, {master.commit_ms:.2f} ms a record, "
        f"{master.samples_per_second:g} samples scored a second",
        "written": str(to),
    }
    return Group(table, Text(), *fact_lines(lines))


def _spread(mean: float, spread: float, count: int) -> str:
    if not count:
        return "nobody waited for a version: nothing is known of the link"
    return f"{mean * 1000:.2f} ms there and back, spread {spread * 1000:.2f} ms, of {count} waits"


def as_json(found: Fit, to: Path) -> dict[str, Any]:
    """All of it."""
    import msgspec

    told = found._asdict()
    return {
        **told,
        "world": msgspec.to_builtins(found.world),
        "devices": [one._asdict() for one in found.devices],
        "path": str(to.resolve()),
    }
