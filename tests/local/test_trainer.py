"""Is a trainer the plain loop, bit for bit, and does it refuse what does not fit?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import hermes
from hermes import codec, nn
from hermes.chance import generator
from hermes.data.blocks import join_blocks
from hermes.data.order import Part, batches, epoch_order
from hermes.data.prepare import prepare
from hermes.errors import Defect, JobError
from hermes.job import Job
from hermes.jobfile import build, load_source
from hermes.train import Trainer, make_trainer, starting_weights

X, Y = hermes.data.digits()


def make(**changes) -> Job:
    fields = {
        "model": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)
        ),
        "data": hermes.data.digits,
        "optimizer": lambda params: nn.SGD(params, lr=0.1, momentum=0.5),
        "loss": nn.CrossEntropy(),
    }
    return Job(**{**fields, **changes})


def trainer(seed: int = 1, **changes) -> Trainer:
    return make_trainer(make(**changes), generator(seed, "init"))


def train(found: Trainer, steps: int) -> list[float]:
    return [found.step(X[32 * i : 32 * i + 32], Y[32 * i : 32 * i + 32], 1.0) for i in range(steps)]


def same(one: dict, two: dict) -> bool:
    return list(one) == list(two) and all(np.array_equal(one[name], two[name]) for name in one)


def test_two_runs_of_one_seed_are_equal_bit_for_bit():
    one, two, other = trainer(1), trainer(1), trainer(2)
    assert train(one, 20) == train(two, 20) != train(other, 20)
    assert codec.encode_tensors(one.weights()) == codec.encode_tensors(two.weights())


def test_a_trainer_is_the_plain_loop_bit_for_bit():
    job = make()
    model = job.model()
    model.initialise(generator(1, "init"))
    optimizer = job.optimizer(model.parameters())
    for place in range(10):
        x, y = X[32 * place : 32 * place + 32], Y[32 * place : 32 * place + 32]
        job.loss.forward(model.forward(x), y)
        model.backward(job.loss.backward())
        optimizer.step()
    found = trainer()
    train(found, 10)
    assert same(found.weights(), dict(sorted(model.state_dict().items())))


def test_weights_are_sorted_float32_copies():
    found = trainer()
    weights = found.weights()
    assert list(weights) == ["1.bias", "1.weight", "3.bias", "3.weight"]
    assert {value.dtype.name for value in weights.values()} == {"float32"}
    assert found.buffers() == frozenset()
    assert found.framework == f"numpy {np.__version__}"
    for value in weights.values():
        value[...] = 7
    assert not same(found.weights(), weights)
    found.load(weights)
    assert same(found.weights(), weights)
    weights["1.bias"][...] = 8
    assert not same(found.weights(), weights)


def test_weights_that_are_read_only_can_be_loaded_and_trained():
    found = trainer()
    found.load(codec.decode_tensors(codec.encode_tensors(found.weights())))
    train(found, 1)


def test_weights_that_do_not_fit_are_refused_and_nothing_changes():
    found = trainer()
    before = found.weights()
    bias = before["1.bias"]
    rest = {name: value for name, value in before.items() if name != "1.bias"}
    for weights, message in [
        (rest, "the weights lack '1.bias', the model has it"),
        ({**before, "9.bias": bias}, "the weights have '9.bias', the model does not"),
        ({**before, "1.bias": bias[:5]}, r"'1.bias' is float32 \(5,\) in the weights, and float32"),
        ({**before, "1.bias": bias.astype("f8")}, "'1.bias' is float64"),
        ({**rest, "1.bias": bias[None], "1.weight": before["1.weight"] + 1}, "'1.bias' is"),
    ]:
        with pytest.raises(JobError, match=message) as caught:
            found.load(weights)
        assert caught.value.remedy
        assert same(found.weights(), before)


def test_loading_keeps_the_momentum_and_reset_forgets_it():
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


def test_the_factor_scales_the_step():
    still = trainer()
    before = still.weights()
    still.step(X[:32], Y[:32], 0.0)
    assert same(still.weights(), before)


def test_gradients_can_be_clipped():
    def clip(params):
        for parameter in params:
            parameter.grad[...] = 0

    still = trainer(clip=clip)
    before = still.weights()
    train(still, 1)
    assert same(still.weights(), before)


def test_an_evaluation_does_not_depend_on_how_its_samples_are_cut():
    found = trainer()
    whole = found.evaluate([(X, Y)])
    cut = found.evaluate((X[i : i + 100], Y[i : i + 100]) for i in range(0, len(X), 100))
    assert cut.samples == whole.samples == len(X)
    assert cut.accuracy == pytest.approx(whole.accuracy, abs=1e-12)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert same(found.weights(), trainer().weights())


def test_the_metric_is_the_jobs():
    assert trainer(metric=None).evaluate([(X, Y)]).accuracy is None
    found = trainer(metric=lambda outputs, y: (y == 0).mean())
    by_parts = found.evaluate([(X[:100], Y[:100]), (X[100:], Y[100:])])
    assert by_parts.accuracy == pytest.approx((Y == 0).mean())


def test_an_evaluation_needs_samples():
    with pytest.raises(Defect):
        trainer().evaluate([])


def test_a_model_that_diverges_is_told_by_its_loss_alone():
    found = trainer(optimizer=lambda params: nn.SGD(params, lr=1e30))
    train(found, 5)
    assert not np.isfinite(found.step(X[:32], Y[:32], 1.0))
    assert not np.isfinite(found.evaluate([(X, Y), (X, Y)]).loss)


def test_samples_of_other_types_are_trained_as_float32():
    found = trainer()
    for x in (X.astype("f8"), (X * 16).astype("u1"), X.astype("f2")):
        found.step(x[:8], Y[:8], 1.0)
    assert found.weights()["1.weight"].dtype == np.float32


def test_training_changes_no_sample():
    x, y = X[:32].copy(), Y[:32].copy()
    x.flags.writeable = y.flags.writeable = False
    trainer().step(x, y, 1.0)


# --- which trainer? -----------------------------------------------------------------------------


def framework_model(framework: str) -> object:
    base = type("Base", (), {"__module__": f"{framework}.nn.modules.module"})
    return type("Net", (base,), {"__module__": "hermes_job"})()


REFUSED = {
    "model() returned a Net": {"model": lambda: framework_model("torch")},
    "the job gives no loss": {"loss": None},
    "the job gives no optimizer": {"optimizer": None},
    "Job.metric is 'f1'": {"metric": "f1"},
    "Job.callbacks is set, and the model is not one of Keras": {"callbacks": list},
    "model() returned None": {"model": lambda: None},
    "model() returned a int": {"model": lambda: 3},
    "model() raises ZeroDivisionError": {"model": lambda: 1 / 0},
    "the model has nothing to learn": {"model": nn.ReLU},
    "the loss is a module, the model is one of hermes.nn": {"loss": ModuleType("loss")},
    "the device is cuda:1": {"device": "cuda:1"},
    "Job.autocast is set": {"autocast": lambda: None},
    "Job.step is set, and a model of hermes.nn is trained without it": {"step": print},
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_job_that_cannot_be_trained_is_told_why(message):
    with pytest.raises(JobError) as caught:
        trainer(**REFUSED[message])
    assert message in caught.value.what
    assert caught.value.remedy


def test_frameworks_are_told_without_importing_them():
    code = (
        "import sys, hermes\n"
        "from hermes.chance import generator\n"
        "from hermes.train import make_trainer\n"
        "base = type('Base', (), {'__module__': 'jax.nn'})\n"
        "job = hermes.Job(model=type('Net', (base,), {}), data=hermes.data.digits,\n"
        "                 optimizer=print, loss=print)\n"
        "try:\n    make_trainer(job, generator(1))\n"
        "except hermes.errors.JobError as error:\n    print(error.remedy)\n"
        "print([name for name in ('torch', 'keras') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "a model of torch, of hermes.nn, or a compiled one of Keras" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_starting_weights_come_from_a_file(tmp_path):
    path = tmp_path / "start.safetensors"
    wanted = trainer(seed=9).weights()
    path.write_bytes(codec.encode_tensors(wanted))
    job = make(init=path)
    found = make_trainer(job, generator(1))
    starting_weights(job, found)
    assert same(found.weights(), wanted)
    untouched = trainer()
    starting_weights(make(), untouched)
    assert same(untouched.weights(), trainer().weights())


def test_a_file_of_starting_weights_that_cannot_be_used(tmp_path):
    path = tmp_path / "start.safetensors"
    job = make(init=str(path))
    found = make_trainer(job, generator(1))
    for content, message in [
        (None, "Job.init cannot be read: No such file"),
        (b"\x80\x04pickle", "Job.init is not a .safetensors file"),
        (codec.encode_tensors({"a": np.zeros(1)}), "Job.init: the weights lack '1.bias'"),
    ]:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(JobError) as caught:
            starting_weights(job, found)
        assert message in caught.value.what
        assert caught.value.where == str(path)


# --- the example --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_example_trained_plainly_learns_the_digits(tmp_path, seed):
    source = load_source(Path(__file__).parents[2] / "examples" / "digits.py")
    job = build(source.text, source.name)
    data = prepare(job.data, job.split, seed, lambda train: min(2500, train // 4), tmp_path)
    blocks: dict[str, list[bytes]] = {name: [] for name in data.blocks}
    for split, _, block in data:
        blocks[split].append(block)
    x, y = join_blocks(blocks["train"], data.samples["train"])
    found = make_trainer(job, generator(seed, "init"))
    for pass_ in range(40):  # a quarter of what the example asks for
        order = epoch_order(seed, "plain", 0, pass_, len(x))
        for batch in batches([Part(x, y, order)], job.batch):
            found.step(*batch, 1.0)
    scores = found.evaluate([join_blocks(blocks["test"], data.samples["test"])])
    assert scores.samples == 269
    assert scores.accuracy is not None
    assert scores.accuracy >= 0.94
