"""Which flags do commands share? Each flag, its variable and its help, in one place."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_BROKER = "127.0.0.1:9092"

LONGEST = 1_000_000_000
"""Seconds that a flag may say: 31 years."""


def number_of(variable: str, least: int, default: str, what: str) -> Any:
    """A flag that says how many there are to be."""
    return typer.Option(envvar=variable, metavar="N", min=least, show_default=default, help=what)


Job = Annotated[
    str, typer.Argument(metavar="JOB.py", show_default=False, help="The file that defines `job`.")
]
Args = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- ARGS]", show_default=False, help="For the job's `job(args)`."),
]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]", envvar="HERMES_RUN", show_default=False, help="Default: the newest."
    ),
]
RunToClean = Annotated[
    str | None,  # without a variable: what goes is named at its place
    typer.Argument(metavar="[RUN]", show_default=False, help="The run that goes, by its id."),
]
RunToStop = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]",
        envvar="HERMES_RUN",
        show_default=False,
        help="Default: the one that runs; with several, say which.",
    ),
]

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar="HERMES_BROKER",
        metavar="HOST:PORT",
        show_default=False,
        help="A broker that runs. Default: an embedded one, for this run only.",
    ),
]
BrokerOfPieces = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar="HERMES_BROKER",
        metavar="HOST:PORT",
        show_default=DEFAULT_BROKER,
        help="The broker of the run.",
    ),
]
BrokerToAsk = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar="HERMES_BROKER",
        metavar="HOST:PORT",
        show_default=False,
        help="Ask this broker. Default: what run.json on this machine says.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        envvar="HERMES_WORKERS",
        metavar="N",
        show_default="as many as --speeds, else 4",
        help="Worker processes.",
    ),
]
Speeds = Annotated[
    str | None,
    typer.Option(
        envvar="HERMES_SPEEDS",
        metavar="S,S,...",
        show_default=False,
        help="Emulated speeds, one a worker; 1 is this machine.",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        envvar="HERMES_STRATEGY",
        metavar="NAME",
        show_default="hermes",
        help="See docs/strategies.md.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        envvar="HERMES_SET",
        metavar="KEY=VALUE",
        show_default=False,
        help="One setting, such as stop.samples=100000; may be repeated. `off` switches one off.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        envvar="HERMES_SEED", metavar="S", min=0, max=2**53, help="Of all chance in the run."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        envvar="HERMES_OUT",
        metavar="DIR",
        show_default="here",
        help="The folder that contains runs/.",
    ),
]
OutCompare = Annotated[
    Path,
    typer.Option(
        envvar="HERMES_OUT",
        metavar="DIR",
        show_default="here",
        help="The folder that contains compare/.",
    ),
]
RunId = Annotated[
    str | None,
    typer.Option(
        "--run",
        envvar="HERMES_RUN",
        metavar="ID",
        show_default="from the job's name and the date",
        help="The run's id: 1 to 40 of a-z, 0-9 and -.",
    ),
]
Expect = Annotated[
    int,
    typer.Option(
        envvar="HERMES_EXPECT",
        metavar="N",
        help="Training starts when so many workers are there; later ones join.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        envvar="HERMES_KEY_FILE",
        metavar="FILE",
        show_default="~/.config/hermes/cluster.key, made at first use",
        help="The cluster key.",
    ),
]
Access = Annotated[
    Path | None,
    typer.Option(
        envvar="HERMES_ACCESS",
        metavar="FILE",
        show_default="this machine's for that broker, else none",
        help="How to get in at the broker: TLS, user, password file.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar="HERMES_INSECURE",
        help="Use a broker without TLS off this machine: only in a network that you trust.",
    ),
]
Threads = Annotated[
    int | None,
    number_of(
        "HERMES_THREADS",
        1,
        "1 a worker where several share a machine, else all cores; NumPy: 1",
        "Threads that a process computes with.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        envvar="HERMES_DEVICE",
        metavar="NAME",
        show_default="the job's, else auto",
        help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:0 or mps; hermes.nn: the CPU.",
    ),
]
Patience = Annotated[
    float | None,
    typer.Option(
        envvar="HERMES_PATIENCE",
        metavar="SECONDS",
        min=0,
        max=LONGEST,
        show_default="5 before the first connection, 600 after",
        help="How long to wait for a broker (and a worker for its run).",
    ),
]
Ask = Annotated[
    bool,
    typer.Option("--ask", envvar="HERMES_ASK", help="Wait for a y before model and data are sent."),
]
Json = Annotated[
    bool,
    typer.Option("--json", envvar="HERMES_JSON", help="One JSON object on stdout, nothing else."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="HERMES_QUIET", help="No progress.")]


THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
"""What numeric libraries read; TensorFlow has its own."""


def limit_threads(threads: int | None) -> int | None:
    """Tell the numeric libraries, which read this when they are loaded: call it before NumPy is.

    Without --threads, what the user has set for a library stays. Returns what somebody has asked
    for, None where nobody has: then torch, which can be told later, gets what there is to spare.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    asked = int(said) if threads is None and said.isdecimal() and int(said) else threads
    if "numpy" in sys.modules:
        return asked
    for name in THREADS:
        if threads is not None:
            os.environ[name] = str(threads)
        else:
            os.environ.setdefault(name, "1")
    return asked


def use_access(access: Path | None, *, insecure: bool) -> None:
    """What the flags say holds for this process and those that it starts."""
    if access is not None:
        os.environ["HERMES_ACCESS"] = str(access.absolute())
    if insecure:
        os.environ["HERMES_INSECURE"] = "1"


def checked_device(device: str | None) -> str | None:
    """The device; raises `UsageError` for what is no device's name. Whether it is here is seen with
    the job."""
    from hermes.errors import UsageError
    from hermes.job import DEVICES

    if device is not None and re.fullmatch(DEVICES, device) is None:
        raise UsageError(
            f"there is no device {device!r}",
            where="--device",
            remedy="It is auto, cpu, cuda, cuda:N (N from 0 up) or mps.",
        )
    return device
