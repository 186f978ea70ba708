"""Is the test bed a cluster of unequal devices, and is it gone afterwards?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import leftovers
import pytest
import shares
from bed import HOME, Bed, Device, children

RATE = 10_000_000


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    with Bed(3, rates=["10mbit", "2mbit", None], shares=[50, 25, 10]) as made:
        yield made


def ssh(bed: Bed, command: str) -> subprocess.CompletedProcess[str]:
    return bed.run(bed.master, f"ssh -o BatchMode=yes -o ConnectTimeout=3 {command}")


def test_the_master_reaches_each_worker_by_name_and_by_address(bed: Bed) -> None:
    """Of this computer's /tmp it sees what is kept there alone: us, where we lie in it."""
    kept = sorted({path.parts[2] for path in bed.kept if path.parts[1] == "tmp"})
    for node in bed.workers:
        for there in (node.name, node.address):
            done = ssh(bed, f"{there} 'hostname; pwd; ls /tmp; cat /etc/hostname'")
            assert done.stderr == ""
            assert done.stdout.split() == [node.name, HOME, *kept, node.name]


def test_a_worker_whose_host_key_is_another_is_refused(bed: Bed) -> None:
    known = bed.ssh_folder / "known_hosts"
    before = known.read_text()
    first, second, *_ = before.splitlines()
    try:
        known.write_text(f"{first.split()[0]} {' '.join(second.split()[1:])}\n")
        assert "HOST IDENTIFICATION HAS CHANGED" in ssh(bed, "worker-1 true").stderr
        known.write_text("")
        assert "Host key verification failed" in ssh(bed, "worker-1 true").stderr
    finally:
        known.write_text(before)
    assert ssh(bed, "worker-1 true").returncode == 0


def test_only_the_beds_own_key_opens(bed: Bed) -> None:
    make = 'rm -f ~/other*; ssh-keygen -q -t ed25519 -N "" -f ~/other'
    assert bed.run(bed.master, make).returncode == 0
    done = ssh(bed, f"-i ~/other -F none -o UserKnownHostsFile=~/.ssh/known_hosts "
                    f"-o IdentitiesOnly=yes {bed.workers[0].address} true")  # fmt: skip
    assert "Permission denied (publickey)" in done.stderr


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_the_pythons_of_this_computer_run_on_a_worker(bed: Bed, python: str) -> None:
    if not Path(python).exists():
        pytest.skip(f"no {python} here")
    ours = "import hermes, numpy, " if python == sys.executable else "import "
    done = ssh(bed, f"worker-1 {python} -c '\"{ours}socket; print(socket.gethostname())\"'")
    assert done.stdout == "worker-1\n", done.stderr


def test_a_worker_writes_to_its_own_folders_only_and_sees_no_others(bed: Bed) -> None:
    one, other, _ = bed.workers
    done = bed.run(one, "echo a > ~/mine; echo a > /tmp/mine; touch /etc/ours /usr/ours /opt/ours")
    assert done.returncode != 0
    assert done.stderr.count("Read-only file system") == 3
    assert (one.home / "mine").read_text() == "a\n"
    assert bed.run(other, "ls ~/mine /tmp/mine").stdout == ""
    assert not (Path(HOME) / "mine").exists()
    for kept in (sys.base_prefix, Path(__file__).parent):
        assert bed.run(one, f"test -r {kept} && test ! -w {kept}").returncode == 0


def test_no_machine_of_the_bed_reaches_another_network(bed: Bed) -> None:
    try_it = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=3)"
    for node in (bed.master, bed.workers[0]):
        done = bed.run(node, [sys.executable, "-c", try_it])
        assert "Network is unreachable" in done.stderr


SERVER = """
import socket, sys
server = socket.create_server(("0.0.0.0", 7000))
print("ready", flush=True)
connection, _ = server.accept()
size, up = int(sys.argv[1]), sys.argv[2] == "up"
if up:
    while size > 0:
        size -= len(connection.recv(65536))
    connection.sendall(b".")
else:
    connection.sendall(bytes(size))
    connection.recv(1)
"""

CLIENT = """
import socket, sys, time
host, size, up = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "up"
connection = socket.create_connection((host, 7000))
def get(size):
    while size > 0:
        got = len(connection.recv(min(size, 65536)))
        assert got
        size -= got
if up:
    began = time.monotonic()
    connection.sendall(bytes(size))
    get(1)
else:
    get(1_000)
    began = time.monotonic()
    get(size - 1_000)
    connection.sendall(b".")
print(size / (time.monotonic() - began))
"""


def measured(bed: Bed, worker: int, rate: int, direction: str) -> float:
    """Bits a second of two seconds' worth of bytes, from the worker (up) or to it (down)."""
    size = str(rate // 4)
    server = bed.popen(bed.master, [sys.executable, "-c", SERVER, size, direction])
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        there = [sys.executable, "-c", CLIENT, bed.master.address, size, direction]
        done = bed.run(bed.workers[worker], there)
    assert done.returncode == 0, done.stderr
    return 8 * float(done.stdout)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(("worker", "rate"), [(0, RATE), (1, RATE // 5)])
def test_a_cable_is_as_fast_as_it_is_said_to_be(
    bed: Bed, worker: int, rate: int, direction: str
) -> None:
    assert measured(bed, worker, rate, direction) == pytest.approx(rate, rel=0.15)


def test_a_cable_without_a_rate_is_fast_and_can_be_paced(bed: Bed) -> None:
    assert measured(bed, 2, 20 * RATE, "down") > 20 * RATE
    bed.pace(bed.workers[2], "5mbit")
    assert measured(bed, 2, RATE // 2, "up") == pytest.approx(RATE // 2, rel=0.15)


BUSY = """
import time
began, spent = time.monotonic(), time.process_time()
while time.monotonic() - began < 4:
    pass
print(100 * (time.process_time() - spent) / (time.monotonic() - began))
"""


def spent(bed: Bed, share: float, *commands: list[str] | str) -> list[float]:
    """What these take of a core, in percent, side by side with one on the master without a limit:
    where that one gets no more than they may take, the computer is too busy for the question."""
    free = bed.popen(bed.master, [sys.executable, "-c", BUSY])
    node = bed.workers[[50, 25, 10].index(share)]
    all_ = [
        bed.popen(bed.master if isinstance(command, str) else node, command) for command in commands
    ]
    found = [float(process.communicate(timeout=60)[0]) for process in all_]
    room = float(free.communicate(timeout=60)[0])
    assert sum(found) <= 1.2 * share
    if room < 1.2 * share:
        pytest.skip(f"this computer is busy: without a limit, too, a process got {room:.0f} %")
    return found


@pytest.mark.parametrize("share", [50, 25, 10])
def test_a_worker_takes_its_share_of_a_core(bed: Bed, share: float) -> None:
    (found,) = spent(bed, share, [sys.executable, "-c", BUSY])
    assert found == pytest.approx(share, rel=0.2)


def test_a_session_takes_the_workers_share_of_a_core(bed: Bed) -> None:
    (found,) = spent(bed, 25, f"ssh worker-2 {sys.executable} -c \"'{BUSY}'\"")
    assert found == pytest.approx(25, rel=0.2)


def test_two_processes_of_a_worker_share_its_share(bed: Bed) -> None:
    found = spent(bed, 25, *[[sys.executable, "-c", BUSY]] * 2)
    assert sum(found) == pytest.approx(25, rel=0.2)


def test_a_cut_cable_is_silence_and_a_mended_one_goes_on(bed: Bed) -> None:
    node = bed.workers[0]
    count = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"
    counting = bed.popen(bed.master, ["ssh", node.name, count])
    assert counting.stdout is not None
    assert counting.stdout.readline() == "0\n"
    bed.cut(node)
    began = time.monotonic()
    done = ssh(bed, f"{node.name} true")
    assert done.returncode == 255
    assert "timed out" in done.stderr or "No route to host" in done.stderr
    assert 2 < time.monotonic() - began < 10
    assert counting.poll() is None
    bed.mend(node)
    until = time.monotonic() + 30
    while ssh(bed, f"{node.name} true").returncode:
        assert time.monotonic() < until
    for expected in range(1, 30):  # nothing was lost
        assert counting.stdout.readline() == f"{expected}\n"
    counting.terminate()
    counting.communicate(timeout=10)


def test_a_killed_worker_is_unreachable_and_comes_back_with_its_home() -> None:
    with Bed(2) as bed:
        one, other = bed.workers
        bed.run(one, "echo a > ~/mine")
        left = bed.popen(one, "exec sleep 600")
        until = time.monotonic() + 5
        while "sleep 600" not in bed.processes(one).values():
            assert time.monotonic() < until
        assert "sleep 600" not in bed.processes(other).values()
        bed.kill(one)
        assert left.wait(5) != 0
        left.communicate()
        assert ssh(bed, "worker-1 true").returncode == 255
        assert ssh(bed, "worker-2 true").returncode == 0
        bed.start(one)
        assert bed.processes(one) == {}
        assert ssh(bed, "worker-1 cat mine").stdout == "a\n"


LISTENING = """
import socket, time
server = socket.create_server(("0.0.0.0", 7001))
print("ready", flush=True)
connection, _ = server.accept()
time.sleep(600)
"""

LISTENED = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 7001))
print("ready", flush=True)
connection.settimeout(3)
print(connection.recv(1))
"""


def test_a_killed_worker_says_no_farewell() -> None:
    with Bed(1) as bed:
        (node,) = bed.workers
        there = bed.popen(node, [sys.executable, "-c", LISTENING])
        assert there.stdout is not None
        assert there.stdout.readline() == "ready\n"
        here = bed.popen(bed.master, [sys.executable, "-c", LISTENED, node.address])
        assert here.stdout is not None
        assert here.stdout.readline() == "ready\n"
        bed.kill(node)
        said, error = here.communicate(timeout=20)
        assert said == ""  # b"" would be an end that was told
        assert "TimeoutError" in error
        there.communicate()


def test_what_a_session_leaves_running_is_counted_and_has_the_share(bed: Bed) -> None:
    node = bed.workers[1]
    assert bed.processes(node) == {}
    ssh(bed, f"{node.name} 'setsid sleep 600 > /dev/null 2>&1 < /dev/null &'")
    ((pid, command),) = bed.processes(node).items()
    assert command == "sleep 600"
    assert pid in shares.members(bed.name)
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while bed.processes(node):
        assert time.monotonic() < until


def test_a_signal_reaches_the_command_on_the_machine(bed: Bed) -> None:
    trap = "trap 'echo got it; exit 7' TERM; echo ready; while true; do sleep 0.05; done"
    process = bed.popen(bed.master, trap)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=10)[0] == "got it\n"
    assert process.returncode == 7


def test_a_full_disk_a_home_to_read_only_and_little_memory() -> None:
    small = Device(disk="8m", share=50)
    with Bed([small, Device(read_only=True), Device(memory=64 << 20)]) as bed:
        full, read_only, little = bed.workers
        done = bed.run(full, "head -c 16000000 /dev/zero > ~/large; stat -c %s ~/large")
        assert "No space left on device" in done.stderr
        assert int(done.stdout) <= 8 << 20
        assert "Read-only" in bed.run(read_only, "touch ~/mine").stderr
        assert "Read-only" in ssh(bed, "worker-2 touch mine").stderr
        assert ssh(bed, f"worker-2 {sys.executable} -c \"'import hermes'\"").returncode == 0
        more = [sys.executable, "-c", "bytearray(256 << 20)"]
        assert bed.run(little, more).returncode == -signal.SIGKILL
        assert bed.run(full, more).returncode == 0


@pytest.mark.parametrize(
    ("rates", "shares", "said"),
    [
        (["10"], (), "'10' is no rate"),
        (["0mbit"], (), "'0mbit' is no rate"),
        (["1mbit"] * 3, (), "3 rates for 4 workers"),
        ((), [0], "0 % of a core"),
    ],
)
def test_what_makes_no_sense_is_refused(rates: list[str], shares: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Bed(4, rates=rates, shares=shares)


def trace(folder: Path) -> dict[str, object]:
    """All that a bed could leave on this computer."""
    links = [subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout]
    names = {path.name for path in [*leftovers.beds(folder), *shares.found("hermes-bed-*")]}
    return {
        "names": names,
        "processes": [pid for name in names for pid in leftovers.processes(name)],
        "mounts": [
            line for line in Path("/proc/self/mounts").read_text().splitlines() if "bed" in line
        ],
        "links": [line.split(":")[1] for line in links[0].splitlines()],
        "addresses": subprocess.run(["ip", "-br", "a"], capture_output=True, text=True).stdout,
        "namespaces": sorted(Path("/run/netns").glob("*")),
    }


def spaces(bed: str) -> set[str]:
    """The namespaces of all processes, of this computer's view."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        for space in ("net", "mnt", "pid", "uts"):
            try:
                found.add(str((process / "ns" / space).readlink()))
            except OSError:
                continue
    return found


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before = trace(tmp_path)
    with Bed(2, shares=[20], folder=tmp_path) as bed:
        name = bed.name
        assert trace(tmp_path)["names"] != before["names"]
        first = [bed.pid(node) for node in (bed.master, *bed.workers)]
        ours = {
            str(Path(f"/proc/{pid}/ns/{kind}").readlink())
            for pid in first
            for kind in ("net", "mnt")
        }
        assert ours <= spaces(name)
        bed.run(bed.workers[0], "setsid sleep 600 > /dev/null 2>&1 < /dev/null & mkdir -p ~/a/b")
    assert trace(tmp_path) == before
    assert not ours & spaces(name)
    assert list(tmp_path.iterdir()) == []


OWNER = """
import json, sys, time
from pathlib import Path
from bed import Bed
with Bed(2, shares=[20], folder=Path(sys.argv[1])) as bed:
    bed.run(bed.workers[0], "setsid sleep 600 > /dev/null 2>&1 < /dev/null &")
    print(json.dumps([bed.name, bed.switch, *map(bed.pid, [bed.master, *bed.workers])]), flush=True)
    time.sleep(600)
"""


def test_after_the_owner_is_killed_its_machines_end_and_the_next_bed_takes_the_rest_away(
    tmp_path: Path,
) -> None:
    before = trace(tmp_path)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert owner.stdout is not None
    name, *pids = json.loads(owner.stdout.readline())
    running = [*pids, *(child for pid in pids for child in children(pid))]
    assert len(running) >= 6
    owner.kill()
    owner.communicate()
    until = time.monotonic() + 10
    while [pid for pid in running if _runs(pid)]:
        assert time.monotonic() < until
    assert not leftovers.alive(name)
    with Bed(1, folder=tmp_path) as bed:
        assert [path.name for path in leftovers.beds(tmp_path)] == [bed.name]
    assert trace(tmp_path) == before
    assert list(tmp_path.iterdir()) == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_bed_that_is_in_use_is_not_taken_for_a_leftover(bed: Bed) -> None:
    assert leftovers.clean() == [] or bed.name not in leftovers.clean()
    assert bed.folder.exists()
    assert ssh(bed, "worker-1 true").returncode == 0
