"""Do `dependencies_master.sh` and `dependencies_worker.sh` look, ask, and install what is missing?

As on a machine that has little: a PATH of the test's own, and an `apt-get` that notes what it is
told.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

from hermes.cluster.wheel import pack

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="they are for Debian and its kin"
)

WORKER, MASTER = "dependencies_worker.sh", "dependencies_master.sh"
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "scripts", "docker", ".ci")
    for path in (ROOT / folder).iterdir()
    if path.is_file() and re.match(rb"#!\S*/(env )?(ba|da)?sh\b", path.read_bytes()[:32])
)
PLAIN = (
    *("sh", "cat", "id", "dirname", "basename", "cksum", "find", "sort", "xargs", "getconf", "sed"),
    *("uname", "env", "rm", "mkdir"),
)

APT = """\
#!/bin/sh
echo "apt-get $*" >> "{log}"
case "$1" in install) printf '#!/bin/sh\\n' > "{bin}/tmux"; /bin/chmod +x "{bin}/tmux" ;; esac
"""


class Machine:
    """Programs of its own, and who is asked to install more."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.log = folder, folder / "bin", folder / "apt.log"
        self.bin.mkdir()
        for name in PLAIN:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        (self.bin / "python3").symlink_to(sys.executable)
        self.program("apt-get", APT.format(log=self.log, bin=self.bin))
        self.program("id", "#!/bin/sh\necho 0\n")
        (folder / "home").mkdir()

    def program(self, name: str, text: str) -> None:
        """One more, or another."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def __call__(self, script: str, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(ROOT / script), *args],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env={"PATH": str(self.bin), "HOME": str(self.folder / "home")},
        )

    def told(self) -> list[str]:
        """What apt-get was told."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """This Hermes' own."""
    made = pack()
    (tmp_path / made.name).write_bytes(made.data)
    return tmp_path / made.name


both = pytest.mark.parametrize("script", [WORKER, MASTER])


@both
def test_help_names_every_flag_and_does_nothing(machine: Machine, script: str) -> None:
    done = machine(script, "--help")
    assert done.returncode == 0
    for flag in ("--check", "--yes", "--extra", "--broker"):
        assert flag in done.stdout
    assert machine.told() == []


@both
def test_check_reports_what_is_missing_and_installs_nothing(machine: Machine, script: str) -> None:
    done = machine(script, "--check", "--extra", "none")
    assert done.returncode == 1, done.stderr
    assert "missing  tmux" in done.stdout
    assert "there    Python 3.10" in done.stdout
    assert f"{script} --extra none" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "apt-get install" in line]
    assert " tmux" in line
    assert "python3-venv" not in line, "it is there"
    assert machine.told() == []


def test_a_master_lacks_what_runs_kafka(machine: Machine) -> None:
    (machine.bin / "tmux").touch(0o755)
    told = machine(MASTER, "--check", "--extra", "none").stdout
    assert "missing  Java 17" in told
    assert "missing  Maven" in told
    assert "jre-headless maven" in told
    machine.program("java", "#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n")
    assert "missing  Java 17" in machine(MASTER, "--check", "--extra", "none").stdout
    machine.program("java", "#!/bin/sh\necho 'openjdk version \"21.0.4\" 2024' >&2\n")
    told = machine(MASTER, "--check", "--extra", "none").stdout
    assert "there    Java 17" in told
    assert "jre-headless" not in told
    machine.program("docker", "#!/bin/sh\nexit 0\n")
    told = machine(MASTER, "--check", "--extra", "none").stdout
    assert "there    Docker" in told
    assert "Maven" not in told
    assert "Java" not in machine(MASTER, "--check", "--kafka", "none").stdout


@both
def test_without_a_terminal_nothing_is_installed_as_root(machine: Machine, script: str) -> None:
    done = machine(script, "--extra", "none")
    assert done.returncode == 2
    assert "Nothing was installed" in done.stderr
    assert "apt-get install" in done.stderr
    assert machine.told() == []


def test_a_worker_is_installed_once(machine: Machine, wheel: Path) -> None:
    venv = machine.folder / "a folder" / "venv"
    flags = ["--extra", "none", "--from", str(wheel), "--venv", str(venv)]
    first = machine(WORKER, "--yes", *flags)
    assert first.returncode == 0, first.stderr
    update, install = machine.told()
    assert update.startswith("apt-get update")
    assert "--no-remove" in install
    assert install.endswith(" tmux")
    version = subprocess.run([str(venv / "bin" / "hermes"), "--version"], capture_output=True)
    assert version.returncode == 0

    stamp = (venv / ".hermes-dependencies").stat().st_mtime_ns
    again = machine(WORKER, *flags)  # nothing is to be asked
    assert again.returncode == 0, again.stderr
    assert len(machine.told()) == 2
    assert (venv / ".hermes-dependencies").stat().st_mtime_ns == stamp
    assert machine(WORKER, "--check", *flags).returncode == 0
    torch = machine(WORKER, "--check", *flags, "--extra", "torch")
    assert torch.returncode == 1, "another extra is not there"

    unreachable = machine(WORKER, "--check", *flags, "--broker", "127.0.0.1:9")
    assert unreachable.returncode == 1
    assert "missing  a broker at 127.0.0.1:9" in unreachable.stdout


def test_one_file_without_hermes_beside_it_says_what_to_carry(machine: Machine) -> None:
    (machine.bin / "tmux").touch(0o755)
    alone = machine.folder / WORKER
    shutil.copy(ROOT / WORKER, alone)
    done = subprocess.run(
        ["/bin/sh", str(alone), "--extra", "none"],
        capture_output=True,
        text=True,
        env={"PATH": str(machine.bin), "HOME": str(machine.folder / "home")},
    )
    assert done.returncode == 2
    assert "Copy the wheel here" in done.stderr


@both
@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--extra", "jax"], "unknown extra: jax"),
        (["--broker", "here"], "no HOST:PORT"),
        (["--broker"], "needs a value"),
        (["--purge"], "unknown argument: --purge"),
    ],
)
def test_what_makes_no_sense_is_told(
    machine: Machine, script: str, args: list[str], word: str
) -> None:
    done = machine(script, *args)
    assert done.returncode == 2
    assert word in done.stderr


@both
def test_a_python_that_is_too_old_and_a_32_bit_system_are_told(
    machine: Machine, script: str
) -> None:
    old = '#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi\n'
    machine.program("python3", old)
    done = machine(script, "--check")
    assert done.returncode == 2
    assert "python3 is Python 3.9.2" in done.stderr
    machine.program("getconf", "#!/bin/sh\necho 32\n")
    assert "64-bit image" in machine(script, "--check").stderr


def test_without_sudo_a_user_is_told_what_root_has_to_do(machine: Machine) -> None:
    machine.program("id", "#!/bin/sh\necho 1000\n")
    done = machine(WORKER, "--yes", "--extra", "none")
    assert done.returncode == 2
    assert "needs root" in done.stderr
    assert machine.told() == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script: str) -> None:
    lint = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [str(lint), "--external-sources", script], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
