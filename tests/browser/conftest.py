"""A browser, a page with data of its own, and a service."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Error, Page, Playwright, sync_playwright

from softcam.imaging import Geometry, image_from_array
from softcam.nn import Evidence
from softcam.predict import Prediction
from softcam.viewer import ModelName, build_page, describe, make_preview

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 30_000  # on a busy machine a library is long in coming
CLASSES = ("normal", "pneumonia", "effusion")


def launch_own(playwright: Playwright) -> Browser:
    """Launch Playwright's own download."""
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True, timeout=300)
    return playwright.chromium.launch(args=ARGUMENTS)


def launch_system(playwright: Playwright) -> Browser:
    """Launch a Chromium that is installed."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        raise FileNotFoundError("no Chromium on PATH")
    return playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


def launch_debian(playwright: Playwright) -> Browser:
    """Install Debian's Chromium and launch it."""
    if os.geteuid() != 0:
        raise PermissionError("only root may install packages")
    subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=300)
    subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=True, timeout=600)
    return launch_system(playwright)


def launch(playwright: Playwright) -> Browser:
    """Launch the first browser that works; without one the tests fail, for they would test nothing."""
    reasons = []
    for attempt in (launch_system, launch_own, launch_debian):
        try:
            return attempt(playwright)
        except (Error, OSError, subprocess.SubprocessError) as error:
            reasons.append(f"{attempt.__name__}: {str(error).splitlines()[0]}")
    pytest.fail(f"no browser: {'; '.join(reasons)}. Install chromium.")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages that fail the test where a script fails, or where anything is loaded from elsewhere."""
    contexts, troubles = [], []

    def build(**options: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        return page

    yield build
    for context in contexts:
        context.close()
    assert troubles == []


def predict(
    maps: np.ndarray, geometry: Geometry, *, classes: tuple[str, ...] = CLASSES, multi_label: bool = False
) -> Prediction:
    """Return the prediction that maps (K, h, w) average to."""
    evidence = Evidence(
        torch.from_numpy(maps.mean((1, 2), dtype=np.float64)[None]).float(), torch.from_numpy(maps)[None]
    )
    logits = evidence.logits[0].numpy()
    shares = Evidence(evidence.logits, evidence.maps, multi_label).probabilities()[0].numpy()
    return Prediction(
        "scan.png",
        "ok",
        classes,
        predicted=classes[int(logits.argmax())],
        probabilities=shares,
        logits=logits,
        maps=maps,
        geometry=geometry,
        sum_error=float(evidence.sum_error()[0]),
        digest="0" * 64,
        spacing=(0.5, 0.5),
        multi_label=multi_label,
    )


# Neither do the cells divide the input's pixels, nor does the network see all of the image.
GEOMETRY = Geometry(240, 320, 100, 90, scale_x=3.0, scale_y=2.3, offset_x=20.5, offset_y=4.25)
FIELD = {"map_stride": [14, 15], "receptive_field": [41, 33], "theoretical_receptive_field": [47, None]}


def make_maps(classes: int = 3, grid: tuple[int, int] = (7, 6), seed: int = 0) -> np.ndarray:
    """Return maps (K, h, w) of both signs."""
    return np.random.default_rng(seed).normal(0.3, 2.0, (classes, *grid)).astype(np.float32)


@pytest.fixture
def prediction() -> Prediction:
    return predict(make_maps(), GEOMETRY)


@pytest.fixture
def picture() -> np.ndarray:
    """A grey image with 16 bits."""
    return np.random.default_rng(1).integers(0, 65536, (240, 320)).astype(np.uint16)


def describe_one(prediction: Prediction, pixels: np.ndarray | None = None) -> dict[str, Any]:
    """Return what the page is told of a prediction."""
    preview = None if pixels is None else make_preview(image_from_array(pixels))
    return {"name": prediction.id} | describe(prediction, model=ModelName("chest"), preview=preview)


def write_page(path: Path, records: list[dict[str, Any]], **facts: Any) -> str:
    """Write a page with its data and return its address."""
    classes = next((record["classes"] for record in records if "classes" in record), [])
    info = {
        "name": "chest",
        "fingerprint": "",
        "architecture": "toy",
        "classes": classes,
        "grid": [7, 6],
        "methods": [],
    }
    path.write_text(build_page({"models": [info | FIELD | facts], "predictions": records}), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def toys() -> SimpleNamespace:
    """What makes predictions."""
    return SimpleNamespace(
        predict=predict, make_maps=make_maps, describe=describe_one, geometry=GEOMETRY, classes=CLASSES
    )


class Desk:
    """The page as a user meets it.

    Args:
        page: An open page.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; frame after frame, for the page's policy forbids scripts that look."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while not holds():
            assert time.monotonic() < deadline, "it never came to hold"
            self.settle()

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the original is on the screen."""
        box = self.page.locator("#stage").bounding_box()
        assert box is not None
        frame = json.loads(self.page.locator("#stage").get_attribute("data-frame") or "")
        return box["x"] + frame["x"] + x * frame["scale"], box["y"] + frame["y"] + y * frame["scale"]

    def hover(self, x: float, y: float) -> None:
        """Point at a place of the original."""
        self.page.mouse.move(*self.place(x, y))
        self.settle()

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Draw a line through points of the original."""
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point), steps=2)
        self.page.mouse.up()
        self.settle()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def slide(self, name: str, value: float) -> None:
        """Move a slider."""
        script = "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', {bubbles: true})); }"
        self.page.locator(f"#{name}").evaluate(script, value)
        self.settle()

    def export(self, kind: str) -> Path:
        """Return the file that a button exports."""
        with self.page.expect_download() as found:
            self.page.locator(f"#export-{kind}").click()
        return Path(found.value.path())

    def record(self) -> dict[str, Any]:
        """Return what the page exports as JSON."""
        return json.loads(self.export("json").read_text(encoding="utf-8"))

    def text(self, name: str) -> str:
        """Return the text of an element."""
        return self.page.locator(f"#{name}").inner_text()

    def data(self, name: str, key: str) -> Any:
        """Return a value that an element keeps for programs."""
        return json.loads(self.page.locator(f"#{name}").get_attribute(f"data-{key}") or "null")

    def pixels(self, name: str = "stage") -> np.ndarray:
        """Return the pixels (H, W, 4) of a canvas."""
        script = """canvas => {
            const {width, height} = canvas;
            const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
            let text = '';
            for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
            return [height, width, btoa(text)];
        }"""
        height, width, text = self.page.locator(f"#{name}").evaluate(script)
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)

    def pixel(self, x: float, y: float) -> list[int]:
        """Return the colour that a place of the original has on the stage."""
        box = self.page.locator("#stage").bounding_box()
        assert box is not None
        left, top = self.place(x, y)
        script = "(canvas, [x, y]) => Array.from(canvas.getContext('2d').getImageData(x, y, 1, 1).data)"
        place = [int(left - box["x"]), int(top - box["y"])]
        return list(self.page.locator("#stage").evaluate(script, place))


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Page]:
    """One page for all tests that want no other screen: to open one takes as long as most of them."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(WAIT_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def clean_tab(tab: Page) -> Iterator[Page]:
    """The page without anything of the tests before; a script that fails on it fails the test."""
    troubles: list[str] = []
    tab.goto("about:blank")
    tab.mouse.move(0, 0)

    def note(error: Error) -> None:
        troubles.append(str(error))

    tab.on("pageerror", note)
    yield tab
    tab.remove_listener("pageerror", note)
    assert troubles == []


@pytest.fixture
def open_records(tmp_path: Path, clean_tab: Page, new_page: Callable[..., Page]) -> Callable[..., Desk]:
    """Open a page with explanations inside."""

    def build(records: list[dict[str, Any]], *, options: dict[str, Any] | None = None, **facts: Any) -> Desk:
        desk = Desk(new_page(**options) if options else clean_tab)
        desk.page.goto(write_page(tmp_path / "page.html", records, **facts))
        desk.page.wait_for_selector("body[data-ready]")
        desk.settle()
        return desk

    return build


@pytest.fixture
def desk(open_records: Callable[..., Desk], prediction: Prediction, picture: np.ndarray) -> Desk:
    """One image with its evidence."""
    return open_records([describe_one(prediction, picture)])


@pytest.fixture
def open_service(service: str, new_page: Callable[..., Page]) -> Callable[..., Desk]:
    """Open the page of the service."""

    def build(**options: Any) -> Desk:
        desk = Desk(new_page(**options))
        desk.page.goto(service)
        desk.page.wait_for_selector("body[data-ready]")
        return desk

    return build


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small models."""
    from softcam.backbones import create_black_box  # noqa: PLC0415
    from softcam.bundle import save  # noqa: PLC0415
    from softcam.imaging import Preprocessing  # noqa: PLC0415
    from softcam.nn import convert  # noqa: PLC0415

    found = {}
    for name, classes in (("chest", CLASSES), ("cells", ("intact", "defect"))):
        torch.manual_seed(0)
        black_box = create_black_box("timm:test_resnet", num_classes=len(classes), weights="none").eval()
        record = Preprocessing(size=96).to_dict()
        found[name] = save(
            convert(black_box), tmp_path_factory.mktemp("models") / name, classes=classes, preprocessing=record
        )
    return found


@pytest.fixture(scope="session")
def service(bundles: dict[str, Path], listen: Callable[..., Any]) -> Iterator[str]:
    """The address of a service with both models."""
    serving = pytest.importorskip("softcam.serving", reason="the service comes with the extra `serve`")
    models = serving.open_models([f"{name}={path}" for name, path in bundles.items()], backend="torch")
    app = serving.create_app(models, serving.ServiceSettings())
    with listen(app) as address:
        yield f"{address}/"
