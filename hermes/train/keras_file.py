"""How does a model of Keras leave Hermes? As a `.keras` file, which plain Keras opens.

Its layers are kept by the run as text, as `keras.saving` has them: no code of the job is run to
write the file.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from hermes.errors import RunError
from hermes.train.keras_trainer import named
from hermes.values import Tensors


def architecture_of(model: Any) -> str:
    """The model's layers, what it was compiled with, and the names of its weights in their order;
    "" where Keras cannot say them.

    The order: a model that is built anew of its layers may name its weights otherwise.
    """
    try:
        with _one_framework():
            told = keras.saving.serialize_keras_object(model)
        text = json.dumps({"weights": [*named(model.weights)], "model": told}, indent=1)
        return _portable(text)
    except Exception:  # noqa: BLE001 - layers of the job's own may raise anything
        return ""


def unfit(architecture: str) -> str:
    """Why no `.keras` file of this can be opened by Keras alone; "" where it can."""
    try:
        _rebuilt(architecture)
    except RunError as error:
        return error.what
    return ""


def keras_bytes(architecture: str, weights: Tensors, where: str) -> bytes:
    """A `.keras` file of this model. Raises `RunError` where it cannot be built anew."""
    try:
        model = _rebuilt(architecture)
    except RunError as error:
        raise RunError(
            f"Keras alone cannot build this model: {error.what}",
            where=where,
            remedy="Take --format safetensors, build the model with your own function, and assign "
            "each of model.weights by its path.",
        ) from None
    for name, weight in zip(json.loads(architecture)["weights"], model.weights, strict=True):
        weight.assign(weights[name])
    with tempfile.TemporaryDirectory(prefix="hermes-") as folder:
        path = Path(folder) / "model.keras"
        with _one_framework():
            model.save(path)
        return _portable_file(path)


@contextlib.contextmanager
def _one_framework() -> Iterator[None]:
    """Within, there is no TensorFlow for Keras on torch: it would load it, where it is installed,
    only to ask whether some value is one of its own."""
    hidden = keras.backend.backend() == "torch" and "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["tensorflow"]


def _portable(text: str) -> str:
    """Optimizers by their public names: on torch Keras writes those of its own torch module, which
    is not there on another backend."""
    return re.sub(r"keras\.src\.backend\.torch\.optimizers\.\w+", "keras.optimizers", text)


def _portable_file(path: Path) -> bytes:
    """A `.keras` file, which is a zip, with its optimizer by its public name."""
    written = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(written, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == "config.json":
                data = _portable(data.decode()).encode()
            new.writestr(entry, data)
    return written.getvalue()


def _rebuilt(architecture: str) -> Any:
    """Built of Keras' own classes: a Lambda, whose code would be unpickled, is refused there.
    Raises `RunError` that says why it cannot be."""
    if not architecture:
        raise RunError("a layer of its own has no get_config()")
    told = json.loads(architecture)["model"]
    try:
        with _one_framework():
            return keras.saving.deserialize_keras_object(told, safe_mode=True)
    except Exception as error:  # noqa: BLE001 - as above
        why = str(error).rpartition("Exception encountered: ")[2]  # else all layers come first
        raise RunError(" ".join(why.split()).partition(". ")[0].rstrip(".")) from None
