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
from hermes.errors import UsageError

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
        help="The address to listen at; 0.0.0.0 for all. Other than this machine's own it takes "
        "--secure, or --insecure.",
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
Secured = Annotated[
    bool,
    typer.Option(
        "--secure",
        envvar="HERMES_BROKER_SECURE",
        help="TLS, users with passwords, and rights (apache). This machine's commands get in "
        "afterwards by themselves, as the user master; workers: hermes invite NAME.",
    ),
]
Secrets = Annotated[
    Path | None,
    typer.Option(
        envvar="HERMES_BROKER_SECRETS",
        metavar="DIR",
        show_default="in ~/.local/state/hermes",
        help="The folder of its secrets (--secure), made where it is missing, kept from start to "
        "start.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar="HERMES_BROKER_INSECURE",
        help="Let everyone in who reaches it: only in a network that you trust.",
    ),
]


@app.command()
def start(
    kind: WhichKind = Kind.embedded,
    port: Port = 9092,
    listen: Listen = "127.0.0.1",
    advertise: Advertise = None,
    data: Data = None,
    secure: Secured = False,
    secrets: Secrets = None,
    insecure: Insecure = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Start a broker that goes on in the background; returns when it answers."""
    from hermes.broker import control
    from hermes.broker.secured import Secure

    _check_doors(listen, secure=secure, secrets=secrets, insecure=insecure)
    if not quiet and kind is Kind.apache:
        note("starting Apache Kafka (some seconds; at first use it may be fetched) ...")
    doors = Secure(secrets) if secure else None
    running = control.start(kind.value, port, listen, advertise, data, doors)
    if json_:
        _print_json(_facts(running))
    elif not quiet:
        typer.echo(_line(running))
        if running.port != 9092:  # the default of every other command
            typer.echo(f"use it with:  --broker {running.advertised}")
        if running.secrets is not None:
            typer.echo(f"its secrets:  {running.secrets} (for nobody else to read)")
        typer.echo(f"stop it with: hermes broker stop --port {running.port}")


def _check_doors(listen: str, *, secure: bool, secrets: Path | None, insecure: bool) -> None:
    """Off this machine a broker lets everyone in only where that is said."""
    from hermes.transport.address import is_local

    if secure and insecure:
        raise UsageError(
            "--secure and --insecure cannot both be meant",
            where="--insecure",
            remedy="Leave one of them out.",
        )
    if secrets is not None and not secure:
        raise UsageError(
            "a broker has secrets only with --secure",
            where="--secrets",
            remedy="--secure --kind apache, or leave --secrets out",
        )
    if not (secure or insecure or is_local(listen)):
        raise UsageError(
            f"at {listen} everyone who reaches this machine could read and write all runs",
            where="--listen",
            remedy="--secure (with --kind apache): TLS and users. In a network that you trust: "
            "--insecure",
        )


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
    """List the brokers that `hermes broker start` left running, and whom they refused."""
    from hermes.broker import control
    from hermes.broker.refusals import refusals
    from hermes.cli.refused import as_json, lines

    running = control.status()
    refused = {one.port: refusals(Path(one.log)) for one in running}
    if json_:
        told = [{**_facts(one), "refused": as_json(refused[one.port])} for one in running]
        _print_json({"brokers": told})
        return
    for one in running:
        typer.echo(_line(one))
        for line in lines(refused[one.port]):
            typer.echo(line)
    if not running:
        typer.echo("no broker that Hermes started runs")


def _line(running: Running) -> str:
    told = f", tells clients {running.advertised}" if running.advertised != running.address else ""
    doors = "" if running.secrets is None else "secure, "
    place = f"records in {running.data}" if running.data else "records in memory"
    return (
        f"{running.kind} broker at {running.address}{told} ({doors}pid {running.pid}, {place}, "
        f"output in {running.log})"
    )


def _facts(running: Running) -> dict[str, Any]:
    names = ("kind", "address", "advertised", "port", "pid", "data", "log", "secrets")
    return {name: getattr(running, name) for name in names}


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
