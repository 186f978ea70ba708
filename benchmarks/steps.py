"""What does an optimiser step take beside its samples? A bare loop of torch on the samples of an
example, one thread, for batches of several sizes in turns: the line through their medians is what
`step_seconds` and `samples_per_second` of a file of devices stand for (docs/simulate.md).
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks import common
from benchmarks.plain import job_of, of_job

ROOT = Path(__file__).parents[1]
BATCHES = (4, 8, 16, 32, 64)
STEPS = 30
"""Of each batch, in one turn."""


def seconds(job_file: Path, turns: int) -> dict[int, float]:
    """CPU seconds of a step, by batch: medians over so many turns. A first turn does not count."""
    import torch

    plain = of_job(job_of(job_file, ["--smoke"]))

    def turn(batch: int) -> float:
        began = time.process_time()
        for _ in range(STEPS):
            plain.step(torch.randint(plain.count, (batch,)))
        return (time.process_time() - began) / STEPS

    took = [{batch: turn(batch) for batch in BATCHES} for _ in range(1 + turns)][1:]
    return {batch: statistics.median(one[batch] for one in took) for batch in BATCHES}


def main() -> None:
    """A table, and the line."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--job", default="cifar10", help="an example of torch, by its name")
    parser.add_argument("--turns", type=int, default=9)
    wishes = parser.parse_args()
    found = seconds(ROOT / "examples" / f"{wishes.job}.py", wishes.turns)
    times = np.array(list(found.values()))
    each, step = np.polyfit(list(found), times, 1, w=1 / times)  # as near to each, by its share
    rows = [
        [batch, f"{1e3 * took:.2f}", f"{1e3 * took / batch:.3f}"] for batch, took in found.items()
    ]
    text = common.table(("batch", "ms a step", "ms a sample"), rows)
    text += (
        f"\n\nexamples/{wishes.job}.py: **{1e3 * step:.2f} ms a step and {1e3 * each:.3f} ms a "
        f"sample**; a step is worth {step / each:.1f} samples (medians of {wishes.turns} turns)"
    )
    common.report("steps", text, update=wishes.update)


if __name__ == "__main__":
    main()
