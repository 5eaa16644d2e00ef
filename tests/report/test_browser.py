"""report.html in a real browser: accessible, at every size, in the dark and in Chinese; hostile texts run nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from reported import fit, with_hostile_texts
from tiny import make_rows

import fasttune
from fasttune.runs.folder import RunFolder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.report,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium"),
    # playwright's own event loop and pipes are closed by its process.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    training = {"preset": "tutorial", "num_train_epochs": 3, "precision": "fp32", "learning_rate": 3e-3}
    made = fit(tiny_model, tmp_path_factory.mktemp("browser"), make_rows(300, longest=6), training=training)
    fasttune.write_report(made.path, progress=False)
    return made


@contextmanager
def opened(path: Path, **context: Any) -> Iterator[tuple[Any, list[str]]]:
    """The page in a browser, and what it should not do: requests and errors."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(**context).new_page()
        bad: list[str] = []
        page.on(
            "request",
            lambda request: bad.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
        )
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.on("console", lambda message: bad.append(message.text))
        page.on("dialog", lambda dialog: (bad.append(dialog.message), dialog.dismiss()))
        page.goto(path.resolve().as_uri())
        yield page, bad
        browser.close()


def violations(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in Axe().run(page).response["violations"]]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_within_the_screen(run: RunFolder, language: str, scheme: str) -> None:
    fasttune.write_report(run.path, language=language, progress=False)
    for viewport in (DESKTOP, PHONE):
        with opened(run.report, viewport=viewport, color_scheme=scheme) as (page, bad):
            page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
            assert not violations(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert all(page.evaluate("[...document.images].map(one => one.complete && one.naturalWidth > 0)"))
            assert not bad


def test_the_keyboard_reaches_everything_that_scrolls_or_opens(run: RunFolder) -> None:
    fasttune.write_report(run.path, progress=False)
    with opened(run.report, viewport=PHONE) as (page, _):
        reached = set()
        for _ in range(200):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName"))
        assert {"A", "SUMMARY", "DIV"} <= reached
        page.keyboard.press("Enter")


def test_300_hostile_texts_run_nothing_and_load_nothing(run: RunFolder, tmp_path: Path) -> None:
    hostile = with_hostile_texts(run, tmp_path)
    with opened(hostile.report, viewport=DESKTOP) as (page, bad):
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        for link in page.query_selector_all("summary")[:5]:
            link.click()
        page.wait_for_timeout(500)
        assert page.evaluate("window.hurt") is None
        assert page.evaluate("document.querySelectorAll('script, iframe, object, form, base').length") == 0
        assert not bad
        assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]
