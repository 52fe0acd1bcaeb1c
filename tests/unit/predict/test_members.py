"""Ensembles and views of images, as a predictor runs them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from softcam.backbones import create_black_box
from softcam.bundle import join_bundles, load, measure_inputs, read_config, save, update
from softcam.errors import BundleError
from softcam.export import export_onnx, open_graph
from softcam.imaging import Preprocessing, encode_png, image_from_array
from softcam.nn import AUGMENTATIONS, Augmented, Ensemble, SoftCAM, convert
from softcam.predict import Checks, Predictor
from softcam.predict.members import Members
from softcam.viewer import ModelName, describe
from softcam.viewer.payload import to_json

Pictures = list[npt.NDArray[np.uint8]]
CLASSES = ("a", "b", "c")


def make(seed: int, **options: object) -> SoftCAM:
    torch.manual_seed(seed)
    return convert(create_black_box("timm:test_resnet", num_classes=3, weights="none").eval(), **options)


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    record = Preprocessing(size=64).to_dict()
    models = [make(0), make(1), make(2, map_stride=16)]
    return [
        save(model, tmp_path / f"{number}", classes=CLASSES, preprocessing=record)
        for number, model in enumerate(models)
    ]


def test_deviations_are_those_of_a_sample() -> None:
    members = Members(
        np.array([[1.0, 0.0], [3.0, 2.0]], np.float32), np.arange(8, dtype=np.float32).reshape(2, 2, 1, 2)
    )
    assert len(members) == 2
    assert members.deviate_logits() == pytest.approx([np.sqrt(2), np.sqrt(2)])
    assert members.deviate_maps() == pytest.approx(np.full((2, 1, 2), np.sqrt(8)))
    margin, cells = members.deviate_margin(0, 1)
    assert (margin, cells.tolist()) == (0.0, [[0.0, 0.0]])  # both classes move alike
    assert members.deviate_margin(0, None)[0] == pytest.approx(np.sqrt(2))


def test_a_joined_bundle_predicts_the_mean_and_what_each_member_says(
    tmp_path: Path, bundles: list[Path], pictures: Pictures
) -> None:
    folder = join_bundles(bundles, tmp_path / "committee")
    predictor = Predictor(folder, batch_size=3, backend="torch")
    alone = [list(Predictor(bundle, backend="torch")(pictures)) for bundle in bundles]
    assert (predictor.members, predictor.backend, predictor.classes) == (3, "torch", CLASSES)
    for index, prediction in enumerate(predictor(pictures)):
        own = [predictions[index] for predictions in alone]
        assert prediction.sum_error <= 1e-5
        np.testing.assert_allclose(prediction.logits, np.mean([one.logits for one in own], 0), rtol=1e-4, atol=1e-6)
        assert prediction.maps.shape == own[2].maps.shape
        assert own[2].maps.shape[1] == 2 * own[0].maps.shape[1], "the third member has finer maps"
        assert prediction.members is not None
        np.testing.assert_allclose(prediction.members.logits, [one.logits for one in own], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(prediction.members.maps.mean(0), prediction.maps, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            prediction.members.maps.mean((2, 3)), prediction.members.logits, rtol=1e-4, atol=1e-5
        )
        assert prediction.members.deviate_logits().min() > 0
        shown = json.loads(to_json(describe(prediction, model=ModelName("committee"))))["disagreement"]
        assert shown["members"] == 3
        assert shown["logits"] == pytest.approx(prediction.members.deviate_logits().tolist(), rel=1e-6)
    assert describe(alone[0][0], model=ModelName("one"))["disagreement"] is None


def test_a_joined_bundle_is_loaded_as_it_was_saved(tmp_path: Path, bundles: list[Path]) -> None:
    folder = join_bundles(bundles, tmp_path / "committee")
    config = read_config(folder)
    model = load(folder)
    assert isinstance(model, Ensemble)
    assert len(model.members) == 3
    assert [member["fingerprint"] for member in config.provenance["members"]] == [
        read_config(bundle).fingerprint for bundle in bundles
    ]
    assert "the mean of timm:test\\_resnet, timm:test\\_resnet" in (folder / "README.md").read_text()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = model.evidence(images).check(1e-5)
        expected = torch.stack([load(bundle)(images) for bundle in bundles]).mean(0)
    torch.testing.assert_close(found.logits, expected)
    again = save(model, tmp_path / "again", classes=CLASSES, preprocessing=config.preprocessing)
    assert read_config(again).fingerprint == config.fingerprint


def test_features_of_all_members_are_looked_at(tmp_path: Path, bundles: list[Path], pictures: Pictures) -> None:
    folder = join_bundles(bundles, tmp_path / "committee")
    paths = []
    for index, picture in enumerate(pictures):
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(encode_png(picture))
    config, model = read_config(folder), load(folder)
    statistics = measure_inputs(model, Preprocessing.from_dict(config.preprocessing or {}), paths[:4], paths[4:])
    update(folder, replace(config, inputs=statistics))
    for augment in (None, "mirror"):
        predictor = Predictor(folder, backend="torch", checks=Checks(features="refuse"), augment=augment)
        assert [found.status for found in predictor(paths[:4])] == ["ok"] * 4
        dark = np.zeros((40, 48, 3), np.uint8)
        assert next(predictor([dark])).status == "failed"


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_views_are_averaged_exactly(name: str, pictures: Pictures) -> None:
    model, preprocessing = make(0), Preprocessing(size=64)
    predictor = Predictor(model, preprocessing=preprocessing, augment=name, batch_size=4, backend="torch")
    images = torch.stack([preprocessing(image_from_array(picture))[0] for picture in pictures])
    with torch.no_grad():
        expected = Augmented(model, name).eval().evidence(images)
    for index, prediction in enumerate(predictor(pictures)):
        assert prediction.sum_error <= 1e-5
        assert prediction.members is None
        np.testing.assert_allclose(prediction.logits, expected.logits[index], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(prediction.maps, expected.maps[index], rtol=1e-4, atol=1e-5)


def test_views_are_recorded_and_refused_by_name(pictures: Pictures) -> None:
    model, preprocessing = make(0), Preprocessing(size=64)
    plain, seen = (Predictor(model, preprocessing=preprocessing, augment=name) for name in (None, "flips"))
    assert "augment" not in plain.identity
    assert seen.identity == {**plain.identity, "augment": "flips"}
    with pytest.raises(ValueError, match="one of mirror, flips, turns, all"):
        Predictor(model, preprocessing=preprocessing, augment="zoom")


def test_the_mean_over_views_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="Give `augment` to `Predictor`"):
        save(Augmented(make(0), "flips"), tmp_path / "model")


def test_an_ensemble_in_memory_predicts_too(pictures: Pictures) -> None:
    ensemble = Ensemble([make(0), make(1)])
    predictor = Predictor(ensemble, preprocessing=Preprocessing(size=64), classes=CLASSES, augment="mirror")
    (prediction,) = predictor(pictures[:1])
    assert prediction.members is not None
    assert len(prediction.members) == 2
    assert prediction.sum_error <= 1e-5
    (plain,) = Predictor(ensemble, preprocessing=Preprocessing(size=64), classes=CLASSES)(pictures[:1])
    assert not np.allclose(plain.logits, prediction.logits, rtol=1e-6)


def test_bundles_that_do_not_belong_together_are_refused(tmp_path: Path, bundles: list[Path]) -> None:
    record = Preprocessing(size=32).to_dict()
    other = save(make(0), tmp_path / "other", classes=CLASSES, preprocessing=record)
    with pytest.raises(BundleError, match="same preprocessing, but number 2 differs"):
        join_bundles([bundles[0], other], tmp_path / "out")
    named = save(make(0), tmp_path / "named", classes=("a", "b", "x"), preprocessing=Preprocessing(size=64).to_dict())
    with pytest.raises(BundleError, match="same classes, but number 3 differs"):
        join_bundles([*bundles[:2], named], tmp_path / "out")
    with pytest.raises(BundleError, match="at least two SoftCAM models, but got 1"):
        join_bundles(bundles[:1], tmp_path / "out")
    committee = join_bundles(bundles[:2], tmp_path / "committee")
    with pytest.raises(BundleError, match="got an ensemble"):
        join_bundles([committee, bundles[2]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_ensemble_of_ones_own_modules_is_not_saved(tmp_path: Path, model: SoftCAM) -> None:
    with pytest.raises(BundleError, match="a module of the user's own"):
        save(Ensemble([model, model]), tmp_path / "model", preprocessing=Preprocessing(size=32).to_dict())


def test_a_damaged_description_of_members_is_refused(tmp_path: Path, bundles: list[Path]) -> None:
    folder = join_bundles(bundles[:2], tmp_path / "committee")
    values = json.loads((folder / "config.json").read_text())
    for members in (None, [], values["architecture"]["arguments"]["members"][:1], [{"name": "x"}, {"name": "y"}]):
        values["architecture"]["arguments"] = {"members": members}
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(BundleError, match="describe two members or more"):
            load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_other_runtimes_run_each_member_and_view(
    tmp_path: Path, bundles: list[Path], pictures: Pictures, backend: str
) -> None:
    pytest.importorskip(backend)
    folder = join_bundles(bundles[:2], tmp_path / "committee")
    reference = list(Predictor(folder, backend="torch", augment="all")(pictures[:2]))
    predictor = Predictor(folder, backend=backend, augment="all")
    assert predictor.backend == backend
    for found, expected in zip(predictor(pictures[:2]), reference, strict=True):
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-3, atol=1e-3)
        assert found.members is not None
        assert expected.members is not None
        np.testing.assert_allclose(found.members.logits, expected.members.logits, rtol=1e-3, atol=1e-4)
    assert len(list((folder / "exports").glob("*.onnx"))) == 2


@pytest.mark.slow
def test_an_ensemble_is_one_graph(tmp_path: Path, bundles: list[Path]) -> None:
    pytest.importorskip("onnxruntime")
    folder = join_bundles(bundles[1:], tmp_path / "committee")
    export_onnx(folder, tmp_path / "committee.onnx")
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = load(folder).evidence(images)
    logits, maps = open_graph(tmp_path / "committee.onnx", runtime="onnxruntime", threads=1)(images.numpy())
    np.testing.assert_allclose(logits, expected.logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(maps, expected.maps, rtol=1e-3, atol=1e-3)
