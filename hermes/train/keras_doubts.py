"""What of a compiled model will be regretted, though it can be trained? Told as warnings, with the
line of the job file where that is known."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from hermes.blame import place_of
from hermes.job import Job
from hermes.train.keras_values import numpy_of
from hermes.train.protocol import Batch

SOME = 32
"""Samples whose outputs are looked at."""

ONE = 1e-2
"""So far from 1 the sum of probabilities may be, in half precision."""

UNSAVED = (
    "hermes export --format keras cannot write this model: {why}. Workers build it from the job's "
    "text and train it all the same; --format safetensors writes its weights"
)

OWN_STEPS = ("train_step", "compute_loss")
"""Methods of a model that make a loss of their own."""


def doubts(job: Job, model: Any, batch: Batch) -> Iterator[str]:
    """Of a loss that takes the outputs for what they are not."""
    found = cross_entropy(model)
    if found is None or has_own_loss(model):
        return
    outputs = _outputs(model, batch[0][:SOME])
    if outputs is None:
        return
    where = place_of(job.model) or job.place
    likely = _are_probabilities(model, outputs, found)
    if found.from_logits and likely:
        yield (
            f"{where}: the loss is compiled with from_logits=True, and the model's last activation "
            "makes probabilities of the outputs already: leave that activation out, or "
            "from_logits=True"
        )
    elif not found.from_logits and (outputs.min() < -ONE or outputs.max() > 1 + ONE):
        yield (
            f"{where}: the loss takes the outputs for probabilities, and they go from "
            f"{outputs.min():.3g} to {outputs.max():.3g}: compile it with from_logits=True, or end "
            f"the model with activation={'sigmoid' if found.kind == 'binary' else 'softmax'!r}"
        )


class CrossEntropy(NamedTuple):
    """A cross entropy of Keras' own."""

    kind: str
    """"sparse", "categorical" or "binary"."""
    from_logits: bool


KINDS = {
    "sparsecategoricalcrossentropy": "sparse",
    "categoricalcrossentropy": "categorical",
    "categoricalfocalcrossentropy": "categorical",
    "binarycrossentropy": "binary",
    "binaryfocalcrossentropy": "binary",
}


def cross_entropy(model: Any) -> CrossEntropy | None:
    """What the model is compiled with; None where that is another loss, or several."""
    loss = model.loss
    if isinstance(loss, str):
        with contextlib.suppress(ValueError):
            loss = keras.losses.get(loss)
    own = inspect.isfunction(loss) or isinstance(loss, type)
    kind = loss if own else type(loss)
    if kind.__module__.partition(".")[0] != "keras":
        return None
    known = KINDS.get(kind.__name__.lower().replace("_", ""))
    config = {} if own else loss.get_config()
    return None if known is None else CrossEntropy(known, bool(config.get("from_logits")))


def has_own_loss(model: Any) -> bool:
    """Whether the model computes its loss in a way of its own."""
    return any(getattr(type(model), n) is not getattr(keras.Model, n) for n in OWN_STEPS)


def _outputs(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """None where they are not one tensor of numbers."""
    try:
        found = np.asarray(numpy_of(model(x, training=False)), np.float32)
    except Exception:  # noqa: BLE001 - a model of the job's own may want something else
        return None
    return found if found.size and np.isfinite(found).all() else None


def _are_probabilities(model: Any, outputs: np.ndarray[Any, Any], loss: CrossEntropy) -> bool:
    if loss.kind == "binary":  # outputs between 0 and 1 may be chance: its name tells
        last = getattr(model.layers[-1], "activation", None) if model.layers else None
        return last is keras.activations.sigmoid
    if outputs.shape[-1] < 2 or outputs.min() < 0:
        return False
    return bool(np.abs(outputs.sum(axis=-1) - 1).max() < ONE)


# --- what Keras alone cannot build --------------------------------------------------------------


def unsaved(job: Job, model: Any) -> Iterator[str]:
    """Whether parts of it are not Keras' own, so that plain Keras opens no file of it."""
    for part in _parts(model):
        if isinstance(part, keras.layers.Lambda):
            why = f"the Lambda {part.name!r} is code, which Keras does not open from a file"
            where = place_of(part.function)
        elif kind := _foreign(type(part)):
            why, where = f"Keras alone has no class {kind.__name__}", line_of(kind)
        else:
            continue
        yield f"{where or place_of(job.model) or job.place}: {UNSAVED.format(why=why)}"
        return  # the first tells it all


def _parts(model: Any) -> Iterator[Any]:
    """The model, its layers, and what it is compiled with."""
    flatten = getattr(model, "_flatten_layers", None)
    yield from [model] if flatten is None else flatten()
    yield from (model.optimizer, model.loss)
    metrics = getattr(model, "_compile_metrics", None)
    yield from keras.tree.flatten(getattr(metrics, "_user_metrics", None))


def _foreign(kind: type) -> type | None:
    """The class itself, if it is one that the job or some package of its own defines."""
    if not issubclass(kind, keras.Model | keras.layers.Layer | keras.losses.Loss) and not (
        issubclass(kind, keras.metrics.Metric | keras.optimizers.Optimizer)
    ):
        return None
    return None if kind.__module__.partition(".")[0] == "keras" else kind


def line_of(kind: type) -> str:
    """FILE:LINE where a class begins; "" where its source is not at hand."""
    try:
        return f"{inspect.getfile(kind)}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):
        return place_of(kind)
