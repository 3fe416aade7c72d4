"""The report page as a browser shows it: whole, quiet, accessible, sortable, on narrow and wide."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from reports import HOSTILE, device, example, troubled, with_text

from pipeline.against import against
from pipeline.report import merged
from pipeline.report.page import render

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

PHONE, DESK = 390, 1280
PAGES = {
    "example": lambda: render(example()),
    "troubled": lambda: render({**troubled(), "against": against(troubled(), example())}),
    "device": lambda: render(device()),
    "hostile": lambda: render(with_text(troubled(), HOSTILE)),
    "merged": lambda: merged.render([example(), device(), with_text(troubled(), HOSTILE)]),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "chromium is not installed (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of PAGES."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make(), "utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


class Visit:
    """A page that was opened, and what the browser had to say about it."""

    def __init__(self, browser: Any, file: Path, **how: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_context(**how).new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.page.context.close()

    def engines(self) -> list[str]:
        """The numbers of the table's rows, from the top."""
        found: list[str] = self.page.locator("table.engines tbody .badge").all_text_contents()
        return found


def size(width: int) -> dict[str, int]:
    return {"width": width, "height": 900}


def seen(page: Any, file: Path, width: int) -> None:
    """A picture of the whole page is as wide as the screen, and no part of it is blank."""
    page.screenshot(path=file, full_page=True)
    pixels = cv2.imread(str(file))
    assert pixels is not None and pixels.shape[1] == width
    assert len(pixels) == page.evaluate("document.documentElement.scrollHeight")
    assert colours(pixels) > 500  # of text and drawings
    screens = [pixels[top : top + 900] for top in range(0, len(pixels) - 900, 900)]
    assert len(screens) > 1
    assert all(colours(part) > 20 for part in screens)


def colours(pixels: np.ndarray) -> int:
    """How many different ones there are; np.unique would sort millions of pixels."""
    there = np.zeros(1 << 24, bool)
    there[pixels.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)] = True
    return int(there.sum())


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_page_is_whole_quiet_and_accessible(
    browser: Any, pages: dict[str, Path], tmp_path: Path, name: str, width: int
) -> None:
    with Visit(browser, pages[name], viewport=size(width)) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for scheme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=scheme)
            found = axe.Axe().run(visit.page)
            assert found.violations_count == 0, found.generate_report()
            seen(visit.page, tmp_path / f"{scheme}.png", width)
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        assert visit.complaints == []
        outside = [url for url in visit.requests if not url.startswith("data:")]
        assert outside == [pages[name].as_uri()]
        broken = "[...document.images].filter(i => !i.naturalWidth).length"
        assert visit.page.evaluate(broken) == 0


@pytest.mark.parametrize("way", ["click", "keyboard"])
def test_table_sorts_by_its_headings(browser: Any, pages: dict[str, Path], way: str) -> None:
    with Visit(browser, pages["example"], viewport=size(DESK)) as visit:
        heading = visit.page.locator("table.engines th", has_text="p90").filter(
            has_not_text="Speed-up"
        )
        heading = heading.filter(has_not_text="From file")
        button = heading.get_by_role("button")

        def press() -> None:
            if way == "click":
                button.click()
            else:
                button.focus()
                visit.page.keyboard.press("Enter")

        assert visit.engines() == ["1", "2", "3", "4", "5", "6", "7", "8"]
        press()
        assert visit.engines() == ["6", "5", "4", "3", "2", "1", "7", "8"]
        assert heading.get_attribute("aria-sort") == "ascending"
        press()
        # Engines without a figure stay last.
        assert visit.engines() == ["1", "2", "3", "4", "5", "6", "7", "8"]
        assert heading.get_attribute("aria-sort") == "descending"
        visit.page.get_by_role("button", name="Offline").click()
        assert visit.engines() == ["6", "5", "4", "3", "2", "1", "7", "8"]
        assert visit.page.locator("table.engines [aria-sort]").count() == 1
        visit.page.get_by_role("button", name="Engine").click()
        assert visit.engines() == ["1", "2", "3", "4", "5", "6", "7", "8"]
        assert visit.complaints == []


def test_cards_of_a_narrow_screen_sort_by_a_list(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["example"], viewport=size(PHONE)) as visit:
        visit.page.get_by_label("Sort by").first.select_option("Speed-up")
        assert visit.engines() == ["6", "5", "4", "3", "2", "1", "7", "8"]
        assert not visit.page.locator("table.engines thead").is_visible()


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_without_javascript_the_table_is_whole(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    how = {"viewport": size(width), "java_script_enabled": False}
    with Visit(browser, pages["example"], **how) as visit:
        assert visit.engines() == ["1", "2", "3", "4", "5", "6", "7", "8"]
        cells = visit.page.locator('table.engines td[data-key="p90"]')
        assert cells.count() == 6 and all(cell.is_visible() for cell in cells.all())
        assert visit.page.get_by_role("button").count() == 0
        assert visit.page.get_by_label("Sort by").count() == 0


def test_a_script_in_the_report_does_not_run(browser: Any, tmp_path: Path) -> None:
    # Even one that got past the escaping: the page's policy names its own script alone.
    file = tmp_path / "index.html"
    html = render(example()).replace("</header>", "<script>document.title = 'no'</script></header>")
    file.write_text(html, "utf-8")
    with Visit(browser, file) as visit:
        assert visit.page.title() == "demo · efficientnet_lite0"
        assert any("Content Security Policy" in text for text in visit.complaints)
        visit.page.get_by_role("button", name="Engine").click()  # the page's own did
