"""Is the trainer of Keras the plain `train_on_batch` loop, bit for bit, on the backend of this
process? `test_keras.py` runs these in a process of their own, once a backend."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import hermes
from hermes.chance import generator
from hermes.errors import HermesError, JobError
from hermes.job import Job
from hermes.jobfile import build
from hermes.train import Trainer, keras_file, make_trainer
from hermes.train.keras_trainer import KerasTrainer, named
from hermes.train.keras_values import numpy_of

X, Y = hermes.data.digits()
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
Model = keras.Model


def compiled(*inner: layers.Layer, optimizer: object = None, **more: object) -> Model:
    model = keras.Sequential([keras.Input((8, 8)), layers.Flatten(), *inner, layers.Dense(10)])
    fields = {"optimizer": optimizer or keras.optimizers.SGD(0.1), "loss": LOSS}
    model.compile(**{"metrics": ["accuracy"], **fields, **more})
    return model


def network() -> Model:
    return compiled(layers.Dense(12, activation="relu"))


def normed() -> Model:
    return compiled(layers.BatchNormalization())


def dropping() -> Model:
    return compiled(layers.Dropout(0.5), layers.Dense(12), layers.Dropout(0.2))


def make(model: object = network, **changes: object) -> Job:
    return Job(**{"model": model, "data": hermes.data.digits, **changes})


def trainer(model: object = network, seed: int = 1, **changes: object) -> Trainer:
    return make_trainer(make(model, **changes), generator(seed, "init"))


def batch(place: int) -> tuple[np.ndarray, np.ndarray]:
    return X[32 * place : 32 * place + 32], Y[32 * place : 32 * place + 32]


def same(one: dict, two: dict) -> bool:
    return list(one) == list(two) and all(np.array_equal(one[name], two[name]) for name in one)


def refused(model: object = network, **changes: object) -> str:
    with pytest.raises(JobError) as found:
        trainer(model, **changes)
    assert found.value.remedy
    return found.value.what


# --- the plain loop -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["momentum", "Adam", "schedule"])
def test_it_is_the_plain_loop(kind: str) -> None:
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    optimizers = {
        "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        "Adam": lambda: keras.optimizers.Adam(0.01),
        "schedule": lambda: keras.optimizers.SGD(decay),
    }

    def model() -> Model:
        return compiled(layers.BatchNormalization(), optimizer=optimizers[kind]())

    ours, plain = trainer(model), model()
    for weight, value in zip(plain.weights, _in_order(ours), strict=True):
        weight.assign(value)
    for place in range(6):
        told = ours.step(*batch(place), 1.0)
        assert told == plain.train_on_batch(*batch(place), return_dict=True)["loss"]
    for weight, value in zip(plain.weights, _in_order(ours), strict=True):
        assert np.array_equal(numpy_of(weight), value)


def _in_order(found: Trainer) -> list[np.ndarray]:
    assert isinstance(found, KerasTrainer)
    return found._model.get_weights()


def test_it_scores_as_keras_does() -> None:
    ours = trainer(normed)
    for place in range(3):
        ours.step(*batch(place), 1.0)
    before = ours.weights()
    scores = ours.evaluate([(X[:50], Y[:50]), (X[50:300], Y[50:300])])
    loss, accuracy = ours._model.evaluate(X[:300], Y[:300], batch_size=100, verbose=0)
    assert scores.samples == 300
    assert scores.loss == pytest.approx(loss, rel=1e-5)
    assert scores.accuracy == pytest.approx(accuracy)
    blocks = ours.losses(X[:96], Y[:96], 32)
    assert len(blocks) == 3
    assert np.mean(blocks) == pytest.approx(ours.evaluate([(X[:96], Y[:96])]).loss, rel=1e-5)
    assert same(before, ours.weights())


def test_a_custom_step_and_the_models_own_losses() -> None:
    class Own(keras.Sequential):
        def train_step(self, data: object) -> dict:
            told = super().train_step(data)
            return {**told, "seen": told["loss"]}

    def model() -> Model:
        own = Own([keras.Input((8, 8)), layers.Flatten(), layers.Dense(10, "relu", True)])
        own.add(layers.Dense(10, kernel_regularizer="l2"))
        own.compile("sgd", LOSS)
        return own

    found = trainer(model, metric=None)
    losses = [found.step(*batch(0), 1.0) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert found.evaluate([batch(0)]).accuracy is None


# --- weights ------------------------------------------------------------------------------------


def test_weights_go_by_the_names_of_keras_and_statistics_are_buffers() -> None:
    found = trainer(normed)
    names = [name.partition("/")[2] for name in found.weights()]
    statistics = [f"batch_normalization/moving_{kind}" for kind in ("mean", "variance")]
    learned = ["batch_normalization/beta", "batch_normalization/gamma"]
    assert names == [*learned, *statistics, "dense/bias", "dense/kernel"]
    assert {name.partition("/")[2] for name in found.buffers()} == set(statistics)


def test_frozen_layers_are_buffers() -> None:
    found = trainer(lambda: compiled(layers.Dense(7, trainable=False), layers.Dense(9)))
    shapes = {name: value.shape for name, value in found.weights().items()}
    assert len(shapes) == 6
    assert {shapes[name] for name in found.buffers()} == {(64, 7), (7,)}


def test_weights_of_one_path_are_told_apart() -> None:
    one, two, three = (keras.Variable(value, name="w") for value in (1.0, 2.0, 3.0))
    assert named([one, two, three]) == {"w": one, "w#2": two, "w#3": three}


def test_a_seed_draws_the_weights_and_names_stay() -> None:
    one, again, other = trainer(seed=1), trainer(seed=1), trainer(seed=2)
    assert same(one.weights(), again.weights())
    assert list(other.weights()) == list(one.weights())
    assert not same(one.weights(), other.weights())


def test_weights_are_copies_and_only_fitting_ones_are_taken() -> None:
    found = trainer()
    before = found.weights()
    found.step(*batch(0), 1.0)
    assert not same(before, found.weights())
    found.load(before)
    assert same(before, found.weights())
    with pytest.raises(JobError, match=r"lack|have"):
        found.load(dict(list(before.items())[1:]))
    wrong = {name: value[:1] for name, value in before.items()}
    with pytest.raises(JobError, match="in the weights, and"):
        found.load(wrong)


# --- chance, rates, gradients -------------------------------------------------------------------


def test_a_rounds_chance_is_drawn_from_its_stream() -> None:
    def trained(seed: int) -> dict:
        found = trainer(dropping)
        found.begin_round(generator(seed, "round"))
        for place in range(3):
            found.step(*batch(place), 1.0)
        return found.weights()

    assert same(trained(1), trained(1))
    assert not same(trained(1), trained(2))


def test_the_factor_scales_the_rate() -> None:
    slow = make(lambda: compiled(optimizer=keras.optimizers.SGD(0.025)))
    one = make_trainer(slow, generator(1, "init"))
    two = trainer(compiled, schedule=lambda progress: 0.25)
    for found, factor in ((one, 1.0), (two, 0.25)):
        found.step(*batch(0), factor)
        found.step(*batch(1), factor)
    first, second = one.weights(), two.weights()
    assert all(np.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_fresh_optimizer_has_forgotten_but_its_schedule_goes_on() -> None:
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model = make(lambda: compiled(optimizer=keras.optimizers.SGD(decay, momentum=0.9)))
    found = make_trainer(model, generator(1, "init"))
    found.step(*batch(0), 1.0)  # a trial: it does not count
    found.begin_round(generator(1, "round"))
    rate = found._model.optimizer
    for place in range(3):
        found.step(*batch(place), 1.0)
    assert float(numpy_of(rate.learning_rate)) == pytest.approx(0.1 / 8)
    found.reset_optimizer()
    assert float(numpy_of(rate.learning_rate)) == pytest.approx(0.1 / 8)
    slots = [v for v in rate.variables if "momentum" in v.path]
    assert slots
    assert not any(np.any(numpy_of(slot)) for slot in slots)
    found.step(*batch(0), 1.0)
    assert float(numpy_of(rate.learning_rate)) == pytest.approx(0.1 / 16)


def test_the_gradient_is_that_of_the_last_step() -> None:
    found = trainer()
    found.step(*batch(5), 1.0)
    found.watch_gradient()
    for place in range(2):
        before = found.weights()
        found.step(*batch(place), 1.0)
        moved = [(before[name] - value) / 0.1 for name, value in found.weights().items()]
        norm = np.sqrt(sum(float(np.sum(np.square(part))) for part in moved))
        assert found.gradient() == pytest.approx(norm, rel=1e-3)


def test_the_gradient_of_an_embedding_counts_each_row_once() -> None:
    def model() -> Model:
        made = keras.Sequential(
            [keras.Input((3,), dtype="int32"), layers.Embedding(5, 4), layers.Flatten()]
        )
        made.add(layers.Dense(2))
        made.compile(keras.optimizers.SGD(0.1), LOSS)
        return made

    found = trainer(model)
    found.watch_gradient()
    before = found.weights()
    found.step(np.array([[1, 1, 1], [1, 2, 1]], np.int32), np.array([0, 1]), 1.0)
    moved = [(before[name] - value) / 0.1 for name, value in found.weights().items()]
    norm = np.sqrt(sum(float(np.sum(np.square(part))) for part in moved))
    assert found.gradient() == pytest.approx(norm, rel=1e-3)


def test_mixed_precision_scales_its_loss_and_tells_the_plain_gradient() -> None:
    def model() -> Model:
        policy = keras.DTypePolicy("mixed_float16")
        made = keras.Sequential([keras.Input((8, 8)), layers.Flatten()])
        made.add(layers.Dense(10, dtype=policy))
        inner = keras.optimizers.SGD(0.1)
        made.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0), LOSS)
        return made

    found = trainer(model)
    found.watch_gradient()
    assert {str(value.dtype) for value in found.weights().values()} == {"float32"}
    before = found.weights()
    losses = [found.step(*batch(0), 1.0)]
    moved = [(before[name] - value) / 0.1 for name, value in found.weights().items()]
    norm = np.sqrt(sum(float(np.sum(np.square(part))) for part in moved))
    assert found.gradient() == pytest.approx(norm, rel=1e-2)
    losses += [found.step(*batch(0), 1.0) for _ in range(5)]
    assert losses[-1] < losses[0]
    found.step(np.full((2, 8, 8), 1e9, np.float32), Y[:2], 1.0)  # overflows: it is skipped
    assert found.gradient() == 0.0


# --- callbacks ----------------------------------------------------------------------------------


def test_a_round_is_an_epoch_to_callbacks() -> None:
    told: list[tuple[str, object]] = []

    class Told(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            told.append(("begin", epoch))

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            told.append(("end", sorted(logs or {})))

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            told.append(("batch", batch))

    halved = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    found = trainer(callbacks=lambda: [Told(), halved])
    found.step(*batch(0), 1.0)
    assert told == []  # a trial
    for number in range(2):
        found.begin_round(generator(number, "round"))
        found.step(*batch(number), 1.0)
    ends = ("end", ["accuracy", "loss"])
    assert told == [("begin", 0), ("batch", 0), ends, ("begin", 1), ("batch", 0)]
    rate = numpy_of(found._model.optimizer.learning_rate)
    assert float(rate) == pytest.approx(0.025)


def test_bad_callbacks_are_blamed_and_two_that_set_the_rate_refused() -> None:
    class Raising(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            raise KeyError(epoch)

    found = trainer(callbacks=lambda: [Raising()])
    with pytest.raises(JobError, match=r"a callback raises KeyError: 0"):
        found.begin_round(generator(0, "round"))
    halved = {"callbacks": lambda: [keras.callbacks.LearningRateScheduler(lambda e, r: r / 2)]}
    assert refused(schedule=lambda p: 1 - p, **halved).startswith(
        "two set the learning rate: Job.schedule"
    )
    assert "the schedule of the compiled optimizer" in refused(scheduled, **halved)


def test_bad_callbacks_of_a_whole_run_are_refused() -> None:
    stop = refused(callbacks=lambda: [keras.callbacks.EarlyStopping()])
    assert stop == "the callback EarlyStopping makes no sense on a worker"
    assert "gave None" in refused(callbacks=lambda: None)
    assert "of type int" in refused(callbacks=lambda: [3])


# --- what cannot be trained ---------------------------------------------------------------------


def plain(*inner: layers.Layer) -> Model:
    return keras.Sequential([keras.Input((8, 8)), layers.Flatten(), *inner, layers.Dense(10)])


def unbuilt() -> Model:
    model = keras.Sequential([layers.Flatten(), layers.Dense(10)])
    model.compile("sgd", LOSS)
    return model


def frozen() -> Model:
    model = plain()
    model.trainable = False
    model.compile("sgd", LOSS)
    return model


def lossless() -> Model:
    model = plain()
    model.compile("sgd")
    return model


def halved() -> Model:
    model = plain(layers.Dense(3, dtype=keras.DTypePolicy("float16")))
    model.compile("sgd", LOSS)
    return model


def scheduled() -> Model:
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    return compiled(optimizer=keras.optimizers.SGD(decay))


def test_bad_models_are_told() -> None:
    assert refused(lambda: plain()) == "the model is not compiled"
    assert refused(unbuilt) == "the model is not built: it does not know the shape of its samples"
    assert refused(frozen) == "the model has nothing to learn"
    assert refused(lossless) == "the model is compiled without a loss"
    assert "float16, which cannot be merged" in refused(halved)
    assert refused(scheduled, schedule=lambda p: 1 - p).startswith("two schedules")


def test_bad_what_a_compiled_model_has_itself_is_not_given_twice() -> None:
    assert refused(optimizer=lambda params: None) == (
        "Job.optimizer is set, and the model is one of Keras"
    )
    assert refused(loss=LOSS) == "Job.loss is set, and the model is one of Keras"
    assert refused(clip=lambda params: None).startswith("Job.clip is set")
    assert refused(step=lambda model, x, y: 0).startswith("Job.step is set")
    assert refused(metric=lambda outputs, labels: 0).startswith("Job.metric is a function")
    assert refused(device="cuda:7").startswith("the device is cuda:7")


def test_bad_what_is_no_model_or_has_seen_no_sample_is_told() -> None:
    assert refused(lambda: layers.Dense(3)) == "model() returned a Dense"

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layers.Dense(10)

        def call(self, x: object) -> object:
            return self.inner(keras.ops.reshape(x, (-1, 64)))

    def model(called: bool) -> Model:
        made = Own()
        if called:
            made(keras.ops.zeros((1, 8, 8)))
        made.compile("sgd", LOSS)
        return made

    assert "not built" in refused(lambda: model(False))
    found = trainer(lambda: model(True))
    losses = [found.step(*batch(0), 1.0) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert "steps_per_execution=2" in refused(lambda: compiled(steps_per_execution=2))


def test_bad_several_inputs_or_outputs_are_told() -> None:
    def two() -> Model:
        ins = [keras.Input((3,)), keras.Input((4,))]
        model = keras.Model(ins, layers.Dense(1)(layers.Concatenate()(ins)))
        model.compile("sgd", "mse")
        return model

    def outputs() -> Model:
        x = keras.Input((3,))
        model = keras.Model(x, [layers.Dense(1)(x), layers.Dense(2)(x)])
        model.compile("sgd", "mse")
        return model

    assert "the model has 2 inputs, and a sample's x is one array" in refused(two)
    assert "the model has 2 outputs, and a sample's y is one array" in refused(outputs)


@pytest.mark.parametrize("loss", ["sparse", "one-hot"])
def test_bad_labels_beside_the_other_loss_are_told(loss: str) -> None:
    """In a step as in a score; also where the loss is given by its name."""
    x, y = batch(0)
    one_hot = np.eye(10, dtype=np.float32)[y]
    kinds = {
        "sparse": (LOSS, "sparse_categorical_crossentropy", one_hot, "the labels are one-hot"),
        "one-hot": (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            "categorical_crossentropy",
            y,
            "the labels are numbers of classes",
        ),
    }
    *losses, labels, what = kinds[loss]
    for each in losses:
        found = trainer(lambda each=each: compiled(loss=each))
        for run in (
            lambda f=found: f.step(x, labels, 1.0),
            lambda f=found: f.evaluate([(x, labels)]),
        ):
            with pytest.raises(JobError, match=what) as raised:
                run()
            assert "y" in raised.value.remedy
            assert raised.value.where
        found.step(x, y if loss == "sparse" else one_hot, 1.0)


def test_bad_what_is_built_once_for_all_models_is_told() -> None:
    optimizer, metric = keras.optimizers.SGD(0.1), keras.metrics.SparseCategoricalAccuracy()
    first = trainer(lambda: compiled(optimizer=optimizer))
    again = refused(lambda: compiled(optimizer=optimizer))
    assert "with one and the same optimizer, SGD" in again
    second = trainer(lambda: compiled(metrics=[metric]))
    assert "the same metric, Sparse" in refused(lambda: compiled(metrics=[metric]))
    for sound in (first, second):
        sound.step(*batch(0), 1.0)


def test_bad_logits_taken_for_probabilities_are_doubted() -> None:
    def doubts(last: str | None, loss: object, units: int = 10) -> list[str]:
        def model() -> Model:
            made = keras.Sequential(
                [keras.Input((8, 8)), layers.Flatten(), layers.Dense(units, activation=last)]
            )
            made.compile("sgd", loss)
            return made

        found = trainer(model)
        assert isinstance(found, KerasTrainer)
        return found.doubts(batch(0), thorough=False)

    losses = keras.losses
    for loss in (losses.SparseCategoricalCrossentropy(), "categorical_crossentropy"):
        (told,) = doubts(None, loss)
        assert (
            "compile it with from_logits=True, or end the model with activation='softmax'" in told
        )
        assert doubts("softmax", loss) == []
    (told,) = doubts("softmax", LOSS)
    assert "leave that activation out, or from_logits=True" in told
    assert doubts(None, LOSS) == []
    (told,) = doubts(None, "binary_crossentropy", 1)
    assert "'sigmoid'" in told
    (told,) = doubts("sigmoid", losses.BinaryCrossentropy(from_logits=True), 1)
    assert "leave that activation out" in told
    assert doubts("sigmoid", losses.BinaryCrossentropy(), 1) == []
    assert doubts(None, "mse") == []


def test_bad_metrics_are_told_and_good_ones_found() -> None:
    def model() -> Model:
        return compiled(metrics=["sparse_top_k_categorical_accuracy"])

    assert trainer(model).evaluate([batch(0)]).accuracy is not None
    with pytest.raises(JobError, match=r"Job\.metric is 'mae', and the model is compiled with"):
        trainer(model, metric="mae").evaluate([batch(0)])
    each = keras.metrics.SparseCategoricalAccuracy()
    each.result = lambda: keras.ops.zeros((10,))
    with pytest.raises(JobError, match=r"gives 10 numbers"):
        trainer(lambda: compiled(metrics=[each]), metric=None).evaluate([batch(0)])


JOB = """\
import keras
from keras import layers
import hermes


class Odd(layers.Layer):
    def call(self, x):
        raise KeyError("so")


def model():
    if BUILT:
        made = keras.Sequential([keras.Input((8, 8)), layers.Flatten(), layers.Dense(10)])
    else:
        made = keras.Sequential([keras.Input((8, 8)), Odd(), layers.Flatten(), layers.Dense(10)])
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


job = hermes.Job(model=model, data=hermes.data.digits)
"""


def test_bad_layers_and_shapes_are_told_with_their_line() -> None:
    with pytest.raises(HermesError) as found:
        make_trainer(build(JOB.replace("BUILT", "False"), "odd.py"), generator(0, "init"))
    assert found.value.where == "odd.py:8"
    built = make_trainer(build(JOB.replace("BUILT", "True"), "odd.py"), generator(0, "init"))
    with pytest.raises(JobError) as found:
        built.step(X[:4, :5], Y[:4], 1.0)
    assert found.value.where == "odd.py:11"
    assert "x float32 (4, 5, 8)" in found.value.what


# --- files --------------------------------------------------------------------------------------


def test_a_file_of_keras_is_the_model(tmp_path: Path) -> None:
    found = trainer(normed)
    found.step(*batch(0), 1.0)
    data = keras_file.keras_bytes(found.architecture(), found.weights(), "here")
    path = tmp_path / "model.keras"
    path.write_bytes(data)
    opened = keras.saving.load_model(path)
    for ours, theirs in zip(_in_order(found), opened.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    assert opened.evaluate(*batch(0), verbose=0) == pytest.approx(
        found._model.evaluate(*batch(0), verbose=0)
    )


def test_a_file_has_the_schedule_that_the_model_was_compiled_with(tmp_path: Path) -> None:
    found = trainer(scheduled)
    found.begin_round(generator(0, "round"))
    found.step(*batch(0), 1.0)
    path = tmp_path / "model.keras"
    path.write_bytes(keras_file.keras_bytes(found.architecture(), found.weights(), "here"))
    opened = keras.saving.load_model(path)
    schedule = opened.optimizer.get_config()["learning_rate"]["class_name"]
    assert schedule == "ExponentialDecay"
    found.step(*batch(1), 1.0)  # and ours goes on


def test_what_keras_alone_cannot_build_is_told() -> None:
    class Mine(layers.Layer):
        def call(self, x: object) -> object:
            return x

    for layer, why in ((lambda: layers.Lambda(lambda x: 2 * x), "ambda"), (Mine, "Mine")):
        found = trainer(lambda layer=layer: compiled(layer()))
        found.step(*batch(0), 1.0)  # it can be trained all the same
        assert why in keras_file.unfit(found.architecture())
        (told,) = found.doubts(batch(0), thorough=False)
        assert "hermes export --format keras cannot write this model" in told
        assert why in told
        assert re.search(r"keras_cases\.py:\d+: ", told)
        with pytest.raises(HermesError, match="Keras alone cannot build this model"):
            keras_file.keras_bytes(found.architecture(), found.weights(), "here")
