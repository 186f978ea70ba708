"""Which commands are there? The program, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from hermes.cli import (
    access,
    brokers,
    check,
    clean,
    cluster,
    compare,
    conf,
    export,
    fit,
    fork,
    look,
    on_cluster,
    replay,
    report,
    reproduce,
    resume,
    simulate,
    status,
    train,
    verify,
    why,
    work,
)

EPILOG = (
    "Exit codes: 0 done, 1 a defect of ours, 2 wrong usage, configuration, job or run id, "
    "3 broker unreachable or refusing us, 4 the run ended short, 5 a check found a mismatch, "
    "130 interrupted. Every flag has its HERMES_* variable."
)

app = typer.Typer(
    name="hermes",
    help="Train one model on many unequal devices; Kafka topics carry everything.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hermes {version('hermes-edge')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and leave."),
    ] = False,
) -> None:
    del version


app.command()(check.check)
app.command()(train.demo)
app.command()(train.run)
app.command()(train.master)
app.command()(simulate.simulate)
app.command()(compare.compare)
app.command()(reproduce.reproduce)
app.command()(conf.init)
app.command()(conf.config)
app.command()(cluster.doctor)
app.command()(cluster.up)
app.command()(cluster.down)
app.command()(on_cluster.wait)
app.command()(resume.resume)
app.command()(fork.fork)
app.command()(work.worker)
app.add_typer(brokers.app, name="broker")
app.command()(access.invite)
app.command()(access.revoke)
app.command()(look.runs)
app.command()(status.status)
app.command()(report.report)
app.command()(why.why)
app.command()(verify.verify)
app.command()(replay.replay)
app.command()(fit.fit)
app.command()(export.export)
app.command()(look.logs)
app.command()(look.stop)
app.command()(clean.clean)
