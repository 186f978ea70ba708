"""How are machines wired that are not there? With a switch in a network namespace of its own, and
one cable per machine, each as fast as it is said to be, both ways.

Nothing of the real network is touched: every command below runs inside a namespace that the bed
made, entered by the pid of a process in it. A namespace ends with its last process, and with it all
that is in it; so there is nothing to take down.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

NETWORK = "10.77.0"
"""The first three parts of every address."""

MASTER = 100
"""The last part of the master's address; worker N has N."""


def address(number: int) -> str:
    """A machine's address: `10.77.0.N`."""
    return f"{NETWORK}.{number}"


def switch_on(switch: int) -> None:
    """Make a switch of the namespace that the process `switch` is in."""
    _ip(switch, ["link add name bed type bridge forward_delay 0 stp_state 0", "link set bed up"])


def plug_in(switch: int, machine: int, number: int, rate: str | None) -> None:
    """Lay a cable from the switch to the namespace of the process `machine`."""
    port = port_of(number)
    new = f"link add name {port} type veth peer name eth0 netns {machine}"
    _ip(switch, [new, f"link set {port} master bed up"])
    there = [f"address add {address(number)}/24 dev eth0", "link set lo up", "link set eth0 up"]
    _ip(machine, there)
    if rate is not None:
        pace(switch, machine, number, rate)


def pace(switch: int, machine: int, number: int, rate: str) -> None:
    """Make the cable as slow as this (`10mbit`), to the machine and from it."""
    for pid, device in ((switch, port_of(number)), (machine, "eth0")):
        shape = f"dev {device} root tbf rate {rate} burst {_burst(rate)} latency 400ms"
        inside(pid, ["tc", "qdisc", "replace", *shape.split()])


def pull_out(switch: int, number: int) -> None:
    """Take the cable away: what was under way is lost, and neither end is told."""
    inside(switch, ["ip", "link", "delete", port_of(number)])


def cut(switch: int, number: int) -> None:
    """The cable carries nothing any more; connections live on, and wait."""
    _ip(switch, [f"link set {port_of(number)} down"])


def mend(switch: int, number: int) -> None:
    """The cable carries again."""
    _ip(switch, [f"link set {port_of(number)} up"])


def is_up(switch: int, number: int) -> bool:
    """Does the cable carry?"""
    shown = inside(switch, ["ip", "-o", "link", "show", port_of(number)])
    return ",UP" in shown


def bits(rate: str) -> int:
    """`10mbit` in bits a second. Raises `ValueError` for what is no rate."""
    for unit, size in (("kbit", 10**3), ("mbit", 10**6), ("gbit", 10**9)):
        if rate.endswith(unit) and float(rate.removesuffix(unit)) > 0:
            return int(float(rate.removesuffix(unit)) * size)
    raise ValueError(f"{rate!r} is no rate; rates look like 500kbit, 10mbit, 1gbit")


def port_of(number: int) -> str:
    """The switch's end of a machine's cable."""
    return f"port-{number}"


def inside(pid: int, command: Sequence[str], lines: str = "") -> str:
    """Run a command in the network namespace of a process of the bed's."""
    enter = ["nsenter", "--target", str(pid), "--net"]
    done = subprocess.run([*enter, *command], input=lines, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)} {lines}: {done.stderr.strip()}")
    return done.stdout


def _ip(pid: int, lines: Sequence[str]) -> None:
    inside(pid, ["ip", "-batch", "-"], "\n".join(lines) + "\n")


def _burst(rate: str) -> int:
    """What may leave at once, in bytes: ten milliseconds' worth, and never less than a few frames,
    without which the rate is not reached."""
    return max(8_000, bits(rate) // 8 // 100)
