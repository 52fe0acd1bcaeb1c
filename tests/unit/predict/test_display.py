from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

from softcam.imaging import Geometry, signed_colors
from softcam.predict import Prediction

HOSTILE = '"><script>alert(1)</script>'


def make(*, multi_label: bool = False) -> Prediction:
    maps = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    logits = maps.mean((1, 2))
    return Prediction(
        HOSTILE,
        "ok",
        (HOSTILE, "b"),
        predicted=HOSTILE,
        probabilities=np.array([0.25, 0.75], np.float32),
        logits=logits,
        maps=maps,
        geometry=Geometry(30, 50, 30, 50, 1, 1, 0, 0),
        multi_label=multi_label,
    )


def test_shows_the_deciding_map_and_the_classes() -> None:
    prediction = make()
    text = prediction._repr_html_()
    data = re.findall(r"base64,([A-Za-z0-9+/=]+)", text)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[0]))))
    margin = prediction.margin()
    assert picture.tolist() == signed_colors(margin, float(np.abs(margin).max())).tolist()
    assert "25.0 %" in text
    assert f"{prediction.logits[1]:.3f}" in text
    assert "rather than b" in text


def test_names_are_escaped() -> None:
    for prediction in (make(), make(multi_label=True), Prediction(HOSTILE, "failed", (), reason=HOSTILE)):
        text = prediction._repr_html_()
        assert "<script" not in text
        assert "&lt;script&gt;" in text
    assert "failed" in Prediction("x", "failed", (), reason="file is empty")._repr_html_()
