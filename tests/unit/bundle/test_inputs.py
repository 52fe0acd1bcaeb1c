from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from softcam.backbones import create_black_box
from softcam.bundle import FeatureStatistics, InputStatistics, measure_inputs, measure_intensities, read_config, save
from softcam.bundle.inputs import to_range
from softcam.bundle.measure import MOST, _draw
from softcam.errors import BundleError
from softcam.imaging import Preprocessing, image_from_array
from softcam.nn import SoftCAM, convert, pool_features

SEEN = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]])
VALUES: dict[str, Any] = {
    "n": 3,
    "height": (100.0, 100.0, 200.0, 300.0, 300.0),
    "width": (100.0, 100.0, 200.0, 300.0, 300.0),
    "aspect": (1.0, 1.0, 1.0, 1.2, 1.2),
    "channels": (3,),
    "bits": (8,),
    "mean": (0.2, 0.2, 0.3, 0.4, 0.4),
    "std": (0.1, 0.1, 0.1, 0.1, 0.1),
}


def test_distance_by_hand() -> None:
    found = FeatureStatistics.measure(SEEN, SEEN)
    mean, variance = np.array([2.0, 2.0]), np.array([8 / 3, 2.0])
    expected = [
        np.sqrt(np.mean([(x - m) ** 2 / v for x, m, v in zip(row, mean, variance, strict=True)])) for row in SEEN
    ]
    np.testing.assert_allclose(found.distance(SEEN), expected, rtol=1e-6)
    assert found.threshold == pytest.approx(max(expected), rel=1e-6)  # of three images the largest
    assert found.n == 3
    assert found.distance(np.array([[2.0, 2.0]])).tolist() == [0.0]


def test_threshold_is_a_quantile_of_the_held_out_images() -> None:
    generator = np.random.default_rng(0)
    seen, held_out = generator.normal(size=(2000, 40)), generator.normal(size=(1000, 40))
    found = FeatureStatistics.measure(seen, held_out)
    assert (found.distance(held_out) > found.threshold).sum() == 4
    assert (found.cosine(held_out) < found.alignment).sum() == 4
    assert found.distance(seen).mean() == pytest.approx(1, abs=0.02)
    assert (found.distance(generator.normal(size=(1000, 40)) + 1) > found.threshold).mean() > 0.5


def test_a_channel_that_never_changed_does_not_decide_alone() -> None:
    seen = np.stack([np.linspace(-1, 1, 50), np.zeros(50)], 1)
    found = FeatureStatistics.measure(seen, seen)
    assert np.isfinite(found.distance(np.array([[0.0, 0.001]]))).all()
    assert found.distance(np.array([[0.0, 0.0]])) < 1e-6
    flat = FeatureStatistics.measure(np.zeros((5, 2)), np.zeros((5, 2)))
    assert flat.distance(np.ones((1, 2))) > flat.threshold


def test_features_near_the_mean_but_not_along_it() -> None:
    generator = np.random.default_rng(0)
    seen = np.abs(generator.normal(size=(400, 60))) + np.linspace(0, 3, 60)
    found = FeatureStatistics.measure(seen[:200], seen[200:])
    along, across = seen.mean(0), seen.mean(0)[::-1]
    assert found.cosine(np.stack([along, np.zeros(60)])) == pytest.approx([1, 0], abs=1e-3)
    near = 0.5 * across
    assert found.find_unlike(np.stack([along, near]))[0] == ""
    assert "alignment" in found.find_unlike(near[None])[0]
    assert sum(map(bool, found.find_unlike(seen[200:]))) <= 2
    expected = float(seen[3] @ along / np.linalg.norm(seen[3]) / np.linalg.norm(along))
    assert found.cosine(seen[3:4])[0] == pytest.approx(expected, abs=0.01)


def encode(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": "no base64!"}, "`inputs.features.mean` to be float32 numbers in base64"),
        ({"mean": encode(1.0)}, "a mean and a variance >= 0 for each channel"),
        ({"mean": "", "variance": ""}, "a mean and a variance"),
        ({"variance": encode(1.0, -1.0)}, "a mean and a variance >= 0"),
        ({"variance": encode(1.0, float("nan"))}, "`inputs.features.variance` to be finite"),
        ({"threshold": -1.0}, "`inputs.features.threshold` to be at least 0"),
        ({"alignment": 1.1}, r"`inputs.features.alignment` to be in \[-1, 1\]"),
    ],
)
def test_refuses_features_that_are_none(change: dict[str, Any], message: str) -> None:
    values = {"mean": encode(0.0, 1.0), "variance": encode(1.0, 1.0), "threshold": 1.0, "alignment": 0.5, "n": 5}
    FeatureStatistics(**values)
    with pytest.raises(ValueError, match=message):
        FeatureStatistics(**values | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": (1.0, 2.0)}, "`inputs.height` to be five numbers that do not fall"),
        ({"mean": (0.0, 0.0, 0.5, 0.4, 1.0)}, "`inputs.mean` to be five numbers that do not fall"),
        ({"channels": (2,)}, r"`inputs.channels` to be of \[1, 3\]"),
        ({"bits": ()}, r"`inputs.bits` to be of \[8, 16\]"),
    ],
)
def test_refuses_inputs_that_are_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputStatistics(**VALUES | change)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((100, 100, 3, 8), ""),
        ((450, 450, 3, 8), ""),
        ((451, 451, 3, 8), "height 451 (seen 100 to 300), width 451 (seen 100 to 300)"),
        ((66, 67, 3, 8), "height 66"),
        ((100, 140, 0, 0), ""),
        ((100, 150, 3, 8), "aspect 1.5 (seen 1 to 1.2)"),
        ((100, 100, 1, 8), "grey (seen colour alone)"),
        ((100, 100, 3, 16), "16 bits (seen 8 alone)"),
    ],
)
def test_sizes_that_were_not_seen(size: tuple[int, int, int, int], words: str) -> None:
    found = InputStatistics(**VALUES).find_unseen_size(*size)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_intensities_that_were_not_seen() -> None:
    statistics = InputStatistics(**VALUES)
    # The mean may lie a tenth of its range further out, and anything by 0.02.
    assert statistics.find_unseen_intensity(0.181, 0.119) == ""
    assert statistics.find_unseen_intensity(0.179, 0.1) == "mean 0.179 (seen 0.200 to 0.400)"
    assert (
        statistics.find_unseen_intensity(0.421, 0.121)
        == "mean 0.421 (seen 0.200 to 0.400), std 0.121 (seen 0.100 to 0.100)"
    )


def test_range_of_numbers() -> None:
    assert to_range(np.arange(101)) == (0.0, 1.0, 50.0, 99.0, 100.0)
    assert to_range([1 / 3]) == (0.333333,) * 5


@pytest.fixture(scope="module")
def model() -> SoftCAM:
    torch.manual_seed(0)
    return convert(create_black_box("timm:test_resnet", num_classes=2, weights="none").eval())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(9)]
    for index, path in enumerate(paths):
        Image.fromarray(generator.integers(0, 60 + 20 * index, (40 + index, 50, 3), dtype=np.uint8)).save(path)
    paths[3].write_bytes(b"no image")
    return paths


def test_measures_what_the_model_is_given(model: SoftCAM, files: list[Path]) -> None:
    preprocessing = Preprocessing(size=32)
    found = measure_inputs(model, preprocessing, files[:6], files[6:])
    assert found is not None
    assert (found.n, found.channels, found.bits) == (5, (3,), (8,))
    assert (found.height[0], found.height[-1], found.width[0]) == (40, 45, 50)
    good = [path for path in files if path.name != "3.png"]
    pixels = [np.asarray(Image.open(path)) for path in good]
    shown = [preprocessing.resize(image_from_array(array))[0].numpy() for array in pixels]
    grey = [image.mean(0) for image in shown[:5]]
    assert found.mean[0] == pytest.approx(min(image.mean() for image in grey), rel=1e-4)
    assert found.std[-1] == pytest.approx(max(image.std() for image in grey), rel=1e-4)
    images = torch.stack([preprocessing(image_from_array(array))[0] for array in pixels])
    with torch.no_grad():
        features = pool_features(model.forward_features(images)).double().numpy()
    assert found.features is not None
    expected = FeatureStatistics.measure(features[:5], features[5:])
    assert found.features.n == 3
    np.testing.assert_allclose(found.features.distance(features), expected.distance(features), rtol=1e-4)
    assert found.features.threshold == pytest.approx(expected.threshold, rel=1e-4)
    assert measure_inputs(model, preprocessing, files[3:4], files) is None
    alone = measure_inputs(model, preprocessing, files, [])
    assert alone is not None
    assert alone.features is None


def test_intensities_are_those_before_normalising() -> None:
    preprocessing = Preprocessing(size=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = np.random.default_rng(0).random((2, 3, 4, 4)).astype(np.float32)
    normal = preprocessing.normalize(torch.from_numpy(images)).numpy()
    means, deviations = measure_intensities(normal, preprocessing)
    np.testing.assert_allclose(means, images.mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(deviations, images.mean(1).std((1, 2)), rtol=1e-5)


def test_many_files_are_drawn_by_the_seed() -> None:
    paths = [Path(f"{index:05}") for index in range(MOST + 100)]
    assert len(_draw(paths, 0)) == MOST
    assert _draw(paths, 0) == _draw(paths, 0) == sorted(_draw(paths, 0))
    assert _draw(paths, 0) != _draw(paths, 1)
    assert _draw(paths[:MOST], 0) == paths[:MOST]


def test_the_bundle_keeps_them(model: SoftCAM, files: list[Path], tmp_path: Path) -> None:
    record = Preprocessing(size=32)
    found = measure_inputs(model, record, files[:6], files[6:])
    folder = save(model, tmp_path / "model", preprocessing=record.to_dict(), provenance={"inputs": found, "seed": 3})
    config = read_config(folder)
    assert config.inputs == found
    assert config.provenance == {"seed": 3}
    values = json.loads((folder / "config.json").read_text())
    values["inputs"]["heigth"] = values["inputs"].pop("height")
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"`inputs` to be a whole record.*Did you mean 'height'"):
        read_config(folder)
    assert found is not None
    with pytest.raises(BundleError, match="`inputs` to be `InputStatistics` or null"):
        replace(config, inputs=asdict(found))
