"""When did the cells of a comparison reach an accuracy on validation, or its target on test?

    ./scripts/benchmark reached compare/mnist-tuned 0.98 0.985 0.987

A cell that ends at its target is scored on the test set only around it; on validation it is scored
at each point of the grid, so that other accuracies can be looked up there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

import msgspec

from hermes.compare.outcome import Outcome
from hermes.compare.score import TEST, VALIDATION, reached


def outcomes(folder: Path) -> dict[str, list[Outcome]]:
    """What is there, by strategy, in the order of the seeds."""
    found = defaultdict(list)
    for path in sorted((folder / "cells").glob("*.json")):
        one = msgspec.json.decode(path.read_bytes(), type=Outcome)
        found[one.strategy].append(one)
    return {name: sorted(cells, key=lambda one: one.seed) for name, cells in found.items()}


def said(value: float, unit: float = 1.0) -> str:
    """A number, or that it never came to that."""
    return "-" if math.isinf(value) else f"{value / unit:.0f}"


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("folder", type=Path, help="compare/NAME, as `hermes compare` made it")
    asked.add_argument("accuracies", type=float, nargs="+", help="on validation")
    given = asked.parse_args()
    target = json.loads((given.folder / "compare.json").read_text())["target"]["test_accuracy"]
    columns = [(target, TEST), *((accuracy, VALIDATION) for accuracy in given.accuracies)]
    heads = [f"{on.partition('_')[0]} {accuracy:g}: s" for accuracy, on in columns]
    heads += ["MB there (test)", "test at the end", "ended after, s"]
    print("| strategy | " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * len(heads))
    for name, cells in outcomes(given.folder).items():
        parts = [
            " ".join(said(reached(one, accuracy, on).seconds) for one in cells)
            for accuracy, on in columns
        ]
        parts.append(" ".join(said(reached(one, target).bytes, 1e6) for one in cells))
        parts.append(" ".join(f"{one.test_accuracy or 0:.4f}" for one in cells))
        parts.append(" ".join(f"{one.seconds:.0f}" for one in cells))
        print(f"| {name} | " + " | ".join(parts) + " |")


if __name__ == "__main__":
    main()
