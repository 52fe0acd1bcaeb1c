"""The page as people use it: by keyboard, by touch, by ear, in the light and in the dark."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

import softcam
from softcam.predict import Prediction

Desk = Any

FRAME_MS = 16
FAILED = {"name": "broken.dcm", "status": "failed", "reason": "image data are truncated or damaged"}


def list_findings(desk: Desk) -> list[str]:
    """Return what the accessibility scan calls serious or critical."""
    found = Axe().run(desk.page).response["violations"]
    return [
        f"{finding['id']}: {node['html']}"
        for finding in found
        if finding["impact"] in ("serious", "critical")
        for node in finding["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found(
    open_records: Callable[..., Desk], toys: SimpleNamespace, picture: np.ndarray, scheme: str
) -> None:
    record = toys.describe(toys.predict(toys.make_maps(), toys.geometry), picture)
    desk = open_records([record, FAILED], options={"color_scheme": scheme})
    desk.press("g")
    assert list_findings(desk) == []
    desk.press("?")
    assert desk.page.locator("#help").is_visible()
    assert list_findings(desk) == []


def test_everything_by_keyboard(desk: Desk, prediction: Prediction) -> None:
    desk.page.locator("#stage").focus()
    desk.press("ArrowRight", "ArrowDown")
    assert desk.page.locator("#readout").get_attribute("data-cell") == "4,3"
    desk.press("Shift+ArrowRight", "Shift+ArrowDown")
    margin = prediction.margin().astype(np.float64)
    assert desk.data("measured-value", "exact") == pytest.approx(margin[4:6, 3:5].sum() / 42, abs=1e-6)
    desk.until(lambda: "logits" in (desk.page.locator("#announcer").text_content() or ""))
    before = desk.data("stage", "frame")
    desk.press("+")
    assert desk.data("stage", "frame")["scale"] > before["scale"]
    desk.press("Alt+ArrowLeft")
    desk.press("0")
    assert desk.data("stage", "frame") == before
    for key, tool in (("r", "rectangle"), ("l", "lasso"), ("w", "window"), ("v", "inspect")):
        desk.press(key)
        assert desk.page.locator(f"[data-tool={tool}]").first.get_attribute("aria-pressed") == "true"
    desk.press("x")
    assert desk.text("stage-title") == f"Evidence: {prediction.predicted}"
    desk.press("Escape", "?")
    assert desk.page.locator("#help").is_visible()
    desk.press("Escape")
    assert desk.page.locator("#help").is_hidden()
    with desk.page.expect_download() as found:
        desk.press("p")
    assert Path(found.value.path()).read_bytes().startswith(b"\x89PNG")


def test_every_control_is_reached_by_tab(desk: Desk) -> None:
    script = """() => {
        const seen = new Set();
        return [...document.querySelectorAll('button, select, input, canvas[tabindex]')]
            .filter((control) => control.checkVisibility() && !control.disabled && control.tabIndex < 0)
            .map((control) => control.id);
    }"""
    assert desk.page.evaluate(script) == []
    names = []
    for _ in range(4):
        desk.press("Tab")
        names.append(desk.page.evaluate("document.activeElement.className || document.activeElement.id"))
    assert names[0] == "skip"
    assert desk.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_failed_file_is_named_and_the_rest_goes_on(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    desk = open_records([FAILED, toys.describe(toys.predict(toys.make_maps(), toys.geometry))])
    assert desk.page.locator("#list .failed").inner_text().split("\n") == [FAILED["name"], FAILED["reason"]]
    assert "1 failed" in desk.text("list-count")
    assert desk.page.locator("#list button[aria-current]").inner_text().startswith("scan.png")
    desk.press("b")
    assert desk.page.locator("#classes").is_hidden()
    desk.press("n")
    assert desk.page.locator("#classes").is_visible()


def test_names_are_text(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    hostile = "<img src=x onerror=alert(1)></script><b>"
    prediction = toys.predict(toys.make_maps(), toys.geometry, classes=(hostile, "=1+1", "c"))
    desk = open_records([toys.describe(prediction) | {"name": hostile}])
    assert hostile in desk.page.locator("#class-rows").inner_text()
    assert desk.page.locator("#desk img, #desk b").count() == 0
    desk.page.select_option("#target", "1")
    desk.settle()
    header = desk.export("csv").read_text(encoding="utf-8").splitlines()[0]
    assert '"\'=1+1"' in header
    assert '"=1+1"' not in header


def test_warnings_are_shown(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    record = toys.describe(toys.predict(toys.make_maps(), toys.geometry))
    desk = open_records([record | {"warnings": ["darker than <b>any</b> image of the training"]}, record])
    assert desk.text("warnings") == "darker than <b>any</b> image of the training"
    desk.press("n")
    assert desk.page.locator("#warnings").is_hidden()


def test_an_only_class_has_log_odds(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    prediction = toys.predict(toys.make_maps(1), toys.geometry, classes=("defect",))
    desk = open_records([toys.describe(prediction)])
    logit = f"{prediction.logits[0]:+.3f}".replace("-", "\u2212")
    assert desk.text("log-odds") == f"Log-odds of defect: {logit}"
    assert "against" in desk.text("scale-against")
    assert desk.page.locator("#against").is_disabled()


def test_the_identity_is_shown(desk: Desk, prediction: Prediction) -> None:
    mean = prediction.maps[prediction.contrast[0]].mean(dtype=np.float64)
    assert f"mean of the map {mean:.4f} = logit {mean:.4f}, error " in desk.text("identity")
    assert "does not show" in desk.text("caveat")
    assert "all \u00d7 47 px" in desk.text("caveat")


def test_a_page_without_images_shows_maps_alone(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    desk = open_records([toys.describe(toys.predict(toys.make_maps(), toys.geometry))])
    assert desk.page.locator("#window-section").is_hidden()
    assert len(np.unique(desk.pixels()[::7, ::7].reshape(-1, 4), axis=0)) > 30


def test_a_notebook_shows_it(
    tmp_path: Path, new_page: Callable[..., Any], prediction: Prediction, picture: np.ndarray
) -> None:
    page = new_page()
    page.set_content(softcam.view(prediction, picture)._repr_html_())
    frame = page.frame_locator("iframe")
    frame.locator("body[data-ready]").wait_for()
    assert frame.locator("#verdict-class").inner_text() == prediction.predicted
    assert frame.locator("#open").count() == 0
    saved = softcam.view([prediction], [picture]).save(tmp_path / "view.html")
    page.goto(saved.as_uri())
    page.wait_for_selector("body[data-ready]")


@pytest.mark.parametrize("size", [(1280, 800), (820, 1180)])
def test_it_fits_the_screen(open_records: Callable[..., Desk], toys: SimpleNamespace, size: tuple[int, int]) -> None:
    record = toys.describe(toys.predict(toys.make_maps(), toys.geometry))
    desk = open_records([record, FAILED], options={"viewport": {"width": size[0], "height": size[1]}})
    assert desk.page.evaluate("document.documentElement.scrollWidth") == size[0]
    box = desk.page.locator("#stage").bounding_box()
    assert box["height"] > 300
    assert box["y"] + box["height"] < size[1]


def test_a_finger_draws_a_lasso(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    record = toys.describe(toys.predict(toys.make_maps(), toys.geometry))
    desk = open_records([record], options={"viewport": {"width": 820, "height": 1180}, "has_touch": True})
    desk.page.locator("[data-tool=lasso]").tap()
    client = desk.page.context.new_cdp_session(desk.page)
    points = [desk.place(*point) for point in ((80, 60), (220, 80), (180, 180), (90, 150))]
    kinds = ["touchStart", *["touchMove"] * 3]
    for kind, (x, y) in zip(kinds, points, strict=True):
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    desk.settle()
    assert len(desk.record()["page"]["measured"]["points"]) == 4


def test_two_fingers_zoom(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    record = toys.describe(toys.predict(toys.make_maps(), toys.geometry))
    desk = open_records([record], options={"viewport": {"width": 820, "height": 1180}, "has_touch": True})
    desk.page.locator("[data-tool=rectangle]").tap()
    client = desk.page.context.new_cdp_session(desk.page)
    before = desk.data("stage", "frame")["scale"]
    x, y = desk.place(160, 120)
    for kind, gap in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
        fingers = [{"x": x - gap, "y": y, "id": 0}, {"x": x + gap, "y": y, "id": 1}]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    desk.until(lambda: desk.data("stage", "frame")["scale"] == pytest.approx(2 * before, rel=0.02))
    assert desk.page.locator("#measured").is_hidden()


def test_the_wheel_zooms_about_the_pointer(desk: Desk) -> None:
    before = desk.place(100, 100)
    desk.page.mouse.move(*before)
    desk.page.mouse.wheel(0, -300)
    desk.until(lambda: desk.data("stage", "frame")["scale"] > 2.1)
    assert desk.place(100, 100) == pytest.approx(before, abs=0.5)


def test_a_drag_with_shift_changes_the_window(desk: Desk) -> None:
    width = float(desk.page.locator("#window-width").input_value())
    desk.page.keyboard.down("Shift")
    desk.drag([(200, 100), (100, 100)])
    desk.page.keyboard.up("Shift")
    assert float(desk.page.locator("#window-width").input_value()) < 0.8 * width
    assert desk.page.locator("#measured").is_hidden()


def test_a_region_is_measured_within_a_frame(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    classes = tuple(f"class {k}" for k in range(20))
    prediction = toys.predict(toys.make_maps(20, (64, 64)), toys.geometry, classes=classes)
    desk = open_records([toys.describe(prediction)])
    desk.press("l")
    turns = np.linspace(0, 6, 40)
    desk.drag([(160 + 110 * np.cos(turn), 120 + 90 * np.sin(turn)) for turn in turns])
    script = "name => performance.getEntriesByName(name).map(entry => entry.duration)"
    measured = desk.page.evaluate(script, "softcam:measure")
    assert len(measured) >= 20
    assert statistics.median(measured) < FRAME_MS / 2
    assert statistics.median(desk.page.evaluate(script, "softcam:frame")[-20:]) < FRAME_MS
