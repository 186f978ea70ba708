"""Can a person use a run's page? Chromium clicks through it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from watched import Watched

from benchmarks.synthetic import synthetic_run
from hermes.report.page.facts import Beside
from hermes.report.page.page import page
from hermes.report.story import MOST, Story
from hermes.runtime.folder import RunFolder
from hermes.runtime.observe import saved

pytestmark = pytest.mark.browser

WRITTEN = "2026-01-01T12:30:00.000Z"
TRAFFIC = dict.fromkeys(("master", "worker-1"), (900, 70_000, 5, 6, 7, 8, 9, 10, 11, 12))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of twelve workers and a thousand versions."""
    return written(tmp_path_factory.mktemp("long"), workers=12, versions=1000)


def written(out: Path, *, workers: int, versions: int, reload: float = 0.0) -> Path:
    folder = synthetic_run(RunFolder(out, "run"), workers=workers, versions=versions)
    story = Story(MOST)
    view = saved(folder, story.read)
    beside = Beside("run", "here", WRITTEN, traffic=TRAFFIC, reload=reload)
    folder.report.write_text(page(story, view.state, beside), "utf-8")
    return folder.report


def wide(page: Page) -> int:
    """Pixels that the page is wider than its window."""
    found = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert isinstance(found, int)
    return found


def test_the_axis_is_switched(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    for x in ("samples", "bytes", "time"):
        page.get_by_label(x, exact=True).check()
        for name in ("accuracy", "loss"):
            for other in ("time", "samples", "bytes"):
                picture = page.locator(f'svg.wide[data-chart="{name}-{other}"]')
                expect(picture).to_be_visible(visible=other == x)
    page.get_by_label("bytes", exact=True).check()
    page.reload()
    expect(page.locator('svg.wide[data-chart="loss-bytes"]')).to_be_visible()


def test_the_theme_is_switched_and_kept(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(ground) == "rgb(18, 22, 28)"
    page.reload()
    assert page.evaluate(ground) == "rgb(18, 22, 28)"
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_a_worker_is_hidden_by_its_legend_in_all_charts(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    line = page.locator('svg.wide path.curve[data-worker="worker-3"]')
    expect(line).to_have_count(2)
    button = page.locator("figure", has=page.locator('[data-chart="shards"]')).get_by_role(
        "button", name="worker-3", exact=True
    )
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    for each in line.all():
        expect(each).to_be_hidden()
    button.press("Enter")
    for each in line.all():
        expect(each).not_to_have_class(re.compile(r"\boff\b"))


def test_the_pointer_reads_numbers(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    for chart, said in (
        ("accuracy-time", r"validation: 0\.\d{4}"),
        ("speeds", r"worker-12: [\d ]+ samples/s"),
        ("timeline", r"worker-\d+ at .*\n\d+ rounds?, .*\ntraining .* waiting"),
    ):
        picture = page.locator(f'svg.wide[data-chart="{chart}"]')
        picture.scroll_into_view_if_needed()
        picture.hover()
        tip = page.locator(".tip")
        expect(tip).to_be_visible()
        assert re.search(said, tip.text_content() or ""), tip.text_content()
        box = tip.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1200
    page.mouse.move(2, 2)
    expect(page.locator(".tip")).to_be_hidden()


def test_every_chart_has_its_numbers(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    figures = page.locator("figure").all()
    assert len(figures) == 8
    for figure in figures:
        figure.locator("summary").click()
        expect(figure.locator("table")).to_be_visible()
        assert figure.locator("tbody tr").count() >= 2
    assert wide(page) <= 0


def test_versions_are_sorted_and_filtered(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    table = page.locator("#t-versions")
    first = table.locator("tbody tr").first
    expect(first.locator("td").first).to_have_text("0")
    table.get_by_role("button", name="version").click()
    expect(first.locator("td").first).to_have_text("0")
    table.get_by_role("button", name="version").click()
    expect(first.locator("td").first).to_have_text("1000")
    table.get_by_role("button", name="loss").click()
    losses = [float(text) for text in table.locator("td:nth-child(4)").all_text_contents()[:900]]
    assert losses == sorted(losses)
    page.get_by_label("Filter").fill("worker-7")
    seen = table.locator("tbody tr:visible")
    assert 10 < seen.count() < 500
    assert all("worker-7" in text for text in seen.all_text_contents())
    expect(page.locator("#n-versions")).to_have_text(f"{seen.count()} of 1001 rows")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_no_sideways_page(browser: Browser, report: Path, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": 375, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=True,
    )
    page = context.new_page()
    page.goto(report.as_uri())
    assert wide(page) <= 0
    expect(page.locator('svg.narrow[data-chart="timeline"]')).to_be_visible()
    expect(page.locator('svg.wide[data-chart="timeline"]')).to_be_hidden()
    page.locator('svg.narrow[data-chart="speeds"]').tap()
    expect(page.locator(".tip")).to_be_visible()
    for summary in page.locator("summary").all():
        summary.click()
    assert wide(page) <= 0
    context.close()


def test_it_is_whole_without_a_script(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    expect(page.locator("#theme")).to_be_hidden()
    page.get_by_label("samples", exact=True).check()
    expect(page.locator('svg.wide[data-chart="loss-samples"]')).to_be_visible()
    page.locator("summary").first.click()
    expect(page.locator("figure table").first).to_be_visible()
    context.close()


def test_in_print_all_is_open_and_nothing_is_cut_off(watched: Watched, tmp_path: Path) -> None:
    page = watched.page
    page.goto(written(tmp_path, workers=4, versions=30).as_uri())
    page.set_viewport_size({"width": 700, "height": 1000})
    page.emulate_media(media="print")
    assert page.pdf(format="A4")[:4] == b"%PDF"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    closed = page.locator("details:not(.long):not([open])")
    expect(closed).to_have_count(0)
    expect(page.locator('svg.wide[data-chart="timeline"]')).to_be_visible()
    expect(page.locator("nav")).to_be_hidden()
    cut = "[...document.querySelectorAll('.box')].filter(b => b.scrollWidth > b.clientWidth + 1)"
    assert page.evaluate(f"{cut}.length") == 0
    assert wide(page) <= 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert closed.count() > 0


def test_a_run_that_goes_on_comes_anew_where_it_was_read(watched: Watched, tmp_path: Path) -> None:
    page = watched.page
    path = written(tmp_path, workers=2, versions=20, reload=1.0)
    page.goto(path.as_uri())
    page.evaluate("scrollTo(0, 700); window.before = true")
    path.write_text(path.read_text("utf-8").replace("<h1>run</h1>", "<h1>anew</h1>"), "utf-8")
    # In one look of the page itself: it comes anew again each second.
    page.wait_for_function(
        "() => !window.before && document.querySelector('h1').textContent === 'anew'"
        " && Math.abs(scrollY - 700) < 5",
        timeout=15_000,
    )
