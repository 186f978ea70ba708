"""Do the samples of a Dataset arrive as they are, and is each that cannot be used named?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from hermes.data.items import MOST
from hermes.data.prepare import prepare
from hermes.data.sources import open_data
from hermes.errors import JobError
from hermes.job import Split
from hermes.jobfile import build

COUNT = MOST + 100
X = np.random.default_rng(1).random((COUNT, 3, 2), dtype=np.float32)
Y = np.arange(COUNT) % 5
WHOLE = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


class Made(Dataset[Any]):
    """As a user writes one."""

    def __init__(self, item: Callable[[int], object], length: int = 10) -> None:
        self.item, self.length = item, length
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return self.item(index)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from ((X[n], int(Y[n])) for n in range(COUNT))


class Alike:
    """No class of torch's."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return X[index], Y[index]


class Picture:
    """Like an image of Pillow: an array only by its interface."""

    def __init__(self, array: np.ndarray) -> None:
        self.__array_interface__ = np.ascontiguousarray(array).__array_interface__
        self.kept = array


SAME: dict[str, Callable[[], Any]] = {
    "tensors": lambda: WHOLE,
    "parts of one": lambda: ConcatDataset(
        [Subset(WHOLE, range(7)), Subset(WHOLE, range(7, COUNT))]
    ),
    "arrays and numbers": lambda: Made(lambda n: [X[n], int(Y[n])], COUNT),
    "pictures": lambda: Made(lambda n: (Picture(X[n]), Y[n]), COUNT),
    "one that is iterated over": Stream,
    "a class of the user's own": Alike,
    "batches of a loader": lambda: DataLoader(WHOLE, batch_size=64),
}


@pytest.mark.parametrize("name", SAME)
def test_samples_arrive_as_they_are_and_in_order(name: str, tmp_path: Path) -> None:
    found = open_data(SAME[name](), tmp_path)
    assert found.test is None
    assert found.samples.x.dtype == X.dtype
    assert np.array_equal(found.samples.x, X)
    assert np.array_equal(found.samples.y, Y)
    assert list(tmp_path.iterdir()) == []


def test_each_sample_is_asked_for_once(tmp_path: Path) -> None:
    made = Made(lambda n: (X[n], Y[n]), COUNT)
    split = Split()
    prepared = prepare(lambda: made, split, 1, lambda train: train, tmp_path)
    assert sum(prepared.samples.values()) == COUNT
    assert len(list(prepared)) > 4
    assert made.asked == list(range(COUNT))


@pytest.mark.parametrize("test", [Subset(WHOLE, range(50)), (X[:50], Y[:50])])
def test_a_second_one_is_the_test_set(test: object, tmp_path: Path) -> None:
    found = open_data((WHOLE, test), tmp_path)
    assert found.samples.size == COUNT
    assert found.test is not None
    assert np.array_equal(found.test.x, X[:50])


def made(item: Callable[[int], object], length: int = 10) -> Callable[[], Any]:
    return lambda: Made(item, length)


class NoLength(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return X[index], Y[index]


BAD: dict[str, Callable[[], Any]] = {
    "x of sample 6 of the Dataset is float32 (2, 2), and that of sample 0 is float32 (3, 2)": made(
        lambda n: (X[n][n // 6 :], 0)
    ),
    "y of sample 3 of the Dataset is float64 (), and that of sample 0 is int64 ()": made(
        lambda n: (X[n], 0.5 if n == 3 else 0)
    ),
    "sample 0 of the Dataset is a Tensor, not a pair": made(lambda n: torch.zeros(3)),
    "sample 0 of the Dataset is None, not a pair": made(lambda n: None),
    "sample 0 of the Dataset is a dict, not a pair": made(lambda n: {"x": X[n], "y": 0}),
    "sample 0 of the Dataset has 3 parts": made(lambda n: (X[n], 0, 0)),
    "sample 0 of the Dataset has 1 parts": lambda: TensorDataset(torch.zeros(4, 2)),
    "y of sample 4 of the Dataset is a str, not numbers": made(
        lambda n: (X[n], "five" if n == 4 else n)
    ),
    "turning x of sample 0 of the Dataset into an array raises RuntimeError": made(
        lambda n: (torch.zeros(2, requires_grad=True), 0)
    ),
    "sample 0 of the test Dataset is a int": lambda: (WHOLE, Made(lambda n: n)),
    "a sample of x is float32 (3, 2) in the data, and float32 (2,) in the test set": lambda: (
        WHOLE,
        Made(lambda n: (X[n, 0], Y[n])),
    ),
    "the Dataset is empty": made(lambda n: (X[n], 0), 0),
    "the Dataset, a NoLength, has no length": NoLength,
    "data() returned a tuple": lambda: (WHOLE,),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_used_is_told(message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        open_data(BAD[message](), tmp_path)
    told = caught.value
    if message == "data() returned a tuple":  # of one: no pair, and no Dataset
        assert "Dataset" in told.remedy
    assert message in told.what
    assert told.remedy
    assert list(tmp_path.iterdir()) == []


JOB = """\
import hermes, torch
from hermes import nn
from torch.utils.data import Dataset

class Own(Dataset):
    def __len__(self):
        return 9
    def __getitem__(self, index):
        return torch.zeros(2), 1 / (5 - index)

def data():
    return Own()

job = hermes.Job(model=lambda: nn.Linear(2, 2), data=data, loss=nn.CrossEntropy(),
                 optimizer=lambda params: nn.SGD(params, lr=0.1))
"""


def test_an_item_that_raises_names_its_line(tmp_path: Path) -> None:
    job = build(JOB, "job.py")
    with pytest.raises(JobError) as caught:
        prepare(job.data, job.split, 1, lambda train: train, tmp_path)
    assert caught.value.where == "job.py:9"
    assert caught.value.what.startswith("sample 5 of the Dataset raises ZeroDivisionError")


def test_an_item_that_does_not_fit_names_data(tmp_path: Path) -> None:
    item = "torch.zeros(index + 1), 0"
    job = build(JOB.replace("torch.zeros(2), 1 / (5 - index)", item), "job.py")
    with pytest.raises(JobError) as caught:
        prepare(job.data, job.split, 1, lambda train: train, tmp_path)
    assert caught.value.where == "job.py:11"
    assert caught.value.what.startswith("x of sample 1 of the Dataset is float32 (2,)")


def test_torch_is_not_imported_to_see_one() -> None:
    code = (
        "import sys, pathlib, hermes\n"
        "from hermes.data.sources import open_data\n"
        "class Own:\n"
        "    def __len__(self): return 3\n"
        "    def __getitem__(self, index): return float(index), index\n"
        "print(open_data(Own(), pathlib.Path('.')).samples.y.tolist(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 1, 2] False\n", done.stderr
