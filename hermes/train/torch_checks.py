"""Can this be trained with torch? What a model, an optimizer, outputs and a loss must be like, told
before torch's own words come, or in their place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from hermes.blame import place_of
from hermes.errors import HermesError, JobError
from hermes.job import Job
from hermes.train.protocol import Array, Batch

TRAVELS = frozenset(
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ]
)
"""Types of tensors that can be merged."""


def check_model(job: Job, model: object) -> None:
    """Raise `JobError` for a model whose tensors cannot be trained, sent and merged."""
    where = place_of(job.model) or job.place
    if not isinstance(model, nn.Module):
        raise JobError(
            f"model() returned a {type(model).__name__}",
            where=where,
            remedy="It returns a torch.nn.Module, such as nn.Sequential(...).",
        )
    _check_ready(model, where)
    for name, value in model.state_dict(keep_vars=True).items():
        _check_tensor(name, value, where)
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not learned:
        frozen = any(True for _ in model.parameters())
        raise JobError(
            "the model has nothing to learn",
            where=where,
            remedy="All its parameters have requires_grad=False: leave that for some."
            if frozen
            else "It has no parameters: give it a layer such as nn.Linear, as an attribute or in "
            "an nn.ModuleList (layers in a plain list are not found).",
        )
    known = {id(value) for value in model.state_dict(keep_vars=True).values()}
    for name, parameter in learned.items():
        if id(parameter) not in known:
            raise JobError(
                f"the parameter {name!r} is not in the model's state_dict()",
                where=where,
                remedy="What is learned must travel: let state_dict() hold it.",
            )


def _is_half(value: torch.Tensor) -> bool:
    """Whether these are weights that a step of an optimizer would round away."""
    return value.dtype == torch.float16 and value.requires_grad


def _check_ready(model: nn.Module, where: str) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise JobError(
                f"{name!r} is not initialised: its layer is lazy, and has seen no batch",
                where=where,
                remedy="Name its sizes, or pass a batch through the model before model() "
                "returns it.",
            )
        if tensor.device.type == "meta":
            raise JobError(
                f"{name!r} is on the meta device: it has no values",
                where=where,
                remedy="Build the model on the CPU; Hermes moves it to its device.",
            )


def _check_tensor(name: str, value: object, where: str) -> None:
    if not isinstance(value, torch.Tensor):
        raise JobError(
            f"state_dict() holds {name!r}, which is no tensor but a {type(value).__name__}",
            where=where,
            remedy="Only tensors travel and are merged: register it as a buffer, or leave it out "
            "of the state (get_extra_state).",
        )
    if value.dtype not in TRAVELS or value.layout != torch.strided or _is_half(value):
        kind = str(value.dtype if value.layout == torch.strided else value.layout)
        raise JobError(
            f"{name!r} is {kind.removeprefix('torch.')}, which cannot be merged",
            where=where,
            remedy="Build the model in float32: model.float(). To compute in bfloat16 or float16, "
            "give the job autocast=lambda: torch.autocast(...).",
        )


def check_loss(job: Job) -> None:
    """Raise `JobError` for a loss that cannot be called with outputs and labels of torch."""
    ours = type(job.loss).__module__ == "hermes.nn"
    if ours or not callable(job.loss):
        raise JobError(
            f"the loss is {'hermes.nn.' if ours else 'a '}{type(job.loss).__name__}, the model is "
            "one of torch",
            where=job.place,
            remedy="Take loss=torch.nn.CrossEntropyLoss(), or a function of (outputs, labels) that "
            "gives a scalar tensor.",
        )
    if isinstance(job.loss, nn.Module) and any(p.requires_grad for p in job.loss.parameters()):
        raise JobError(
            f"the loss, a {type(job.loss).__name__}, has parameters of its own",
            where=job.place,
            remedy="They would be neither trained nor sent: make it a part of the model, whose "
            "forward then gives what a plain loss takes.",
        )


def check_optimizer(job: Job, optimizer: Any, parameters: Iterable[nn.Parameter]) -> None:
    """Raise `JobError` for what is no optimizer of these parameters."""
    where = place_of(job.optimizer) or job.place
    groups = getattr(optimizer, "param_groups", None)
    if not (isinstance(groups, list) and callable(getattr(optimizer, "step", None))):
        raise JobError(
            f"optimizer(params) gave a {type(optimizer).__name__}",
            where=where,
            remedy="It gives an optimizer of torch: lambda params: torch.optim.SGD(params, "
            "lr=0.1).",
        )
    known = {id(parameter) for parameter in parameters}
    if not any(id(p) in known for group in groups for p in group["params"]):
        raise JobError(
            "the optimizer holds none of the model's parameters",
            where=where,
            remedy="Build it of the parameters that it is given: lambda params: "
            "torch.optim.SGD(params, lr=0.1). (The model of this run is not that of another call "
            "of model().)",
        )


def wants_closure(optimizer: Any) -> bool:
    """Whether its step() evaluates the loss itself, as that of LBFGS does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def check_scaling(job: Job, by_closure: bool) -> None:
    """Raise `JobError` for an optimizer that cannot have its gradients scaled (float16)."""
    if by_closure:
        raise JobError(
            "the optimizer evaluates the loss itself, and autocast is float16, which needs the "
            "gradients scaled in between",
            where=place_of(job.autocast) or job.place,
            remedy="Take torch.bfloat16, or another optimizer.",
        )


def check_scalar(job: Job, loss: object, part: str) -> None:
    """Raise `JobError` for a loss that is no single number. `part`: the field that it is from,
    "loss" or "step"."""
    where = place_of(getattr(job, part)) or job.place
    if not isinstance(loss, torch.Tensor):
        forgotten = part == "step" and loss is None
        raise JobError(
            f"{_said_of(part)} gave {'None' if loss is None else f'a {type(loss).__name__}'}, "
            "not a tensor",
            where=where,
            remedy="It gives the batch's mean loss, a scalar tensor: was `return` forgotten?"
            if forgotten
            else "It gives a scalar tensor: no float(), .item() or numpy in it.",
        )
    if loss.numel() != 1:
        what = "the loss is" if part == "loss" else f"{_said_of(part)} gave what is"
        raise JobError(
            f"{what} not a scalar: it has the shape {tuple(loss.shape)}",
            where=where,
            remedy="Give the mean over the batch: leave reduction='none' out, or end with .mean().",
        )


def check_untouched(job: Job, parameters: Iterable[nn.Parameter]) -> None:
    """Raise `JobError` where the job's step has computed the gradients itself."""
    if any(parameter.grad is not None for parameter in parameters):
        raise JobError(
            "step(model, x, y) has called backward()",
            where=place_of(job.step) or job.place,
            remedy="Return the loss: gradients, clip and the optimizer's step are seen to.",
        )


def _said_of(part: str) -> str:
    return "step(model, x, y)" if part == "step" else "the loss"


def check_path(job: Job, loss: torch.Tensor) -> None:
    """Raise `JobError` where no gradient can flow from the loss."""
    if not loss.requires_grad:
        raise no_path(job)


def no_path(job: Job) -> JobError:
    """The loss does not depend on what is learned."""
    parts = (job.loss, job.model) if job.step is None else (job.step,)
    return JobError(
        "no gradient flows from the loss to the model's parameters",
        where=next(filter(None, map(place_of, parts)), job.place),
        remedy="Look for detach(), .data, argmax, torch.no_grad() or numpy between the layers and "
        "the loss.",
    )


def check_context(job: Job, context: object) -> None:
    """Raise `JobError` for what `with` cannot be used with."""
    if not hasattr(context, "__enter__"):
        raise JobError(
            f"autocast() gave a {type(context).__name__}",
            where=place_of(job.autocast) or job.place,
            remedy='It gives a context: lambda: torch.autocast("cpu", torch.bfloat16).',
        )


def guesses(job: Job, outputs: object, labels: torch.Tensor) -> torch.Tensor:
    """The class that each output stands for, of the shape of the labels.

    The class axis is the second (torch's own rule), else the last. Raises `JobError` where the
    metric "accuracy" says nothing.
    """
    shape = tuple(labels.shape)
    if not isinstance(outputs, torch.Tensor):
        raise _no_accuracy(job, f"the model returns a {type(outputs).__name__}, not one tensor")
    if outputs.ndim >= 2:
        for axis in (1, outputs.ndim - 1):
            rest = (*outputs.shape[:axis], *outputs.shape[axis + 1 :])
            if rest == shape and outputs.shape[axis] > 1:
                return outputs.argmax(dim=axis)
    text = f"outputs have shape {tuple(outputs.shape)}, labels {shape}"
    raise _no_accuracy(job, f"{text}: there is no output for each class")


def _no_accuracy(job: Job, why: str) -> JobError:
    return JobError(
        f'the metric is "accuracy", and {why}',
        where=job.place,
        remedy="Give the job metric=None, or a function of (outputs, labels) that gives a batch's "
        "mean.",
    )


# --- in place of torch's own words --------------------------------------------------------------


def explained(job: Job, error: Exception, batch: Batch, outputs: Any) -> Exception:
    """What torch raised, in words that say what to do; the error itself where it says enough.

    `outputs`: what the model gave; None where it did not come to that.
    """
    x, y = batch
    if isinstance(error, HermesError):
        return error
    if isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
        return JobError(
            f"the device has too little memory for a step: {' '.join(str(error).split())[:200]}",
            remedy="Give the job a smaller batch, or this machine another --device.",
        )
    if outputs is None:
        return _of_samples(error, x) or error
    if not isinstance(outputs, torch.Tensor):
        return _of_parts(error, outputs) or error
    shape = tuple(outputs.shape)
    return _of_labels(job, y, shape) or _of_types(error, y) or _of_pairs(error, y, shape) or error


def _of_samples(error: Exception, x: Array) -> JobError | None:
    """A layer that does not take the samples' type."""
    if x.dtype.kind == "f" or not isinstance(error, RuntimeError):
        return None
    if not re.search(r"\btype\b|dtype|not implemented for", str(error)):
        return None
    return JobError(
        f"x is {x.dtype}, and the model computes with floats",
        remedy="Convert it in the model's forward: x.float() / 255 (blocks of uint8 are a quarter "
        "of the bytes to send), or return floats from data().",
    )


def _of_parts(error: Exception, outputs: Any) -> JobError | None:
    """A loss or a metric that was given several tensors."""
    if not isinstance(error, TypeError | AttributeError):
        return None
    return JobError(
        f"the model returns a {type(outputs).__name__}, and that raises "
        f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        remedy="Let forward return one tensor, or take the part that you mean: "
        "loss=lambda outputs, labels: criterion(outputs[0], labels).",
    )


def _of_types(error: Exception, y: Array) -> JobError | None:
    """A loss of whole labels that was given floats, or the other way round."""
    if not isinstance(error, RuntimeError) or "Long" not in str(error):
        return None
    wanted, dtype = ("whole numbers", "int64") if y.dtype.kind == "f" else ("floats", "float32")
    return JobError(
        f"y is {y.dtype}, and the loss wants {wanted}",
        remedy=f"Return y.astype(numpy.{dtype}) from data(), or take another loss.",
    )


def _of_pairs(error: Exception, y: Array, shape: Sequence[int]) -> JobError | None:
    """Outputs and labels of two shapes, of which a loss would form all pairs (see `check_fit`)."""
    if not (isinstance(error, UserWarning) and "target size" in str(error)):
        return None
    return JobError(
        f"the outputs have the shape {tuple(shape)}, the labels {y.shape}: the loss would compare "
        "each output with each label",
        remedy="Let both have one shape: end forward with .squeeze(-1), or return "
        "y.reshape(-1, 1) from data().",
    )


def _of_labels(job: Job, y: Array, shape: Sequence[int]) -> JobError | None:
    """Labels for which there is no output. (Torch names one label alone, and CUDA none.)"""
    if y.dtype.kind not in "iu" or len(shape) < 2 or y.shape != (shape[0], *shape[2:]):
        return None
    seen = y[y != getattr(job.loss, "ignore_index", -100)]
    if seen.size == 0 or (seen.min() >= 0 and seen.max() < shape[1]):
        return None
    return JobError(
        f"labels from {seen.min()} to {seen.max()}; the model's {shape[1]} outputs stand for the "
        f"labels 0 to {shape[1] - 1}",
        where=place_of(job.model) or job.place,
        remedy=f"Give its last layer {int(seen.max()) + 1} outputs, or number the labels from 0."
        if seen.min() >= 0
        else "Number the labels from 0.",
    )
