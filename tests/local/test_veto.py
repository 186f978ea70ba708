"""Is a push put to the test beside its version, at no cost but time?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hermes
from hermes import nn
from hermes.chance import generator
from hermes.codec import encode_tensors
from hermes.job import Job
from hermes.machine.events import LoadVersion, Segment, Train
from hermes.messages import BlockRange, BlocksGranted, RoundNoted, VersionPublished
from hermes.perform.bench import Trained, WorkerBench
from hermes.policy.gate import GateState, Learned, decide
from hermes.policy.paired import blocks_of
from hermes.policy.presets import Settings, resolve
from hermes.simulate.driver import Driver
from hermes.simulate.local import LocalRun
from hermes.simulate.references import reference
from hermes.train import Trainer, make_trainer
from hermes.train.protocol import Batch
from hermes.values import Reason

X, Y = hermes.data.digits()
FEW = np.random.default_rng(1).permutation(len(X))[:400]
X, Y = X[FEW], Y[FEW]


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def numpy_job() -> Job:
    return Job(
        model=small,
        data=hermes.data.digits,
        batch=20,
        optimizer=lambda params: nn.SGD(params, lr=0.1, momentum=0.5),
        loss=nn.CrossEntropy(),
    )


class Twice(torch.nn.Module):
    """Its outputs are no one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.layer(x.flatten(1)), x


def torch_job(model: Callable[[], torch.nn.Module], loss: Any, metric: Any = "accuracy") -> Job:
    return Job(
        model=model,
        data=hermes.data.digits,
        batch=20,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.5),
        loss=loss,
        metric=metric,
    )


def blurred() -> torch.nn.Module:
    """Chance and running statistics: neither may be moved by a look."""
    layers = torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.BatchNorm1d(12)
    return torch.nn.Sequential(*layers, torch.nn.Dropout(0.2), torch.nn.Linear(12, 10))


CROSS = torch.nn.functional.cross_entropy

JOBS: dict[str, Callable[[], Job]] = {
    "numpy": numpy_job,
    "torch": lambda: torch_job(blurred, torch.nn.CrossEntropyLoss()),
    "torch, two outputs": lambda: torch_job(Twice, lambda out, y: CROSS(out[0], y), None),
}


@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("block", [2, 7])
def test_losses_by_block_are_those_of_an_evaluation_and_change_nothing(
    kind: str, block: int
) -> None:
    def steps(found: Trainer, looks: bool) -> list[float]:
        found.begin_round(generator(1, "round"))
        told = []
        for start in range(0, 100, 20):
            told.append(found.step(X[start : start + 20], Y[start : start + 20], 1.0))
            if looks:
                found.losses(X[:42], Y[:42], block)
        return told

    one, two = (make_trainer(JOBS[kind](), generator(1, "init")) for _ in range(2))
    assert steps(one, True) == steps(two, False)
    losses = one.losses(X[:378], Y[:378], block)
    rows = range(0, 378, block)
    each = [one.evaluate([(X[r : r + block], Y[r : r + block])]).loss for r in rows]
    assert losses == pytest.approx(each, rel=1e-5)
    assert np.mean(losses) == pytest.approx(one.evaluate([(X[:378], Y[:378])]).loss, rel=1e-5)


# --- a round --------------------------------------------------------------------------------------


class AtHand:
    """Blocks of 50 samples: 4 to train, 4 of the probe; or of the probe a part of one."""

    def __init__(self, labels: np.ndarray, probe: int | None = None) -> None:
        self._labels, self._few = labels, probe

    def read(self, split: str, index: int) -> Batch:
        first = 50 * index + (200 if split == "probe" else 0)
        y = Y if split == "probe" else self._labels
        return X[first : first + 50], y[first : first + 50]

    def all_of(self, split: str) -> Iterator[Batch]:
        if self._few is not None:
            return iter([(X[200 : 200 + self._few], Y[200 : 200 + self._few])])
        return (self.read(split, index) for index in range(4))

    def count(self, _split: str) -> int:
        return 4

    def size(self, _split: str, indices: list[int]) -> int:
        return len(indices)


def round_of(
    labels: np.ndarray, state: GateState | None, probe: int | None = None
) -> tuple[Trained, bytes]:
    """A round of 5 passes from a model that knows the digits; and the local model after it."""
    made = numpy_job()
    trainer = make_trainer(made, generator(1, "init"))
    bench = WorkerBench("w1", 1, made, trainer, AtHand(labels, probe))  # type: ignore[arg-type]
    bench.obey(resolve("hermes", [{"gate.rate": 0.5}]))
    for start in range(0, 2000, 20):
        bench.trainer.step(X[start % 200 :][:20], Y[start % 200 :][:20], 1.0)
    bench.trainer.reset_optimizer()
    version = VersionPublished(0, reference("model", 0), (), "init", 0.0, 0, Reason("first"))
    bench.load(LoadVersion(version), encode_tensors(bench.trainer.weights()))
    bench.accept(BlocksGranted("w1", 1, (BlockRange(0, 4),), 200, 20))
    segments = tuple(Segment(1, pass_, 0, 200, 200) for pass_ in range(5))
    action = Train(1, segments, 20, False, 0.0, "", drift=True, gate=state, unsent=0)
    return bench.train(action), encode_tensors(bench.trainer.weights())


@pytest.mark.parametrize(("wrong", "said"), [(False, "drifted"), (True, "worse")])
def test_what_wrong_labels_taught_is_vetoed_and_what_right_ones_did_is_not(
    wrong: bool, said: str
) -> None:
    labels = (Y + wrong) % 10
    plain, model = round_of(labels, None)
    done, same_model = round_of(labels, GateState((), 0, 0.0))
    assert model == same_model, "the local model is as it was before the look"
    assert done._replace(paired=None, tested=0) == plain
    assert done.paired is not None
    n, size = blocks_of(200, done.samples)
    assert (done.paired.n, done.tested) == (n, 2 * n * size)
    settings = resolve("hermes", [{"gate.rate": 0.5}]).gate
    learned = Learned(done.drift, done.samples, done.paired)
    assert decide(settings, GateState((), 0, 0.0), done.loss, learned).reason.code == said


def test_a_round_that_is_not_pushed_is_not_looked_at() -> None:
    done, _ = round_of(Y, GateState((), 0, 1e9))
    assert (done.paired, done.tested) == (None, 0)


@pytest.mark.parametrize("probe", [0, 1, 31])
def test_where_the_probe_is_too_small_nothing_is_looked_at(probe: int) -> None:
    done, _ = round_of((Y + 1) % 10, GateState((), 0, 0.0), probe)
    assert done.paired is not None
    assert (done.paired.n, done.tested) == (0, 0)


# --- a run ----------------------------------------------------------------------------------------


def run(folder: Path, settings: Settings) -> Driver:
    """Three workers, in deterministic mode."""
    folder.mkdir()
    driver = Driver(
        LocalRun(numpy_job(), settings, 3, folder).setup({"w1": 1.0, "w2": 1.0, "w3": 0.25})
    )
    assert driver.run().finished
    return driver


def test_looking_without_a_veto_is_not_looking_bit_for_bit(tmp_path: Path) -> None:
    layers = {"off": {"gate.veto": None}, "far": {"gate.veto": 1e9}}
    common = {"stop.versions": 8, "size.first": 100}
    found = {
        name: run(tmp_path / name, resolve("hermes", [{"gate.rate": 0.5, **common, **layer}]))
        for name, layer in layers.items()
    }
    off, far = (found[name].watch.state.newest for name in ("off", "far"))
    assert off is not None
    assert far is not None
    assert off.payload.digest == far.payload.digest
    rounds = [
        entry
        for record in found["far"].valid_records()
        for entry in record.entries
        if isinstance(entry, RoundNoted) and entry.verdict == "push"
    ]
    noted = [one.reason.facts for one in rounds if one.reason.code == "drifted"]
    assert noted
    assert all({"d", "se", "n"} <= facts.keys() for facts in noted)
