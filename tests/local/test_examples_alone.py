"""Are the examples what they say: sizes, names, errors, and the three places to edit?"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from commands import ROOT, Shell, Shown

from hermes.jobfile import build, load_source

EXAMPLES = ROOT / "examples"
TORCH = ("master", "mnist", "cifar10", "resnet18")


def path_of(name: str) -> str:
    return str(EXAMPLES / f"{name}.py")


def module(name: str) -> ModuleType:
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", path_of(name))
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- models -------------------------------------------------------------------------------------


def test_models_have_the_sizes_that_they_tell() -> None:
    for name in ("mnist", "cifar10"):
        example = module(name)
        (told,) = re.findall(r"\(([\d ]+) parameters\)", example.__doc__ or "")
        network = example.job(["file.npz"]).model()
        assert count(network) == int(told.replace(" ", ""))
    resnet = module("resnet18").ResNet18
    assert count(resnet("imagenet", 1000)) == 11_689_512
    assert count(resnet("cifar", 10)) == 11_173_962


def torchvision_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of `torchvision.models.resnet18().state_dict()`, written down as a rule;
    `FROZEN` has the few that a rule could get wrong."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 3, 7, 7)
    norm("bn1", 64)
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, before, 3, 3)
            norm(f"{name}.bn1", width)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{name}.bn2", width)
            if before != width:
                shapes[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                norm(f"{name}.downsample.1", width)
            before = width
    shapes["fc.weight"], shapes["fc.bias"] = (1000, 512), (1000,)
    return shapes


FROZEN = {
    "conv1.weight": (64, 3, 7, 7),
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.1.num_batches_tracked": (),
    "layer4.1.bn2.running_var": (512,),
    "fc.weight": (1000, 512),
}


def test_resnet18_has_the_names_and_shapes_of_torchvision() -> None:
    made = module("resnet18").ResNet18("imagenet", 1000).state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in made.items()}
    assert found == torchvision_names()
    assert list(found) == list(torchvision_names()), "in the same order"
    assert found.items() >= FROZEN.items()
    assert len(found) == 122


def test_resnet18_halves_the_image_where_it_should() -> None:
    import torch

    resnet = module("resnet18").ResNet18
    for stem, side, left in (("cifar", 32, 4), ("imagenet", 224, 7)):
        model = resnet(stem, 10).eval()
        seen: list[tuple[int, ...]] = []
        model.layer4.register_forward_hook(lambda *parts, s=seen: s.append(tuple(parts[2].shape)))
        with torch.no_grad():
            outputs = model(torch.zeros(1, side, side, 3, dtype=torch.uint8))
        assert outputs.shape == (1, 10)
        assert seen == [(1, 512, left, left)]


def test_resnet18_begins_as_the_identity_where_asked() -> None:
    model = module("resnet18").ResNet18(zero_init=True)
    assert all(not block.bn2.weight.any() for block in model.layer1)
    assert all(block.bn2.weight.all() for block in module("resnet18").ResNet18().layer1)


# --- files --------------------------------------------------------------------------------------


def npz(path: Path, *shape: int, **more: Any) -> Path:
    x, y = np.zeros((20, *shape), np.uint8), np.arange(20, dtype=np.uint8) % 10
    np.savez(path, **{"x_train": x, "y_train": y, "x_test": x[:5], "y_test": y[:5], **more})
    return path


WRONG: dict[str, tuple[list[str], str, str]] = {
    "no file is named": ([], "needs", "to try without a file: -- --smoke"),
    "the file is not there": (["nosuch.npz"], "nosuch.npz: the data cannot be read", "Check the"),
    "the file is no .npz": (["text.npz"], "text.npz: not a readable .npz file", "numpy.savez"),
    "the arrays have other names": (
        ["names.npz"],
        "names.npz: it holds images, labels",
        "Name its arrays x and y, or x_train, y_train, x_test and y_test.",
    ),
    "the arrays have other shapes": (["shapes.npz"], "shapes.npz", "It needs x_train (n, "),
}


@pytest.mark.parametrize("name", ["mnist", "cifar10", "resnet18"])
@pytest.mark.parametrize("title", WRONG)
def test_a_wrong_file_is_told(name: str, title: str, tmp_path: Path, shown: Shown) -> None:
    from hermes.data.prepare import prepare
    from hermes.errors import JobError

    npz(tmp_path / "shapes.npz", 8, 8)
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "names.npz", images=np.zeros(3), labels=np.zeros(3))
    args, what, remedy = WRONG[title]
    args = [str(tmp_path / part) for part in args]
    stem = ["cifar"] if name == "resnet18" and args else []
    source = load_source(path_of(name))

    def begin() -> None:
        job = build(source.text, source.name, [*stem, *args])
        prepare(job.data, job.split, 0, lambda train: train, tmp_path)

    with pytest.raises(JobError) as caught:
        begin()
    message = str(caught.value)
    assert what in message
    assert remedy in message
    assert f"{name}.py" in message, "the user's line"
    if name == "mnist":
        message = message.replace(str(tmp_path), "/data").replace(str(ROOT), ".")
        shown(title, "hermes run examples/mnist.py -- FILE", 2, message)


def test_labels_of_keras_are_taken_as_they_are(tmp_path: Path) -> None:
    """`keras.datasets.cifar10` has them as (n, 1)."""
    labels = {"y_train": np.zeros((20, 1), np.uint8), "y_test": np.zeros((5, 1), np.uint8)}
    path = npz(tmp_path / "keras.npz", 32, 32, 3, **labels)
    (_, y), (_, y_test) = module("cifar10").images(path)
    assert (y.shape, y_test.shape) == ((20,), (5,))


# --- as a user runs them ------------------------------------------------------------------------


def test_the_three_places_to_edit_are_marked() -> None:
    text = (EXAMPLES / "master.py").read_text()
    assert [int(mark) for mark in re.findall(r"^ *# (\d)\. ", text, flags=re.M)] == [1, 2, 3]
    code = [line for line in text.partition('"""\n\n')[2].splitlines() if line.strip()]
    assert len([line for line in code if not line.strip().startswith("#")]) <= 32


@pytest.mark.parametrize(("name", "title"), [("master", "hermes master"), ("worker", "worker")])
def test_a_program_has_the_flags_of_its_command(name: str, title: str) -> None:
    done = subprocess.run(
        [sys.executable, path_of(name), "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert title in done.stdout
    assert "--broker" in done.stdout


@pytest.mark.parametrize("name", TORCH)
def test_each_example_passes_its_check(name: str, shell: Shell) -> None:
    done = shell("check", path_of(name), "--workers", "2", "--json", "--", "--smoke", timeout=115)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["model"]["framework"].startswith("torch")
    assert found["model"]["trainable"] == found["model"]["parameters"]
    assert (found["model"]["buffers"] > 0) == (name == "resnet18")
    learning = found["learning"]
    assert learning["last_loss"] < learning["first_loss"] < 2 * learning["chance"]


@pytest.mark.parametrize("name", ["regression", "two_losses"])
def test_guessing_is_told_of_classes_and_of_their_own_loss_alone(name: str, shell: Shell) -> None:
    done = shell("check", path_of(name), "--workers", "2", "--json", timeout=115)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["model"]["trainable"] == found["model"]["parameters"]
    assert (found["data"]["classes"] is None) == (name == "regression")
    learning = found["learning"]
    assert learning["chance"] is None
    assert learning["last_loss"] < learning["first_loss"]


def test_augmentation_moves_each_image_by_itself() -> None:
    import torch

    shifted = module("augment").shifted
    x = torch.zeros(200, 1, 8, 8)
    x[:, 0, 3, 4] = 1
    torch.manual_seed(1)
    moved = shifted(x)
    assert moved.shape == x.shape
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(200))
    places = {tuple(place) for place in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in (2, 3, 4) for column in (3, 4, 5)}


def test_lines_of_the_library_become_numbers() -> None:
    text = module("text")
    x, y = text.lines()
    assert (x.dtype, x.shape[1]) == (np.int16, text.WORDS)
    assert x.shape[0] == y.shape[0] > 8000
    assert 0 <= x.min() <= x.max() < text.BUCKETS
    assert np.bincount(y).min() > 500
    assert text.numbers("return self.read(7)") == text.numbers("return  self . read ( 7 )")
