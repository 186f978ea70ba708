"""Does `hermes check` find what is wrong with a job, all of it, before anything is started?"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import DIGITS, Shell, Shown, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.checkup.costs import in_chunks, upload_of
from hermes.cli.entry import run
from hermes.data.blocks import DEFLATED, decode_block
from hermes.data.prepare import TRIED, Prepared, prepare
from hermes.data.sources import Samples
from hermes.job import Split
from hermes.messages import JobSource
from hermes.perform.store import Store
from hermes.perform.upload import Signer, upload
from hermes.transport import names
from hermes.transport.counting import CountingLog, by_kind
from hermes.transport.memory import MemoryLog
from hermes.transport.tensors import send_payload

JOB = """\
import hermes, numpy as np
from hermes import nn
{more}
def model():
    return {model}

def data():
    return {data}

job = hermes.Job(model=model, data=data, optimizer=lambda params: nn.SGD(params, lr=0.1),
                 loss=nn.CrossEntropy(), stop=hermes.Stop(samples=4000){fields})
"""
NET = "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))"


def job(
    more: str = "", model: str = NET, data: str = "hermes.data.digits()", fields: str = ""
) -> str:
    return JOB.format(more=more, model=model, data=data, fields=fields)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own, and no variable of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HERMES_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def checked(
    capsys: pytest.CaptureFixture[str], text: str, *args: str
) -> tuple[int, dict[str, Any]]:
    """Exit code, and what `--json` says of this job."""
    Path("job.py").write_text(text)
    code = run(["check", "job.py", "--json", *args])
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    found = json.loads(shown.out)
    assert found["ok"] == (code == 0) == (found["mistakes"] == [])
    return code, found


# --- a sound job --------------------------------------------------------------------------------


def test_a_sound_job_is_told_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", DIGITS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["strategy"], found["workers"], found["mistakes"]) == ("hermes", 4, [])
    model = found["model"]
    assert (model["parameters"], model["trainable"], model["buffers"]) == (9610, 9610, 0)
    assert model["bytes"] == 4 * 9610
    data = found["data"]
    assert data["samples"] == {"train": 1258, "probe": 90, "validation": 180, "test": 269}
    assert (data["shard"], data["block"], data["classes"]["count"]) == (250, 7, 10)
    assert data["classes"]["fewest"] <= 1797 / 10 <= data["classes"]["most"]
    learning = found["learning"]
    assert learning["chance"] == pytest.approx(math.log(10))
    assert learning["last_loss"] < learning["first_loss"] == pytest.approx(2.3, abs=0.5)
    time = found["time"]
    assert time["steps"] == 5 * math.ceil(250 / 32)
    assert time["round"] == pytest.approx(time["steps"] * time["step"] + time["probe"])
    assert 0 < time["step"] < 0.1
    memory = found["memory"]
    assert memory["check"] < memory["master"] + memory["worker"]
    assert [link["mbit"] for link in found["links"]] == [1, 10, 100]
    for link in found["links"]:
        assert link["fetch"] == pytest.approx(found["topics"]["version"] * 8e-6 / link["mbit"])
        assert link["bottleneck"] == (link["transfer"] > link["train"])


def test_a_person_sees_a_table_with_units(shell: Shell) -> None:
    small = ("--set", "storage.max=100kB")  # one warning at least, however fast a step is
    done = shell("check", DIGITS, "--workers", "2", "--strategy", "fedavg", *small)
    assert done.returncode == 0
    for text in (
        "for 2 workers under fedavg, seed 0",
        "9 610 parameters, all of them learn; 4 tensors, 38.4 kB",
        "train 1 258, probe 90, validation 180, test 269 samples",
        "8 × 8, float32, 0 .. 1 (mean 0.305, deviation 0.376)",
        "first loss 2.",
        "an update of a worker",
        "10 Mbit/s",
        "all pushed",
    ):
        assert text in done.stdout, text
    warnings = done.stderr.count("warning: ")
    odd = f"no mistake, {warnings} warning{'s' * (warnings != 1)}"
    assert done.stderr.index(f"{DIGITS}: {odd}, told below\n") < done.stderr.index("warning: ")
    assert re.search(rf"checked in [\d.]+ s: {odd}\n$", done.stderr)
    assert all(ord(char) < 0x2600 for char in done.stdout)


def test_bsp_costs_a_link_more_than_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    """Every step of bsp moves the model twice, the paper's gate one round in ten."""
    found = {}
    for strategy in ("bsp", "hermes-paper"):
        _, found[strategy] = checked(capsys, job(), "--strategy", strategy)
    bsp, paper = (found[name]["topics"] for name in ("bsp", "hermes-paper"))
    assert (bsp["pushed"], paper["pushed"]) == pytest.approx((1, 0.1))
    assert bsp["version"] == paper["version"]
    assert bsp["round"] > 4 * (paper["round"] - 1000)
    assert found["bsp"]["links"][2]["bottleneck"]


# --- mistakes: each with its line ---------------------------------------------------------------

HERE = "job.py:"

MISTAKES = {
    "it is not Python": ("def model(:\n", ["job.py:1: the job file is not Python"]),
    "it defines no job": ("import hermes\n", ["job.py: the job file defines no `job`"]),
    "model() raises": (
        job(model="nn.Linear(64, undefined)"),
        ["job.py:5: model() raises NameError: name 'undefined' is not defined"],
    ),
    "the model does not fit the data": (
        job(model="nn.Sequential(nn.Flatten(), nn.Linear(32, 10))"),
        ["job.py:4: ", "x float32 (32, 8, 8)"],
    ),
    "labels are out of range": (
        job(model="nn.Sequential(nn.Flatten(), nn.Linear(64, 7))"),
        ["job.py:4: ", "label"],
    ),
    "the model has nothing to learn": (
        job(model="nn.Sequential(nn.Flatten())"),
        ["the model has nothing to learn"],
    ),
    "data() gives no arrays": (job(data="[1, 2, 3]"), ["job.py:7: data() returned a list"]),
    "data() gives sample weights": (
        job(data="(*hermes.data.digits(), np.ones(1797))"),
        ["job.py:7: data() returned a tuple of three: a sample is x and y, without a weight"],
    ),
    "x holds NaN": (
        job(data="(np.full((40, 64), np.nan, np.float32), np.arange(40) % 10)"),
        ["job.py:7: x[0] is not finite"],
    ),
    "the schedule raises": (
        job(fields=", schedule=lambda progress: 1 / progress"),
        ["job.py:11: schedule(0) raises ZeroDivisionError"],
    ),
    "model() gives another model at each call": (
        job(
            more="import itertools\nWIDTHS = itertools.count(10)",
            model="nn.Sequential(nn.Flatten(), nn.Linear(64, next(WIDTHS)))",
        ),
        ["job.py:5: model() gives another model each time it is called: at the second call "
         "'1.bias' was float32 (10,) and is float32 (11,)"],
    ),
    "model() gives the same model at each call": (
        job(
            more="SHARED = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))",
            model="SHARED",
        ),
        ["job.py:4: model() gives the same model each time it is called, not one of its own"],
    ),
    "the model needs what data() has left": (
        job(
            more="FOUND = []",
            model="nn.Sequential(nn.Flatten(), nn.Linear(FOUND[0], 10))",
            data="FOUND.append(64) or hermes.data.digits()",
        ),
        ["job.py:5: model() uses 'FOUND', which line 8 sets as data() is called: workers never "
         "call data()"],
    ),
    "the model reads a constant that a helper of data() sets": (
        job(
            more="WIDTH = 10\ndef width():\n    return WIDTH\ndef load():\n    global WIDTH\n"
            "    WIDTH = 12\n    return hermes.data.digits()",
            model="nn.Sequential(nn.Flatten(), nn.Linear(64, width()))",
            data="load()",
        ),
        ["job.py:5: model() uses 'WIDTH', which line 8 sets as data() is called"],
    ),
    "the model has other shapes in a worker's process": (
        job(
            more="import sys\nWIDTH = 10 if sys.argv[0].endswith('elsewhere.py') else 12",
            model="nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH))",
        ),
        ["job.py:5: a worker builds another model than the master: there '1.bias' was "
         "float32 (12,) and is float32 (10,)"],
    ),
    "it kills the worker's process": (
        job(more="import os, sys\nif sys.argv[0].endswith('elsewhere.py'):\n    os._exit(7)"),
        ["a worker's process died of it (code 7)"],
    ),
    "a module is missing": (
        "import nosuchmodule\n",
        ["job.py:1: the job file needs the module 'nosuchmodule'", "pip install nosuchmodule"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_is_told_with_its_line(
    title: str, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = MISTAKES[title]
    Path("job.py").write_text(text)
    code = run(["check", "job.py"])
    said = capsys.readouterr()
    shown(title, "hermes check job.py", code, said.err)
    assert code == 2
    assert said.err.count("error: ") == 1, said.err
    for part in expected:
        assert part in said.err, said.err
    assert "1 mistake" in said.err


def test_one_call_shows_every_mistake(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Two settings, the schedule, and the model; and what can be said is said all the same."""
    text = job(
        model="nn.Sequential(nn.Flatten(), nn.Linear(32, 10))",
        fields=", schedule=lambda progress: -1",
    )
    wrong = ("--set", "gate.alpa=-1", "--set", "round.epochs=0", "--set", "workers.max=9")
    code, found = checked(capsys, text, *wrong)
    assert code == 2
    assert [(one["stage"], one["where"]) for one in found["mistakes"]] == [
        ("settings", "--set"),
        ("settings", "--set"),
        ("fit", "job.py:11"),
        ("fit", "job.py:4"),
    ]
    assert found["data"]["samples"]["train"] == 1258
    assert found["model"]["parameters"] == 330
    assert found["topics"] is None
    assert run(["check", "job.py", *wrong]) == 2
    shown("four mistakes in one call", "hermes check job.py", 2, capsys.readouterr().err)


def test_a_model_is_looked_at_though_the_data_are_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, found = checked(capsys, job(model="nn.Linear(64)", data="None"))
    assert [one["stage"] for one in found["mistakes"]] == ["data", "model"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nosuch.py"], "there is no such job file"),
        ([DIGITS, "--workers", "0"], "0 workers"),
        ([DIGITS, "--strategy", "best"], "unknown strategy 'best'"),
        ([DIGITS, "--", "--smoke"], "the job takes no ARGS"),
    ],
)
def test_wrong_words_are_told(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", *args]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("error: ") == 1


# --- what will not go well ----------------------------------------------------------------------

ODD = {
    "x is not scaled": (
        job(data="(hermes.data.digits()[0] * 5000, hermes.data.digits()[1])"),
        ["x is not scaled: mean 15", "the first loss is"],
    ),
    "one class only": (
        job(data="(hermes.data.digits()[0], np.zeros(1797, int))"),
        ["all labels are 0"],
    ),
    "uneven classes": (
        job(data="(hermes.data.digits()[0], (np.arange(1797) % 100 == 0).astype(int))"),
        ["classes are uneven: 1 779 samples of class 0, 18 of class 1"],
    ),
    "a batch beyond the shard": (
        job(fields=", batch=1000"),
        ["a first shard holds 250 samples, fewer than the job's batch of 1000"],
    ),
    "a parameter that nothing uses": (
        job(
            more="class Still(nn.Linear):\n    def backward(self, gradient):\n"
            "        return gradient @ self.weight.value",
            model="nn.Sequential(nn.Flatten(), Still(64, 10))",
        ),
        ["no step changes 2 of the parameters (1.bias, 1.weight)"],
    ),
    "a file beside the job": (
        job(more="from pathlib import Path\nWIDTH = int(Path('width.txt').read_text())"),
        ["workers on other machines cannot do it", "job.py:4: the job file raises "
         "FileNotFoundError"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", ODD)
def test_what_will_not_go_well_is_a_warning(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = ODD[title]
    Path("width.txt").write_text("64")
    code, found = checked(capsys, text)
    assert code == 0, found["mistakes"]
    said = "\n".join(found["warnings"])
    for part in expected:
        assert part in said, said


def test_settings_warn_as_in_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    args = (
        "--strategy",
        "hermes-paper",
        "--set",
        "gate.alpha=-5",
        "--set",
        "stop.seconds=0.01",
        "--set",
        "storage.max=100kB",
    )
    _, found = checked(capsys, job(), *args)
    said = "\n".join(found["warnings"])
    assert "gate.alpha=-5 lies beyond" in said
    assert "the gate cannot fire before round" in said
    assert "a run would stop before it starts" in said


def test_a_sound_job_warns_of_little(capsys: pytest.CaptureFixture[str]) -> None:
    """Only that its steps are short, where speeds are emulated."""
    _, found = checked(capsys, job())
    assert [text for text in found["warnings"] if not text.startswith("a step takes")] == []


@pytest.mark.parametrize(("samples", "warns"), [("200000", False), ("off", True)])
def test_storage_is_no_trouble_where_the_run_ends_before(
    samples: str, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """200,000 samples of digits leave about 8 MB."""
    limits = ("--set", "storage.max=20MB", "--set", f"stop.samples={samples}")
    _, found = checked(capsys, job(), *limits)
    topics = found["topics"]
    assert topics["lasts"] < 600
    assert (topics["whole"] is None) == warns
    assert any("storage.max is 20.0 MB" in text for text in found["warnings"]) == warns


# --- bytes --------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(20, 3000),
    width=st.integers(1, 3000),
    dtype=st.sampled_from(["uint8", "float32"]),
    first=st.integers(1, 2500),
)
def test_the_upload_is_as_long_as_predicted(
    samples: int, width: int, dtype: str, first: int
) -> None:
    x = np.zeros((samples, width), dtype)
    y = np.arange(samples) % 7
    source = JobSource("job.py", "text " * width, ("--a",))
    prepared = prepare(lambda: (x, y), Split(), 0, lambda train: min(first, train), Path())
    with MemoryLog() as memory:
        log = CountingLog(memory)
        log.create([names.physical("run", names.DATA)])
        upload(Store(log, "run"), Signer("run", b"key"), source, prepared, 32)
        found = upload_of(source, prepared).records
        sent = by_kind(log.traffic.flat())["data"]["sent"]
        exact = max(prepared.blocks.values()) <= TRIED
        assert sent == found.bytes if exact else abs(sent - found.bytes) < sent / 50
        assert sum(memory.ends([names.physical("run", names.DATA)]).values()) == found.number


def test_noise_is_hardly_tried_and_what_comes_after_it_is_deflated() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (4000, 64)).astype(np.uint8)
    x, y = np.concatenate([noise, np.zeros((4000, 64), np.uint8)]), np.zeros(8000, np.int64)
    parts = {"train": (Samples(x, y), np.arange(8000))}
    prepared = Prepared({"train": 8000}, {"train": 160}, 50, 1600, 72, parts)
    found = [data for _, _, data in prepared]
    pairs = [decode_block(data) for data in found]
    assert np.array_equal(np.concatenate([x for x, _ in pairs]), x)
    deflated = [number for number, data in enumerate(found) if data.startswith(DEFLATED)]
    assert deflated == list(range(95, 160)), "the first that is tried, and all from there"


def test_a_batch_may_be_larger_than_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    many = "(np.zeros((100, 16384), np.float32), np.arange(100) % 10)"
    code, found = checked(capsys, job(model="nn.Linear(16384, 10)", data=many))
    assert (code, found["mistakes"]) == (0, [])


@given(length=st.integers(0, 5 << 20))
@settings(max_examples=20, deadline=None)
def test_a_payload_is_as_long_as_predicted(length: int) -> None:
    with MemoryLog() as memory:
        log, topic = CountingLog(memory), names.physical("run", names.MODEL)
        log.create([topic])
        payload = send_payload(log, topic, names.MODEL, 0, bytes(length))
        found = in_chunks(length)
        assert (found.number, found.bytes) == (
            payload.chunks,
            by_kind(log.traffic.flat())["model"]["sent"],
        )


# --- Ctrl-C -------------------------------------------------------------------------------------

WAITS = """
import sys, threading
def wait(where):
    if (sys.argv[0].endswith('elsewhere.py')) == where:
        sys.stderr.write('waiting\\n') if not where else open({file!r}, 'w').close()
        threading.Event().wait()
def blocks():
    x, y = hermes.data.digits()
    yield x, y
    {in_data}
    yield x, y
"""


@pytest.mark.parametrize("where", ["data", "worker"])
def test_ctrl_c_leaves_nothing_behind(shell: Shell, where: str, tmp_path: Path) -> None:
    """Neither files, of the data that were spooled or of the worker's process, nor that process."""
    place, mark = tmp_path / "tmp", tmp_path / "mark"
    place.mkdir()
    os.mkfifo(mark)
    more = WAITS.format(file=str(mark), in_data="wait(False)" if where == "data" else "")
    more += "wait(True)" if where == "worker" else ""
    (tmp_path / "job.py").write_text(job(more=more, data="blocks()"))
    shell.environment["TMPDIR"] = str(place)
    process = shell.start("check", "job.py")
    if where == "data":
        wait_for(process, "waiting")
    else:
        mark.read_bytes()  # until somebody has opened and closed it
        assert list(place.iterdir()), "the worker's process has its folder there"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert list(place.iterdir()) == []
    assert shell.left_behind() == []


def test_a_check_leaves_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path(tempfile.gettempdir()).glob("hermes-check-*"))
    checked(capsys, job())
    assert sorted(Path().rglob("*")) == [Path("job.py")]
    assert sorted(Path(tempfile.gettempdir()).glob("hermes-check-*")) == before
