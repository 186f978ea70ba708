"""How is a worker's action done? Blocks, versions, rounds and updates, with real tensors.

The same code under the runtime and the simulator: no clock, no thread. A hook after each step lets
the runtime pace a device, beat, and break off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from hermes.chance import generator, permutation
from hermes.codec import decode_tensors
from hermes.coded import decode_update, encode_update
from hermes.data.order import Part, batches, epoch_order
from hermes.data.own import OwnData
from hermes.errors import Defect
from hermes.job import Job
from hermes.machine.events import LoadVersion, RoundFinished, Segment, Train
from hermes.machine.rounds import HELD_OUT
from hermes.messages import BlocksGranted
from hermes.perform.afloat import Afloat
from hermes.perform.blocks import Blocks
from hermes.perform.grants import gather
from hermes.perform.store import Store
from hermes.perform.sums import Sums, sums_of
from hermes.policy import codecs, gate, paired
from hermes.policy.paired import Paired
from hermes.policy.presets import Settings
from hermes.policy.sync import CONTINUE
from hermes.policy.verdict import GateSettings
from hermes.train.protocol import Batch, Trainer
from hermes.transport import names
from hermes.values import Base, Payload, Tensors

Hook = Callable[[], None]


def no_hook() -> None:
    """Nothing happens between two steps."""


class Trained(NamedTuple):
    """What a round came to."""

    steps: int
    samples: int
    loss: float
    """Mean of the steps' losses."""
    probe: float | None
    """Loss on the probe, where the gate wants one."""
    drift: float = 0.0
    """L2 norm of what was learned and not sent, where the gate wants it."""
    paired: Paired | None = None
    """That beside its version, on the probe, where the gate puts a push to the test."""
    tested: int = 0
    """Samples that were scored for it, both models' together."""
    gradient: float = 0.0
    """L2 norm of the gradient of the last step, where the gate wants it."""

    def finished(self, round_: int, busy: int, trainer: str = "") -> RoundFinished:
        """As the machine is told; `busy`: nanoseconds, `trainer`: framework and device."""
        steps, samples, loss, probe, drift, paired, _, gradient = self
        told = (round_, steps, samples, busy, loss, probe, trainer, drift, paired, gradient)
        return RoundFinished(*told)


def asks_for_test(settings: GateSettings, action: Train, done: Trained) -> bool:
    """Whether this round ends with a push that is to be tested: as the machine will see it."""
    if action.gate is None:
        return False
    loss = done.loss if done.probe is None else done.probe
    learned = gate.Learned(done.drift, action.unsent + done.samples)
    return gate.wants_test(settings, action.gate, loss, learned)


class WorkerBench:
    """One worker's model and data. Belongs to the thread that trains."""

    def __init__(
        self,
        name: str,
        seed: int,
        job: Job,
        trainer: Trainer,
        blocks: Blocks,
        own: OwnData | None = None,
    ) -> None:
        """`own`: the data that it brings, which take the place of all blocks."""
        self.trainer, self._own = trainer, own
        self.after_step: Hook = no_hook
        self._name, self._seed, self._job, self._blocks = name, seed, job, blocks
        self._grants: dict[int, BlocksGranted] = {}
        self._samples: dict[int, Batch] = {}
        self._gate = GateSettings()
        self._resets = False
        """Whether the optimizer begins anew at each version."""
        self._probes: int | None = None
        """Samples of the probe, once they are counted."""
        self._afloat: Afloat | None = None
        """What is not sent, and what is pushed and undecided, where account is kept of it."""
        self._codec = codecs.FP32
        self._base: Tensors = {}
        """The version that it stands on, where an update is told as the way from there."""
        self._rebases = False
        """Whether it goes on from what it pushed before that is decided."""

    def accept(self, grant: BlocksGranted) -> None:
        """This grant may be trained from now on: its blocks are on this disk."""
        self._grants[grant.number] = grant

    def drop(self, number: int) -> None:
        """Nothing of this grant is needed any more."""
        self._grants.pop(number, None)
        self._samples.pop(number, None)

    def obey(self, settings: Settings) -> None:
        """Work as these settings say, from the next version on."""
        self._gate, self._codec = settings.gate, settings.codec.up
        self._resets = settings.optimizer.on_rebase == "reset"
        self._rebases = CONTINUE[settings.continue_.rule].rebases
        if self._rebases or gate.looks_at_drift(settings.gate):
            self._afloat = Afloat(self.trainer.buffers())

    def load(self, action: LoadVersion, data: bytes | bytearray) -> Base:
        """Make this version, of which `data` are the bytes, the local model."""
        model: Tensors = decode_tensors(data)
        if self._codec != codecs.FP32:
            self._base = model
        if self._afloat is not None:
            local = self.trainer.weights()
            model = self._afloat.rebased(model, local, action.pending, keeps=action.keeps)
        self.trainer.load(model)
        if self._resets:
            self.trainer.reset_optimizer()
        return Base(action.version.version, action.version.payload.digest)

    def score(self, data: bytes | bytearray) -> Sums:
        """What a version, of which these are the bytes, is worth on the validation samples that
        this worker has brought. The local model is then as it was."""
        if self._own is None:
            raise Defect("is to score a version, and has no samples of its own", where=self._name)
        model: Tensors = decode_tensors(data)
        local = self.trainer.weights()
        self.trainer.load(model)
        try:
            scores = self.trainer.evaluate(self._own.all_of("validation"))
            return sums_of(scores, counted=self._job.metric == "accuracy")
        finally:
            self.trainer.load(local)

    def push(self, store: Store) -> Payload:
        """Send what was learned, as a model, in chunks, into the worker's own topic."""
        local: Tensors = self.trainer.weights()
        afloat = self._afloat if self._rebases else None  # else it may be sent once more, as it is
        if afloat is not None:
            local = afloat.outgoing(local)
        data = encode_update(local, self._base, self._codec, self.trainer.buffers())
        del local  # a model less while it travels
        payload = store.put(names.from_worker(self._name), data)
        if afloat is not None:
            if self._codec != codecs.FP32:  # what was rounded away stays unsent
                afloat.arrives(decode_update(data, self._codec, self._base))
            afloat.sent(payload.id)
        return payload

    def train(self, action: Train) -> Trained:
        """Train one round, then look at the probe. `after_step` may break off by raising."""
        factor = self._job.factor(action.progress)
        self.trainer.begin_round(generator(self._seed, "train", self._name, action.round))
        if action.gradient:
            self.trainer.watch_gradient()
        losses: list[float] = []
        samples = 0
        for x, y in self._batches(action):
            losses.append(self.trainer.step(x, y, factor))
            samples += len(x)
            self.after_step()
        mean = float(np.mean(np.array(losses, np.float64))) if losses else float("nan")
        drift = self._drift() if action.drift else 0.0
        # Before the probe is scored, by the same layers.
        gradient = self.trainer.gradient() if action.gradient else 0.0
        done = Trained(len(losses), samples, mean, self._probe(action), drift, gradient=gradient)
        if not asks_for_test(self._gate, action, done):
            return done
        paired, tested = self._test(action, action.unsent + samples)
        return done._replace(paired=paired, tested=tested)

    def _drift(self) -> float:
        if self._afloat is None:
            raise Defect("a gate asks what is unsent, and nobody kept account", where=self._name)
        return self._afloat.unsent(self.trainer.weights())

    # --- batches --------------------------------------------------------------------------------

    def _batches(self, action: Train) -> Iterator[Batch]:
        parts = (self._part(segment) for segment in action.segments)
        return batches(parts, action.batch, joined=action.joined)

    def _part(self, segment: Segment) -> Part:
        order = epoch_order(self._seed, self._name, segment.grant, segment.pass_, segment.size)
        x, y = self._of(segment.grant)
        return Part(x, y, order[segment.start : segment.stop])

    def _of(self, number: int) -> Batch:
        """The samples of a grant, in the order of its blocks: the first `size` of them."""
        if number not in self._samples:
            if number not in self._grants:
                raise Defect(f"grant {number} is not at hand", where=self._name)
            grant = self._grants[number]
            if self._own is not None:
                own = self._own.granted(grant.start, grant.size)
                self._samples[number] = gather(own, grant.size)
                return self._samples[number]
            pairs = (self._blocks.read("train", index) for index in self.indices(grant))
            self._samples[number] = gather(pairs, grant.size)
        return self._samples[number]

    def size_of(self, grant: BlocksGranted) -> int:
        """Bytes of the blocks of a grant, as they travel."""
        return self._blocks.size("train", self.indices(grant))

    def indices(self, grant: BlocksGranted) -> list[int]:
        """The blocks of the train split that a grant's places of the walk stand for."""
        count = self._blocks.count("train")
        return [place % count for r in grant.ranges for place in range(r.first, r.last)]

    # --- the probe ------------------------------------------------------------------------------

    def _probe(self, action: Train) -> float | None:
        if action.probe == "":
            return None
        if action.probe == "fixed":
            return self.trainer.evaluate(self._probe_set()).loss
        return self.trainer.evaluate(self._held_out(action)).loss

    def _probe_set(self) -> Iterator[Batch]:
        return (self._blocks if self._own is None else self._own).all_of("probe")

    def _test(self, action: Train, trained: int) -> tuple[Paired, int]:
        """What would travel beside the version that it goes out from, on a part of the probe that
        is drawn anew each round; and the samples scored. The local model is then as it was."""
        if self._afloat is None:
            raise Defect("a push is to be tested, and nobody kept account", where=self._name)
        if self._probes is None:
            self._probes = sum(len(x) for x, _ in self._probe_set())
        n, size = paired.blocks_of(self._probes, trained)
        if n < paired.FEWEST:  # whatever came of it, nothing could be said
            return paired.paired([], []), 0
        x, y = self._drawn(action.round, self._probes, n * size)
        trainer, local = self.trainer, self.trainer.weights()
        found: list[list[float]] = []
        try:
            for model in (self._afloat.base, self._afloat.standing(local)):
                trainer.load(model)
                found.append(trainer.losses(x, y, size))
        finally:
            trainer.load(local)
        return paired.paired(*found), 2 * len(x)

    def _drawn(self, round_: int, size: int, count: int) -> Batch:
        """`count` samples of the probe, which has `size`, for one test."""
        stream = generator(self._seed, "paired", self._name, round_)
        chosen = np.sort(permutation(stream, size)[:count])
        parts: list[Batch] = []
        first = 0
        for x, y in self._probe_set():
            rows = chosen[(chosen >= first) & (chosen < first + len(x))] - first
            parts.append((x[rows], y[rows]))
            first += len(x)
        x, y = (np.concatenate(some) for some in zip(*parts, strict=True))
        return x, y

    def _held_out(self, action: Train) -> Iterator[Batch]:
        """The last 15 % of the grant, which no pass has trained."""
        number, size = action.segments[0].grant, action.segments[0].size
        x, y = self._of(number)
        if size == len(x):
            raise Defect(f"a grant too small to hold out {HELD_OUT:.0%}", where=self._name)
        yield x[size:], y[size:]
