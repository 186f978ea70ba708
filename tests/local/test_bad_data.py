"""What is a user told of data that cannot be used, before a byte of it is sent?"""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Shown
from crew import Crew, told

from hermes.errors import HermesError
from hermes.transport import names

JOB = """\
import hermes, numpy as np
from hermes import nn
rng = np.random.default_rng(0)
def data():
    {data}
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), data=data, batch=16,
    optimizer=lambda p: nn.SGD(p, lr=0.1), loss=nn.CrossEntropy(), stop=hermes.Stop(samples=200))
"""

X = "rng.normal(size=({n}, 8)).astype('f4')"
Y = "np.arange({n}) % 3"


def data(n: int = 200, x: str = X, y: str = Y) -> str:
    return f"return {x.format(n=n)}, {y.format(n=n)}"


BAD: dict[str, tuple[str, str, str]] = {
    "no samples": (
        data(0),
        "job.py:4: x is empty: its shape is (0, 8)",
        "Return at least one sample, of at least one number.",
    ),
    "one sample": (
        data(1),
        "job.py:4: 1 sample cannot be split into train, probe, validation, test",
        "Give at least 4 samples, one for each split; more, to learn something.",
    ),
    "NaN in x": (
        f"x = {X.format(n=500)}; x[123, 4] = np.nan; return x, {Y.format(n=500)}",
        "job.py:4: x[123] is not finite: it holds nan (a sample of the train split)",
        "Drop such samples in data(), or fill them: "
        "keep = numpy.isfinite(x.reshape(len(x), -1)).all(axis=1)",
    ),
    "infinity in y": (
        f"y = np.arange(500.); y[[77, 78]] = -np.inf; return {X.format(n=500)}, y",
        "job.py:4: y[77] is not finite: it holds -inf (a sample of the train split; 2 of the 500 "
        "samples looked at are so)",
        "Drop such samples in data(), or fill them: "
        "keep = numpy.isfinite(y.reshape(len(y), -1)).all(axis=1)",
    ),
    "infinity in the official test set": (
        f"x = {X.format(n=200)}; t = x[:50].copy(); t[7, 0] = np.inf; "
        f"return (x, {Y.format(n=200)}), (t, {Y.format(n=50)})",
        "job.py:4: x_test[7] is not finite: it holds inf (a sample of the test split)",
        "Drop such samples in data(), or fill them: "
        "keep = numpy.isfinite(x.reshape(len(x), -1)).all(axis=1)",
    ),
    "Python objects": (
        "return np.array([[1, 2], [3]], dtype=object), np.arange(2)",
        "job.py:4: x has the type object",
        "Return numbers: for example x.astype('float32') and y.astype('int64').",
    ),
    "texts for labels": (
        data(y="np.array(['a', 'b'] * ({n} // 2))"),
        "job.py:4: y has the type <U1",
        "Return numbers: for example x.astype('float32') and y.astype('int64').",
    ),
    "lists": (
        "return [[1.0], [2.0]], [0, 1]",
        "job.py:4: data() gave x as a list, not as an array",
        "It returns arrays: (x, y), ((x, y), (x_test, y_test)), an iterator of (x, y) blocks, or a "
        "torch.utils.data.Dataset of (x, y) samples. For a file: hermes.data.npz(path).",
    ),
    "x and y of different lengths": (
        data(100, y="np.zeros(99, 'i8')"),
        "job.py:4: x has 100 samples and y has 99",
        "The first axis of both counts the samples.",
    ),
    "nothing returned": (
        "pass",
        "job.py:4: data() returned None",
        "It returns arrays: (x, y), ((x, y), (x_test, y_test)), an iterator of (x, y) blocks, or a "
        "torch.utils.data.Dataset of (x, y) samples. For a file: hermes.data.npz(path).",
    ),
    "a file that is not there": (
        "return hermes.data.npz('/nowhere/x.npz')",
        "job.py:5: /nowhere/x.npz: the data cannot be read: No such file or directory",
        "Check the path; it is looked up on the machine of the master.",
    ),
    "blocks of different shapes": (
        "return iter([(np.zeros((3, 8)), np.zeros(3, 'i8')), "
        "(np.zeros((3, 9)), np.zeros(3, 'i8'))])",
        "job.py:4: a sample of x is float64 (8,) in the first block, and float64 (9,) in the block "
        "after 3 samples",
        "Give all of them the same shape and type.",
    ),
    "a sample larger than a record": (
        "return np.zeros((10, 300000)), np.arange(10) % 3",
        "job.py:4: one sample takes 2400008 bytes, and a block holds 982016",
        "Store it in fewer bytes (uint8 or float16), or cut it into smaller samples.",
    ),
    "one-hot labels": (
        data(y="np.eye(3)[np.arange({n}) % 3]"),
        "job.py:7: CrossEntropy takes labels of shape (n,); y has (16, 3) and is one-hot (a 1 "
        "among zeros in each row); the batch is x float32 (16, 8), y float64 (16, 3)",
        "Return y.argmax(axis=1) from data().",
    ),
    "labels in a column": (
        data(y="(np.arange({n}) % 3)[:, None]"),
        "job.py:7: CrossEntropy takes labels of shape (n,); y has (16, 1): a column; the batch is "
        "x float32 (16, 8), y int64 (16, 1)",
        "Return y[:, 0] from data(), as whole numbers.",
    ),
    "labels with a point": (
        data(y="(np.arange({n}) % 3) / 1.0"),
        "job.py:7: CrossEntropy takes whole numbers as labels; y is float64; the batch is x "
        "float32 (16, 8), y float64 (16,)",
        "Return y.astype(numpy.int64) from data().",
    ),
    "a class that the model has not, in one sample of all": (
        f"y = {Y.format(n=500)}; y[-1] = 3; return {X.format(n=500)}, y",
        "job.py:7: y has labels from 0 to 3; the model's 3 outputs stand for the labels 0 to 2; "
        "the batch is x float32 (2, 8), y int64 (2,)",
        "Give the model 4 outputs, or count the labels from 0.",
    ),
    "samples that the model does not take": (
        data(x="rng.normal(size=({n}, 9))"),
        "job.py:7: Linear(8, 3) takes inputs of shape (n, 8) and was given (16, 9); the batch is x "
        "float64 (16, 9), y int64 (16,)",
        "Make its first number the size of what comes in; images need a Flatten() in front.",
    ),
}


@pytest.mark.parametrize("title", BAD)
def test_bad_data_is_found_before_anything_is_sent(
    title: str, shown: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, what, remedy = BAD[title]
    crew = Crew(tmp_path, JOB.format(data=body))
    with pytest.raises(HermesError) as caught:
        crew.prepare()
    code, text = told(caught.value, capsys)
    shown(title, "hermes run job.py", code, text)
    assert text == f"error: {what}\n  {remedy}\n"
    assert code == 2
    assert crew.log.topics(names.prefix_of("r")) == []
    assert not crew.folder.path.exists()


@pytest.mark.parametrize(("samples", "workers"), [(4, 3), (5, 1), (20, 4)])
def test_bad_little_data_trains_and_is_told(
    samples: int, workers: int, shown: Shown, tmp_path: Path
) -> None:
    """Fewer samples than a batch, fewer blocks than workers: some wait, and the run finishes."""
    crew = Crew(tmp_path, JOB.format(data=data(samples)), "hermes-paper", gate__rule="open")
    crew.see_through(workers)
    assert crew.result["status"] == "finished", crew.said()
    assert crew.result["samples"] >= 200
    told = [line for line in crew.lines if line.text.startswith("Data: ")]
    assert {line.level for line in told} == {"warning"}
    assert any("very few samples: " in line.text for line in told)
    text = "\n".join(f"{line.level}: {line.text}" for line in told)
    shown(f"{samples} samples for {workers} workers", "hermes run job.py", 0, text)


def test_a_bad_split_of_classes_is_told(shown: Shown, tmp_path: Path) -> None:
    """A class of one sample ends in one split: where that is not train, it cannot be learned."""
    y = "y = np.arange(60) % 2; y[{place}] = 2; return rng.normal(size=(60, 8)).astype('f4'), y"
    found = ""
    for place in range(60):
        crew = Crew(tmp_path / str(place), JOB.format(data=y.format(place=place)))
        crew.prepare()
        from hermes.data.prepare import prepare

        job = crew._options.job
        made = prepare(job.data, job.split, 0, lambda train: train, tmp_path)
        found = next((text for text in made.oddities() if "lacks" in text), "")
        if found:
            break
    assert "split has labels that the train split lacks: 2; they cannot be learned" in found
    shown("a class that train lacks", "hermes run job.py", 0, f"warning: Data: {found}")
