"""How does a user try things on a cluster of unequal devices? scripts/testbed: start, look, stop.

A bed needs an owner; here it is a process in the background (`keep`), and what the other commands
must know of the machines lies in a file in the bed's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import leftovers
import network
from bed import HOME, ROOT, Bed, entrance, environment, processes, reason_against

STATE = "testbed.json"

WHEELS = Path(HOME) / ".cache" / "hermes" / "testbed-wheels"
"""Where the master, too, sees them."""


SENT = f'sed -i \'/"version"/a \\  "wheels": "{WHEELS}",\' conf/master.json'
"""Names that folder in a cluster's file."""


def main() -> int:
    typed = _parser().parse_args()
    reason = reason_against()
    if reason is not None:
        return _fail(f"{reason}. Start it again as root: sudo ./scripts/testbed ...")
    if typed.verb in ("start", "keep", "wheels"):
        return int(typed.do(typed))
    state = _running()
    if state is None:
        if typed.verb == "stop" and (gone := leftovers.clean()):
            print(f"Taken away, whose owner was killed: {', '.join(gone)}")
            return 0
        return _fail("there is no test bed. Make one: ./scripts/testbed start")
    name = getattr(typed, "name", None)
    if name is not None and name not in state["machines"]:
        return _fail(f"there is no {name!r} here, but {', '.join(state['machines'])}")
    return int(typed.do(typed, state))


def start(typed: argparse.Namespace) -> int:
    """Start a keeper, and wait until its machines are there."""
    if _running() is not None:
        return _fail("there is a test bed. Look at it: ./scripts/testbed status; or stop it")
    log = _log()
    with log.open("wb") as file:
        keeper = subprocess.Popen(
            [sys.executable, __file__, "keep", *sys.argv[2:]],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    while (state := _running()) is None:
        if keeper.poll() is not None:
            said = log.read_text().strip()
            log.unlink()
            return _fail(said.splitlines()[-1] if said else "the bed did not start")
        time.sleep(0.05)
    status(typed, state)
    workers = ",".join(name for name in state["machines"] if name != "master")
    master = network.address(network.MASTER)
    print(
        f"""
On the master, at {master}, `ssh worker-1` works: its ~/.ssh has the key, the hosts' keys and a
config (from outside: {state["folder"]}/master/home/.ssh).
Its home is its own, and goes with the bed; /tmp and the rest are this computer's. The workers reach
no package index: fetch what Hermes needs here, once, then go on there:

    ./scripts/testbed wheels
    ./scripts/testbed ssh master
    cd; hermes init cluster --workers {workers} && cd cluster
    {SENT}
    hermes doctor
    hermes up
    hermes run job.py --cluster .

A command elsewhere, a cable that breaks and is mended, and the end of it all:

    ./scripts/testbed ssh worker-1 hostname
    ./scripts/testbed cut worker-1       # and: mend worker-1
    ./scripts/testbed status
    ./scripts/testbed stop"""
    )
    return 0


def keep(typed: argparse.Namespace) -> int:
    """Own a bed, until told to stop."""
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ended.append(number))
    try:
        bed = Bed(typed.nodes, rates=typed.rates, shares=typed.shares)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    with bed:
        state = {**bed.state(), "folder": str(bed.folder)}
        written = bed.folder / f"{STATE}.new"
        written.write_text(json.dumps(state))
        written.replace(bed.folder / STATE)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        if not ended:
            signal.sigwait([signal.SIGTERM, signal.SIGINT])
    return 0


def wheels(_: argparse.Namespace) -> int:
    """Fetch what Hermes needs, for workers that reach no package index, and Apache Kafka."""
    from hermes.broker.jars import jars
    from hermes.errors import HermesError

    needed = [line for line in requires("hermes-edge") or [] if "extra ==" not in line]
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    where = ["--only-binary", ":all:", "-c", str(ROOT / "constraints.txt"), "-d", str(WHEELS)]
    WHEELS.mkdir(parents=True, exist_ok=True)
    if subprocess.run([*fetch, *where, *needed]).returncode:
        return _fail("pip could not fetch them; its own words are above")
    os.environ["HERMES_CACHE"] = str(WHEELS.parent)
    try:
        jars()
    except HermesError as error:
        return _fail(f"Apache Kafka is not there, which the bed's master cannot fetch: {error}")
    print(
        f'In conf/master.json of a cluster on the bed, for hermes up:\n\n    "wheels": "{WHEELS}"'
    )
    return 0


def ssh(typed: argparse.Namespace, state: dict[str, Any]) -> int:
    """A shell or a command on a machine: to workers by SSH from the master, as a user would."""
    master = state["machines"]["master"]
    line = typed.command[1:] if typed.command[:1] == ["--"] else typed.command
    if typed.name != "master":
        line = ["ssh", typed.name, *line]
    else:
        line = ["sh", "-c", " ".join(line)] if line else ["bash", "-i"]
    return subprocess.run(entrance(master["pid"], [], line), env=environment(True)).returncode


def status(_: argparse.Namespace, state: dict[str, Any]) -> int:
    """What the machines are like, and what runs there."""
    rows = [("machine", "address", "cable", "share of a core", "processes")]
    for name, machine in state["machines"].items():
        up = network.is_up(state["switch"], machine["number"])
        rows.append(
            (
                name,
                network.address(machine["number"]),
                (machine["rate"] or "no limit") if up else "cut",
                f"{machine['share']:g} %" if machine["share"] is not None else "no limit",
                str(len(processes(machine["pid"]))),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0


def cut(typed: argparse.Namespace, state: dict[str, Any]) -> int:
    """Let a cable carry nothing."""
    network.cut(state["switch"], state["machines"][typed.name]["number"])
    return 0


def mend(typed: argparse.Namespace, state: dict[str, Any]) -> int:
    """Let a cable carry again."""
    network.mend(state["switch"], state["machines"][typed.name]["number"])
    return 0


def stop(_: argparse.Namespace, state: dict[str, Any]) -> int:
    """End the keeper, and with it the bed."""
    name = Path(state["folder"]).name
    for number in (signal.SIGTERM, signal.SIGKILL):
        if leftovers.alive(name):
            os.kill(state["owner"], number)
        until = time.monotonic() + 20
        while leftovers.alive(name) and time.monotonic() < until:
            time.sleep(0.05)
    leftovers.clean()
    _log().unlink(missing_ok=True)
    print("The bed is gone: machines, homes and all.")
    return 0


def _log() -> Path:
    """What the keeper says."""
    return leftovers.place() / "hermes-bed.log"


def _running() -> dict[str, Any] | None:
    """The bed that was started by this command, if there is one."""
    for folder in leftovers.beds():
        if (folder / STATE).exists() and leftovers.alive(folder.name):
            found: dict[str, Any] = json.loads((folder / STATE).read_text())
            return found
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./scripts/testbed",
        description="A cluster of unequal devices on this computer, to try things on.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, do, words in (
        ("start", start, "make a master and N workers"),
        ("keep", keep, argparse.SUPPRESS),
    ):
        verb = verbs.add_parser(name, **({} if name == "keep" else {"help": words}))
        verb.add_argument("-n", "--nodes", type=int, default=4, help="how many workers (4)")
        verb.add_argument(
            "--rates",
            type=lambda text: text.split(","),
            default=[],
            help="of the cables, both ways: one, or one for each worker (10mbit,2mbit,...)",
        )
        verb.add_argument(
            "--shares",
            type=lambda text: [float(part) for part in text.split(",")],
            default=[],
            help="of one core, in percent: one, or one for each worker (100,50,25,10)",
        )
        verb.set_defaults(do=do)
    verb = verbs.add_parser("ssh", help="a shell on a machine, or a command there")
    verb.add_argument("name", help="master, worker-1, ...")
    verb.add_argument("command", nargs=argparse.REMAINDER)
    verb.set_defaults(do=ssh)
    for name, do, words in (
        ("cut", cut, "let a worker's cable carry nothing"),
        ("mend", mend, "let it carry again"),
    ):
        verb = verbs.add_parser(name, help=words)
        verb.add_argument("name", help="worker-1, ...")
        verb.set_defaults(do=do)
    verbs.add_parser("status", help="the machines, and what runs there").set_defaults(do=status)
    verbs.add_parser("stop", help="take it all away").set_defaults(do=stop)
    verb = verbs.add_parser(
        "wheels", help="fetch what workers install: they reach no package index"
    )
    verb.set_defaults(do=wheels)
    verbs.add_parser("test", help="run the tests that need a bed (arguments go to pytest)")
    return parser


def _fail(words: str) -> int:
    print(f"testbed: {words}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
