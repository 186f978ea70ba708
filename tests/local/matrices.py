"""How does a test compare? Small files, the command as typed, and cells by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import DIGITS

from hermes.cli.entry import run
from hermes.compare.outcome import Outcome, Point, Spent

Compare = Callable[..., tuple[int, dict[str, Any], str]]

WORLD: dict[str, Any] = {
    "samples_per_second": 2000,
    "evaluate_seconds": 0.5,
    "links": {"default": {"latency_ms": 5, "up_mbit": 10, "down_mbit": 10}},
    "devices": [{"name": "quick"}, {"name": "slow", "speed": 0.5}],
}
MATRIX: dict[str, Any] = {
    "job": DIGITS,
    "target": {"accuracy": 0.6},
    "devices": ["pair.json"],
    "seeds": [1],
    "limit": {"seconds": 3},
    "baseline": "fedavg",
    "strategies": {
        "fedavg": {"strategy": "fedavg"},
        "alone": {"strategy": "fedavg", "set": {"round.steps": 8}, "only": "fastest"},
    },
}


def written(folder: Path, **changes: Any) -> Path:
    """A file that compares two, but for these changes."""
    (folder / "pair.json").write_text(json.dumps(WORLD))
    file = folder / "tiny.json"
    file.write_text(json.dumps({**MATRIX, **changes}))
    return file


GIVEN = """
import hermes
from hermes import nn


def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def job(args):
    known = {"lr": 0.1, "batch": 32, **{k: float(v) for k, v in (a.split("=") for a in args)}}
    return hermes.Job(
        model=model,
        data=hermes.data.digits,
        batch=int(known["batch"]),
        optimizer=lambda params: nn.SGD(params, lr=known["lr"]),
        loss=nn.CrossEntropy(),
    )
"""
"""A job that takes `lr=0.1 batch=32`."""


FRAIL = """
import os, pathlib, sys
for name in ("raise", "kill") if "hermes.compare" in sys.orig_argv else ():
    try:
        pathlib.Path({folder!r}, name).rename(pathlib.Path({folder!r}, name + "d"))
    except FileNotFoundError:
        continue
    if name == "kill":
        os.kill(os.getpid(), 9)
    raise RuntimeError("no luck <today>")
"""
"""What a job does whose cells fail: once where `raise` lies in the folder, once for `kill`."""


def typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Types the command in this process; exit code, result, stderr."""

    def compare(file: Path, *args: str, folder: str = "out") -> tuple[int, dict[str, Any], str]:
        code = run(["compare", str(file), "--out", str(place / folder), "--json", *args])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else {}, printed.err

    place = folder
    return compare


def outcome(points: list[tuple[float, float | None]], /, **known: Any) -> Outcome:
    """A cell with these (seconds, test accuracy); 100 bytes, 10 samples and 1 push a second."""
    made = [
        Point(at, i, int(at * 5), int(at * 10), int(at), int(at * 100), score, None, None)
        for i, (at, score) in enumerate(points)
    ]
    settled: dict[str, Any] = {
        "strategy": "a",
        "devices": "d",
        "seed": 1,
        "settings": {},
        "digest": "",
        "code": "",
        "status": "finished",
        "reason": "seconds",
        "grid": 1.0,
        "seconds": 10.0,
        "version": 9,
        "samples": 0,
        "trained": 0,
        "pushes": 0,
        "test_accuracy": None,
        "real_seconds": 1.0,
        "model_digest": None,
        "ledger_digest": "",
        "spent": Spent(1, 1, 2),
    }
    return Outcome(**{**settled, "points": tuple(made), **known})
