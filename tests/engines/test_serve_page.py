"""The page for people, in a real browser: a picture goes up, its classes come back."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import CLASSES, Served, add_release, expected, pictures, png, point

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

TOKEN = "0123456789abcdef-token"
SCALE = 0.05
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = "chromium is not installed (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    # A camera that shows a moving picture, and a person who lets pages use it.
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream",
                 "--use-fake-ui-for-media-stream"]  # fmt: skip
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("root")
    point(root, add_release(root, SCALE))
    with Served(root) as found:
        yield found


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "one.png"
    file.write_bytes(png(pictures(1, 7)[0]))
    return file


class Visit:
    """The page, and what the browser had to say about it."""

    def __init__(self, browser: Any, served: Served, width: int = DESK) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.home = f"http://localhost:{served.port}/"
        self.page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.home)
        self.status = self.page.get_by_role("status")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.context.close()

    def choose(self, file: Path) -> None:
        self.page.get_by_label("Choose a picture").set_input_files(file)

    def rows(self) -> list[list[str]]:
        found = self.page.get_by_role("listitem")
        return [found.nth(n).locator(".row span").all_text_contents() for n in range(found.count())]


def right_rows() -> list[list[str]]:
    found = sorted(zip(expected(pictures(1, 7), SCALE)[0], CLASSES, strict=True), reverse=True)
    return [[label, f"{100 * probability:.1f} %"] for probability, label in found]


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_picture_is_classified(
    browser: Any, served: Served, picture: Path, width: int, tmp_path: Path
) -> None:
    with Visit(browser, served, width) as visit:
        assert visit.page.get_by_label("Token of this server").count() in (0, 1)
        assert not visit.page.get_by_label("Token of this server").is_visible()
        visit.choose(picture)
        visit.page.get_by_text(re.compile("^Engine onnxruntime-fp32, release ")).wait_for()
        assert visit.rows() == right_rows()
        assert visit.status.text_content() == ", ".join(right_rows()[0])
        bars = visit.page.locator(".bar > span")
        shares = [bars.nth(n).bounding_box()["width"] for n in range(3)]
        whole = visit.page.locator(".bar").first.bounding_box()["width"]
        np.testing.assert_allclose(
            np.array(shares) / whole, sorted(expected(pictures(1, 7), SCALE)[0])[::-1], atol=0.01
        )
        for scheme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=scheme)
            found = axe.Axe().run(visit.page)
            assert found.violations_count == 0, found.generate_report()
            visit.page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
        assert visit.complaints == []
        outside = [u for u in visit.requests if not u.startswith((visit.home, "blob:", "data:"))]
        assert outside == []


def test_another_picture_takes_the_place_of_the_first(
    browser: Any, served: Served, picture: Path, tmp_path: Path
) -> None:
    nonsense = tmp_path / "x.png"
    nonsense.write_bytes(b"nonsense")
    with Visit(browser, served) as visit:
        for _ in range(2):
            visit.choose(picture)
            visit.page.get_by_text("Engine").wait_for()
            assert visit.rows() == right_rows()
            visit.choose(nonsense)
            visit.page.get_by_text("No answer: send a picture file").wait_for()
            assert visit.rows() == []


def test_it_works_with_the_keyboard_alone(browser: Any, served: Served, picture: Path) -> None:
    with Visit(browser, served) as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.id") == "file"
        outline = "getComputedStyle(document.querySelector('label.button')).outlineStyle"
        assert visit.page.evaluate(outline) == "solid"
        with visit.page.expect_file_chooser() as chooser:
            visit.page.keyboard.press("Space")
        chooser.value.set_files(picture)
        visit.page.get_by_text("Engine").wait_for()
        assert visit.rows() == right_rows()
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.id") == "start"


def test_the_camera_takes_a_picture(browser: Any, served: Served) -> None:
    with Visit(browser, served) as visit:
        visit.page.get_by_role("button", name="Use the camera").click()
        visit.page.get_by_role("button", name="Take the picture").click()
        visit.page.get_by_text("Engine").wait_for()
        assert sorted(label for label, _ in visit.rows()) == sorted(CLASSES)
        assert visit.page.evaluate("document.getElementById('camera').srcObject") is None
        visit.page.get_by_role("button", name="Use the camera").click()
        visit.page.get_by_role("button", name="Stop the camera").click()
        assert not visit.page.get_by_role("button", name="Take the picture").is_visible()
        assert visit.complaints == []


def test_a_token_is_asked_for_where_one_is_needed(
    browser: Any, picture: Path, tmp_path: Path
) -> None:
    point(tmp_path, add_release(tmp_path, SCALE))
    with Served(tmp_path, token=TOKEN) as served, Visit(browser, served) as visit:
        field = visit.page.get_by_label("Token of this server")
        assert field.is_visible()
        visit.choose(picture)
        visit.page.get_by_text("This server wants a token.").wait_for()
        field.fill("wrong-wrong-wrong")
        visit.choose(picture)
        visit.page.get_by_text("The token is not the one of this server.").wait_for()
        found = axe.Axe().run(visit.page)
        assert found.violations_count == 0, found.generate_report()
        field.fill(TOKEN)
        visit.choose(picture)
        visit.page.get_by_text("Engine").wait_for()
        assert visit.rows() == right_rows()
        assert not [url for url in visit.requests if TOKEN in url]


def test_a_server_that_is_gone_is_told(browser: Any, picture: Path, tmp_path: Path) -> None:
    point(tmp_path, add_release(tmp_path, SCALE))
    with Served(tmp_path) as served, Visit(browser, served) as visit:
        assert served.end() == 0
        visit.choose(picture)
        visit.page.get_by_text("No answer: the server does not answer.").wait_for()
