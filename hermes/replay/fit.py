"""Which devices and links behave as those of a run did? A model fitted on its spans. Pure.

A device: busy = round + steps * step, by least squares over its rounds, and the spread about it. A
link: what tensors and messages took. So few numbers tell of means; the tails of a busy machine are
not in them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hermes.errors import RunError
from hermes.replay.spans import RoundSpan, Spans
from hermes.simulate.devices import Device, Link, MasterMachine, World

FEWEST = 8
"""Rounds of each worker that a fit takes, and ..."""
SEVERAL = 1.5
"""... how many times the fewest steps of a round its most must be, to tell rounds from steps."""

WAYS = 4
"""Latencies in which an update is sent and acknowledged, a version asked for and sent."""

FREE = 1000.0
"""A fitted device scores so many samples in the time that it trains one: what its looks at the
probe took is in `round_ms`."""

MERGE = 2.0
"""Milliseconds of a merge, where most of what a version took are the losses measured for it."""

LEAST_GRID = 0.5


class FittedDevice(NamedTuple):
    """One device, and how well its rounds are told by two numbers."""

    name: str
    rounds: int
    step: float
    """Seconds."""
    round: float
    """Seconds."""
    jitter: float
    residual: float
    """Root mean square, as a share of a round."""


class Fit(NamedTuple):
    """What was fitted."""

    world: World
    devices: tuple[FittedDevice, ...]
    waits: int
    """Waits for a version, from which the link is known; 0: it is not."""
    moved: float
    """Seconds that tensors took, in the mean; and how far single ones lie from that (root mean
    square) ..."""
    moved_spread: float
    way: float
    """... likewise of messages."""
    way_spread: float


def fit(spans: Spans, mbit: float, where: str) -> Fit:
    """A model of this run. `mbit`: the rate of the links, which payloads of one size do not tell:
    what they took beyond it counts as latency. Raises `RunError` for too few rounds."""
    by_worker: dict[str, list[RoundSpan]] = {}
    for span in spans.rounds:
        by_worker.setdefault(span.worker, []).append(span)
    _refuse_few(by_worker, where)
    found = [_device(name, rounds, spans) for name, rounds in sorted(by_worker.items())]
    quickest = min(device.step for device in found)
    moved, moved_spread = _mean_of([one.moved for one in spans.waits])
    way, way_spread = _mean_of([one.way for one in spans.waits])
    latency = max(0.0, moved - 8 * spans.payload / (mbit * 1e6)) / WAYS
    latency = min(latency, way / 2) if spans.waits else 0.0
    link = Link(latency_ms=_ms(latency), up_mbit=mbit, down_mbit=mbit)
    begin = 2 * latency  # asked for and sent, before a first round
    world = World(
        devices=tuple(
            Device(
                name=one.name,
                speed=float(f"{quickest / one.step:.6g}"),
                link="fitted",
                jitter=float(f"{one.jitter:.4g}"),
                round_ms=_ms(one.round),
                start_seconds=round(max(0.0, spans.first[one.name] - begin - way), 6),
            )
            for one in found
        ),
        links={"fitted": link},
        step_seconds=float(f"{quickest:.9g}"),
        scoring=FREE,
        master=_master(spans, max(0.0, way - 2 * latency)),
        evaluate_seconds=_grid(spans),
    )
    return Fit(world, tuple(found), len(spans.waits), moved, moved_spread, way, way_spread)


def _refuse_few(by_worker: dict[str, list[RoundSpan]], where: str) -> None:
    few = {name: len(rounds) for name, rounds in by_worker.items() if len(rounds) < FEWEST}
    if not by_worker or few:
        worst = min(few, key=few.__getitem__, default="")
        rounds = f"{worst} has {few[worst]} rounds" if worst else "there are no rounds"
        raise RunError(
            f"{rounds}, and {FEWEST} of each worker are needed to tell what one takes",
            where=where,
            remedy="Fit a longer run: --set stop.samples=N, or shorter rounds: --set size.first=N",
        )


def _device(name: str, rounds: Sequence[RoundSpan], spans: Spans) -> FittedDevice:
    steps = np.array([span.steps for span in rounds], np.float64)
    busy = np.array([span.busy for span in rounds], np.float64)
    constant, step = _line(steps, busy)
    told = constant + step * steps
    off = busy / told
    pauses = [pause.lasted for pause in spans.pauses if pause.worker == name]
    return FittedDevice(
        name,
        len(rounds),
        step,
        constant + (statistics.fmean(pauses) if pauses else 0.0),
        float(np.std(np.log(off))),
        float(np.sqrt(np.mean((off - 1) ** 2))),
    )


def _line(
    steps: np.ndarray[tuple[int], np.dtype[np.float64]],
    busy: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> tuple[float, float]:
    """Seconds of a round and of a step: neither is below 0, and rounds of one length tell of steps
    alone."""
    alone = float(busy.sum() / steps.sum())
    if steps.max() < SEVERAL * steps.min():
        return 0.0, alone
    table = np.stack([np.ones_like(steps), steps], axis=1)
    (constant, step), *_ = np.linalg.lstsq(table, busy, rcond=None)
    if constant < 0 or step <= 0:
        return 0.0, alone
    return float(constant), float(step)


def _mean_of(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    return statistics.fmean(values), statistics.pstdev(values)


def _master(spans: Spans, commit: float) -> MasterMachine:
    made = [one.seconds for one in spans.versions if not one.scored]
    scored = [one.seconds for one in spans.versions if one.scored]
    merge = statistics.fmean(made) * 1000 if made else MERGE
    machine = MasterMachine(merge_ms=round(merge, 6), commit_ms=_ms(commit))
    if not scored or not spans.validation:
        return machine
    rest = max(1e-6, statistics.fmean(scored) - machine.merge_ms / 1000)
    rate = float(f"{2 * spans.validation / rest:.6g}")
    return MasterMachine(
        samples_per_second=rate, merge_ms=machine.merge_ms, commit_ms=machine.commit_ms
    )


def _grid(spans: Spans) -> float:
    """Between two evaluations, in the mean."""
    times = spans.evaluations
    if len(times) < 2:
        return 1.0
    return round(max(LEAST_GRID, (times[-1] - times[0]) / (len(times) - 1)), 6)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 6) if math.isfinite(seconds) else 0.0
