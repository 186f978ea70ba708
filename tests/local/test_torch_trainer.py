"""Is the torch trainer the plain loop, bit for bit, and does it leave alone what is not its own?"""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hermes
from hermes import codec
from hermes.chance import generator
from hermes.errors import Defect, JobError
from hermes.job import Job
from hermes.train import Trainer, make_trainer, starting_weights
from hermes.train.torch_trainer import TorchTrainer

X, Y = hermes.data.digits()

torch.set_num_threads(1)  # what is computed here is small, and the tests' machine is shared


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def make(**changes: Any) -> Job:
    fields = {
        "model": network,
        "data": hermes.data.digits,
        "optimizer": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.5),
        "loss": nn.CrossEntropyLoss(),
    }
    return Job(**{**fields, **changes})


def trainer(seed: int = 1, **changes: Any) -> Trainer:
    return make_trainer(make(**changes), generator(seed, "init"))


def batch(place: int) -> tuple[np.ndarray, np.ndarray]:
    return X[32 * place : 32 * place + 32], Y[32 * place : 32 * place + 32]


def train(found: Trainer, steps: int, factor: float = 1.0) -> list[float]:
    return [found.step(*batch(place), factor) for place in range(steps)]


def same(one: dict, two: dict) -> bool:
    return list(one) == list(two) and all(np.array_equal(one[name], two[name]) for name in one)


def tensors(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in sorted(model.state_dict().items())}


def plain(seed: int, job: Job) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimizer as somebody without Hermes makes them, from the trainer's own start."""
    model = job.model()
    start = trainer(seed, model=job.model).weights()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in start.items()})
    return model, job.optimizer([p for p in model.parameters() if p.requires_grad])


# --- the plain loop -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
        lambda params: torch.optim.Adam(params, lr=1e-2),
        lambda params: torch.optim.AdamW([{"params": params[:2]}, {"params": params[2:], "lr": 1}]),
    ],
)
def test_a_trainer_is_the_plain_loop_bit_for_bit(optimizer: Any) -> None:
    job = make(optimizer=optimizer)
    model, made = plain(1, job)
    losses = []
    for place in range(10):
        x, y = (torch.from_numpy(part) for part in batch(place))
        made.zero_grad()
        loss = job.loss(model(x), y)
        loss.backward()
        made.step()
        losses.append(loss.item())
    found = trainer(1, optimizer=optimizer)
    assert train(found, 10) == losses
    assert same(found.weights(), tensors(model))


def test_two_runs_of_one_seed_are_equal_bit_for_bit() -> None:
    one, two, other = trainer(1), trainer(1), trainer(2)
    assert train(one, 20) == train(two, 20) != train(other, 20)
    assert codec.encode_tensors(one.weights()) == codec.encode_tensors(two.weights())


def test_a_models_chance_is_the_runs_and_ours_is_left_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    trainer(1)
    assert torch.equal(torch.rand(3), wanted)


def test_torch_in_memory_moves_no_chance_of_numpys() -> None:
    job = make(
        model=lambda: hermes.nn.Sequential(hermes.nn.Flatten(), hermes.nn.Linear(64, 10)),
        optimizer=lambda params: hermes.nn.SGD(params, lr=0.1),
        loss=hermes.nn.CrossEntropy(),
    )
    model = job.model()
    model.initialise(generator(1, "init"))
    weights = make_trainer(job, generator(1, "init")).weights()
    assert same(weights, dict(sorted(model.state_dict().items())))


def test_a_factory_that_is_the_first_to_import_torch_is_drawn_from_the_seed() -> None:
    code = (
        "import sys, hermes\n"
        "from hermes.chance import generator\n"
        "from hermes.train import make_trainer\n"
        "def model():\n    from torch import nn\n    return nn.Linear(2, 2)\n"
        "def optimizer(params):\n    import torch\n    return torch.optim.SGD(params, lr=1)\n"
        "job = hermes.Job(model=model, data=print, optimizer=optimizer, loss=print)\n"
        "assert 'torch' not in sys.modules\n"
        "one, two = (make_trainer(job, generator(1)).weights() for _ in range(2))\n"
        "print((one['weight'] == two['weight']).all())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


# --- weights ------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two names for one tensor, a frozen one, and buffers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)
        self.tied = nn.Linear(64, 64)
        self.tied.weight = self.inner.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 10)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("own", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.tied(torch.relu(self.inner(x.flatten(1))))))


def test_weights_are_sorted_copies_by_the_names_of_the_state() -> None:
    found = trainer(model=Tied)
    weights = found.weights()
    assert list(weights) == sorted(Tied().state_dict())
    assert found.buffers() == {
        "frozen",
        "mask",
        "norm.num_batches_tracked",
        "norm.running_mean",
        "norm.running_var",
    }
    assert weights["norm.num_batches_tracked"].dtype == np.int64
    assert weights["mask"].dtype == bool
    assert found.framework.startswith("torch 2.")
    assert "+" not in found.framework
    weights["head.bias"][...] = 7
    assert not same(found.weights(), weights)
    found.load(codec.decode_tensors(codec.encode_tensors(weights)))
    assert same(found.weights(), weights)
    weights["head.bias"][...] = 8
    assert not same(found.weights(), weights)


def test_tied_weights_stay_tied() -> None:
    found = trainer(model=Tied)
    found.load(trainer(2, model=Tied).weights())
    train(found, 3)
    weights = found.weights()
    assert np.array_equal(weights["inner.weight"], weights["tied.weight"])


def test_weights_that_do_not_fit_are_refused_and_nothing_changes() -> None:
    found = trainer()
    before = found.weights()
    bias = before["1.bias"]
    rest = {name: value for name, value in before.items() if name != "1.bias"}
    for weights, message in [
        (rest, "the weights lack '1.bias', the model has it"),
        ({**before, "9.bias": bias}, "the weights have '9.bias', the model does not"),
        ({**before, "1.bias": bias.astype("f8")}, "'1.bias' is float64"),
        ({**before, "3.bias": bias, "1.bias": bias + 1}, "'3.bias' is"),
    ]:
        with pytest.raises(JobError, match=message):
            found.load(weights)
        assert same(found.weights(), before)


def test_weights_in_another_order_of_memory_travel_as_they_are() -> None:
    def model() -> nn.Module:
        made = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 4, 3), nn.Flatten())
        return nn.Sequential(made, nn.Linear(144, 10)).to(memory_format=torch.channels_last)

    found = trainer(model=model)
    weights = found.weights()
    assert weights["0.1.weight"].flags.c_contiguous
    other = trainer(2, model=model)
    other.load(codec.decode_tensors(codec.encode_tensors(weights)))
    assert same(other.weights(), weights)
    train(other, 1)


class Scaled(nn.Linear):
    """A layer with a state of its own, which is a tensor."""

    scale = 1.0

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.scale)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.scale = float(state)


def test_a_state_of_the_users_own_goes_in_by_its_own_way() -> None:
    made: list[Scaled] = []

    def model() -> nn.Module:
        made.append(Scaled(64, 10))
        return nn.Sequential(nn.Flatten(), made[-1])

    found = trainer(model=model)
    weights = found.weights()
    weights["1._extra_state"] = np.array(2.5, np.float32)
    found.load(weights)
    assert made[-1].scale == 2.5
    assert same(found.weights(), weights)


def test_starting_weights_come_from_a_file_of_a_plain_model(tmp_path: Any) -> None:
    from safetensors.torch import save_file

    model = network()
    save_file(model.state_dict(), tmp_path / "start.safetensors")
    job = make(init=tmp_path / "start.safetensors")
    found = make_trainer(job, generator(1))
    starting_weights(job, found)
    assert same(found.weights(), tensors(model))


# --- the optimizer ------------------------------------------------------------------------------


def test_loading_keeps_the_momentum_and_reset_forgets_it() -> None:
    kept, reset, fresh = trainer(), trainer(), trainer()
    start = fresh.weights()
    for found in (kept, reset):
        train(found, 3)
        found.load(start)
    reset.reset_optimizer()
    for found in (kept, reset, fresh):
        train(found, 1)
    assert same(reset.weights(), fresh.weights())
    assert not same(kept.weights(), fresh.weights())


def test_the_factor_scales_each_groups_own_rate() -> None:
    seen: list[torch.optim.Optimizer] = []

    def optimizer(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": params[:2], "lr": 0.3}, {"params": params[2:]}]
        seen.append(torch.optim.SGD(groups, lr=0.1))
        return seen[-1]

    found = trainer(optimizer=optimizer)
    for factor, rates in ((0.5, [0.15, 0.05]), (1.0, [0.3, 0.1]), (0.0, [0, 0])):
        before = found.weights()
        train(found, 1, factor)
        assert [group["lr"] for group in seen[-1].param_groups] == rates
    assert same(found.weights(), before)


def test_frozen_parameters_are_not_given_to_the_optimizer() -> None:
    given: list[nn.Parameter] = []

    def optimizer(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        given.extend(params)
        return torch.optim.SGD(params, lr=0.1)

    found = trainer(model=Tied, optimizer=optimizer)
    assert len(given) == 7
    assert all(parameter.requires_grad for parameter in given)
    before = found.weights()["frozen"]
    train(found, 1)
    assert np.array_equal(found.weights()["frozen"], before)


def test_an_optimizer_that_asks_for_the_loss_itself_is_served() -> None:
    found = trainer(optimizer=lambda params: torch.optim.LBFGS(params, lr=0.5, max_iter=5))
    losses = [found.step(*batch(0), 1.0) for _ in range(4)]
    assert losses[-1] < losses[0] / 2


def test_gradients_are_clipped_between_backward_and_step() -> None:
    norms: list[float] = []

    def clip(params: list[nn.Parameter]) -> None:
        norms.append(float(nn.utils.clip_grad_norm_(params, 0.25)))

    job = make(optimizer=lambda params: torch.optim.SGD(params, lr=1.0), clip=clip)
    found = make_trainer(job, generator(1))
    before = found.weights()
    train(found, 1)
    moved = sum(float(np.sum((found.weights()[n] - before[n]) ** 2)) for n in before) ** 0.5
    assert norms[0] > 0.25
    assert moved == pytest.approx(0.25, rel=1e-3)


# --- mixed precision ----------------------------------------------------------------------------


def test_forward_and_loss_are_computed_in_the_jobs_context() -> None:
    seen: list[torch.dtype] = []

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(outputs.dtype)
        return nn.functional.cross_entropy(outputs, labels)

    found = trainer(loss=loss, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    exact = trainer()
    losses = train(found, 20)
    assert losses != train(exact, 20)
    assert losses == pytest.approx(train(trainer(), 20), abs=0.05)
    scores = found.evaluate([(X, Y)])
    assert set(seen) == {torch.bfloat16}
    assert scores.accuracy == pytest.approx(exact.evaluate([(X, Y)]).accuracy, abs=0.05)
    assert {value.dtype.name for value in found.weights().values()} == {"float32"}


def test_float16_scales_its_gradients() -> None:
    """A loss of 1e-6: gradients that float16 cannot hold come to weights all the same."""

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, labels) * 1e-6

    norms: list[float] = []

    def clip(params: list[nn.Parameter]) -> None:
        norms.append(float(nn.utils.clip_grad_norm_(params, 1e9)))

    changes: dict[str, Any] = {
        "loss": loss,
        "clip": clip,
        "optimizer": lambda params: torch.optim.SGD(params, lr=1e5),
    }
    half = trainer(autocast=lambda: torch.autocast("cpu", torch.float16), **changes)
    exact = trainer(**changes)
    assert isinstance(half, TorchTrainer)
    assert half._scaler is not None
    start = half.weights()
    train(half, 3)
    train(exact, 3)
    for name, value in half.weights().items():
        assert not np.array_equal(value, start[name])
        assert np.allclose(value, exact.weights()[name], atol=0.01)
    assert norms[:3] == pytest.approx(norms[3:], rel=0.05)


# --- evaluation ---------------------------------------------------------------------------------


def test_an_evaluation_does_not_depend_on_how_its_samples_are_cut_and_changes_nothing() -> None:
    found = trainer(model=Tied)
    train(found, 3)
    before = found.weights()
    whole = found.evaluate([(X, Y)])
    cut = found.evaluate((X[i : i + 100], Y[i : i + 100]) for i in range(0, len(X), 100))
    assert cut.samples == whole.samples == len(X)
    assert cut.accuracy == pytest.approx(whole.accuracy, abs=1e-12)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert same(found.weights(), before)


def test_small_blocks_are_scored_together_up_to_a_batch() -> None:
    sizes: list[int] = []

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(labels))
        return nn.functional.cross_entropy(outputs, labels)

    found = trainer(loss=loss)
    cut = ((X[i : i + 9], Y[i : i + 9]) for i in range(0, 90, 9))
    assert found.evaluate(cut).samples == 90 == sum(sizes)
    assert sizes == [36, 36, 18]


def test_modes_are_restored_one_by_one() -> None:
    made: list[nn.Sequential] = []

    def model() -> nn.Module:
        made.append(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(), nn.Dropout()))
        made[-1][3].eval()  # the user's own wish
        return made[-1]

    found = trainer(model=model)
    found.evaluate([batch(0)])
    assert [part.training for part in made[-1].modules()] == [True, True, True, True, False]
    assert made[-1][2](torch.ones(1000)).eq(0).any()


def test_a_model_that_comes_ready_to_be_used_is_trained_all_the_same() -> None:
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout())
    trainer(model=lambda: made.eval())
    assert all(part.training for part in made.modules())


def test_the_metric_is_the_jobs() -> None:
    assert trainer(metric=None).evaluate([(X, Y)]).accuracy is None
    found = trainer(metric=lambda outputs, y: (y == 0).float().mean())
    by_parts = found.evaluate([(X[:100], Y[:100]), (X[100:], Y[100:])])
    assert by_parts.accuracy == pytest.approx((Y == 0).mean())


def test_accuracy_is_by_the_axis_of_the_classes() -> None:
    """Pixels: outputs (n, classes, h), labels (n, h); or the classes last, as texts have them."""
    x = np.zeros((4, 3), np.float32)
    y = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])

    class Fixed(nn.Module):
        def __init__(self, last: bool) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))
            self.last = last

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wanted = torch.tensor([[0, 1], [1, 0], [1, 1], [1, 1]])  # two of eight are wrong
            outputs = nn.functional.one_hot(wanted, 3).float() + self.bias
            return outputs if self.last else outputs.movedim(-1, 1)

    for last in (False, True):
        found = trainer(model=lambda last=last: Fixed(last), loss=lambda outputs, y: outputs.mean())
        assert found.evaluate([(x, y)]).accuracy == 0.75


def test_an_evaluation_needs_samples() -> None:
    with pytest.raises(Defect):
        trainer().evaluate([])


def test_one_model_has_one_score_and_moves_no_chance() -> None:
    """Even where the loss itself draws."""

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs + torch.rand_like(outputs), labels)

    found = trainer(loss=loss)
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    assert found.evaluate([batch(0)]).loss == found.evaluate([batch(0)]).loss
    assert torch.equal(torch.rand(1), wanted)


def test_a_model_that_diverges_is_told_by_its_loss_alone() -> None:
    found = trainer(optimizer=lambda params: torch.optim.SGD(params, lr=1e30))
    train(found, 5)
    assert not np.isfinite(found.step(*batch(0), 1.0))
    assert not np.isfinite(found.evaluate([(X, Y), (X, Y)]).loss)


# --- chance of a round --------------------------------------------------------------------------


def test_each_rounds_own_chance_is_keyed() -> None:
    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    def rounds(*keys: int, noise: bool = False) -> list[float]:
        found = trainer(model=model)
        losses = []
        for key in keys:
            if noise:
                torch.rand(17)
            found.begin_round(generator(1, "train", "worker-1", key))
            losses += train(found, 2)
        return losses

    assert rounds(1, 2) == rounds(1, 2, noise=True)
    assert rounds(1, 2)[:2] == rounds(1, 3)[:2]
    assert rounds(1, 2)[2:] != rounds(1, 3)[2:]


# --- samples ------------------------------------------------------------------------------------


def test_samples_and_labels_come_in_the_types_that_torch_wants() -> None:
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return outputs.mean()

    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.dtype)
            return x.float() * self.weight

    def labels(outputs: torch.Tensor, y: torch.Tensor) -> float:
        seen.append(y.dtype)
        return 0.0

    found = trainer(model=Look, loss=loss, metric=labels)
    for x, y, wanted in [
        ("f8", "f8", (torch.float32, torch.float32)),
        ("f2", "f2", (torch.float32, torch.float32)),
        (">f4", ">i4", (torch.float32, torch.int64)),
        ("u1", "u1", (torch.uint8, torch.int64)),
        ("i8", "?", (torch.int64, torch.int64)),
        ("?", "i2", (torch.bool, torch.int64)),
    ]:
        seen.clear()
        found.evaluate([(np.ones((2, 3), x), np.ones(2, y))])
        assert tuple(seen) == wanted


def test_arrays_that_are_read_only_or_turned_round_are_taken_without_a_word() -> None:
    x, y = batch(0)
    x, y = x.copy(), y.copy()
    x.flags.writeable = y.flags.writeable = False
    found = trainer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.step(x, y, 1.0)
        found.step(X[:32][::-1], Y[:32][::-1], 1.0)
        found.evaluate([(x, y)])
        found.load(codec.decode_tensors(codec.encode_tensors(found.weights())))
    assert np.array_equal(x, batch(0)[0])


def test_a_last_batch_of_one_sample_takes_batchnorms_running_statistics() -> None:
    found = trainer(model=Tied)
    train(found, 3)
    before = found.weights()
    assert np.isfinite(found.step(X[:1], Y[:1], 1.0))
    after = found.weights()
    assert np.array_equal(before["norm.running_mean"], after["norm.running_mean"])
    assert not np.array_equal(before["head.weight"], after["head.weight"])
    train(found, 1)
    assert not np.array_equal(found.weights()["norm.running_mean"], after["norm.running_mean"])


# --- device and threads -------------------------------------------------------------------------


def test_a_device_that_is_not_here_is_told_with_those_that_are() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(JobError) as caught:
        trainer(device=f"cuda:{count}")
    assert f"the device is cuda:{count}, and this machine has cpu" in caught.value.what
    assert "--device auto" in caught.value.remedy
    assert trainer(device="cpu").weights().keys() == trainer(device="auto").weights().keys()


def test_a_flag_beats_the_jobs_device() -> None:
    job = make(device="cuda:99")
    assert job.on(None) is job
    moved = job.on("cpu")
    assert (job.device, moved.device, moved.place) == ("cuda:99", "cpu", job.place)
    make_trainer(moved, generator(1))


def test_threads_can_be_told_at_any_time() -> None:
    before = torch.get_num_threads()
    found = trainer()
    try:
        for count in (1, 2):
            found.use_threads(count)
            assert torch.get_num_threads() == count
    finally:
        found.use_threads(before)


def test_gradients_begin_anew_at_each_step_whatever_the_optimizer_has() -> None:
    """An optimizer of a part of the model: `clip` is given all that learns, and sees no sums."""
    norms: list[float] = []

    def clip(params: list[nn.Parameter]) -> None:
        norms.append(sum(float(p.grad.norm()) for p in params if p.grad is not None))

    found = trainer(optimizer=lambda params: torch.optim.SGD(params[:1], lr=0.0), clip=clip)
    for _ in range(3):
        found.step(*batch(0), 1.0)
    assert norms == [norms[0]] * 3
    assert norms[0] > 0


def test_a_reset_keeps_what_was_learned_of_the_scale() -> None:
    """Gradients that overflow at the first scale: its steps are lost once, not at each version."""
    cross = nn.CrossEntropyLoss()
    found = trainer(
        loss=lambda outputs, labels: 1e4 * cross(outputs, labels),
        autocast=lambda: torch.autocast("cpu", torch.float16),
        optimizer=lambda params: torch.optim.SGD(params, lr=1e-6),
    )
    start = found.weights()
    found.step(*batch(0), 1.0)
    assert same(found.weights(), start), "the first scale is too large"
    for place in range(20):
        found.step(*batch(place), 1.0)
    found.reset_optimizer()
    before = found.weights()
    found.step(*batch(0), 1.0)
    assert not same(found.weights(), before)


class Copies(nn.Linear):
    """Its state holds a copy of a buffer, under the buffer's own name."""

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.register_buffer("shift", torch.zeros(10))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}shift"] = destination[f"{prefix}shift"].clone()


def test_a_state_of_copies_is_loaded_into_what_it_was_copied_from() -> None:
    model = nn.Sequential(nn.Flatten(), Copies())
    found = make_trainer(make(model=lambda: model), generator(1, "init"))
    there = {name: value + 5 for name, value in found.weights().items()}
    found.load(there)
    assert same(found.weights(), there)
    assert float(model[1].shift[0]) == 5
