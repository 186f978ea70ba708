"""How is a model of torch trained? Exactly as a plain loop would: forward, loss, backward, step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hermes.blame import blame_batch, call_user
from hermes.job import Job
from hermes.train import torch_chance as chance
from hermes.train import torch_checks as checks
from hermes.train.gathering import gathered, of_whole_blocks
from hermes.train.protocol import Array, Batch, Scores, check_weights
from hermes.train.tally import Metric, Tally, measured
from hermes.train.torch_batches import array_of, labels_of, samples_of, tensor_of
from hermes.train.torch_devices import device_of
from hermes.values import Tensors


class TorchTrainer:
    """A `Trainer` of torch modules, on the job's device."""

    def __init__(self, job: Job, model: nn.Module) -> None:
        checks.check_model(job, model)
        checks.check_loss(job)
        self.framework = f"torch {torch.__version__.partition('+')[0]}"
        self._job = job
        self._device = device_of(job.device, job.device_from)
        self.device = str(self._device)
        self._model = call_user(f"moving the model to {self._device}", model.to, self._device)
        if not model.training:  # some factories give a model that is ready to be used, not trained
            model.train()
        self._loss = job.loss
        if isinstance(job.loss, nn.Module):
            self._loss = job.loss.to(self._device)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        named = dict(self._model.named_parameters(remove_duplicate=False))
        buffers = dict(self._model.named_buffers(remove_duplicate=False))
        self._learned = frozenset(name for name, p in named.items() if p.requires_grad)
        own = {**buffers, **named}
        self._by_name = all(
            name in own and own[name].data_ptr() == tensor.data_ptr()
            for name, tensor in self._model.state_dict().items()
        )
        self._part, self._outputs = "", None
        self._scaler: torch.amp.GradScaler | None = None
        self.reset_optimizer()

    # --- weights --------------------------------------------------------------------------------

    def weights(self) -> dict[str, npt.NDArray[np.generic]]:
        return {name: array_of(tensor) for name, tensor in self._state().items()}

    def load(self, weights: Tensors) -> None:
        state = self._state()
        check_weights(weights, {name: _like(tensor) for name, tensor in state.items()})
        with torch.no_grad():
            if self._by_name:
                for name, tensor in state.items():  # one copy at a time beside the model
                    tensor.copy_(tensor_of(weights[name]))
            else:  # something of the user's own, which has its own way in
                self._model.load_state_dict({name: tensor_of(weights[name]) for name in state})

    def buffers(self) -> frozenset[str]:
        return frozenset(self._state()) - self._learned

    def architecture(self) -> str:
        return ""

    def _state(self) -> dict[str, torch.Tensor]:
        """The model's own tensors, sorted; asked for anew, since a layer may have put others."""
        return dict(sorted(self._model.state_dict().items()))

    # --- training -------------------------------------------------------------------------------

    def begin_round(self, generator: np.random.Generator) -> None:
        chance.seed(chance.seed_of(generator), self._device)

    def use_threads(self, count: int) -> None:
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def reset_optimizer(self) -> None:
        make = self._job.optimizer
        assert make is not None
        self._optimizer = call_user("optimizer(params)", make, list(self._parameters))
        checks.check_optimizer(self._job, self._optimizer, self._parameters)
        self._rates = [group.get("lr") for group in self._optimizer.param_groups]
        self._by_closure = checks.wants_closure(self._optimizer)
        if self._scaler is None and self._is_half():  # what it has learned of the scale is kept
            checks.check_scaling(self._job, self._by_closure)
            self._scaler = torch.amp.GradScaler(self._device.type)

    def step(self, x: Array, y: Array, factor: float) -> float:
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            if rate is not None:
                group["lr"] = rate if factor == 1 else rate * factor
        with self._blamed((x, y)):
            samples, labels = samples_of(x, self._device), labels_of(y, self._device)
            if self._by_closure:
                return self._step_by_closure(samples, labels)
            loss = self._backward(samples, labels)
            self._part = "optimizer"
            if self._scaler is None:
                self._optimizer.step()
            else:
                self._scaler.step(self._optimizer)
                self._scaler.update()
            return float(loss)

    def watch_gradient(self) -> None:
        """It is there after each step, anyhow."""

    def gradient(self) -> float:
        found = [p.grad for p in self._parameters if p.grad is not None]
        norms = [torch.linalg.vector_norm(_in_full(grad)) for grad in found]
        norm = float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
        if self._scaler is not None and not math.isfinite(norm):
            return 0.0  # a scale that is too large: the scaler has skipped this step
        return norm

    def _step_by_closure(self, samples: torch.Tensor, labels: torch.Tensor) -> float:
        """The optimizer asks for the loss as often as it likes (LBFGS)."""
        losses: list[float] = []

        def closure() -> torch.Tensor:
            loss = self._backward(samples, labels)
            losses.append(float(loss))
            self._part = "optimizer"
            return loss

        self._optimizer.step(closure)
        return losses[0]

    def _backward(self, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss; gradients are then in the parameters, and clipped."""
        for parameter in self._parameters:  # all that `clip` is given, whatever the optimizer has
            parameter.grad = None
        loss = self._loss_to_learn(samples, labels)
        checks.check_path(self._job, loss)
        if self._scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if all(parameter.grad is None for parameter in self._parameters):
            raise checks.no_path(self._job)
        if self._job.clip is not None:
            self._part = "clip"
            if self._scaler is not None:
                self._scaler.unscale_(self._optimizer)
            self._job.clip(list(self._parameters))
        return loss.detach()

    def _loss_to_learn(self, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch: by the job's own step, if it has one."""
        step = self._job.step
        if step is None:
            return self._forward(samples, labels)
        with self._context():
            self._part = "step"
            loss = self._with_spread(partial(step, self._model, samples, labels), len(samples))
        checks.check_scalar(self._job, loss, "step")
        checks.check_untouched(self._job, self._parameters)
        return loss  # type: ignore[no-any-return]

    def _forward(self, samples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch; the outputs are kept until the batch is done."""
        with self._context():
            self._part = ""
            self._outputs = self._through(samples)
            self._part = "loss"
            loss = self._loss(self._outputs, labels)
        checks.check_scalar(self._job, loss, "loss")
        return loss  # type: ignore[no-any-return]

    def _through(self, samples: torch.Tensor) -> Any:
        """The model's outputs."""
        return self._with_spread(partial(self._model, samples), len(samples))

    def _with_spread(self, function: Callable[[], Any], samples: int) -> Any:
        """What it gives. A batch of one sample has no spread: there BatchNorm takes its running
        statistics instead of refusing it."""
        try:
            return function()
        except ValueError as error:
            if samples > 1 or "more than 1 value per channel" not in str(error):
                raise
        norms = [m for m in self._model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        with _modes_kept(norms):
            for norm in norms:
                norm.eval()
            return function()

    # --- evaluation -----------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        tally = Tally()
        with self._scoring():
            # A training batch fits into memory, and a few large ones are sooner scored.
            for x, y in gathered(batches, self._job.batch):
                tally.add(len(x), *self._score(x, y))
        return tally.scores()

    def losses(self, x: Array, y: Array, block: int) -> list[float]:
        found: list[float] = []
        with self._scoring():
            for batch, rows in of_whole_blocks((x, y), block, self._job.batch):
                found += self._losses(batch, rows)
        return found

    def _losses(self, batch: Batch, rows: list[slice]) -> list[float]:
        """One forward pass, and the loss of the outputs of each of these rows; where the outputs
        are no one tensor of a row a sample, a forward pass for each."""
        with self._blamed(batch):
            samples, labels = samples_of(batch[0], self._device), labels_of(batch[1], self._device)
            with self._context():
                self._part = ""
                outputs = self._outputs = self._through(samples)
                self._part = "loss"
                if isinstance(outputs, torch.Tensor) and outputs.shape[:1] == samples.shape[:1]:
                    losses = [self._loss(outputs[some], labels[some]) for some in rows]
                else:
                    losses = [self._forward(samples[some], labels[some]) for some in rows]
            return [float(loss) for loss in losses]

    @contextlib.contextmanager
    def _scoring(self) -> Iterator[None]:
        """The model evaluates, and everything is afterwards as before."""
        scoring = chance.seeded(chance.SCORING, self._device)
        with _modes_kept(self._model.modules()), scoring, torch.no_grad():
            self._model.eval()
            yield

    def _score(self, x: Array, y: Array) -> tuple[float, Metric | None]:
        """Loss and metric of one batch."""
        with self._blamed((x, y)):
            samples, labels = samples_of(x, self._device), labels_of(y, self._device)
            loss = self._forward(samples, labels)
            self._part = "metric"
            return float(loss), self._metric(self._outputs, labels)

    def _metric(self, outputs: Any, labels: torch.Tensor) -> Metric | None:
        if self._job.metric is None:
            return None
        if callable(self._job.metric):
            return measured(self._job.metric, outputs, labels)
        right = checks.guesses(self._job, outputs, labels) == labels
        return float(right.sum()) / right.numel()

    # --- helpers --------------------------------------------------------------------------------

    def _context(self) -> contextlib.AbstractContextManager[Any]:
        """What forward and loss are computed in."""
        if self._job.autocast is None:
            return contextlib.nullcontext()
        self._part = "autocast"
        context = self._job.autocast()
        checks.check_context(self._job, context)
        return context  # type: ignore[no-any-return]

    def _is_half(self) -> bool:
        """Whether gradients are of float16, where small ones vanish unless they are scaled."""
        if self._job.autocast is None:
            return False
        kind = self._device.type
        context = call_user("autocast()", self._context)
        with context:
            half = torch.get_autocast_dtype(kind) == torch.float16
            return half and torch.is_autocast_enabled(kind)

    @contextlib.contextmanager
    def _blamed(self, batch: Batch) -> Iterator[None]:
        """What comes of the job's own parts on this batch is a `JobError`."""
        self._part, self._outputs = "", None
        try:
            yield
        except Exception as error:  # the job's own layers, loss and optimizer may raise anything
            told = checks.explained(self._job, error, batch, self._outputs)
            told = told.with_traceback(error.__traceback__)
            raise blame_batch(self._job, told, batch, self._part) from error
        finally:
            self._outputs = None


@contextlib.contextmanager
def _modes_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Each of these trains, or does not, afterwards as before."""
    modes = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _in_full(grad: torch.Tensor) -> torch.Tensor:
    """A gradient whose norm neither overflows in half the bits nor stumbles over what is sparse."""
    grad = grad.detach()
    values = grad.coalesce().values() if grad.is_sparse else grad
    return values if values.is_complex() else values.float()


def _like(tensor: torch.Tensor) -> Array:
    """An array of this shape and type, of no memory."""
    nothing = torch.zeros((), dtype=tensor.dtype).numpy()
    return np.broadcast_to(nothing, tuple(tensor.shape))
