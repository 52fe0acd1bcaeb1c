from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from softcam.imaging import Geometry, image_from_array
from softcam.predict import Prediction
from softcam.viewer import ImageSource, ModelName, describe, make_preview, to_json
from softcam.viewer.preview import Preview

GEOMETRY = Geometry(30, 50, 20, 20, 1.5, 1.5, 10, 0)


def make(seed: int = 0) -> Prediction:
    maps = (np.random.default_rng(seed).normal(size=(3, 4, 5)) * 10.0 ** np.arange(-3, 2)).astype(np.float32)
    return Prediction(
        "x",
        "ok",
        ("a", "b", "c"),
        predicted="b",
        probabilities=np.array([0.1, 0.7, 0.2], np.float32),
        logits=maps.mean((1, 2)),
        maps=maps,
        geometry=GEOMETRY,
        sum_error=3e-7,
        digest="d",
        spacing=(0.5, 0.25),
    )


def test_every_float_is_read_back_exactly() -> None:
    prediction = make()
    record = json.loads(to_json(describe(prediction, model=ModelName("m"))))
    for name in ("maps", "logits", "probabilities"):
        assert np.array_equal(np.array(record[name], np.float32), getattr(prediction, name))
    digits = max(
        len(text.strip("-0.").replace(".", "")) for text in re.findall(r"-?[\d.]+", json.dumps(record["maps"]))
    )
    assert digits <= 10


def test_what_is_told() -> None:
    source = ImageSource("DICOM", frames=4, frame=2)
    preview = Preview(5, 4, 8, b"png")
    model = ModelName("chest", "f", {"b": 0.3}, temperature=1.5)
    record = json.loads(to_json(describe(make(), model=model, source=source, preview=preview)))
    assert record["model"] == {"name": "chest", "fingerprint": "f"}
    assert (record["format"], record["frames"], record["frame"]) == ("DICOM", 4, 2)
    assert (record["grid"], record["spacing"], record["thresholds"]) == ([4, 5], [0.5, 0.25], {"b": 0.3})
    assert Geometry.from_dict(record["geometry"]) == GEOMETRY
    assert record["preview"] == {"width": 5, "height": 4, "depth": 8, "png": base64.b64encode(b"png").decode()}
    assert (record["temperature"], record["prediction_set"]) == (1.5, None)
    assert describe(make(), model=model)["preview"] is None
    sets = replace(make(), prediction_set=("b", "a"))
    assert describe(sets, model=model)["prediction_set"] == ["b", "a"]


def test_a_failure_is_told_by_its_reason() -> None:
    failed = Prediction("x", "failed", ("a",), reason="file is empty")
    assert describe(failed, model=ModelName("m")) == {"status": "failed", "reason": "file is empty"}


def test_json_knows_no_nan_and_no_other_types() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"x": float("nan")})
    with pytest.raises(TypeError, match="but got set"):
        to_json({"x": {1}})
    assert to_json(np.arange(3)) == "[0,1,2]"


def decode(preview: Preview) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(preview.png)))
    assert pixels.shape[:2] == (preview.height, preview.width)
    return pixels


def test_sixteen_bits_survive() -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
    preview = make_preview(image_from_array(pixels))
    shown = decode(preview).astype(np.uint16)
    assert preview.depth == 16
    assert np.array_equal((shown[..., 0] << 8) | shown[..., 1], pixels)
    assert not shown[..., 2].any()


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_eight_bits_survive(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    preview = make_preview(image_from_array(pixels))
    assert preview.depth == 8
    assert np.array_equal(decode(preview), pixels)


def test_deep_colour_is_shown_with_eight_bits() -> None:
    preview = make_preview(image_from_array(np.full((8, 9, 3), 257 * 7, np.uint16)))
    assert (preview.depth, decode(preview).max()) == (8, 7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_large_images_are_reduced_by_their_mean(dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 60)).astype(dtype)
    preview = make_preview(image_from_array(pixels), longest=30)
    shown = decode(preview).astype(np.float64)
    if dtype is np.uint16:
        shown = shown[..., 0] * 256 + shown[..., 1]
    expected = pixels.reshape(20, 2, 30, 2).mean((1, 3))
    assert np.abs(shown - expected).max() <= 1
    assert (preview.width, preview.height) == (30, 20)


def test_a_preview_has_a_side() -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, but got 0"):
        make_preview(image_from_array(np.zeros((4, 4), np.uint8)), longest=0)
    thin = make_preview(image_from_array(np.zeros((2, 400), np.uint8)), longest=100)
    assert (thin.width, thin.height) == (100, 1)
