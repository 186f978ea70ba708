"""Does the page of a comparison open offline, whole, and without a complaint?"""

from __future__ import annotations

from pathlib import Path

import pytest
from watched import Watched

from hermes.compare.outcome import Outcome, Point, Spent
from hermes.compare.page import Told, page
from hermes.compare.score import rows
from hermes.compare.verdict import findings, section

pytestmark = pytest.mark.browser

NAMES = ("hermes", "bsp", "hermes-paper-fresh15", "no-re-sizing-at-all")


def cell(name: str, seed: int) -> Outcome:
    """Comes to 0.9 sooner or later; 40 points."""
    late = 1 + NAMES.index(name)
    points = tuple(
        Point(t, t, t * 9, t * 9, t, t * 10**6 * late, min(0.99, t / (20 * late + seed)), 1, 0.5, t)
        for t in range(1, 81)
    )
    return Outcome(
        strategy=name,
        seed=seed,
        points=points,
        devices="edge12",
        digest="",
        code="",
        settings={},
        status="finished",
        reason="seconds",
        grid=1.0,
        seconds=90.0,
        version=9,
        samples=1,
        trained=1,
        pushes=1,
        test_accuracy=0.9,
        spent=Spent(5, 1, late),
        model_digest=None,
        ledger_digest="",
        real_seconds=1.0,
    )


def test_it_shows_every_seed_and_no_table_is_cut(watched: Watched, tmp_path: Path) -> None:
    """Three drawings and the bars; the legend hides a strategy, with all its seeds."""
    seeds = (1, 2, 3)
    known = rows([cell(n, s) for n in NAMES for s in seeds], NAMES, ["edge12"], "bsp", 0.9, seeds)
    found = findings(known, ("hermes",), seeds)
    told = Told("demo", "job.py", 0.9, "bsp", "90 s", 1.0, seeds, known, [], 12, "2026-01-01")
    told = told._replace(first=section(found, ("hermes",), 0.9), tuned="of all: the best of 8")
    file = tmp_path / "compare.html"
    file.write_text(page(told), "utf-8")
    shown = watched.page
    shown.goto(file.as_uri())
    assert shown.locator("figure").count() == 4
    assert shown.get_by_text("Which of the published figures are met?").is_visible()
    assert shown.get_by_text("of all: the best of 8").is_visible()
    cut = "all => all.filter(box => box.scrollWidth > box.clientWidth + 1).length"
    assert shown.locator("section > .box").evaluate_all(cut) == 0
    curves = shown.locator('svg.wide[data-chart="accuracy-edge12"] path.curve')
    assert curves.count() == len(NAMES) * len(seeds)
    shown.locator('figure:has(svg[data-chart="accuracy-edge12"]) button[data-plain="bsp"]').click()
    seen = "all => all.filter(one => one.getBoundingClientRect().width > 0).length"
    assert curves.evaluate_all(seen) == (len(NAMES) - 1) * len(seeds)
