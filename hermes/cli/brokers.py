"""`hermes broker start`, `stop`, `status`."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.trouble import note

if TYPE_CHECKING:
    from hermes.broker.control import Running

app = typer.Typer(
    no_args_is_help=True, help="Start, stop and list brokers on this machine.", add_completion=False
)


class Kind(str, Enum):
    """What can be started."""

    embedded = "embedded"
    apache = "apache"


Port = Annotated[
    int,
    typer.Option(
        envvar="HERMES_BROKER_PORT", metavar="P", min=0, max=65535, help="0: any that is free."
    ),
]
WhichPort = Annotated[
    int | None,
    typer.Option(
        envvar="HERMES_BROKER_PORT",
        metavar="P",
        min=1,
        max=65535,
        show_default="the only one",
        help="Which.",
    ),
]


WhichKind = Annotated[
    Kind,
    typer.Option(
        envvar="HERMES_BROKER_KIND",
        help="embedded: a small binary, records in memory. apache: Apache Kafka (KAFKA_HOME, "
        "else Docker, else java with mvn, which fetches it once), records on disk.",
    ),
]
Listen = Annotated[
    str,
    typer.Option(
        envvar="HERMES_BROKER_LISTEN",
        metavar="A",
        help="The address to listen at; 0.0.0.0 for all. There is no access control yet: only "
        "in a network that you trust.",
    ),
]
Advertise = Annotated[
    str | None,
    typer.Option(
        envvar="HERMES_BROKER_ADVERTISE",
        metavar="HOST:PORT",
        show_default="where it listens",
        help="Where clients on other machines reach it.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        envvar="HERMES_BROKER_DATA",
        metavar="DIR",
        show_default="in ~/.local/state/hermes",
        help="The folder of its records (apache); kept from start to start.",
    ),
]


@app.command()
def start(
    kind: WhichKind = Kind.embedded,
    port: Port = 9092,
    listen: Listen = "127.0.0.1",
    advertise: Advertise = None,
    data: Data = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Start a broker that goes on in the background; returns when it answers."""
    from hermes.broker import control

    if not quiet and kind is Kind.apache:
        note("starting Apache Kafka (some seconds; at first use it may be fetched) ...")
    running = control.start(kind.value, port, listen, advertise, data)
    if json_:
        _print_json(_facts(running))
    elif not quiet:
        typer.echo(_line(running))
        if running.port != 9092:  # the default of every other command
            typer.echo(f"use it with:  --broker {running.advertised}")
        typer.echo(f"stop it with: hermes broker stop --port {running.port}")


@app.command()
def stop(port: WhichPort = None, json_: options.Json = False, quiet: options.Quiet = False) -> None:
    """Stop a broker that `hermes broker start` left running. Its data stay."""
    from hermes.broker import control

    stopped = control.stop(port)
    if json_:
        _print_json(_facts(stopped))
    elif not quiet:
        kept = f"; its records stay in {stopped.data}" if stopped.data else "; its records are gone"
        typer.echo(f"the {stopped.kind} broker at {stopped.address} is stopped{kept}")


@app.command()
def status(json_: options.Json = False) -> None:
    """List the brokers that `hermes broker start` left running."""
    from hermes.broker import control

    running = control.status()
    if json_:
        _print_json({"brokers": [_facts(one) for one in running]})
    else:
        typer.echo("\n".join(map(_line, running)) or "no broker that Hermes started runs")


def _line(running: Running) -> str:
    told = f", tells clients {running.advertised}" if running.advertised != running.address else ""
    place = f"records in {running.data}" if running.data else "records in memory"
    return (
        f"{running.kind} broker at {running.address}{told} (pid {running.pid}, {place}, output in "
        f"{running.log})"
    )


def _facts(running: Running) -> dict[str, Any]:
    names = ("kind", "address", "advertised", "port", "pid", "data", "log")
    return {name: getattr(running, name) for name in names}


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
