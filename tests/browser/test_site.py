"""The site is built without a warning, asks nobody for anything, and can be searched where it lies on a disk."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}
PATIENCE_MS = 60_000

pytestmark = pytest.mark.slow


class Requests(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in SOURCES and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get(SOURCES[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site is built by the extra `docs`")
    pytest.importorskip("mkdocstrings", reason="the site is built by the extra `docs`")
    folder = tmp_path_factory.mktemp("documentation") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if not line.startswith("INFO"))
    return folder


def test_no_page_asks_for_anything_elsewhere(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    assert len(pages) > 60
    for path, text in pages.items():
        parser = Requests()
        parser.feed(text)
        assert parser.found
        assert [source for source in parser.found if re.match(r"(https?:)?//", source)] == [], path.name
        assert "<!-- generated" not in text


def test_pages_have_what_is_written_for_them(site: Path) -> None:
    assert 'id="softcam.nn.convert.convert"' in (site / "reference/api/nn.html").read_text(encoding="utf-8")
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "tutorial/first-hour.html" in home
    assert "docs/tutorial" not in home
    assert "lesions" in (site / "examples/3-compare-methods.html").read_text(encoding="utf-8")


def test_the_search_works_from_a_folder(browser: Browser, site: Path) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "index.html").as_uri())
    field = page.locator("input.md-search__input")
    field.click()
    expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching", timeout=PATIENCE_MS)
    field.press_sequentially("conformal")
    expect(page.locator(".md-search-result__item").first).to_be_visible(timeout=PATIENCE_MS)
    found = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.href)")
    assert any("reference/api/metrics.html" in address for address in found)
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    page.close()
