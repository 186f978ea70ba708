"""Can other programs read what `hermes export` writes, and is it what the ledger names?"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from crew import Crew

from hermes.cli.entry import run as command
from hermes.codec import encode_tensors
from hermes.errors import BrokerRefused, CheckFailed, DigestMismatch, NoSuchTopic, RunError
from hermes.messages import VersionPublished
from hermes.report import tensorboard
from hermes.report.series import Series
from hermes.runtime.export import csv_text, fetch, kept_in, oldest_there, refusal
from hermes.runtime.folder import RunFolder
from hermes.runtime.observe import saved
from hermes.transport import names
from hermes.transport.memory import MemoryLog
from hermes.transport.tensors import send_payload
from hermes.values import Reason

JOB = """
import hermes
from hermes import nn
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)),
    data=hermes.data.digits, batch=32,
    optimizer=lambda params: nn.SGD(params, lr=0.2), loss=nn.CrossEntropy(),
    stop=hermes.Stop(versions=12),
)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    out = tmp_path_factory.mktemp("run")
    crew = Crew(out, JOB, "hermes-paper", size__first=200, round__epochs=2, gate__alpha=-0.5)
    assert crew.see_through(2).error is None
    return out


@pytest.fixture
def series(made: Path) -> Series:
    """What its ledger says."""
    found = Series()
    saved(RunFolder(made, "r"), found.read)
    return found


@pytest.fixture
def export(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Types `hermes export` in a folder of the test's own; what it prints."""
    monkeypatch.chdir(tmp_path)

    def type_(*args: str, code: int = 0, out: Path = made) -> str:
        capsys.readouterr()
        assert command(["export", "--out", str(out), *args]) == code
        shown = capsys.readouterr()
        return shown.out if code == 0 else shown.err

    return type_


def result(made: Path) -> dict[str, object]:
    """Its `result.json`."""
    found: dict[str, object] = json.loads((made / "runs" / "r" / "result.json").read_text())
    return found


# --- models -------------------------------------------------------------------------------------


def test_the_last_version_is_the_one_that_the_result_names(
    export: Callable[..., str], made: Path, tmp_path: Path
) -> None:
    said = export()
    path = tmp_path / "r-v12.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == result(made)["digest"]
    assert digest in said
    assert f'safetensors.numpy.load_file("{path.name}")' in said
    weights = safetensors.numpy.load_file(path)
    assert {name: array.shape for name, array in weights.items()} == {
        "1.weight": (12, 64),
        "1.bias": (12,),
        "3.weight": (10, 12),
        "3.bias": (10,),
    }


def test_the_best_is_the_best_on_validation(
    export: Callable[..., str], made: Path, series: Series
) -> None:
    (file,) = json.loads(export("--version", "best", "--to", "best.bin", "--json"))["files"]
    scored = [point for point in series.evaluations if point.loss is not None]
    best = min(scored, key=lambda point: (point.loss, point.version))
    assert file["version"] == best.version == result(made)["best"]["version"]  # type: ignore[index]
    assert file["sha256"] == series.versions[best.version].payload.digest
    assert Path("best.bin").read_bytes() == (made / "runs/r/best.safetensors").read_bytes()


def test_torch_takes_a_pt_into_the_same_model(export: Callable[..., str]) -> None:
    import torch

    said = export("--format", "pt")
    export("--format", "safetensors")
    assert 'torch.load("r-v12.pt", weights_only=True)' in said
    nn = torch.nn
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    model.load_state_dict(torch.load("r-v12.pt", weights_only=True), strict=True)
    weights = safetensors.numpy.load_file("r-v12.safetensors")
    for name, tensor in model.state_dict().items():
        assert np.array_equal(tensor.numpy(), weights[name])


def test_nothing_is_overwritten_unless_one_says_so(
    export: Callable[..., str], tmp_path: Path
) -> None:
    export()
    (tmp_path / "r-v12.safetensors").write_bytes(b"mine")
    said = export(code=2)
    assert "the file is there already" in said
    assert "--force" in said
    assert (tmp_path / "r-v12.safetensors").read_bytes() == b"mine"
    export("--force")
    assert (tmp_path / "r-v12.safetensors").read_bytes() != b"mine"
    export("--to", "new/folder/")
    assert list((tmp_path / "new" / "folder").iterdir()) == [
        tmp_path / "new/folder/r-v12.safetensors"
    ]
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_file_is_refused(export: Callable[..., str], made: Path, tmp_path: Path) -> None:
    broken = tmp_path / "copy"
    shutil.copytree(made, broken, symlinks=True)
    model = broken / "runs" / "r" / "model.safetensors"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    for path in (model, model.with_name("best.safetensors")):
        path.write_bytes(data)
    said = export("--to", "x.safetensors", code=5, out=broken)
    assert "model.safetensors and best.safetensors: the bytes are those of no version" in said
    assert not (tmp_path / "x.safetensors").exists()


def test_a_version_that_is_gone_names_those_that_are_there(export: Callable[..., str]) -> None:
    said = export("--version", "v1", code=2)
    assert "version 1 is gone: " in said
    assert "v12 (model.safetensors)" in said
    said = export("--version", "v99", code=2)
    assert "Versions 0 .. 12 were published" in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--format", "onnx"), "One of: safetensors, pt, keras, csv, tensorboard, log."),
        (("--version", "newest"), "last, best, or such as v12"),
        (("--format", "csv", "--version", "best"), "takes no version"),
        (("--what", "rounds"), "only csv has tables"),
        (("--format", "csv", "--what", "z"), "One of: evaluations, rounds, shards."),
        (("nobody",), "there is no run 'nobody'"),
    ],
)
def test_what_makes_no_sense_is_said(
    args: tuple[str, ...], says: str, export: Callable[..., str], tmp_path: Path
) -> None:
    assert says in export(*args, code=2)
    assert list(tmp_path.iterdir()) == []


def test_an_extra_that_is_missing_is_named(
    export: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "pip install 'hermes-edge[torch]'" in export("--format", "pt", code=2)
    assert "pip install 'hermes-edge[tensorboard]'" in export("--format", "tensorboard", code=2)


# --- curves -------------------------------------------------------------------------------------


def read_csv(path: str) -> list[dict[str, str]]:
    """The rows; that the lines end as RFC 4180 has it."""
    data = Path(path).read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") > 1
    return list(csv.DictReader(data.decode().splitlines()))


def test_csv_holds_what_the_ledger_says(
    export: Callable[..., str], made: Path, series: Series
) -> None:
    told = json.loads(export("--format", "csv", "--json"))
    assert [file["table"] for file in told["files"]] == ["evaluations", "rounds", "shards"]
    evaluations = read_csv("r-evaluations.csv")
    assert len(evaluations) == len(series.evaluations)
    assert float(evaluations[-1]["test_accuracy"]) == result(made)["accuracy"]["test"]  # type: ignore[index]
    assert evaluations[0]["test_loss"] == ""
    assert [int(row["version"]) for row in evaluations] == sorted(
        int(row["version"]) for row in evaluations
    )
    rounds = read_csv("r-rounds.csv")
    for name in ("worker-1", "worker-2"):
        mine = [row for row in rounds if row["worker"] == name]
        whole = result(made)["workers"][name]  # type: ignore[index]
        assert len(mine) == whole["rounds"]
        assert sum(row["verdict"] == "push" for row in mine) == whole["pushes"]
        busy = sum(float(row["busy_seconds"]) for row in mine)
        assert busy == pytest.approx(whole["busy_seconds"], abs=0.001)
        assert [int(row["round"]) for row in mine] == list(range(1, len(mine) + 1))
    shards = read_csv("r-shards.csv")
    assert {row["worker"] for row in shards[:2]} == {"worker-1", "worker-2"}
    assert {row["reason"] for row in shards[:2]} == {"admitted"}


def test_one_table_into_one_file(export: Callable[..., str]) -> None:
    export("--format", "csv", "--what", "rounds", "--to", "mine.csv")
    assert read_csv("mine.csv")
    assert "the file is there already" in export(
        "--format", "csv", "--what", "shards", "--to", "mine.csv", code=2
    )
    export("--format", "csv", "--to", "folder")
    assert len(list(Path("folder").iterdir())) == 3


def test_csv_quotes_what_must_be_quoted() -> None:
    text = csv_text(["a", "b"], [('say "x", y', None), (0.1, "line\nbreak")])
    assert text == b'a,b\r\n"say ""x"", y",\r\n0.1,"line\nbreak"\r\n'


def test_tensorboard_reads_the_curves(export: Callable[..., str], series: Series) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert "tensorboard --logdir r-tensorboard" in export("--format", "tensorboard")
    found = EventAccumulator("r-tensorboard/r").Reload()
    losses = found.Scalars("validation/loss")
    assert [point.step for point in losses] == [p.version for p in series.evaluations]
    expected = [p.loss for p in series.evaluations]
    assert [point.value for point in losses] == pytest.approx(expected, rel=1e-6)
    assert len(found.Scalars("test/accuracy")) == 1
    worker = EventAccumulator("r-tensorboard/r/worker-2").Reload()
    assert {"gate/z", "round/probe_loss", "shard/samples"} <= set(worker.Tags()["scalars"])
    mine = [done for done in series.rounds if done.worker == "worker-2"]
    assert len(worker.Scalars("round/busy_seconds")) == len(mine)
    opened = losses[0].wall_time - series.evaluations[0].seconds
    assert opened == pytest.approx(losses[-1].wall_time - series.evaluations[-1].seconds, abs=0.01)
    assert "events of this run are there already" in export("--format", "tensorboard", code=2)
    export("--format", "tensorboard", "--force")
    again = EventAccumulator("r-tensorboard/r").Reload()
    assert len(again.Scalars("validation/loss")) == len(losses), "replaced, not added to"


def test_a_wall_time_that_is_none() -> None:
    assert tensorboard.wall("") == 0.0
    assert tensorboard.wall("1970-01-01T00:01:00Z") == 60.0


# --- the broker's topic -------------------------------------------------------------------------


def published(log: MemoryLog, count: int) -> dict[int, VersionPublished]:
    """Versions in the `model` topic of a run, of three chunks each."""
    topic = names.physical("r", names.MODEL)
    log.create([topic])
    versions = {}
    for number in range(count):
        data = encode_tensors({"w": np.full(300, number, np.float32)})
        payload = send_payload(log, topic, names.MODEL, 0, data, chunk_size=500)
        versions[number] = VersionPublished(number, payload, (), "mean", 0.0, 0, Reason("x"))
    return versions


def test_a_version_is_fetched_and_checked() -> None:
    with MemoryLog() as log:
        versions = published(log, 4)
        seen: list[int] = []
        data = fetch(log, "r", versions[2].payload, seen.append)
        assert safetensors.numpy.load(bytes(data))["w"][0] == 2
        assert seen[-1] == len(data)
        from msgspec.structs import replace

        with pytest.raises(DigestMismatch):
            fetch(log, "r", replace(versions[2].payload, digest="0" * 64))
        with pytest.raises(NoSuchTopic):
            fetch(log, "other", versions[2].payload)


@pytest.mark.parametrize("kept", [0, 1, 3, 7, 8])
def test_the_oldest_version_that_is_kept(kept: int) -> None:
    """Retention drops the oldest chunks; what is cut in two is gone."""
    with MemoryLog() as log:
        versions = published(log, 8)
        assert oldest_there(log, "r", versions) == 0
        end = log.ends([names.physical("r", names.MODEL)])[names.physical("r", names.MODEL)]
        first = versions[kept].payload.first if kept < 8 else end
        log.trim(names.physical("r", names.MODEL), first)
        assert oldest_there(log, "r", versions) == (kept if kept < 8 else None)
        if 0 < kept < 8:
            with pytest.raises(BrokerRefused):
                fetch(log, "r", versions[kept - 1].payload)


def test_what_the_folder_holds(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "r")
    folder.create()
    with MemoryLog() as log:
        versions = published(log, 3)
        assert kept_in(folder, versions) == ({}, ())
        folder.write(folder.model, fetch(log, "r", versions[2].payload))
        folder.write(folder.best, b"rubbish")
    kept = kept_in(folder, versions)
    assert kept == ({2: folder.model}, (folder.best,))
    assert isinstance(refusal(1, "gone", "v2", kept.damaged), CheckFailed)
    assert isinstance(refusal(1, "gone", "v2", ()), RunError)
    assert kept_in(None, versions) == ({}, ())


STUB = """\
import sys
from hermes.report.tensorboard import _without_tensorflow

_without_tensorflow()
from tensorboard.compat import tf

tf.io.gfile.exists(".")
print("tensorflow" in sys.modules)
"""


def test_tensorboard_does_not_load_tensorflow() -> None:
    done = subprocess.run([sys.executable, "-c", STUB], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
