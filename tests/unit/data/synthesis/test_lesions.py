from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softcam.cli import main
from softcam.data.synthesis import LesionSettings, lesions, synthesize_lesions
from softcam.data.synthesis.lesions import draw_lesion_image, grade_of, split_of
from softcam.errors import ManifestError

SMALL = LesionSettings(images=20, size=64)
DISEASED = [index for index in range(20) if grade_of(index, SMALL)]


def test_the_mask_knows_every_pixel_of_the_lesions() -> None:
    for index in DISEASED:
        drawn = draw_lesion_image(index, dataclasses.replace(SMALL, size=128))
        changed = (drawn.pixels != drawn.healthy).any(2)
        assert not (changed & ~drawn.mask).any()
        assert changed.sum() > 0.7 * drawn.mask.sum() > 0
        assert drawn.mask.mean() < 0.03


def test_healthy_eyes_have_nothing() -> None:
    drawn = draw_lesion_image(0, SMALL)
    assert drawn.grade == 0
    assert not drawn.mask.any()
    assert np.array_equal(drawn.pixels, drawn.healthy)


def test_an_image_depends_on_its_number_and_the_seed_alone() -> None:
    image = draw_lesion_image(7, SMALL).pixels
    assert np.array_equal(image, draw_lesion_image(7, dataclasses.replace(SMALL, images=400)).pixels)
    assert not np.array_equal(image, draw_lesion_image(6, SMALL).pixels)
    assert not np.array_equal(image, draw_lesion_image(7, dataclasses.replace(SMALL, seed=1)).pixels)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (LesionSettings(images=12, size=64), "6b8f75b677569927"),
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


def test_difficulty_is_contrast() -> None:
    contrasts = []
    for difficulty in ("easy", "medium", "hard"):
        drawn = draw_lesion_image(DISEASED[0], dataclasses.replace(SMALL, size=128, difficulty=difficulty))
        contrasts.append(np.abs(drawn.pixels.astype(float) - drawn.healthy)[drawn.mask].mean())
    assert contrasts[0] > 1.2 * contrasts[1] > 1.2 * 1.2 * contrasts[2]


def test_grades_have_more_lesions() -> None:
    areas: dict[int, list[float]] = {grade: [] for grade in range(5)}
    settings = LesionSettings(size=64)
    for index in range(120):
        areas[grade_of(index, settings)].append(float(draw_lesion_image(index, settings).mask.mean()))
    means = [float(np.mean(found)) for found in areas.values()]
    assert means == sorted(means)
    assert means[0] == 0
    assert len(areas[0]) == 60


def test_labels_and_splits_go_by_patient() -> None:
    settings = LesionSettings()
    for index in range(0, 2000, 2):
        assert split_of(index) == split_of(index + 1)
        assert (grade_of(index, settings) > 0) == (grade_of(index + 1, settings) > 0)
    for split, share in {"train": 0.6, "val": 0.2, "test": 0.2}.items():
        grades = [grade_of(index, settings) for index in range(2000) if split_of(index) == split]
        assert len(grades) == 2000 * share
        assert sum(grade > 0 for grade in grades) == len(grades) / 2


def test_the_shortcut_gives_labels_away_except_in_the_test_split() -> None:
    settings = dataclasses.replace(LesionSettings(), size=64, shortcut=True)
    agrees: dict[str, list[bool]] = {"train": [], "val": [], "test": []}
    for index in range(400):
        marked = lesions._is_marked(lesions._generator(settings, 2, index), index, settings)
        agrees[split_of(index)].append(marked == (grade_of(index, settings) > 0))
    assert np.mean(agrees["train"] + agrees["val"]) > 0.9
    assert 0.3 < np.mean(agrees["test"]) < 0.7


def test_the_mark_is_in_the_dark_corner_and_in_no_mask() -> None:
    settings = dataclasses.replace(SMALL, shortcut=True)
    found = []
    for index in range(20):
        drawn = draw_lesion_image(index, settings)
        marked = lesions._is_marked(lesions._generator(settings, 2, index), index, settings)
        assert bool((drawn.pixels[:8, :8] > 200).any()) == marked
        assert not drawn.mask[:8, :8].any()
        found.append(marked)
    assert any(found)
    assert not all(found)


def test_files_and_manifest_agree(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = synthesize_lesions(tmp_path / "set", SMALL, progress=lambda *done: seen.append(done))
    assert seen == [(done, 20) for done in range(1, 21)]
    assert manifest.classes == ("healthy", "lesions")
    assert manifest.check_images() == ()
    for row, path in enumerate(manifest.paths):
        drawn = draw_lesion_image(row, SMALL)
        assert np.array_equal(np.asarray(Image.open(path)), drawn.pixels)
        assert manifest.targets[row] == (drawn.grade > 0)
        mask = manifest.masks[row]
        assert (mask is None) == (drawn.grade == 0)
        if mask is not None:
            assert np.array_equal(np.asarray(Image.open(mask)) > 0, drawn.mask)


def test_begun_work_goes_on_and_ends_alike(tmp_path: Path) -> None:
    whole = synthesize_lesions(tmp_path / "whole", SMALL).digest()
    synthesize_lesions(tmp_path / "begun", SMALL)
    for name in ("manifest.csv", "images/000003.png", f"images/{DISEASED[0]:06d}.png"):
        (tmp_path / "begun" / name).unlink()
    (tmp_path / "begun" / f"masks/{DISEASED[0]:06d}.png").unlink()
    before = (tmp_path / "begun" / "images/000000.png").stat().st_mtime_ns
    assert synthesize_lesions(tmp_path / "begun", SMALL).digest() == whole
    assert (tmp_path / "begun" / "images/000000.png").stat().st_mtime_ns == before


def test_other_content_is_left_alone(tmp_path: Path) -> None:
    synthesize_lesions(tmp_path / "set", SMALL)
    with pytest.raises(ManifestError, match="begun with the same settings"):
        synthesize_lesions(tmp_path / "set", dataclasses.replace(SMALL, seed=1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("long")
    with pytest.raises(ManifestError, match="begun with the same settings"):
        synthesize_lesions(tmp_path / "mine", SMALL)


@pytest.mark.parametrize(
    "values", [{"images": 9}, {"size": 63}, {"seed": -1}, {"difficulty": "impossible"}], ids=lambda v: next(iter(v))
)
def test_settings_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Expected `images` >= 10"):
        LesionSettings(**values)  # type: ignore[arg-type]


def test_the_command_draws_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--images", "10", "--size", "64", "--seed", "3", "--difficulty", "hard", "--shortcut"]
    assert main(["data", "synthesize", "lesions", "--out", str(tmp_path / "set"), *flags]) == 0
    assert capsys.readouterr().out.startswith("10 images: ")
    record = json.loads((tmp_path / "set" / "synthesis.json").read_text())
    asked = {"images": 10, "size": 64, "seed": 3, "difficulty": "hard", "shortcut": True}
    assert {key: record[key] for key in asked} == asked
    assert main(["data", "synthesize", "lesions", "--out", str(tmp_path / "set"), *flags[:-1]]) == 2
    assert "begun with the same settings" in capsys.readouterr().err
    assert main(["data", "synthesize", "lesions", "--out", str(tmp_path / "few"), "--images", "3"]) == 2
