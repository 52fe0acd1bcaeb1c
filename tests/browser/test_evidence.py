"""The numbers and colours of the page are those of the library."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from softcam.imaging import signed_colors
from softcam.nn import Evidence
from softcam.predict import Prediction

GRID = (7, 6)
Desk = Any
Points = Sequence[tuple[float, float]]


def evidence_of(prediction: Prediction) -> Evidence:
    maps = torch.from_numpy(prediction.maps[None]).double()
    return Evidence(maps.mean((-2, -1)), maps, prediction.multi_label)


def fill_lasso(points: Points, height: int, width: int) -> torch.Tensor:
    """Return the pixels whose centres lie inside, each tested by itself: even-odd."""
    mask = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y, inside = column + 0.5, row + 0.5, False
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                    inside = not inside
            mask[row, column] = inside
    return torch.from_numpy(mask)


def to_input(prediction: Prediction, points: list[dict[str, float]]) -> Points:
    assert prediction.geometry is not None
    return [prediction.geometry.to_input(point["x"], point["y"]) for point in points]


def centre(prediction: Prediction, row: int, column: int) -> tuple[float, float]:
    assert prediction.geometry is not None
    x, y, width, height = prediction.geometry.cell_rectangle(row, column, grid=GRID)
    return x + width / 2, y + height / 2


def test_cells_have_the_colours_of_the_library(desk: Desk, prediction: Prediction) -> None:
    desk.press("m")
    limit = float(desk.page.locator("#limit").input_value())
    expected = signed_colors(prediction.margin(), limit)
    shown = np.array([[desk.pixel(*centre(prediction, r, c))[:3] for c in range(6)] for r in (0, 3, 6)])
    assert shown.tolist() == expected[[0, 3, 6]].tolist()


def test_the_map_lies_over_the_image_as_the_library_lays_it(
    desk: Desk, prediction: Prediction, picture: np.ndarray
) -> None:
    desk.press("h")
    under = np.array(desk.pixel(*centre(prediction, 2, 3))[:3], float)
    desk.press("h")
    limit, value = float(desk.page.locator("#limit").input_value()), float(prediction.margin()[2, 3])
    share = 0.7 * min(abs(value) / limit, 1)
    expected = under * (1 - share) + signed_colors([[np.sign(value)]], 1.0)[0, 0] * share
    assert desk.pixel(*centre(prediction, 2, 3))[:3] == pytest.approx(expected, abs=2)
    assert picture.dtype == np.uint16


def test_hover_reads_the_cell_and_its_pixels(desk: Desk, prediction: Prediction) -> None:
    assert prediction.geometry is not None
    for row, column in ((0, 0), (6, 5), (3, 2)):
        desk.hover(*centre(prediction, row, column))
        assert desk.page.locator("#readout").get_attribute("data-cell") == f"{row},{column}"
        maps = prediction.maps.astype(np.float64)
        shown, rival = prediction.contrast
        assert desk.data("readout", "value") == maps[shown, row, column] - maps[rival or 0, row, column]
        expected = prediction.geometry.cell_rectangle(row, column, grid=GRID)
        assert desk.data("readout", "rectangle") == expected._asdict()
    assert "it sees the whole width" in desk.text("readout")
    assert desk.text("readout").count("logits") == 1


def test_no_cell_where_the_network_does_not_look(desk: Desk) -> None:
    desk.hover(5, 100)
    assert desk.text("readout").startswith("Point at a cell")


def test_the_receptive_field_is_drawn(desk: Desk, prediction: Prediction) -> None:
    before = desk.pixels()
    desk.hover(*centre(prediction, 3, 3))
    rows = np.flatnonzero((before != desk.pixels()).any((1, 2)))
    frame = desk.data("stage", "frame")
    extent = 47 * 2.3 * frame["scale"]  # pixels of the input along the height, times the scale
    assert rows[-1] - rows[0] == pytest.approx(extent, abs=6)


@pytest.mark.parametrize("ends", [((60.0, 40.0), (201.3, 133.7)), ((300.0, 200.0), (10.0, -20.0))])
def test_a_rectangle_adds_what_the_library_says(
    desk: Desk, prediction: Prediction, ends: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    desk.press("r")
    desk.drag(ends)
    page = desk.record()["page"]
    corners = to_input(prediction, [page["measured"]["from"], page["measured"]["to"]])
    (x0, x1), (y0, y1) = (sorted(values) for values in zip(*corners, strict=True))
    rows, columns = ((a * n / s, b * n / s) for a, b, n, s in ((y0, y1, 7, 100), (x0, x1, 6, 90)))
    shares = [
        np.clip(np.minimum(end, np.arange(n) + 1) - np.maximum(start, np.arange(n)), 0, 1)
        for (start, end), n in ((rows, 7), (columns, 6))
    ]
    region = torch.from_numpy(np.outer(*shares))
    evidence = evidence_of(prediction)
    for k, added in enumerate(page["measured"]["contributions"]):
        assert added == pytest.approx(evidence.contribution(region, k).item(), abs=1e-6)
    expected = evidence.contribution(region, *prediction.contrast).item()
    assert desk.data("measured-value", "exact") == pytest.approx(expected, abs=1e-6)
    assert desk.text("measured-value") == f"{expected:+.3f}".replace("-", "\u2212")


def test_a_lasso_adds_what_the_library_says(desk: Desk, prediction: Prediction) -> None:
    desk.press("l")
    desk.drag([(60, 50), (250, 70), (90, 180), (200, 30), (240, 210), (60, 50)])  # crosses itself
    page = desk.record()["page"]
    mask = fill_lasso(to_input(prediction, page["measured"]["points"]), 100, 90)
    evidence = evidence_of(prediction)
    assert 500 < mask.sum() < 5000
    for k, added in enumerate(page["measured"]["contributions"]):
        assert added == pytest.approx(evidence.contribution(mask, k).item(), abs=1e-6)
    without = evidence.logits[0] - torch.tensor(page["measured"]["contributions"])
    assert page["measured"]["logits_without"] == pytest.approx(without.tolist(), abs=1e-6)
    expected = without.softmax(0)[prediction.contrast[0]].item()
    assert f"{100 * expected:.1f} %" in desk.text("measured-odds")


def test_all_of_it_leaves_nothing(desk: Desk) -> None:
    desk.press("r")
    desk.drag([(-20, -20), (350, 260)])
    assert desk.record()["page"]["measured"]["logits_without"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert "33.3 %" in desk.text("measured-odds")
    desk.press("Escape")
    assert desk.page.locator("#measured").is_hidden()


def test_a_multi_label_model_is_read_by_sigmoids(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    prediction = toys.predict(toys.make_maps(), toys.geometry, multi_label=True)
    desk = open_records([toys.describe(prediction)])
    highest = int(prediction.logits.argmax())
    assert desk.text("stage-title") == f"Evidence: {toys.classes[highest]}"
    desk.press("r")
    desk.drag([(60, 40), (200, 130)])
    page = desk.record()["page"]
    expected = 1 / (1 + np.exp(-page["measured"]["logits_without"][highest]))
    assert f"{100 * expected:.1f} %" in desk.text("measured-odds")
    assert page["against"] is None


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("multi_label", [True, False])
def test_a_calibrated_model_keeps_its_temperature(
    open_records: Callable[..., Desk], toys: SimpleNamespace, told: bool, multi_label: bool
) -> None:
    prediction = toys.predict(toys.make_maps(), toys.geometry, multi_label=multi_label)
    scaled = torch.from_numpy(prediction.logits) / 1.7
    chances = scaled.sigmoid() if multi_label else scaled.softmax(0)
    record = toys.describe(prediction) | {"probabilities": chances.numpy(), "prediction_set": ["effusion", "normal"]}
    desk = open_records([record | ({"temperature": 1.7} if told else {})])
    assert "Prediction set: effusion, normal" in desk.text("log-odds")
    assert f"{100 * chances.max():.1f} %" in desk.text("class-rows")
    desk.press("r")
    desk.drag([(60, 40), (200, 130)])
    left = torch.tensor(desk.record()["page"]["measured"]["logits_without"]) / 1.7
    expected = (left.sigmoid() if multi_label else left.softmax(0))[prediction.contrast[0]]
    assert f"{100 * expected:.1f} %" in desk.text("measured-odds")
    if not multi_label:
        odds = prediction.logits[prediction.contrast[0]] - prediction.logits[prediction.contrast[1]]
        assert f"/ 1.700 = {odds / 1.7:+.3f}" in desk.text("log-odds")


def test_a_difference_averages_to_the_log_odds(desk: Desk, prediction: Prediction) -> None:
    shown, rival = prediction.contrast
    odds = float(prediction.logits[shown] - prediction.logits[rival or 0])
    assert f"{odds:+.3f}".replace("-", "\u2212") in desk.text("log-odds")
    desk.page.select_option("#target", "2")
    desk.page.select_option("#against", "0")
    desk.hover(*centre(prediction, 4, 1))
    maps = prediction.maps.astype(np.float64)
    assert desk.data("readout", "value") == maps[2, 4, 1] - maps[0, 4, 1]
    desk.page.select_option("#against", "none")
    desk.hover(*centre(prediction, 4, 2))
    assert desk.data("readout", "value") == maps[2, 4, 2]


@pytest.mark.parametrize(("positive", "negative"), [(0, 1), (1, 0), (0.5, 0.25)])
def test_muting_weighs_the_evidence(desk: Desk, prediction: Prediction, positive: float, negative: float) -> None:
    desk.slide("positive", positive)
    desk.slide("negative", negative)
    maps = prediction.maps.astype(np.float64)
    logits = torch.from_numpy((positive * maps.clip(0) + negative * maps.clip(max=0)).mean((1, 2)))
    rows = desk.page.locator("#class-rows tr")
    found = {row.locator("th").inner_text(): row.locator(".then").all_inner_texts() for row in rows.all()}
    for name, logit, chance in zip(prediction.classes, logits, logits.softmax(0), strict=True):
        assert found[name] == [f"→ {100 * chance:.1f} %", f"→ {logit:.3f}".replace("-", "\u2212")]


def test_the_threshold_hides_weak_cells(desk: Desk, prediction: Prediction) -> None:
    limit = float(desk.page.locator("#limit").input_value())
    desk.press("h")
    bare = {cell: desk.pixel(*centre(prediction, *cell)) for cell in ((r, c) for r in range(7) for c in (1, 4))}
    desk.press("h")
    desk.slide("threshold", 0.4)
    for (row, column), color in bare.items():
        strong = abs(prediction.margin()[row, column]) >= 0.4 * limit
        assert (desk.pixel(*centre(prediction, row, column)) != color) == strong


def test_a_smooth_map_keeps_the_cells_and_blends_between(desk: Desk, prediction: Prediction) -> None:
    desk.press("m", "s")
    limit = float(desk.page.locator("#limit").input_value())
    margin = prediction.margin().astype(float)
    (x0, y), (x1, _) = centre(prediction, 3, 2), centre(prediction, 3, 3)
    for x, value in ((x0, margin[3, 2]), ((x0 + x1) / 2, margin[3, 2:4].mean()), (x1, margin[3, 3])):
        expected = signed_colors([[value]], limit)[0, 0].astype(float)
        assert desk.pixel(x, y)[:3] == pytest.approx(expected, abs=8)


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_regions_are_those_of_the_reports(desk: Desk, prediction: Prediction, share: float) -> None:
    desk.slide("share", share)
    expected = prediction.regions(share=share, at_most=12)
    found = desk.record()["page"]["regions"]
    assert [region["cells"] for region in found] == [np.flatnonzero(region.cells).tolist() for region in expected]
    assert [region["supports"] for region in found] == [region.supports for region in expected]
    assert [region["contribution"] for region in found] == pytest.approx([r.contribution for r in expected], abs=1e-12)
    for key in ("box", "pixels", "millimetres"):
        values = np.array([getattr(region, key) for region in expected])
        np.testing.assert_allclose([region[key] for region in found], values, rtol=1e-9)
    assert desk.page.locator("#regions li").count() == len(expected)
    desk.press("g", "g")
    assert desk.data("measured-value", "exact") == pytest.approx(expected[1].contribution, abs=1e-12)


def test_of_several_labels_a_reported_one_is_explained(
    open_records: Callable[..., Desk], toys: SimpleNamespace
) -> None:
    likely = toys.predict(toys.make_maps(), toys.geometry, multi_label=True)
    order = likely.logits.argsort()[::-1]
    for reported in (order[1:], order[2:], order[:0]):
        names = ";".join(sorted(likely.classes[index] for index in reported))
        prediction = replace(likely, predicted=names)
        shown = open_records([toys.describe(prediction)]).record()["page"]["target"]
        assert shown == prediction.contrast[0] == (reported[0] if len(reported) else order[0])


def test_the_scale_stays_until_it_is_changed(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    small = toys.predict(toys.make_maps(seed=1) * 0.01, toys.geometry)
    large = toys.predict(toys.make_maps(seed=2), toys.geometry)
    desk = open_records([toys.describe(small), toys.describe(large)])
    limit = desk.page.locator("#limit").input_value()
    desk.press("n")
    assert desk.page.locator("#limit").input_value() == limit
    desk.page.locator("#limit").fill("0.02")
    desk.press("m")
    assert desk.pixel(*centre(large, 3, 3))[:3] == signed_colors([[np.sign(large.margin()[3, 3])]], 1.0)[0, 0].tolist()
    assert desk.text("ticks").split("\n")[0] == "\u22120.02"


def test_the_second_colours_differ_for_every_eye(desk: Desk) -> None:
    desk.page.select_option("#colors", "purple-green")
    desk.settle()
    desk.slide("opacity", 1)
    bar = desk.pixels("colorbar")[0, :, :3] / 255.0
    assert_told_apart(bar[0], bar[-1])
    desk.page.select_option("#colors", "blue-orange")
    desk.settle()
    bar = desk.pixels("colorbar")[0, :, :3] / 255.0
    assert_told_apart(bar[0], bar[-1])


# Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
SIGHTS = {
    "full": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def assert_told_apart(a: np.ndarray, b: np.ndarray) -> None:
    """Two colours lie at least 0.15 apart in OKLab (0.02 can just be told apart), as each kind of eye sees them."""
    for name, sight in SIGHTS.items():
        seen = []
        for color in (a, b):
            linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
            linear = np.clip(np.array(sight) @ linear, 0, 1)
            seen.append(np.array(TO_LAB) @ np.cbrt(np.array(TO_CONES) @ linear))
        assert np.linalg.norm(seen[0] - seen[1]) > 0.15, name


def test_the_table_of_cells(desk: Desk, prediction: Prediction) -> None:
    assert prediction.geometry is not None
    rows = list(csv.DictReader(desk.export("csv").read_text(encoding="utf-8").splitlines()))
    shown, rival = (prediction.classes[k or 0] for k in prediction.contrast)
    assert len(rows) == 42
    row = rows[3 * 6 + 2]
    place = prediction.geometry.cell_rectangle(3, 2, grid=GRID)
    assert [float(row[key]) for key in ("row", "column", "x", "y", "width", "height")] == [3, 2, *place]
    values = [prediction.maps[prediction.classes.index(name), 3, 2] for name in (shown, rival)]
    assert [np.float32(row[name]) for name in (shown, rival)] == values
    assert float(row[f"{shown} \u2212 {rival}"]) == float(values[0]) - float(values[1])


def test_the_exported_record_is_the_response(desk: Desk, prediction: Prediction) -> None:
    record = desk.record()
    assert np.array_equal(np.array(record["maps"], np.float32), prediction.maps)
    assert np.array_equal(np.array(record["logits"], np.float32), prediction.logits)


def test_the_window_shows_all_sixteen_bits(open_records: Callable[..., Desk], toys: SimpleNamespace) -> None:
    ramp = (30_000 + np.arange(240 * 320).reshape(240, 320) % 512).astype(np.uint16)  # two steps of 8 bits
    desk = open_records([toys.describe(toys.predict(toys.make_maps(), toys.geometry), ramp)])
    desk.press("h", *["+"] * 6)
    desk.slide("window-center", 30_255)
    desk.slide("window-width", 510)
    for x in (150, 155, 160, 170):
        shade = 255 * (float(ramp[120, x]) - 30_000) / 510
        assert desk.pixel(x + 0.5, 120.5)[0] == pytest.approx(shade, abs=1)
    desk.page.locator("#window-reset").click()
    desk.settle()
    assert desk.pixel(150.5, 120.5)[0] == pytest.approx(ramp[120, 150] / 257, abs=1)
