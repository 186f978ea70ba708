"""What does `hermes init` write, and what is a user told of a bad wish?"""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import pytest
from commands import Shown

from hermes.cli.entry import run
from hermes.cluster import address
from hermes.cluster.conf import FILES, load
from hermes.cluster.init import FRAMEWORKS, Worker, parse_workers
from hermes.jobfile import build, load_source

ROOT = Path(__file__).parents[2]

WRITTEN = [
    *(f"conf/{name}" for name in FILES),
    *(f"conf/schemas/{name}" for name in FILES),
    "job.py",
    "README.md",
    ".gitignore",
]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def key_file(path: Path, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    path.chmod(mode)
    return path


# --- what is written ------------------------------------------------------------------------------


def test_what_it_writes_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_file(tmp_path / "home" / ".ssh" / "cluster")
    typed = "10.0.0.1,anna@10.0.0.2:2222,[fe80::2]:23,node4.local"
    assert run(["init", "lab", "--workers", typed, "--user", "pi", "--key", str(key)]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"written: lab/{name}" for name in WRITTEN]
    assert "hermes doctor lab" in told.err
    cluster = load(tmp_path / "lab")
    assert [(n.name, n.user, n.host, n.port) for n in cluster.nodes] == [
        ("worker-1", "pi", "10.0.0.1", 22),
        ("worker-2", "anna", "10.0.0.2", 2222),
        ("worker-3", "pi", "fe80::2", 23),
        ("worker-4", "pi", "node4.local", 22),
    ]
    assert {cluster.key_of(node) for node in cluster.nodes} == {key}
    text = (tmp_path / "lab" / "conf" / "config.json").read_text()
    assert '"key": "~/.ssh/cluster"' in text, "another home may read it, too"
    assert "PRIVATE KEY" not in text
    assert cluster.master.security == "on"
    assert cluster.settings.values == {}, "the job's own stop rules hold"


def test_here_is_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--workers", "10.0.0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(tmp_path)
    assert told["nodes"] == ["worker-1"]
    assert sorted(told["files"]) == sorted(WRITTEN)
    ignored = (tmp_path / ".gitignore").read_text().split()
    assert {"*.key", "secrets/", "broker/", "runs/"} <= set(ignored)
    assert "1 node and this machine" in (tmp_path / "README.md").read_text()


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "devices.json").write_text("{}")
    assert run(["init", "--workers", "10.0.0.1", "-q"]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "conf" / "devices.json").read_text() == "{}"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_job_is_an_example(framework: str, tmp_path: Path) -> None:
    assert run(["init", "--workers", "10.0.0.1", "--framework", framework, "-q"]) == 0
    names = {"numpy": "digits.py", "torch": "master.py"}
    example = ROOT / "examples" / names.get(framework, "master_keras.py")
    trees = [ast.parse(path.read_text()) for path in (tmp_path / "job.py", example)]
    told = [ast.get_docstring(tree) for tree in trees]
    assert [ast.dump(node) for node in trees[0].body[1:]] == [
        ast.dump(node) for node in trees[1].body[1:]
    ]
    assert "hermes run job.py --cluster ." in (told[0] or "")
    assert "examples/" not in (tmp_path / "job.py").read_text()
    assert load(tmp_path).nodes[0].extras == FRAMEWORKS[framework]


def test_the_job_can_be_built(tmp_path: Path) -> None:
    assert run(["init", "--workers", "10.0.0.1", "-q"]) == 0
    source = load_source("job.py")
    assert build(source.text, source.name).stop.samples == 200_000


def test_frameworks_are_extras_that_there_are() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for extras in FRAMEWORKS.values():
        assert all(re.search(rf"^{extra} = \[", text, flags=re.M) for extra in extras)


# --- the address of this machine ------------------------------------------------------------------


def test_this_machines_address_is_that_on_the_way_to_the_first_node(tmp_path: Path) -> None:
    assert address.towards("127.0.0.1") == "127.0.0.1"
    assert address.towards("no.such.host.invalid") is None
    assert run(["init", "--workers", "127.0.0.1:2201,127.0.0.1:2202", "-q"]) == 0
    assert load(tmp_path).master.address == "127.0.0.1"


def test_where_there_is_no_way_it_is_found_later(tmp_path: Path) -> None:
    assert run(["init", "--workers", "no.such.host.invalid", "-q"]) == 0
    assert load(tmp_path).master.address is None


@pytest.mark.parametrize(
    ("host", "loopback", "example"),
    [
        ("127.0.0.1", True, False),
        ("127.9.0.1", True, False),
        ("::1", True, False),
        ("localhost", True, False),
        ("10.0.0.1", False, False),
        ("192.0.2.7", False, True),
        ("node.example.org", False, True),
        ("2001:db8::1", False, True),
        ("node", False, False),
    ],
)
def test_what_an_address_is(host: str, loopback: bool, example: bool) -> None:
    assert (address.is_loopback(host), address.is_example(host)) == (loopback, example)


# --- --workers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "worker"),
    [
        ("10.0.0.1", Worker("10.0.0.1")),
        ("10.0.0.1:22", Worker("10.0.0.1", 22)),
        (" pi@node.local:2222 ", Worker("node.local", 2222, "pi")),
        ("[fe80::1]", Worker("fe80::1")),
        ("pi@[fe80::1]:23", Worker("fe80::1", 23, "pi")),
        ("fe80::1", Worker("fe80::1")),
    ],
)
def test_how_a_node_is_typed(text: str, worker: Worker) -> None:
    assert parse_workers(text) == (worker,)


BAD = [
    (["--workers", ""], "--workers: there is an empty part"),
    (["--workers", "10.0.0.1,,10.0.0.2"], "--workers: there is an empty part"),
    (["--workers", "10.0.0.1:99999"], "--workers: the port 99999 in '10.0.0.1:99999'"),
    (["--workers", "10.0.0.1:ssh"], "--workers: '10.0.0.1:ssh' is no node"),
    (["--workers", "10.0.0.300"], "--workers: the host '10.0.0.300'"),
    (["--workers", "a b"], "--workers: the host 'a b'"),
    (["--workers", "-oProxyCommand=x"], "--workers"),
    (["--workers", "@10.0.0.1"], "--workers: the user '' in '@10.0.0.1'"),
    (["--workers", "p i@10.0.0.1"], "--workers: the user 'p i'"),
    (["--workers", "10.0.0.1,10.0.0.1:22"], "--workers: '10.0.0.1' with port 22 is there twice"),
    (["--workers", "10.0.0.1", "--user", "a b"], "--user: the user 'a b'"),
    (["--workers", "10.0.0.1", "--key", "absent"], "--key: absent, which cannot be read"),
    (["--workers", "10.0.0.1", "--key", "~nobody-of-this-name/x"], "which cannot be read"),
    (["--workers", "10.0.0.1", "--key", "open"], "--key: open, which others can read"),
    (["--workers", "10.0.0.1", "--framework", "jax"], "--framework: 'jax' is not one of"),
    ([], "--workers"),
]


@pytest.mark.parametrize(("args", "said"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_wish_writes_nothing(
    args: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shown: Shown,
) -> None:
    key_file(tmp_path / "open", 0o644)
    assert run(["init", "lab", *args]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert told.err.count("error: ") == 1
    assert not (tmp_path / "lab").exists()
    shown(" ".join(args) or "no nodes", f"hermes init lab {' '.join(args)}", 2, told.err)


def test_a_bad_password_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown
) -> None:
    assert run(["init", "lab", "--workers", "10.0.0.1,pi:hunter2@10.0.0.2"]) == 2
    told = capsys.readouterr().err
    assert "hunter2" not in told
    assert "without a password" in told
    shown("a password in --workers", "hermes init lab --workers pi:...@10.0.0.2", 2, told)


# --- nothing is overwritten -----------------------------------------------------------------------


def test_a_bad_place_is_named_and_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown
) -> None:
    (tmp_path / "lab" / "conf").mkdir(parents=True)
    (tmp_path / "lab" / "conf" / "master.json").write_text("mine")
    (tmp_path / "lab" / "job.py").symlink_to("nowhere")
    assert run(["init", "lab", "--workers", "10.0.0.1"]) == 2
    told = capsys.readouterr().err
    assert "nothing was written: there is already conf/master.json, job.py" in told
    shown("a folder with a cluster in it", "hermes init lab --workers 10.0.0.1", 2, told)
    assert (tmp_path / "lab" / "conf" / "master.json").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "lab").rglob("*")) == [
        "conf",
        "job.py",
        "master.json",
    ]


def test_a_bad_folder_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: Shown
) -> None:
    (tmp_path / "file").write_text("")
    for folder, said in (("file", "file: it is no folder"), ("file/lab", "it cannot be written")):
        assert run(["init", folder, "--workers", "10.0.0.1"]) == 2
        told = capsys.readouterr().err
        assert said in told
        shown(f"the folder {folder}", f"hermes init {folder} --workers 10.0.0.1", 2, told)


def test_what_was_begun_is_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """conf/schemas is a file: three files are written before that is seen."""
    (tmp_path / "lab" / "conf").mkdir(parents=True)
    (tmp_path / "lab" / "conf" / "schemas").write_text("mine")
    assert run(["init", "lab", "--workers", "10.0.0.1"]) == 2
    assert "it cannot be written" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "lab" / "conf").iterdir()] == ["schemas"]
