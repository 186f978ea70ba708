"""How large is a long run's report, and how soon is it on the screen?

A run of twelve workers and a thousand versions that never happened (`synthetic.py`), its page by
`hermes report`, and Chromium, headless and offline, which opens it again and again: what is told is
the time from the start of navigation to the end of the `load` event, as the browser's own clock has
it, of a context without a cache each.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from benchmarks.synthetic import synthetic_run
from hermes.runtime.folder import RunFolder

WORKERS, VERSIONS, LOADS = 12, 1000, 5
CHROMIUM = "/usr/bin/chromium"


class Made(NamedTuple):
    """A page, and what making it took."""

    page: Path
    seconds: float


def make(folder: Path, workers: int, versions: int) -> Made:
    """The report of such a run."""
    synthetic_run(RunFolder(folder, "long"), workers=workers, versions=versions)
    page = folder / "report.html"
    command = [sys.executable, "-m", "hermes", "report", "long", "--out", folder, "--to", page]
    started = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Made(page, time.perf_counter() - started)


def load_times(page: Path, loads: int) -> list[float]:
    """Milliseconds until each load was over."""
    from playwright.sync_api import sync_playwright

    asked = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(loads + 1):
            tab = browser.new_context(offline=True).new_page()
            tab.goto(page.as_uri(), wait_until="load")
            tab.wait_for_function(f"{asked} > 0")
            found.append(float(tab.evaluate(asked)))
            tab.context.close()
        browser.close()
    return found[1:]  # the first one starts the browser's own processes


def main() -> None:
    """One page, and its loads."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--versions", type=int, default=VERSIONS)
    parser.add_argument("--loads", type=int, default=LOADS)
    wishes = parser.parse_args()
    with common.scratch() as folder:
        made = make(folder, wishes.workers, wishes.versions)
        size, times = made.page.stat().st_size, load_times(made.page, wishes.loads)
    head = (
        "workers",
        "versions",
        "report.html, KB",
        "hermes report, s",
        "loaded in, ms",
        "worst, ms",
    )
    median, worst = statistics.median(times), max(times)
    cells = (
        wishes.workers, wishes.versions, f"**{size / 1000:.0f}**", f"{made.seconds:.1f}",
        f"**{median:.0f}**", f"{worst:.0f}",
    )  # fmt: skip
    text = common.table(head, [cells])
    text += f"\n\nThe median and the worst of {wishes.loads} loads in Chromium."
    common.report("report", text, update=wishes.update)


if __name__ == "__main__":
    main()
