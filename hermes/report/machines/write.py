"""What does `scripts/machines-doc` write? docs/machines.md, and the pictures."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from hermes.report.machines import page, topics_picture
from hermes.report.machines.moves import Moved, seen


def files(found: Counter[Moved]) -> dict[str, str]:
    """Each file, by its path below docs/."""
    return {
        "machines.md": page.document(found),
        "pictures/master.svg": page.draw_master(),
        "pictures/worker.svg": page.draw_worker(found),
        "pictures/topics.svg": topics_picture.draw(),
    }


def main(docs: Path) -> None:
    """Write them all."""
    for name, text in files(seen()).items():
        path = docs / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
