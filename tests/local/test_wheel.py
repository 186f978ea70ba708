"""Is the wheel that nodes install this very Hermes, whole, and the same bytes each time?"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import hermes
from hermes.cluster import wheel
from hermes.cluster.wheel import pack
from hermes.errors import UsageError


def test_the_same_files_give_the_same_bytes() -> None:
    one, other = pack(), pack()
    assert one.data == other.data
    assert one.digest == other.digest
    assert one.name == f"hermes_edge-{one.version}-py3-none-any.whl"
    assert len(one.data) < 3_000_000


def test_it_holds_what_the_package_holds() -> None:
    root = Path(hermes.__file__).parent
    with zipfile.ZipFile(BytesIO(pack().data)) as archive:
        names = set(archive.namelist())
        for name in ("cluster/wheel.py", "data/digits.npz", "cli/demo.job.py", "py.typed"):
            assert archive.read(f"hermes/{name}") == (root / name).read_bytes()
    assert not any("__pycache__" in name or name.startswith("tests") for name in names)


def test_pip_installs_it_and_it_runs(tmp_path: Path) -> None:
    packed = pack()
    (tmp_path / packed.name).write_bytes(packed.data)
    venv = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(venv)],
        check=True,
    )
    python = str(venv / "bin" / "python")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    command += ["--no-index", "--no-compile", "--disable-pip-version-check", "--ignore-installed"]
    done = subprocess.run([*command, str(tmp_path / packed.name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # What it needs is not installed there: it is borrowed from here.
    site = next(path for path in sys.path if path.endswith("site-packages"))
    (Path(next(venv.glob("lib/python*/site-packages"))) / "here.pth").write_text(site + "\n")
    shown = subprocess.run(
        [str(venv / "bin" / "hermes"), "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (shown.returncode, shown.stdout) == (0, f"hermes {packed.version}\n"), shown.stderr
    where = "import hermes; print(hermes.__file__)"
    found = subprocess.run([python, "-I", "-c", where], capture_output=True, text=True).stdout
    assert found.startswith(str(venv))


def test_without_an_installation_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "DISTRIBUTION", "no-such-distribution")
    with pytest.raises(UsageError, match="not installed"):
        pack()
