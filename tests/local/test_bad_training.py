"""A job that a worker cannot run, and training that diverges: who says what, and does it end?"""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.numpy
from commands import Shown
from crew import Crew, told

from hermes.cli.endings import short
from hermes.errors import HermesError
from hermes.runtime.worker import Farewell

JOB = """\
import os, threading
import hermes, numpy as np
from hermes import nn
WORKER = threading.current_thread().name == "train"
{more}
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
    data=hermes.data.digits,
    optimizer=lambda params: nn.SGD(params, lr={rate}),
    loss={loss},
    stop=hermes.Stop(samples=4000))
"""


def job(more: str = "", rate: str = "0.1", loss: str = "nn.CrossEntropy()") -> str:
    return JOB.format(more=more, rate=rate, loss=loss)


ONLY_HERE = {
    "a worker lacks a module": (
        "if WORKER:\n    import nosuchmodule",
        "job.py:6: the job file needs the module 'nosuchmodule', which is not here",
        "pip install nosuchmodule, on the master and all workers.",
    ),
    "a job raises on the workers alone": (
        "if WORKER:\n    raise ValueError('only here')",
        "job.py:6: the job file raises ValueError: only here",
        "Mend that line; `hermes run JOB.py` tries the job before it starts anything.",
    ),
    "a job takes another framework on the workers": (
        "if WORKER:\n    class Linear:\n        __module__ = 'jax.nn'\n"
        "    nn = type('nn', (), {**vars(nn), 'Sequential': lambda *layers: Linear()})",
        "job.py:10: model() returned a Linear",
        "It returns a model of torch, of hermes.nn, or a compiled one of Keras.",
    ),
}


@pytest.mark.parametrize("title", ONLY_HERE)
def test_a_bad_job_on_every_worker_ends_the_run(
    title: str, shown: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each worker names itself, the line and the remedy; the master waits for nobody."""
    more, what, remedy = ONLY_HERE[title]
    crew = Crew(tmp_path, job(more)).see_through(2)
    for name in ("worker-1", "worker-2"):
        error = crew.farewells[name]
        if isinstance(error, Farewell):  # the run had failed before it was tried here
            assert error.code == "done"
            continue
        code, text = told(error, capsys)
        shown(f"{title}: at the worker", f"hermes worker --name {name}", code, text)
        assert (code, text) == (2, f"error: {name}: {what}\n  {remedy}\n")
    result = crew.result
    assert (result["status"], result["reason"]) == ("failed", "no-worker-can-train")
    assert f"{what}\n{remedy}" in crew.said().replace("\n  ", "\n")
    assert " cannot train: " in crew.said()
    code, text = told(short(result), capsys)
    shown(f"{title}: at the master", "hermes master job.py", code, text)
    assert code == 4
    assert f"run r: no worker can train this job; worker-1 says: {what}\n" in text or (
        f"run r: no worker can train this job; worker-2 says: {what}\n" in text
    )


def test_a_bad_worker_is_left_out_and_the_others_go_on(
    shown: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of three lacks a module; it is expected, has come, and is not waited for."""
    token = tmp_path / "token"
    token.touch()
    more = f"""
if WORKER:
    try:
        os.remove({str(token)!r})
    except FileNotFoundError:
        pass
    else:
        import nosuchmodule
"""
    crew = Crew(tmp_path, job(more)).see_through(3)
    assert crew.result["status"] == "finished", crew.said()
    (bad,) = [n for n, end in crew.farewells.items() if isinstance(end, HermesError)]
    trained = {name: worker["rounds"] > 0 for name, worker in crew.result["workers"].items()}
    assert trained == {name: name != bad for name in crew.farewells}
    assert "\n  " not in crew.result["reason"]
    error = crew.farewells[bad]
    assert isinstance(error, HermesError)
    code, text = told(error, capsys)
    shown("one of three workers lacks a module", f"hermes worker --name {bad}", code, text)
    lines = [line for line in crew.lines if bad in (line.source, line.text.split()[0])]
    text = "\n".join(f"{line.source}: {line.level}: {line.text}" for line in lines)
    shown("the same, in the central log", "hermes logs", 0, text)


@pytest.mark.parametrize("strategy", ["hermes-paper", "bsp", "fedavg"])
def test_bad_rates_diverge_and_the_run_ends(
    strategy: str, shown: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only NaN comes: counted, each with its reason; after some rounds the run says so and ends."""
    crew = Crew(tmp_path, job(rate="1e30"), strategy).see_through(2)
    result = crew.result
    assert result["status"] == "failed", crew.said()
    assert result["reason"] in ("diverged", "global-loss-not-finite")
    workers = result["workers"].values()
    lost = sum(worker["rejected"] + worker["vetoed"] for worker in workers)
    assert lost >= 10
    updates = result["updates"]
    assert updates["pushed"] == updates["applied"] + updates["rejected"] + updates["undecided"]
    model = safetensors.numpy.load(Path(result["paths"]["model"]).read_bytes())
    assert all((tensor == tensor).all() for tensor in model.values()), "the last good version"
    code, text = told(short(result), capsys)
    shown(f"a learning rate of 1e30, {strategy}", "hermes run job.py", code, text)
    assert code == 4
    assert "the training diverges" in text
    assert "Lower the learning rate" in text
    assert {end.code for end in crew.farewells.values() if isinstance(end, Farewell)} == {"done"}


LOSS = """
class Negative(nn.CrossEntropy):
    def forward(self, outputs, labels):
        return super().forward(outputs, labels) - 1e6
"""


def test_a_bad_loss_that_is_negative_ends_a_run_that_merges_by_it(
    shown: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = job(LOSS, loss="Negative()")
    crew = Crew(tmp_path, text, "hermes-paper", gate__rule="open").see_through(1)
    assert crew.result["reason"] == "global-loss-negative", crew.said()
    code, said = told(short(crew.result), capsys)
    shown("a negative loss, merged by 1/loss", "hermes run job.py", code, said)
    assert "--strategy fedavg" in said
