"""A folder that cannot be written, a disk that is full: what is said, what is kept, does it end?"""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

import pytest
from commands import Shown
from mounts import on_disk

from hermes.cli.trouble import exit_code_of
from hermes.errors import REFUSED, RunFailed, of_the_machine
from hermes.runtime.archive import Archive
from hermes.runtime.folder import RunFolder, check_place
from hermes.runtime.hands import as_ours

JOB = """\
import hermes
from hermes import nn
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), data=hermes.data.digits,
    optimizer=lambda params: nn.SGD(params, lr=0.1), loss=nn.CrossEntropy(),
    stop=hermes.Stop(samples=1000))
"""

NOBODY = "--broker 127.0.0.1:9 --patience 0"
MADE = "Make it writable, or choose another place with"

READ_ONLY: dict[str, tuple[str, str, str]] = {
    "a read-only --out": (
        f"run job.py {NOBODY} --run r --out {{disk}}",
        "{disk}/runs/r: the run's folder cannot be made: {disk} cannot be written",
        f"{MADE} --out DIR.",
    ),
    "a read-only HERMES_CONFIG": (
        f"run job.py {NOBODY}",
        "{disk}/cluster.key: the cluster key cannot be made: Read-only file system",
        "Name another file with --key-file, or another folder with HERMES_CONFIG.",
    ),
    "a read-only HERMES_CACHE": (
        f"run job.py {NOBODY}",
        "{disk}/blocks: the cache of blocks cannot be used: {disk} cannot be written",
        f"{MADE} HERMES_CACHE=DIR.",
    ),
    "a read-only HERMES_STATE, for a broker": (
        "broker start --port 0",
        "{disk}/brokers: the folder of brokers that run cannot be used: Read-only file system",
        "Make room there or make it writable, or choose another with HERMES_STATE=DIR.",
    ),
    "a read-only --state of a worker": (
        f"worker {NOBODY} --state {{disk}}",
        "{disk}/workers: the worker's outbox cannot be kept there: {disk} cannot be written",
        f"{MADE} --state DIR.",
    ),
    "a read-only --cache of a worker": (
        f"worker {NOBODY} --cache {{disk}}",
        "{disk}: the cache of blocks cannot be used: {disk} cannot be written",
        f"{MADE} --cache DIR.",
    ),
}


@pytest.mark.parametrize("title", READ_ONLY)
def test_a_bad_place_is_named_before_anything_starts(
    title: str, shown: Shown, tmp_path: Path
) -> None:
    typed, what, remedy = READ_ONLY[title]
    (tmp_path / "job.py").write_text(JOB)
    disk = tmp_path / "disk"
    typed = typed.format(disk=disk)
    variable = next((name for name in shlex.split(title) if name.startswith("HERMES_")), "")
    variables = {variable.rstrip(","): str(disk)} if variable else {}
    done = on_disk(disk, "ro", f"$HERMES {typed}", tmp_path, **variables)
    shown(title, f"hermes {typed}", done.returncode, done.stderr)
    assert done.stderr == f"error: {what.format(disk=disk)}\n  {remedy}\n"
    assert (done.returncode, done.stdout) == (2, "")


def test_a_bad_place_is_seen_without_touching_it(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "b", "it cannot be made", "--out DIR")
    assert list(tmp_path.iterdir()) == []


# --- what nobody nearer has words for -----------------------------------------------------------


@pytest.mark.parametrize("number", REFUSED, ids=lambda number: errno.errorcode[number])
def test_bad_luck_with_the_machine_is_no_defect(
    number: int, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any thread, at any file: the message of the system, where, and a remedy; exit code 4."""
    error = OSError(number, os.strerror(number), "/some/file")
    assert isinstance(as_ours(error), RunFailed)
    code = exit_code_of(error)
    said = capsys.readouterr().err
    shown(f"{errno.errorcode[number]} where nobody expects it", "hermes run job.py", code, said)
    refusal = f"/some/file: this machine refuses: {os.strerror(number)}"
    assert said == f"error: {refusal}\n  {REFUSED[number]}\n"
    assert code == 4


def test_bad_code_of_ours_stays_a_defect() -> None:
    assert of_the_machine(ValueError("x")) is None
    assert of_the_machine(OSError(errno.EBADF, "bad file")) is None


def test_a_bad_disk_of_records_is_told(tmp_path: Path) -> None:
    """/dev/full takes nothing, whoever writes."""
    with pytest.raises(RunFailed, match="the run's records cannot be written: Is a directory"):
        Archive(tmp_path)
    archive = Archive(Path("/dev/full"))
    from hermes.transport.log import Record

    with pytest.raises(RunFailed, match="records cannot be written: No space left on device"):
        archive.add(Record("t", 0, b"x"))
    archive.close()


def test_a_bad_read_only_folder_is_told_by_write() -> None:
    """Even tidying up is refused there; that is not what is told."""
    folder = RunFolder(Path("/proc/sys"), "r")
    with pytest.raises(RunFailed, match="this file cannot be written"):
        folder.write(Path("/proc/sys/nothing"), b"x")


SCRIPT = """\
from pathlib import Path
import numpy as np
from hermes.errors import RunFailed
from hermes.perform.grants import gather
x = np.zeros((4096, 2048), "f4")
try:
    gather(iter([(x, np.arange(4096))]), 4096, Path("disk"), most=0)
except RunFailed as error:
    print(error)
"""


def test_a_bad_full_disk_under_a_map_does_not_end_the_process(shown: Shown, tmp_path: Path) -> None:
    """A map of a file whose space is not there would end the process by a signal (SIGBUS)."""
    import sys

    (tmp_path / "try.py").write_text(SCRIPT)
    done = on_disk(tmp_path / "disk", "size=1m", f"{sys.executable} try.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("disk: the samples of a grant cannot be laid down: No space left")
    shown("a full disk under the samples", "hermes worker", 4, f"error: {done.stdout}")
