"""What every kind of drawn images promises."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from softcam.cli import main
from softcam.cli.data import KINDS
from softcam.data.synthesis import LAYOUTS, SCENES, SynthesisSettings, synthesize
from softcam.data.synthesis.scene import CONTRAST, VISIBLE, Order, Painting, Scene, keep_visible
from softcam.data.synthesis.sets import draw_image, grade_of, is_marked, split_of
from softcam.errors import ManifestError

SMALL = SynthesisSettings(images=12, size=64)
DISEASED = [index for index in range(12) if grade_of(index, SMALL)]


@pytest.fixture(params=SCENES.values(), ids=SCENES.keys())
def scene(request: pytest.FixtureRequest) -> Scene:
    found: Scene = request.param
    return found


def paint(scene: Scene, *, seed: int, grade: int, contrast: float = 1.0) -> Painting:
    patient, moment = (np.random.default_rng((seed, stream)) for stream in range(2))
    return scene.paint(Order(64, grade, contrast, seed % 2 == 0, patient, moment))


def test_the_mask_knows_every_pixel_of_the_finding(scene: Scene) -> None:
    for index in DISEASED:
        drawn = draw_image(scene, index, dataclasses.replace(SMALL, size=96))
        changed = (drawn.pixels != drawn.healthy).reshape(96, 96, -1).any(2)
        assert not (changed & ~drawn.mask).any()
        assert changed.sum() > 0.7 * drawn.mask.sum() > 0
        assert drawn.mask.mean() < 0.12


def test_healthy_images_have_nothing(scene: Scene) -> None:
    drawn = draw_image(scene, 0, SMALL)
    assert drawn.grade == 0
    assert not drawn.mask.any()
    assert np.array_equal(drawn.pixels, drawn.healthy)


@pytest.mark.parametrize("size", [64, 101])
def test_images_have_their_size_and_eight_bits(scene: Scene, size: int) -> None:
    drawn = draw_image(scene, DISEASED[0], dataclasses.replace(SMALL, size=size))
    assert drawn.pixels.dtype == np.uint8
    assert drawn.pixels.shape[:2] == drawn.mask.shape == (size, size)
    assert drawn.pixels.max() > 150
    assert drawn.pixels.min() < 50


def test_an_image_depends_on_its_number_and_the_seed_alone(scene: Scene) -> None:
    image = draw_image(scene, 7, SMALL).pixels
    assert np.array_equal(image, draw_image(scene, 7, dataclasses.replace(SMALL, images=400)).pixels)
    assert not np.array_equal(image, draw_image(scene, 6, SMALL).pixels)
    assert not np.array_equal(image, draw_image(scene, 7, dataclasses.replace(SMALL, seed=1)).pixels)


def test_what_is_harmless_does_not_depend_on_the_grade(scene: Scene) -> None:
    # The camera's noise of a fundus is drawn after its lesions: as strong, but not the same.
    tolerance = 0.1 if scene.name == "lesions" else 0
    for seed in range(3):
        without, with_finding = (paint(scene, seed=seed, grade=grade) for grade in (0, 4))
        assert np.allclose(without.healthy, with_finding.healthy, rtol=0, atol=tolerance)


def test_difficulty_is_contrast(scene: Scene) -> None:
    sums = []
    for contrast in (1.0, 0.75, 0.5):
        paintings = [paint(scene, seed=seed, grade=4, contrast=contrast) for seed in range(3)]
        sums.append(sum(np.abs(painting.picture - painting.healthy).sum() for painting in paintings))
    assert sums[0] > 1.1 * sums[1] > 1.1 * 1.1 * sums[2] > 0


def test_grades_have_more_of_the_finding(scene: Scene) -> None:
    means = [np.mean([paint(scene, seed=seed, grade=grade).mask.mean() for seed in range(8)]) for grade in range(5)]
    assert means[0] == 0
    assert means == sorted(set(means))


def test_the_least_finding_can_be_seen(scene: Scene) -> None:
    for seed in range(5):
        painting = paint(scene, seed=seed, grade=1, contrast=CONTRAST["hard"])
        assert painting.mask.sum() >= 5
        assert np.abs(painting.picture - painting.healthy).max() > 2 * VISIBLE


def test_global_statistics_do_not_give_the_finding_away(scene: Scene) -> None:
    # Images with and without the finding share everything else, so that few of them tell the AUROC of the best linear
    # classifier between groups of different patients: that of two normal distributions.
    paintings = [paint(scene, seed=seed, grade=1 + seed % 4) for seed in range(40)]
    healthy = np.array([list_statistics(painting.healthy) for painting in paintings])
    diseased = np.array([list_statistics(painting.picture) for painting in paintings])
    shift, spread = (diseased - healthy).mean(0), (np.cov(healthy.T) + np.cov(diseased.T)) / 2
    separation = np.sqrt(shift @ np.linalg.pinv(spread, rcond=1e-9, hermitian=True) @ shift)
    assert 0.5 < norm.cdf(separation / np.sqrt(2)) < 0.65


def list_statistics(picture: np.ndarray) -> list[float]:
    return [picture.mean(), picture.std(), *np.quantile(picture, (0.05, 0.5, 0.95))]


def test_labels_and_splits_go_by_patient() -> None:
    settings = SynthesisSettings()
    for index in range(0, 2000, 2):
        assert split_of(index) == split_of(index + 1)
        assert (grade_of(index, settings) > 0) == (grade_of(index + 1, settings) > 0)
    for split, share in {"train": 0.6, "val": 0.2, "test": 0.2}.items():
        grades = [grade_of(index, settings) for index in range(2000) if split_of(index) == split]
        assert len(grades) == 2000 * share
        assert sum(grade > 0 for grade in grades) == len(grades) / 2


def test_the_shortcut_gives_labels_away_except_in_the_test_split() -> None:
    settings = SynthesisSettings(shortcut=True)
    agrees: dict[str, list[bool]] = {"train": [], "val": [], "test": []}
    for index in range(400):
        agrees[split_of(index)].append(is_marked(index, settings) == (grade_of(index, settings) > 0))
    assert np.mean(agrees["train"] + agrees["val"]) > 0.9
    assert 0.3 < np.mean(agrees["test"]) < 0.7


def test_the_mark_is_in_a_corner_and_in_no_mask(scene: Scene) -> None:
    settings = dataclasses.replace(SMALL, shortcut=True)
    marked = [is_marked(index, settings) for index in range(12)]
    assert set(marked) == {True, False}
    for index in (marked.index(True), marked.index(False), DISEASED[0]):
        plain, drawn = draw_image(scene, index, SMALL), draw_image(scene, index, settings)
        differs = (plain.pixels != drawn.pixels).reshape(64, 64, -1).any(2)
        assert differs.any() == marked[index]
        assert not differs[13:51].any()
        assert not differs[:, 13:51].any()
        assert not (differs & drawn.mask).any()
        assert np.array_equal(plain.mask, drawn.mask)
        assert np.array_equal((drawn.pixels != drawn.healthy), (plain.pixels != plain.healthy))


def test_small_changes_are_undone() -> None:
    healthy = np.full((1, 3), 0.5)
    picture = healthy + np.array([[0.9 * VISIBLE, 1.1 * VISIBLE, -1.1 * VISIBLE]])
    assert keep_visible(picture, healthy).tolist() == [[False, True, True]]
    assert np.allclose(picture - healthy, [[0, 1.1 * VISIBLE, -1.1 * VISIBLE]])


def test_files_and_manifest_agree(scene: Scene, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = synthesize(scene.name, tmp_path / "set", SMALL, progress=lambda *done: seen.append(done))
    assert seen == [(done, 12) for done in range(1, 13)]
    assert manifest.classes == scene.classes
    assert manifest.check_images() == ()
    assert manifest.table[scene.pair[0]].tolist() == [*scene.pair[1]] * 6
    assert manifest.table["patient"].nunique() == 6
    for row, (path, mask) in enumerate(zip(manifest.paths, manifest.masks, strict=True)):
        drawn = draw_image(scene, row, SMALL)
        assert np.array_equal(np.asarray(Image.open(path)), drawn.pixels)
        assert manifest.targets[row] == (drawn.grade > 0)
        assert manifest.cell(row, "grade") == str(drawn.grade)
        assert (mask is None) == (drawn.grade == 0)
        if mask is not None:
            assert np.array_equal(np.asarray(Image.open(mask)) > 0, drawn.mask)


def test_begun_work_goes_on_and_ends_alike(scene: Scene, tmp_path: Path) -> None:
    whole = synthesize(scene.name, tmp_path, SMALL).digest()
    names = ("manifest.csv", "images/000003.png", f"images/{DISEASED[0]:06d}.png", f"masks/{DISEASED[0]:06d}.png")
    for name in names:
        (tmp_path / name).unlink()
    before = (tmp_path / "images/000000.png").stat().st_mtime_ns
    again = synthesize(scene.name, tmp_path, SMALL)
    assert again.digest() == whole
    assert again.check_images() == ()
    assert (tmp_path / "images/000000.png").stat().st_mtime_ns == before


def test_other_content_is_left_alone(tmp_path: Path) -> None:
    first, *others = SCENES
    synthesize(first, tmp_path / "set", SMALL)
    for name, settings in [(first, dataclasses.replace(SMALL, seed=1)), *((other, SMALL) for other in others)]:
        with pytest.raises(ManifestError, match="begun with the same settings"):
            synthesize(name, tmp_path / "set", settings)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("long")
    with pytest.raises(ManifestError, match="begun with the same settings"):
        synthesize(first, tmp_path / "mine", SMALL)


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected `name` to be a kind of images \(lesions.*\), but got 'mri'"):
        synthesize("mri", tmp_path / "set", SMALL)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "values", [{"images": 9}, {"size": 63}, {"seed": -1}, {"difficulty": "impossible"}], ids=lambda v: next(iter(v))
)
def test_settings_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Expected `images` >= 10"):
        SynthesisSettings(**values)  # type: ignore[arg-type]


def test_the_command_knows_every_kind() -> None:
    assert {name: drawn.title for name, drawn in {**SCENES, **LAYOUTS}.items()} == KINDS


def test_the_command_draws_a_set(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--images", "10", "--size", "64", "--seed", "3", "--difficulty", "hard", "--shortcut"]
    assert main(["data", "synthesize", scene.name, "--out", str(tmp_path / "set"), *flags]) == 0
    assert capsys.readouterr().out.startswith("10 images: ")
    record = json.loads((tmp_path / "set" / "synthesis.json").read_text())
    asked = {"what": scene.name, "images": 10, "size": 64, "seed": 3, "difficulty": "hard", "shortcut": True}
    assert {key: record[key] for key in asked} == asked
    assert main(["data", "synthesize", scene.name, "--out", str(tmp_path / "set"), *flags[:-1]]) == 2
    assert "begun with the same settings" in capsys.readouterr().err
    assert main(["data", "synthesize", scene.name, "--out", str(tmp_path / "few"), "--images", "3"]) == 2
