"""Draw the viewer with the demo's model: `python docs/images/make_viewer.py demo`; needs Playwright and a Chromium."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import softcam
from softcam.bundle import read_config
from softcam.data import read_manifest
from softcam.files import write_atomic

IMAGES = 6
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder that `make demo` wrote")
    options = parser.parse_args()
    config = read_config(options.demo / "model")
    manifest = read_manifest(options.demo / "data" / "manifest.csv", classes=config.classes).subset("test")
    # The first test images of the second class, in the manifest's order: none is picked by its look.
    rows = [row for row, target in enumerate(manifest.targets) if target == 1][:IMAGES]
    paths = [manifest.paths[row] for row in rows]
    predictor = softcam.Predictor(options.demo / "model", backend="torch")
    page = softcam.view(predictor(paths), paths, predictor=predictor, name="solar cells")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = page.save(Path(folder) / "page.html")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport=SIZE)
        tab.goto(file.as_uri())
        tab.locator("#class-rows tr").first.wait_for()
        tab.keyboard.press("r")
        box = tab.locator("#stage").bounding_box()
        if box is None:
            raise RuntimeError("Expected the page to have a stage, but it has none.")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x - 110, y - 90)
        tab.mouse.down()
        tab.mouse.move(x + 30, y + 40, steps=5)
        tab.mouse.up()
        write_atomic(Path(__file__).with_name("viewer.png"), tab.screenshot())
        browser.close()


if __name__ == "__main__":
    main()
