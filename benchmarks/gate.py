"""How often does a gate push, or veto, where there is nothing to say? And are its pushes worth it?

Digits, 1 797 images, and a network of NumPy, as in `examples/digits.py`. Chance is named streams of
one seed: every number but the time is the same in each run of one revision on one machine.

Null (a), for what looks at losses: the weights are frozen, and each round draws a fresh sample of a
pool of losses, with replacement. The gates see the mean of 375 (the published 15 % of 2,500). The
veto sees the losses of two models of which neither is better: a model, and the same after a round
of training, whose mean difference over the pool is taken off.

Null (b), for what looks at steps: each step is a real gradient times a random sign, away from a
trained model to which every push and veto leads back. What is pushed because a worker was silent
for `gate.longest` rounds is counted apart; whoever learned nothing at all pushes never.

Precision: whole runs of twelve devices (`conf/devices/edge12.json`, virtual time) with each gate.
An audit set that is no part of the job's data, and that nothing else reads, tells of each round
whether what the worker has learned and not sent makes its version's loss lower. The probe is 188
samples, so that a test has 64 blocks and more where enough was trained. At last the same with one
device, of the quickest, whose labels are wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import common
from hermes import Job, data, nn
from hermes.chance import generator, permutation
from hermes.machine.events import LoadVersion, Train
from hermes.messages import RoundNoted
from hermes.perform.bench import Trained, WorkerBench
from hermes.policy import gate
from hermes.policy.norm import distance
from hermes.policy.paired import blocks_of, paired, worse
from hermes.policy.presets import resolve
from hermes.policy.verdict import GateSettings, Learned, Verdict
from hermes.report.words import count as grouped
from hermes.simulate.devices import load
from hermes.simulate.driver import Driver
from hermes.simulate.faults import FaultyLog
from hermes.simulate.modelled import ModelledBench, ModelledRun, drive
from hermes.train.numpy_trainer import NumpyTrainer
from hermes.train.protocol import Array, Batch
from hermes.values import Base, Tensors

ROUNDS = 10_000
SEED = 7
DEVICES = Path(__file__).parents[1] / "conf" / "devices" / "edge12.json"
FRESH = 375
"""Samples of a published probe: 15 % of a shard of 2,500."""
AUDIT = 540
"""Samples of the audit set."""
STEPS, BATCH = 4, 32
"""Of a round of null (b)."""
SECONDS = 15.0
"""Virtual, of each run."""
SEEDS = (11, 12, 13)

GATES = {
    "zscore, as published": {"gate.rule": "zscore", "gate.reset_on_push": False},
    "zscore, threshold reset": {"gate.rule": "zscore"},
    "innovation, 0.25, no veto": {"gate.rate": 0.25, "gate.veto": None},
    "innovation, 0.5, no veto": {"gate.rate": 0.5, "gate.veto": None},
    "innovation, 0.5, veto 3": {"gate.rate": 0.5},
    "hermes, as shipped: 1, veto 3": {},
}
"""Name -> settings over those of `hermes`."""

WRONG = "innovation, 0.5, veto 3"


def settings_of(name: str) -> GateSettings:
    """Those of a gate."""
    return resolve("hermes", [GATES[name]]).gate


def counted(verdicts: Counter[tuple[str, str]], push: str) -> int:
    """Verdicts of this kind, without those that a long silence forced."""
    return sum(n for (kind, code), n in verdicts.items() if kind == push and code != "overdue")


def share(part: int, whole: int) -> str:
    """In per cent."""
    return f"{100 * part / whole:.2f} %" if whole else "-"


# --- the model and its data -----------------------------------------------------------------------


def model() -> nn.Module:
    """That of examples/digits.py."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def job(samples: Callable[[], object] = data.digits) -> Job:
    """That of examples/digits.py, over these data."""
    return Job(
        model=model,
        data=samples,
        batch=BATCH,
        optimizer=lambda params: nn.SGD(params, lr=0.1),
        loss=nn.CrossEntropy(),
        split=(0.6, 0.15, 0.1, 0.15),
    )


def shuffled() -> Batch:
    """All of the digits, in an order of chance."""
    x, y = data.digits()
    order = permutation(generator(SEED, "gate", "split"), len(x))
    return x[order], y[order]


def passes(trainer: NumpyTrainer, samples: Batch, number: int, *keys: str | int) -> None:
    """So many passes over samples."""
    x, y = samples
    for pass_ in range(number):
        order = permutation(generator(SEED, "gate", *keys, pass_), len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            trainer.step(x[rows], y[rows], 1.0)


def trained(samples: Batch) -> NumpyTrainer:
    """A model that has learned something, and has not converged."""
    made = job()
    trainer = NumpyTrainer(made, made.model(), generator(SEED, "gate", "init"))
    passes(trainer, samples, 5, "trained")
    return trainer


# --- null (a): frozen weights, fresh samples ------------------------------------------------------


def on_fresh_samples(name: str, pool: npt.NDArray[np.float64], rounds: int) -> Counter[Any]:
    """Verdicts of a gate on mean losses that differ by their samples alone."""
    settings, stream = settings_of(name), generator(SEED, "gate", "fresh", name)
    state, found = gate.start(settings), Counter[tuple[str, str]]()
    for _ in range(rounds):
        loss = float(pool[stream.integers(len(pool), size=FRESH)].mean())
        # What is frozen has learned nothing: drift 0.
        verdict = gate.decide(settings, state, loss, Learned(0.0, 2500))
        state = verdict.state
        found[verdict.push, verdict.reason.code] += 1
    return found


def false_vetoes(pools: tuple[Array, Array], learned: int, errors: float, rounds: int) -> int:
    """Of tests of two models that are equally good, on fresh samples each."""
    before, after = pools
    n, size = blocks_of(len(before), learned)
    stream, found = generator(SEED, "gate", "veto", learned), 0
    for _ in range(rounds):
        rows = stream.integers(len(before), size=n * size)
        sides = (side[rows].reshape(n, size).mean(axis=1).tolist() for side in (before, after))
        found += worse(paired(*sides), errors)
    return found


def null_of_losses(rounds: int) -> str:
    """The table of null (a)."""
    x, y = shuffled()
    trainer = trained((x[:900], y[:900]))
    pool = x[900:], y[900:]
    before = np.array(trainer.losses(*pool, 1))
    passes(trainer, (x[:500], y[:500]), 5, "round")
    after = np.array(trainer.losses(*pool, 1))
    after -= float(np.mean(after - before))
    rows = []
    for name in GATES:
        found = on_fresh_samples(name, before, rounds)
        rows.append((name, "-", share(counted(found, "push"), rounds), found["push", "overdue"]))
    errors = settings_of(WRONG).veto
    assert errors is not None
    for learned in (2500, 250):
        n, size = blocks_of(len(before), learned)
        wrong = false_vetoes((before, after), learned, errors, rounds)
        said = f"the veto's test, {learned:g} samples trained: {n} blocks of {size}"
        rows.append((said, share(wrong, rounds), "-", "-"))
    return common.table(("null (a)", "false vetoes", "false pushes", "forced"), rows)


# --- null (b): gradients without a direction ------------------------------------------------------


def on_a_random_walk(name: str, rounds: int) -> Counter[tuple[str, str]]:
    """Verdicts of a gate on steps that lead nowhere."""
    x, y = shuffled()
    trainer, settings = trained((x[:900], y[:900])), settings_of(name)
    home: Tensors = trainer.weights()
    probe = x[900:990], y[900:990]
    stream = generator(SEED, "gate", "walk", name)
    state, found, unsent = gate.start(settings), Counter[tuple[str, str]](), 0
    for _ in range(rounds):
        for sign in stream.choice((-1.0, 1.0), size=STEPS):
            rows = stream.integers(900, size=BATCH)
            trainer.step(x[rows], y[rows], float(sign))
        unsent += STEPS * BATCH
        verdict = _verdict(settings, state, trainer, home, probe, unsent, stream)
        state = verdict.state
        found[verdict.push, verdict.reason.code] += 1
        if verdict.push != "quiet":
            trainer.load(home)
            unsent = 0
    return found


def _verdict(
    settings: GateSettings,
    state: gate.GateState,
    trainer: NumpyTrainer,
    home: Tensors,
    probe: Batch,
    unsent: int,
    stream: np.random.Generator,
) -> Verdict:
    """As a worker comes by it."""
    if gate.looks_at_loss(settings):
        return gate.decide(settings, state, trainer.evaluate([probe]).loss)
    local = trainer.weights()
    learned = Learned(distance(local, home), unsent)
    if not gate.wants_test(settings, state, 0.0, learned):
        return gate.decide(settings, state, 0.0, learned)
    n, size = blocks_of(len(probe[0]), unsent)
    rows = np.sort(stream.permutation(len(probe[0]))[: n * size])
    x, y = probe[0][rows], probe[1][rows]
    after = trainer.losses(x, y, size)
    trainer.load(home)
    before = trainer.losses(x, y, size)
    trainer.load(local)
    return gate.decide(settings, state, 0.0, learned._replace(paired=paired(before, after)))


def null_of_steps(rounds: int) -> str:
    """The table of null (b)."""
    rows = []
    for name in GATES:
        found, settings = on_a_random_walk(name, rounds), settings_of(name)
        pushed, vetoed = counted(found, "push"), counted(found, "veto")
        chosen = f"{100 * settings.rate:g} %" if settings.rule == "innovation" else "-"
        cells = (chosen, share(pushed + vetoed, rounds), share(vetoed, rounds))
        rows.append((name, *cells, share(pushed, rounds), found["push", "overdue"]))
    head = ("null (b)", "chosen rate", "fired", "of all vetoed", "false pushes", "forced")
    return common.table(head, rows)


# --- precision ------------------------------------------------------------------------------------


class Audited(ModelledBench):
    """A worker beside whom an auditor stands."""

    def __init__(self, run: AuditedRun, log: FaultyLog, name: str) -> None:
        super().__init__(run, log, name)
        self._audited, self._who = run, name
        self._version: Tensors = {}

    def made(self) -> WorkerBench:
        """As it is; or each label that it trains is taken for the next."""
        made = super().made()
        if self._who == self._audited.misled:
            step = made.trainer.step
            made.trainer.step = lambda x, y, factor: step(x, (y + 1) % 10, factor)
        return made

    def load(self, action: LoadVersion) -> Base | None:
        """As it is, and remembered."""
        base = super().load(action)
        self._version = self.bench.trainer.weights()
        return base

    def train(self, action: Train, due: int) -> Callable[[], Trained]:
        """As it is, but here and now, and what came of it."""
        trainer = self.bench.trainer
        start = trainer.weights()
        done = super().train(action, due)()
        local = trainer.weights()
        assert any((local[name] != start[name]).any() for name in start), "a round trained nothing"
        after = trainer.evaluate([self._audited.audit]).loss
        trainer.load(self._version)
        before = trainer.evaluate([self._audited.audit]).loss
        trainer.load(local)
        self._audited.changes[self._who, action.round] = after - before
        return lambda: done


class AuditedRun(ModelledRun):
    """A run whose rounds are audited."""

    audit: Batch
    misled: str
    """A device whose labels are wrong; "" for none."""
    changes: dict[tuple[str, int], float]
    """(worker, round) -> what would travel after it, beside its version: the loss on the audit."""

    def driver(self, processes: int = 1) -> Driver:
        """With an auditor."""
        self.changes = {}
        driver = super().driver(processes)
        driver.setup = driver.setup._replace(bench=lambda log, name: Audited(self, log, name))
        return driver


class Audit(NamedTuple):
    """What came of rounds, by what was decided: all, and those that were better on the audit."""

    better: Counter[str]
    all: Counter[str]
    misled: Counter[str]
    """Those of the device whose labels are wrong."""
    loss: float
    """On the audit set, of the last version."""
    versions: int


def audit(name: str, seed: int, seconds: float, misled: str = "") -> Audit:
    """One run."""
    x, y = shuffled()
    settings = resolve("hermes", [{**GATES[name], "stop.seconds": seconds}])
    with common.scratch() as folder:
        made = job(lambda: (x[AUDIT:], y[AUDIT:]))
        run = AuditedRun(made, settings, seed, folder, load(DEVICES))
        run.audit, run.misled = (x[:AUDIT], y[:AUDIT]), misled
        driver = run.driver()
        drive(driver, [], lambda: None)
        better, all_, wrong = Counter[str](), Counter[str](), Counter[str]()
        for record in driver.valid_records():
            for entry in record.entries:
                if isinstance(entry, RoundNoted):
                    code = entry.reason.code
                    kind = "forced" if code == "overdue" else entry.verdict
                    all_[kind] += 1
                    wrong[kind] += entry.worker == misled
                    better[kind] += run.changes[entry.worker, entry.round] < 0
        newest = driver.watch.state.newest
        assert newest is not None
        trainer = run.trainer()
        trainer.load(driver.master.hands.model_of(newest))
        loss = trainer.evaluate([run.audit]).loss
        return Audit(better, all_, wrong, loss, newest.version)


def line(name: str, seconds: float, seeds: tuple[int, ...]) -> list[object]:
    """A gate's row of the table of precision."""
    runs = [audit(name, seed, seconds) for seed in seeds]
    better = sum((one.better for one in runs), Counter[str]())
    all_ = sum((one.all for one in runs), Counter[str]())
    vetoed = all_["veto"]
    return [
        name,
        grouped(all_.total()),
        grouped(all_["push"]),
        f"**{share(better['push'], all_['push'])}**",
        share(better.total(), all_.total()),
        share(better["quiet"], all_["quiet"]),
        grouped(vetoed),
        share(vetoed - better["veto"], vetoed),
        grouped(all_["forced"]),
        f"{np.mean([one.versions for one in runs]):.0f}",
        " ".join(f"{one.loss:.3f}" for one in runs),
    ]


def precision(rows: list[list[object]]) -> str:
    """The table of all gates."""
    head = (
        "precision", "rounds", "pushes", "of them better", "of all rounds better",
        "of quiet ones", "vetoed", "of them worse", "forced", "versions", "loss at the end",
    )  # fmt: skip
    return common.table(head, rows)


MISLED = "device-01"


def misled(seconds: float, seeds: tuple[int, ...]) -> str:
    """The table of runs in which one of the quickest devices learns wrong labels."""
    rows = []
    for name in list(GATES)[-3:]:
        runs = [audit(name, seed, seconds, MISLED) for seed in seeds]
        wrong = sum((one.misled for one in runs), Counter[str]())
        others = sum((one.all for one in runs), Counter[str]()) - wrong
        cells = []
        for found in (wrong, others):
            fired = found["push"] + found["veto"]
            cells += [grouped(fired), share(found["veto"], fired), grouped(found["forced"])]
        rows.append((name, *cells, " ".join(f"{one.loss:.3f}" for one in runs)))
    head = (
        "one device of wrong labels", "its rounds that fired", "vetoed", "forced",
        "the others'", "vetoed", "forced", "loss at the end",
    )  # fmt: skip
    return common.table(head, rows)


def main() -> None:
    """Both nulls, and the precision."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the rounds, one seed")
    wishes = parser.parse_args()
    rounds = ROUNDS // 50 if wishes.quick else ROUNDS
    seeds, seconds = (SEEDS[:1], SECONDS / 5) if wishes.quick else (SEEDS, SECONDS)
    tables = [null_of_losses(rounds), null_of_steps(rounds)]
    tables.append(precision([line(name, seconds, seeds) for name in GATES]))
    tables.append(misled(seconds, seeds))
    text = "\n\n".join(tables)
    text += (
        f"\n\n{grouped(rounds)} rounds of each null; runs of {seconds:g} virtual seconds, "
        f"{len(seeds)} seeds, an audit set of {AUDIT} samples. Better, worse: on the audit set."
    )
    common.report("gate", text, update=wishes.update)


if __name__ == "__main__":
    main()
