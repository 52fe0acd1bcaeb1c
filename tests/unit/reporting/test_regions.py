from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from softcam.data import read_manifest
from softcam.data.boxes import parse_boxes
from softcam.imaging import Geometry, Preprocessing, image_from_array, signed_colors
from softcam.nn import convert
from softcam.predict import Prediction, Predictor
from softcam.reporting.explanations import explain
from softcam.reporting.overlays import draw_overlay
from softcam.reporting.products import Products
from softcam.reporting.regions import RegionSettings, describe_regions


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def make_prediction(spacing: tuple[float, float] | None = (0.5, 0.25)) -> Prediction:
    maps = np.zeros((2, 2, 3), np.float32)
    maps[1] = [[6.0, 0.0, -3.0], [6.0, 1.5, 0.0]]
    geometry = Geometry(40, 80, 20, 30, scale_x=2.0, scale_y=2.0, offset_x=10.0, offset_y=0.0)
    return Prediction(
        "a.png", "ok", ("intact", "=defect"), predicted="=defect", logits=maps.mean((1, 2)), maps=maps,
        geometry=geometry, spacing=spacing,
    )  # fmt: skip


def test_a_prediction_is_described_by_its_regions_and_the_rest() -> None:
    found = describe_regions(make_prediction(), RegionSettings(threshold=2.0))
    assert (found["class"], found["against"]) == ("=defect", "intact")
    assert found["rows"] == [
        [1, 2.0, 2, 10.0, 0.0, 20.0, 40.0, 800.0, 100.0, 6.0, 20.0, 10.0],
        [2, -0.5, 1, 50.0, 0.0, 20.0, 20.0, 400.0, 50.0, -3.0, 60.0, 10.0],
        ["rest", 0.25, 3, *[None] * 9],
    ]
    assert found["boxes"] == [[10.0, 0.0, 20.0, 40.0]]
    assert describe_regions(make_prediction(None), RegionSettings(threshold=2.0))["rows"][0][8] is None
    assert len(describe_regions(make_prediction(), RegionSettings(threshold=2.0, at_most=1))["rows"]) == 2


def test_settings_refuse_what_finds_no_regions() -> None:
    with pytest.raises(ValueError, match="`share` or `threshold`"):
        RegionSettings(share=0.5, threshold=1.0)
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        RegionSettings(share=1.5)


def test_boxes_are_drawn_in_the_colour_of_their_sign() -> None:
    prediction = make_prediction()
    image = image_from_array(np.full((40, 80), 128, np.uint8))
    plain = draw_overlay(image, prediction, limit=6.0)
    drawn = draw_overlay(image, prediction, limit=6.0, regions=prediction.regions(threshold=2.0))
    changed = (plain != drawn).any(2)
    against, support = signed_colors([[-1.0, 1.0]], 1.0)[0]
    for (x, y, width, height), color in (((10, 0, 20, 40), support), ((50, 0, 20, 20), against)):
        border = np.zeros((40, 80), bool)
        border[y : y + height, x : x + width] = True
        border[y + 1 : y + height - 1, x + 1 : x + width - 1] = False
        assert (drawn[border] == color).all()
        changed &= ~border
    assert not changed.any()


@pytest.fixture
def toy_predictor(make_toy: Callable[..., nn.Module]) -> Predictor:
    options = {"preprocessing": Preprocessing(size=32), "classes": ["intact", "defect"], "batch_size": 2}
    return Predictor(convert(make_toy()), backend="torch", **options)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for index in range(5):
        path = tmp_path / "in" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (24, 40 + index, 3), dtype=np.uint8)).save(path)
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    return tmp_path / "in"


def test_tables_add_up_to_the_logits_and_boxes_come_back(
    tmp_path: Path, photographs: Path, toy_predictor: Predictor
) -> None:
    products = Products(overlays=False, arrays=False, regions=RegionSettings(share=0.4))
    explain(toy_predictor, [photographs], tmp_path / "out", products=products)
    predictions = {row["image"]: row for row in read(tmp_path / "out" / "predictions.csv") if row["status"] == "ok"}
    rows = read(tmp_path / "out" / "regions.csv")
    assert {row["image"] for row in rows} == set(predictions) == {f"{index}.png" for index in range(5)}
    for name, found in predictions.items():
        own = [row for row in rows if row["image"] == name]
        lead = float(found[f"logit_{own[0]['class']}"]) - float(found[f"logit_{own[0]['against']}"])
        assert sum(float(row["contribution"]) for row in own) == pytest.approx(lead, rel=1e-5, abs=1e-6)
        assert sum(int(row["cells"]) for row in own) == 16
        assert [row["region"] for row in own] == [*map(str, range(1, len(own))), "rest"]
    shutil.copy(tmp_path / "out" / "boxes.csv", photographs / "boxes.csv")
    manifest = read_manifest(photographs / "boxes.csv", classes=toy_predictor.classes)
    for row, prediction in enumerate(toy_predictor(manifest.paths)):
        expected = [region.box for region in prediction.regions(share=0.4) if region.supports]
        np.testing.assert_allclose(parse_boxes(manifest.cell(row, "boxes")), np.reshape(expected, (-1, 4)), rtol=1e-6)
        assert manifest.cell(row, "label") == prediction.predicted


def test_a_run_that_was_ended_continues_with_its_regions(
    tmp_path: Path, photographs: Path, toy_predictor: Predictor
) -> None:
    products = Products(arrays=False, regions=RegionSettings(boxes=True))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    explain(toy_predictor, [photographs], whole, products=products)
    calls = 0

    def stop(_stage: str, done: int, _total: int) -> None:
        nonlocal calls
        calls += 1
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(toy_predictor, [photographs], parts, products=products, progress=stop)
    explain(toy_predictor, [photographs], parts, products=products)
    for name in ("regions.csv", "boxes.csv", "overlays/0.png.png"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
