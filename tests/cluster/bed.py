"""What is a cluster of unequal devices, on one computer?

Machines that are namespaces: a master, and workers that it reaches by SSH, each with an address, a
cable of a given rate, a share of a core, a home and a /tmp of its own. Nothing else of this
computer is touched; needs root.

    with Bed(2, rates=["10mbit"], shares=[100, 25]) as bed:
        bed.run(bed.master, "ssh worker-2 hostname")

The workers' programs are this computer's; their network is the bed's and nothing else.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import doors
import leftovers
import network
import shares
from machine import DOORS, Sight

ROOT = Path(__file__).parents[2]
HOME = pwd.getpwuid(0).pw_dir
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = ("ip", "tc", "unshare", "nsenter", "setpriv", "mount", "hostname", "ssh", "ssh-keygen")


class Device(NamedTuple):
    """What a worker is to be like; what is not given is as this computer has it."""

    rate: str | None = None
    """Of its cable, both ways: `10mbit`."""
    share: float | None = None
    """Of one core, in percent."""
    memory: int | None = None
    """Bytes; who takes more is killed."""
    disk: str | None = None
    """The size of its home: `64m`. Such a home is in memory, and empty after `kill`."""
    read_only: bool = False
    """Can nothing be written to its home?"""


class Node(NamedTuple):
    """A machine of the bed."""

    name: str
    number: int
    device: Device
    folder: Path
    """Its own things, as this computer sees them: `home`, `tmp`, `run`."""

    @property
    def address(self) -> str:
        return network.address(self.number)

    @property
    def home(self) -> Path:
        """Its home, from outside (empty there if it is in memory)."""
        return self.folder / "home"

    @property
    def log(self) -> Path:
        """What its SSH server said since it was switched on."""
        return self.folder / "run" / "bed" / "log"


class Bed:
    """A context manager: the machines are there, and are gone without a trace afterwards, also
    when the process that owns it is killed (its folder then goes when the next bed starts)."""

    def __init__(
        self,
        nodes: int | Sequence[Device] = 4,
        *,
        rates: Sequence[str | None] = (),
        shares: Sequence[float | None] = (),
        folder: Path | None = None,
        kept: Sequence[Path] = (),
    ) -> None:
        """`rates` and `shares` are one for all workers, or one for each. What lies in `kept` stays
        visible to the workers (to read), though it is in root's home or in /tmp."""
        devices = _devices(nodes, rates, shares)
        self.name = leftovers.new_name()
        self._place = folder or leftovers.place()
        self.folder = self._place / self.name
        self.kept = [ROOT, Path(sys.base_prefix), Path(sys.prefix), *kept]
        self.workers = [
            Node(f"worker-{number}", number, device, self.folder / f"worker-{number}")
            for number, device in enumerate(devices, 1)
        ]
        self.master = Node("master", network.MASTER, Device(), self.folder / "master")
        self._running: dict[str, Machine] = {}
        self._switch: subprocess.Popen[bytes] | None = None

    @property
    def ssh_folder(self) -> Path:
        """The master's `~/.ssh`, from outside: id_ed25519, known_hosts, config."""
        return self.master.home / ".ssh"

    def __enter__(self) -> Bed:
        lacking = reason_against()
        if lacking is not None:
            raise OSError(lacking)
        leftovers.clean(self._place)
        self.folder.mkdir(mode=0o700)
        try:
            self._furnish()
            self._switch = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
            _until_apart(self._switch.pid, "net")
            network.switch_on(self._switch.pid)
            for node in [self.master, *self.workers]:
                self.start(node)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, node: Node) -> None:
        """Switch a machine on: at first, and again after `kill`; its home is as it was."""
        run = node.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(node.folder / "doors", run / "bed")
        (run / "sshd").mkdir(mode=0o755)
        sight = json.dumps(self._sight(node)._asdict())
        (node.folder / "sight.json").write_text(sight)
        machine = Machine(self.name, node)
        self._running[node.name] = machine
        machine.wait_until_ready()
        network.plug_in(self.switch, machine.first, node.number, node.device.rate)

    def kill(self, node: Node) -> None:
        """Switch a machine off at the wall: its cable falls silent, then all its processes end."""
        machine = self._running.pop(node.name)
        network.pull_out(self.switch, node.number)
        machine.kill()

    def cut(self, node: Node) -> None:
        """Its cable carries nothing until `mend`; nobody is told."""
        network.cut(self.switch, node.number)

    def mend(self, node: Node) -> None:
        """Its cable carries again."""
        network.mend(self.switch, node.number)

    def pace(self, node: Node, rate: str) -> None:
        """Its cable has another rate from now on."""
        network.pace(self.switch, self.pid(node), node.number, rate)

    def run(
        self,
        node: Node,
        command: str | Sequence[str],
        *,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine, to its end; a string goes to its shell."""
        process = self.popen(node, command, env=env, cwd=cwd)
        with process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def popen(
        self,
        node: Node,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Entered:
        """Start a command on a machine. A signal to the process returned reaches the command (of a
        string: the shell, unless it begins with `exec`)."""
        return Entered(
            self.entrance(node, command, cwd=cwd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment(node.name == "master"), **(env or {})},
        )

    def entrance(
        self, node: Node, command: str | Sequence[str], *, cwd: Path | None = None
    ) -> list[str]:
        """The command line that runs a command on a machine, from here."""
        return entrance(self.pid(node), self._running[node.name].groups, command, cwd)

    def processes(self, node: Node) -> dict[int, str]:
        """What runs on a machine besides what the bed started there: command lines by pid, as this
        computer sees them."""
        return processes(self.pid(node))

    def pid(self, node: Node) -> int:
        """A machine's first process, as this computer sees it."""
        return self._running[node.name].first

    def fingerprint(self, node: Node) -> str:
        """`SHA256:...` of a machine's host key."""
        return doors.fingerprint(node.folder / "doors")

    @property
    def switch(self) -> int:
        """The process that holds the switch's namespace."""
        assert self._switch is not None, "the bed is not up"
        return self._switch.pid

    def state(self) -> dict[str, Any]:
        """What another process needs to enter the machines; plain values."""
        machines = {
            node.name: {
                "number": node.number,
                "pid": self.pid(node),
                "groups": [str(group) for group in self._running[node.name].groups],
                "rate": node.device.rate,
                "share": node.device.share,
            }
            for node in [self.master, *self.workers]
        }
        return {"switch": self.switch, "owner": os.getpid(), "machines": machines}

    def close(self) -> None:
        """Switch everything off, and remove all that was made."""
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(Machine.kill, self._running.values()))
        self._running.clear()
        if self._switch is not None:
            self._switch.kill()
            self._switch.communicate()
            self._switch = None
        leftovers.remove(self.name, self.folder)

    def _furnish(self) -> None:
        """Make each machine's folder, its keys, and what the master knows of the workers."""
        everybody = [self.master, *self.workers]
        hosts = "".join(f"{node.address} {node.name}\n" for node in everybody)
        for node in everybody:
            for folder in ("home", "tmp", "var-tmp", "etc", "doors"):
                (node.folder / folder).mkdir(parents=True)
            node.home.chmod(0o700)
            (node.folder / "tmp").chmod(0o1777)
            (node.folder / "var-tmp").chmod(0o1777)
            (node.folder / "etc" / "hostname").write_text(f"{node.name}\n")
            (node.folder / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        self.ssh_folder.mkdir(mode=0o700)
        key = self.ssh_folder / "id_ed25519"
        doors.new_key(key)
        for node in self.workers:
            doors.furnish(node.folder / "doors", key, DOORS)
        places = [(node.name, node.address, node.folder / "doors") for node in self.workers]
        doors.introduce(self.ssh_folder, places)

    def _sight(self, node: Node) -> Sight:
        worker = node.name != "master"
        cache = [] if worker else [Path(HOME) / ".cache" / "hermes"]  # Apache Kafka is there
        return Sight(
            name=node.name,
            home=HOME,
            folder=str(node.folder),
            hidden=["/tmp", "/var/tmp", "/run"] if worker else ["/run"],
            kept=sorted({str(path) for path in [*self.kept, *cache] if path.exists()}),
            disk=node.device.disk,
            read_only=node.device.read_only,
            worker=worker,
            server=doors.program() or "",
        )


class Machine:
    """A machine that is switched on: its namespaces, held by its first process."""

    def __init__(self, bed: str, node: Node) -> None:
        self.node = node
        self.groups = shares.limit(bed, node.name, node.device.share, node.device.memory)
        spaces = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
        first = [sys.executable, "-I", str(Path(__file__).with_name("machine.py"))]
        start = ["unshare", *spaces, *first, str(node.folder)]
        self._process = subprocess.Popen(
            joining(self.groups, start), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.first = 0

    def wait_until_ready(self) -> None:
        """Returns when all is in its place."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != b"ready\n":
            raise OSError(f"{self.node.name} did not start; its own words are above")
        (self.first,) = children(self._process.pid)

    def kill(self) -> None:
        """End all its processes: they end with the first, which does when its input does."""
        try:
            self._process.communicate(timeout=2)
        except subprocess.TimeoutExpired:  # somebody has stopped it
            os.kill(self.first or self._process.pid, signal.SIGKILL)
            self._process.communicate()


class Entered(subprocess.Popen[str]):
    """A command on a machine; signals reach it, and not what led there."""

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            inner = children(self.pid)
            for pid in inner or [self.pid]:
                os.kill(pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def entrance(
    pid: int, groups: Sequence[Path], command: str | Sequence[str], cwd: Path | None = None
) -> list[str]:
    """The command line that runs a command on the machine whose first process this is."""
    enter = ["nsenter", "--target", str(pid), "--mount", "--net", "--uts", "--ipc", "--pid"]
    words = ["sh", "-c", command] if isinstance(command, str) else list(command)
    there = ["setpriv", "--pdeathsig", "KILL", "env", "-C", str(cwd or HOME), *words]
    return joining(groups, [*enter, *there])


def joining(groups: Sequence[Path], command: Sequence[str]) -> list[str]:
    """The same command, as a member of these control groups."""
    if not groups:
        return list(command)
    join = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups)
    return ["sh", "-c", f'set -e; {join}exec "$@"', "sh", *command]


def processes(first: int) -> dict[int, str]:
    """Command lines by pid of what runs on the machine whose first process this is; the bed's own
    are not among them."""
    found = {}
    space = Path(f"/proc/{first}/ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns" / "pid").readlink() != space or int(process.name) == first:
                continue
            server = (process / "exe").readlink().name.startswith("sshd")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
        if command and not server:
            found[int(process.name)] = command
    return found


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def environment(master: bool) -> dict[str, str]:
    """What a command finds on a machine: nothing of the environment of whoever types it."""
    path = f"{Path(sys.prefix) / 'bin'}:{PATH}" if master else PATH
    places = {"HOME": HOME, "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
    terminal = {"TERM": os.environ.get("TERM", "dumb"), "LANG": "C.UTF-8"}
    return {"PATH": path, **places, **terminal, "TMUX_TMPDIR": "/run"}


def reason_against() -> str | None:
    """Why there can be no bed here, if so."""
    if os.geteuid() != 0:
        return "a test bed needs root: it makes namespaces"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if doors.program() is None:
        lacking.append("sshd")
    if lacking:
        return (
            f"a test bed needs {', '.join(lacking)} "
            "(Debian: apt-get install iproute2 util-linux openssh-server; or ./scripts/sshd)"
        )
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
    )
    return (
        f"this computer makes no namespaces: {tried.stderr.strip()}" if tried.returncode else None
    )


def _devices(
    nodes: int | Sequence[Device],
    rates: Sequence[str | None],
    shares: Sequence[float | None],
) -> list[Device]:
    devices = [Device()] * nodes if isinstance(nodes, int) else list(nodes)
    if not 1 <= len(devices) < network.MASTER:
        raise ValueError(f"{len(devices)} workers; a bed has 1 to {network.MASTER - 1}")
    for field, values in (("rate", rates), ("share", shares)):
        if len(values) not in (0, 1, len(devices)):
            raise ValueError(f"{len(values)} {field}s for {len(devices)} workers; one, or as many")
        for number, value in enumerate(list(values) * (len(devices) if len(values) == 1 else 1)):
            devices[number] = devices[number]._replace(**{field: value})
    for device in devices:
        if device.rate is not None:
            network.bits(device.rate)
        if device.share is not None and not device.share >= 1:
            raise ValueError(f"{device.share} % of a core; a share is at least 1 %")
    return devices


def _until_apart(pid: int, space: str) -> None:
    """Wait until a process has left this one's namespace."""
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/ns/{space}").readlink() == Path(f"/proc/self/ns/{space}").readlink():
        assert time.monotonic() < until, "unshare does not get its namespace"
        time.sleep(0.002)
