"""Is a model scored once, and only where it is the same in all that matters? Is a block deflated
once?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matrices import written
from msgspec.structs import replace

from hermes.chance import generator
from hermes.compare import kept
from hermes.compare.cell import Order, order_of, run_cell
from hermes.compare.kept import Folder
from hermes.compare.matrix import cells_of, load_matrix
from hermes.data.blocks import deflated
from hermes.jobfile import load_source
from hermes.messages import Block, JobSource, Manifest
from hermes.policy.presets import Layer
from hermes.simulate.scored import Scored
from hermes.train.protocol import Scores

JOB = JobSource("job.py", "text", ("data.npz",))
DATA = Manifest({split: (Block(0, 9, split), Block(9, 9, "b")) for split in ("validation", "test")})
OTHER = Manifest({split: (Block(0, 9, "changed"),) for split in ("validation", "test")})


def found(weight: float) -> Scores:
    return Scores(weight, None if weight else float("inf"), 7, 7 * weight, None)


def test_a_model_is_scored_once_by_all_who_share_a_folder(tmp_path: Path) -> None:
    asked: list[float] = []

    def ask(scored: Scored, weight: float, split: str = "test") -> Scores:
        def score() -> Scores:
            asked.append(weight)
            return found(weight)

        return scored.of({"w": np.array([weight], np.float32)}, split, score)

    first = Scored(JOB, None, DATA, Folder(tmp_path))
    assert ask(first, 1.0) == ask(first, 1.0) == found(1.0)
    assert ask(Scored(JOB, None, DATA, Folder(tmp_path)), 1.0) == found(1.0)
    assert asked == [1.0]
    assert ask(first, 0.0).accuracy == float("inf")
    again = Scored(JOB, None, DATA, Folder(tmp_path))
    assert ask(again, 0.0).accuracy == float("inf")
    assert asked == [1.0, 0.0]

    # Another split, job, device, data set; nobody to share with; a file that somebody has damaged.
    ask(first, 1.0, "validation")
    ask(Scored(JobSource("job.py", "text", ()), None, DATA, Folder(tmp_path)), 1.0)
    ask(Scored(JOB, "cuda", DATA, Folder(tmp_path)), 1.0)
    ask(Scored(JOB, None, OTHER, Folder(tmp_path)), 1.0)
    ask(Scored(JOB, None, DATA, None), 1.0)
    for path in tmp_path.iterdir():
        path.write_bytes(b"?")
    ask(Scored(JOB, None, DATA, Folder(tmp_path)), 1.0)
    assert len(asked) == 8
    ask(Scored(JOB, None, DATA, Folder(tmp_path / "none")), 1.0)
    assert len(asked) == 9, "a folder that is gone costs time, and nothing else"


def test_a_block_is_deflated_once_by_all_who_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def deflating(plain: bytes) -> bytes:
        asked.append(plain)
        return deflated(plain)

    monkeypatch.setattr(kept, "deflated", deflating)
    plain, noise = bytes(5000), generator(1, "noise").bytes(5000)
    for _ in range(2):
        assert Folder(tmp_path).deflated(plain) == deflated(plain)
        assert Folder(tmp_path / "none").deflated(plain) == deflated(plain)
        assert Folder(tmp_path).deflated(noise) == deflated(noise)
    assert [asked.count(one) for one in (plain, noise)] == [3, 2], "what got no smaller is not kept"
    (file,) = tmp_path.iterdir()
    for damaged in (b"", file.read_bytes()[:-1], file.read_bytes() + b"?"):
        file.write_bytes(damaged)
        assert Folder(tmp_path).deflated(plain) == deflated(plain)
    assert asked.count(plain) == 6
    monkeypatch.setattr(kept, "ROOM", 1 << 60)
    file.unlink()
    assert Folder(tmp_path).deflated(plain) == deflated(plain)
    assert not list(tmp_path.iterdir()), "where the disk is nearly full, nothing is kept"


def cell_of(folder: Path, limit: dict[str, Any]) -> Order:
    matrix = load_matrix(written(folder, limit=limit))
    cells, _ = cells_of(matrix, {(): Layer("job", {}, typed=False)})
    source = JobSource("job.py", load_source(matrix.job).text, ())
    return order_of(cells[0], source, matrix.job, None, folder)


def test_a_cell_that_ends_at_a_target_says_how_far_it_is_to_its_limit(tmp_path: Path) -> None:
    parts: list[float] = []
    run_cell(cell_of(tmp_path, {"samples": 500, "target": True}), parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1.0


def test_a_cell_comes_to_the_same_with_what_others_have_kept(tmp_path: Path) -> None:
    order = cell_of(tmp_path, {"samples": 500})
    shared = tmp_path / "shared"
    shared.mkdir()
    found = [run_cell(order, lambda _part: None, kept) for kept in (None, *[Folder(shared)] * 2)]
    assert found[0].points[-1].test_accuracy is not None
    one, *others = (replace(outcome, real_seconds=0.0) for outcome in found)
    assert others == [one, one]
    assert len({path.suffix for path in shared.iterdir()}) == 2, "scores, and blocks"
