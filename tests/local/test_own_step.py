"""Does a step of the job's own train as the same loop by hand, and is it left out of scoring?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hermes
from hermes.chance import generator
from hermes.train import Trainer, make_trainer

X, Y = hermes.data.digits()

torch.set_num_threads(1)

criterion = nn.CrossEntropyLoss()


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def trainer(**changes: Any) -> Trainer:
    fields: dict[str, Any] = {
        "model": network,
        "data": hermes.data.digits,
        "optimizer": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.5),
        "loss": criterion,
    }
    return make_trainer(hermes.Job(**{**fields, **changes}), generator(1, "init"))


def train(found: Trainer, steps: int = 5) -> list[float]:
    return [found.step(X[32 * n : 32 * n + 32], Y[32 * n : 32 * n + 32], 1.0) for n in range(steps)]


def same(one: Trainer, two: Trainer) -> bool:
    first, second = one.weights(), two.weights()
    return all(np.array_equal(first[name], second[name]) for name in first)


def plainly(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return criterion(model(x), y)


def doubled(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Two losses: of the classes, and of how large the outputs are."""
    outputs = model(x)
    return criterion(outputs, y) + 0.01 * outputs.square().mean()


OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda params: torch.optim.SGD(params, lr=0.1),
    lambda params: torch.optim.LBFGS(params, lr=0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_plain_step_is_no_step(optimizer: Any) -> None:
    plain, own = trainer(optimizer=optimizer), trainer(optimizer=optimizer, step=plainly)
    assert train(plain) == train(own)
    assert same(plain, own)


def test_two_losses_are_the_loop_by_hand() -> None:
    found, model = trainer(step=doubled), network()
    start = found.weights()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in start.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    losses = []
    for n in range(5):
        x, y = (torch.from_numpy(part[32 * n : 32 * n + 32]) for part in (X, Y))
        optimizer.zero_grad()
        loss = doubled(model, x, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert train(found) == losses
    wanted = model.state_dict()
    assert all(np.array_equal(v, wanted[name].numpy()) for name, v in found.weights().items())


def test_scores_are_those_of_loss_and_metric() -> None:
    called: list[bool] = []

    def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        called.append(model.training)
        return doubled(model, x, y)

    plain, own = trainer(), trainer(step=step)
    assert plain.evaluate([(X, Y)]) == own.evaluate([(X, Y)])
    assert plain.losses(X[:64], Y[:64], 32) == own.losses(X[:64], Y[:64], 32)
    assert called == []
    train(own)
    assert called == [True] * 5


def test_its_chance_is_the_rounds() -> None:
    def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return criterion(model(x + 0.1 * torch.randn_like(x)), y)

    def losses(number: int) -> list[float]:
        found = trainer(step=step)
        found.begin_round(generator(1, "train", "worker-1", number))
        return train(found)

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_a_batch_of_one_sample_is_trained_past_batch_norms() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))

    found = trainer(model=model, step=plainly)
    before = found.weights()
    assert np.isfinite(found.step(X[:1], Y[:1], 1.0))
    after = found.weights()
    assert not np.array_equal(before["1.weight"], after["1.weight"])
    assert np.array_equal(before["2.running_mean"], after["2.running_mean"])


def test_it_is_computed_in_the_jobs_context_and_clipped() -> None:
    seen: list[torch.dtype] = []

    def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        outputs = model(x)
        seen.append(outputs.dtype)
        return criterion(outputs, y)

    found = trainer(
        step=step,
        autocast=lambda: torch.autocast("cpu", torch.bfloat16),
        clip=lambda params: nn.utils.clip_grad_norm_(params, 0.01),
    )
    train(found, 2)
    assert seen == [torch.bfloat16] * 2
    assert found.gradient() == pytest.approx(0.01, rel=0.01)


def test_guessing_is_no_measure_of_its_loss() -> None:
    from hermes.checkup.facts import ClassFacts
    from hermes.checkup.look import learning_facts

    classes, batch = ClassFacts(10, 1, 0, 1, 0), (X[:32], Y[:32])
    for step, known in ((None, True), (doubled, False)):
        job = hermes.Job(
            model=network,
            data=hermes.data.digits,
            optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
            loss=criterion,
            step=step,
        )
        facts = learning_facts(job, make_trainer(job, generator(1)), batch, classes)
        assert (facts.chance is not None) == known


# --- a metric of a sum and what it is to be divided by ------------------------------------------


def recall(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of eights: how many were found, and how many there are."""
    eights = labels == 8
    return ((outputs.argmax(dim=1) == 8) & eights).sum(), eights.sum()


def test_a_share_of_some_samples_does_not_depend_on_the_batches() -> None:
    found = trainer(metric=recall, batch=1)
    train(found, 40)
    whole = found.evaluate([(X, Y)])
    model = network()
    model.load_state_dict({n: torch.from_numpy(v) for n, v in found.weights().items()})
    guessed = model(torch.from_numpy(X)).argmax(dim=1).numpy()
    assert whole.accuracy == np.mean(guessed[Y == 8] == 8)
    for size in (1, 7, 100):
        cut = [(X[n : n + size], Y[n : n + size]) for n in range(0, len(X), size)]
        scores = found.evaluate(cut)
        assert scores.accuracy == whole.accuracy
        assert scores.metric_sum == pytest.approx(whole.accuracy * len(X))


def test_a_share_of_no_samples_is_no_number() -> None:
    others = Y != 8
    scores = trainer(metric=recall).evaluate([(X[others], Y[others])])
    assert scores.accuracy is not None
    assert np.isnan(scores.accuracy)
