from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softcam.data.synthesis import LesionSettings, synthesize_lesions
from softcam.data.synthesis.lesions import LESIONS
from softcam.data.synthesis.sets import draw_image, grade_of, is_marked

SMALL = LesionSettings(images=12, size=64)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SMALL, "6b8f75b677569927"),
        (LesionSettings(images=12, size=80, seed=5, difficulty="hard", shortcut=True), "2d0c48246b08d1e8"),
    ],
    ids=["plain", "hard and marked"],
)
def test_a_seed_draws_what_it_always_drew(tmp_path: Path, settings: LesionSettings, expected: str) -> None:
    total = hashlib.sha256()
    manifest = synthesize_lesions(tmp_path / "set", settings)
    for path in (*manifest.paths, *(mask for mask in manifest.masks if mask)):
        total.update(np.asarray(Image.open(path)).tobytes())
    assert total.hexdigest()[:16] == expected


def test_lesions_are_small_and_colourful() -> None:
    for index in [index for index in range(12) if grade_of(index, SMALL)]:
        drawn = draw_image(LESIONS, index, dataclasses.replace(SMALL, size=128))
        assert 0 < drawn.mask.mean() < 0.03
        assert drawn.pixels.shape == (128, 128, 3)


def test_the_mark_is_in_the_dark_corner() -> None:
    settings = dataclasses.replace(SMALL, shortcut=True)
    for index in range(12):
        drawn = draw_image(LESIONS, index, settings)
        assert bool((drawn.pixels[:8, :8] > 200).any()) == is_marked(index, settings)


def test_the_manifest_has_the_columns_that_it_always_had(tmp_path: Path) -> None:
    manifest = synthesize_lesions(tmp_path / "set", SMALL)
    assert list(manifest.table) == ["image", "label", "split", "patient", "mask", "grade", "eye"]
    assert manifest.classes == ("healthy", "lesions")
